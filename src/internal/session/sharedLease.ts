import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Etcd, EtcdError } from "../../Etcd.ts"
import type { Options } from "../../Lease.ts"
import type { Background } from "../background.ts"
import { type Done, sessionClosed } from "../etcd/batch.ts"
import type { LeaseRef } from "../line/entry.ts"
import { monotonicMillis } from "../monotonic.ts"
import * as Lease from "./lease.ts"

/**
 * One lease for all locks of a session, granted when it is first needed, replaced when it is
 * lost or retired, and revoked when nobody has needed it for a TTL.
 */
export interface Leases {
  /** Returns a reference to the current lease, granting one if need be. Each has to be released. */
  readonly acquireRef: (done: Done<LeaseRef, EtcdError>) => void
  /** The same, if there is a lease at once. */
  readonly acquireRefNow: () => LeaseRef | undefined
  /**
   * Grants no lease any more, waits until what runs under the leases has ended, and then revokes them side by side,
   * for which it waits no longer than one request may take.
   */
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(background: Background, options: Options | undefined) {
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const alive = new Set<Shared>()
  let current: Shared | undefined
  let granting: Fiber.Fiber<void, EtcdError> | undefined
  let waiting: Array<Done<LeaseRef, EtcdError>> = []
  let closed = false

  const grant = Effect.suspend(() => {
    const scope = Scope.makeUnsafe()
    return Lease.make(options).pipe(
      Effect.provideService(Etcd, etcd),
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void)),
      Effect.flatMap((lease) => {
        const shared = current = new Shared(lease, scope)
        lease.onLoss(shared.retire)
        if (closed) shared.retire()
        else background(shared.closeWhenIdle)
        return lease.isAlive() || closed ? Effect.void : Effect.fail(grantedTooLate)
      })
    )
  })

  class Shared implements LeaseRef {
    readonly lease: Lease.LeaseImpl
    readonly isShared = true
    readonly #scope: Scope.Closeable
    #holders = 0
    #idleSince = monotonicMillis(clock)
    #retired = false
    #closing: Fiber.Fiber<void> | undefined

    constructor(lease: Lease.LeaseImpl, scope: Scope.Closeable) {
      this.lease = lease
      this.#scope = scope
      alive.add(this)
    }

    acquire() {
      this.#holders++
      return this
    }

    readonly release = () => {
      this.#holders--
      this.#idleSince = monotonicMillis(clock)
      if (this.#holders === 0 && this.#retired) this.#close()
    }

    readonly retire = () => {
      if (this.#retired) return
      this.#retired = true
      if (current === this) current = undefined
      if (this.#holders === 0) this.#close()
    }

    #close() {
      if (this.#closing !== undefined) return this.#closing
      this.#closing = fork(Effect.uninterruptible(Scope.close(this.#scope, Exit.void)))
      this.#closing.addObserver(() => alive.delete(this))
      return this.#closing
    }

    readonly closed = Effect.suspend(() => Fiber.await(this.#close()))

    // One timer per lease, not one each time it becomes idle.
    readonly closeWhenIdle: Effect.Effect<void> = Effect.suspend(() => {
      const ttl = Duration.toMillis(this.lease.ttl)
      const idle = this.#holders > 0 ? 0 : monotonicMillis(clock) - this.#idleSince
      if (this.#retired) return Effect.void
      if (idle >= ttl) return Effect.sync(this.retire)
      // Rounded up: a timer below one millisecond may fire without the clock having moved.
      return Effect.andThen(Effect.sleep(Math.ceil(ttl - idle)), this.closeWhenIdle)
    })
  }

  const acquireRefNow: Leases["acquireRefNow"] = () =>
    !closed && current?.lease.isAlive() ? current.acquire() : undefined

  const acquireRef: Leases["acquireRef"] = (done) => {
    if (closed) return done(sessionClosed)
    const shared = acquireRefNow()
    if (shared !== undefined) return done(Exit.succeed(shared))
    waiting.push(done)
    if (granting !== undefined) return
    // Granted on its own fiber, so that interrupting one waiter does not cancel the grant for the others.
    granting = fork(grant)
    granting.addObserver((exit) => {
      const answered = waiting
      granting = undefined
      waiting = []
      for (const done of answered) {
        if (Exit.isSuccess(exit)) acquireRef(done)
        else done(Exit.failCause(exit.cause))
      }
    })
  }

  const close = Effect.suspend(() => {
    closed = true
    const revoked = Effect.forEach(alive, (shared) => shared.closed, { concurrency: "unbounded", discard: true })
    const ended = Effect.forEach(alive, ({ lease }) => lease.end, { concurrency: "unbounded", discard: true })
    return Effect.andThen(
      ended,
      granting === undefined
        ? revoked
        : Effect.timeoutOption(Effect.andThen(Fiber.await(granting), revoked), etcd.requestTimeout)
    )
  })

  return { acquireRef, acquireRefNow, close } satisfies Leases
})

const grantedTooLate = new EtcdError({
  reason: "Timeout",
  method: "leaseGrant",
  outcome: "Unknown",
  description: "etcd took longer to grant the lease than the lease may be trusted; use a longer `ttl`"
})
