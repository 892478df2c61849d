import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Etcd, type EtcdError } from "../Etcd.ts"
import * as Lease from "../Lease.ts"
import type { Background } from "./background.ts"
import type { Done } from "./batch.ts"
import type { Hold } from "./entry.ts"

/**
 * One lease for everybody, granted when it is first needed, replaced when it is
 * lost or retired, and revoked when nobody has needed it for a TTL.
 */
export interface Leases {
  /** Hangs the caller on the current lease, granting one if need be. Every success needs its `leave`. */
  readonly hang: (done: Done<Hold, EtcdError>) => void
  /** The same, if there is a lease to hang on at once. */
  readonly hangNow: () => Hold | undefined
}

export const make = Effect.fnUntraced(function*(background: Background, options: Lease.Options | undefined) {
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const sessionScope = yield* Effect.scope
  let current: Shared | undefined
  let granting: Array<Done<Hold, EtcdError>> | undefined

  const grant = Effect.suspend(() => {
    const scope = Scope.forkUnsafe(sessionScope)
    return Lease.make(options).pipe(
      Effect.provideService(Etcd, etcd),
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void)),
      Effect.map((lease) => {
        const shared = current = new Shared(lease, scope)
        lease.onLoss(shared.retire)
        background(shared.closeWhenIdle)
      })
    )
  })

  class Shared implements Hold {
    readonly lease: Lease.Lease
    readonly #scope: Scope.Closeable
    #holders = 0
    #idleSince = clock.currentTimeMillisUnsafe()
    #retired = false

    constructor(lease: Lease.Lease, scope: Scope.Closeable) {
      this.lease = lease
      this.#scope = scope
    }

    hang() {
      this.#holders++
      return this
    }

    readonly leave = () => {
      this.#holders--
      this.#idleSince = clock.currentTimeMillisUnsafe()
      if (this.#holders === 0 && this.#retired) this.#close()
    }

    readonly retire = () => {
      if (this.#retired) return
      this.#retired = true
      if (current === this) current = undefined
      if (this.#holders === 0) this.#close()
    }

    #close() {
      // the end of the session closes it too, and waits until it is revoked
      if (sessionScope.state._tag === "Closed") return
      background(Effect.uninterruptible(Scope.close(this.#scope, Exit.void)))
    }

    // one sleeper per lease instead of one per moment without holders
    readonly closeWhenIdle: Effect.Effect<void> = Effect.suspend(() => {
      const ttl = Duration.toMillis(this.lease.ttl)
      const idle = this.#holders > 0 ? 0 : clock.currentTimeMillisUnsafe() - this.#idleSince
      if (this.#retired) return Effect.void
      if (idle >= ttl) return Effect.sync(this.retire)
      // a clock may have no moment between now and a fraction of a millisecond later
      return Effect.andThen(Effect.sleep(Math.ceil(ttl - idle)), this.closeWhenIdle)
    })
  }

  const hangNow: Leases["hangNow"] = () => current?.lease.isAlive() ? current.hang() : undefined

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

  return { hang, hangNow } satisfies Leases
})
