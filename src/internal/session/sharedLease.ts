/**
 * One lease for all locks of a session: granted when it is first needed, replaced when it is lost or retired, and
 * revoked when it has had no reference for a TTL.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Etcd, EtcdError } from "../../Etcd.ts"
import type { Options } from "../../Session.ts"
import type { Background } from "../background.ts"
import { sessionClosed } from "../etcd/batch.ts"
import type { LeaseRef } from "../line/leaseRef.ts"
import * as Log from "../log.ts"
import * as Metrics from "../metrics.ts"
import { monotonicMillis } from "../monotonic.ts"
import * as Lease from "./lease.ts"

export interface Leases {
  /** Returns a reference to the current lease, if there is one. Each has to be released. */
  readonly acquireRefNow: () => LeaseRef | undefined
  /** Waits until there is a lease, which is granted if need be. */
  readonly granted: Effect.Effect<void, EtcdError>
  /**
   * Grants no lease any more, waits until what runs under the leases has ended, and then revokes them side by side, for
   * which it waits no longer than one request may take.
   */
  readonly close: Effect.Effect<void>
}

type State = Empty | Granting | Granted | Closed

interface Empty {
  readonly _tag: "Empty"
}

interface Granting {
  readonly _tag: "Granting"
  readonly fiber: Fiber.Fiber<void, EtcdError>
}

interface Granted {
  readonly _tag: "Granted"
  readonly shared: SharedLease
}

interface Closed {
  readonly _tag: "Closed"
}

const empty: State = { _tag: "Empty" }

export const make = Effect.fnUntraced(function*(background: Background, options: Options | undefined) {
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(background.context)
  const recordRetired = Metrics.retired(background.context)
  /** Including those that are retired and still have references. */
  const alive = new Set<SharedLease>()
  let state: State = empty

  const acquireRefNow: Leases["acquireRefNow"] = () =>
    state._tag === "Granted" && state.shared.lease.isAlive() ? state.shared.acquire() : undefined

  const granted: Leases["granted"] = Effect.suspend(() => {
    switch (state._tag) {
      case "Closed": {
        return sessionClosed
      }
      case "Granting": {
        return Fiber.join(state.fiber)
      }
      case "Granted": {
        return state.shared.lease.isAlive() ? Effect.void : granted
      }
      case "Empty": {
        // Granted on its own fiber, so that interrupting one waiter does not cancel the grant for the others.
        const fiber = fork(grant)
        // An etcd that answers at once has granted it by now.
        const granting: Granting = { _tag: "Granting", fiber }
        if (state._tag === "Empty") state = granting
        fiber.addObserver(() => {
          if (state === granting) state = empty
        })
        return Fiber.join(fiber)
      }
    }
  })

  const grant = Effect.suspend(() => {
    const scope = Scope.makeUnsafe()
    return Lease.make({ ...options, renewal: "automatic" }).pipe(
      Effect.provideService(Etcd, etcd),
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void)),
      Effect.flatMap((lease) => {
        const shared = new SharedLease(lease, clock, (why) => onRetired(lease, why), () => {
          if (state._tag === "Granted" && state.shared === shared) state = empty
        }, () => closeScope(shared, scope))
        alive.add(shared)
        if (state._tag === "Closed") {
          shared.end()
          return Effect.void
        }
        state = { _tag: "Granted", shared }
        lease.onLoss(shared.end)
        background(shared.retireWhenIdle)
        // No request takes that long: this process stood still, and those who wait ask for another lease.
        const stoodStill = lease.unacknowledgedFor > Duration.toMillis(etcd.requestTimeout)
        return lease.isAlive() || stoodStill ? Effect.void : Effect.fail(grantedTooLate)
      })
    )
  })

  const onRetired = ({ id }: Lease.LeaseImpl, why: string) => {
    recordRetired(1)
    const lease = id.toString(16)
    background(
      Log.warning(
        `Lease ${lease} gets no more locks, since ${why}. It is revoked once its last lock is released.`,
        { lease }
      )
    )
  }

  const closeScope = (shared: SharedLease, scope: Scope.Closeable) => {
    const closing = fork(Effect.uninterruptible(Scope.close(scope, Exit.void)))
    closing.addObserver(() => alive.delete(shared))
    return closing
  }

  const close = Effect.suspend(() => {
    const granting = state._tag === "Granting" ? Fiber.await(state.fiber) : undefined
    state = { _tag: "Closed" }
    const revoked = Effect.forEach(alive, ({ closed }) => closed, { concurrency: "unbounded", discard: true })
    const ended = Effect.forEach(alive, ({ lease }) => lease.end, { concurrency: "unbounded", discard: true })
    return Effect.andThen(
      ended,
      granting === undefined
        ? revoked
        : Effect.timeoutOption(Effect.andThen(granting, revoked), etcd.requestTimeout)
    )
  })

  return { acquireRefNow, granted, close } satisfies Leases
})

/** A lease and the count of its references. Counted by hand: a scope for each lock would cost more than the lock. */
class SharedLease implements LeaseRef {
  readonly lease: Lease.LeaseImpl
  readonly isShared = true
  readonly #clock: Clock.Clock
  readonly #onRetired: (why: string) => void
  readonly #onEnd: () => void
  readonly #closeScope: () => Fiber.Fiber<void>
  #references = 0
  #idleSince: number
  #isOver = false
  #closing: Fiber.Fiber<void> | undefined

  constructor(
    lease: Lease.LeaseImpl,
    clock: Clock.Clock,
    onRetired: (why: string) => void,
    onEnd: () => void,
    closeScope: () => Fiber.Fiber<void>
  ) {
    this.lease = lease
    this.#clock = clock
    this.#onRetired = onRetired
    this.#onEnd = onEnd
    this.#closeScope = closeScope
    this.#idleSince = monotonicMillis(clock)
  }

  acquire(): LeaseRef {
    this.#references++
    return this
  }

  readonly release = () => {
    this.#references--
    this.#idleSince = monotonicMillis(this.#clock)
    if (this.#references === 0 && this.#isOver) this.#close()
  }

  readonly retire = (why = "the outcome of a request on it is unknown") => {
    if (this.#isOver) return
    this.#onRetired(why)
    this.end()
  }

  /** From now on there are no new references to it, and it is revoked when the last one is released. */
  readonly end = () => {
    if (this.#isOver) return
    this.#isOver = true
    this.#onEnd()
    if (this.#references === 0) this.#close()
  }

  // One timer per lease, not one each time it becomes idle.
  readonly retireWhenIdle: Effect.Effect<void> = Effect.suspend(() => {
    const ttl = Duration.toMillis(this.lease.ttl)
    const idle = this.#references > 0 ? 0 : monotonicMillis(this.#clock) - this.#idleSince
    if (this.#isOver) return Effect.void
    if (idle >= ttl) return Effect.sync(this.end)
    // Rounded up: a timer below one millisecond may fire without the clock having moved.
    return Effect.andThen(Effect.sleep(Math.ceil(ttl - idle)), this.retireWhenIdle)
  })

  /** Starts to revoke the lease, unless that has begun already, and waits for its end. */
  readonly closed = Effect.suspend(() => Fiber.await(this.#close()))

  #close() {
    return this.#closing ??= this.#closeScope()
  }
}

const grantedTooLate = new EtcdError({
  reason: "Timeout",
  method: "leaseGrant",
  outcome: "Unknown",
  description: "etcd took longer to grant the lease than the lease may be trusted; use a longer `ttl`"
})
