import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Etcd, type EtcdError } from "../Etcd.ts"
import * as Lease from "../Lease.ts"
import type { Background } from "./background.ts"
import type { Done } from "./batch.ts"

/** A lease and the number of those who hang on it. */
export interface SharedLease {
  readonly lease: Lease.Lease
  readonly scope: Scope.Closeable
  holders: number
  idleSince: number
  /** Nothing new hangs on it, and it is revoked when its last holder leaves. */
  retired: boolean
}

/**
 * One lease for everybody, granted when it is first needed, replaced when it is
 * lost or retired, and revoked when nobody has needed it for a TTL.
 */
export interface Leases {
  /** Hangs the caller on the current lease, granting one if need be. Every success needs its `leave`. */
  readonly hang: (done: Done<SharedLease, EtcdError>) => void
  /** The same, if there is a lease to hang on at once. */
  readonly hangNow: () => SharedLease | undefined
  readonly leave: (shared: SharedLease) => void
  readonly retire: (shared: SharedLease) => void
}

export const make = Effect.fnUntraced(function*(background: Background, options: Lease.Options | undefined) {
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const sessionScope = yield* Effect.scope
  let current: SharedLease | undefined
  let granting: Array<Done<SharedLease, EtcdError>> | undefined

  const grant = Effect.suspend(() => {
    const scope = Scope.forkUnsafe(sessionScope)
    return Lease.make(options).pipe(
      Effect.provideService(Etcd, etcd),
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void)),
      Effect.map((lease) => {
        const shared = { lease, scope, holders: 0, idleSince: clock.currentTimeMillisUnsafe(), retired: false }
        current = shared
        lease.onLoss(() => retire(shared))
        background(closeWhenIdle(shared))
      })
    )
  })

  const hangNow: Leases["hangNow"] = () => {
    if (!current?.lease.isAlive()) return undefined
    current.holders++
    return current
  }

  const hang: Leases["hang"] = (done) => {
    const shared = hangNow()
    if (shared !== undefined) return done(Exit.succeed(shared))
    if (granting !== undefined) return void granting.push(done)
    const waiting = granting = [done]
    // on a fiber of its own: whoever gives up waiting for it neither has to see its end nor spoils it for others
    background(grant).addObserver((exit) => {
      granting = undefined
      for (const done of waiting) {
        if (Exit.isSuccess(exit)) hang(done)
        else done(Exit.failCause(exit.cause))
      }
    })
  }

  const leave: Leases["leave"] = (shared) => {
    shared.holders--
    shared.idleSince = clock.currentTimeMillisUnsafe()
    if (shared.holders === 0 && shared.retired) close(shared)
  }

  const retire: Leases["retire"] = (shared) => {
    if (shared.retired) return
    shared.retired = true
    if (current === shared) current = undefined
    if (shared.holders === 0) close(shared)
  }

  const close = (shared: SharedLease) => {
    background(Effect.uninterruptible(Scope.close(shared.scope, Exit.void)))
  }

  // one sleeper per lease instead of one per moment without holders
  const closeWhenIdle = (shared: SharedLease): Effect.Effect<void> =>
    Effect.suspend(() => {
      const ttl = Duration.toMillis(shared.lease.ttl)
      const idle = shared.holders > 0 ? 0 : clock.currentTimeMillisUnsafe() - shared.idleSince
      if (shared.retired) return Effect.void
      if (idle >= ttl) return Effect.sync(() => retire(shared))
      // a clock may have no moment between now and a fraction of a millisecond later
      return Effect.andThen(Effect.sleep(Math.ceil(ttl - idle)), closeWhenIdle(shared))
    })

  return { hang, hangNow, leave, retire } satisfies Leases
})
