/**
 * An etcd lease as a scoped resource: granted, kept alive by a fiber, and revoked
 * when its scope closes. Keys that are attached to it live as long as it does.
 *
 * **When to use**
 *
 * Locks bring their own lease; see `Session`. Use a `Lease` by itself to let other keys
 * live as long as a program, or to have several locks lost together.
 *
 * **Details**
 *
 * The lease is trusted only for as long as etcd must keep it: its TTL, counted
 * from the moment at which the last acknowledged request was *sent*, less a
 * safety margin. When that time is over it is lost, whatever the network says
 * later.
 *
 * @since 0.1.0
 * @module
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Etcd, EtcdError } from "./Etcd.ts"
import * as internal from "./internal/session/lease.ts"
import type { LeaseExpired } from "./LeaseExpired.ts"

export {
  /**
   * @category errors
   * @since 0.1.0
   */
  LeaseExpired
} from "./LeaseExpired.ts"

/**
 * Marks a value as a lease that `make` returned.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-etcd-lock/Lease"

/**
 * The type of the mark of a lease.
 *
 * @category type IDs
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A lease that etcd granted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  readonly [TypeId]: TypeId
  /** A positive 63-bit number. Keys show it in hexadecimal, as etcdctl does. */
  readonly id: bigint
  /** The TTL that etcd granted, which may be longer than the one in the options. */
  readonly ttl: Duration.Duration
  /** How long the lease can still be trusted if no renewal succeeds; zero once it is lost. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Never succeeds; fails as soon as the lease is lost or its scope has closed. */
  readonly awaitLoss: Effect.Effect<never, LeaseExpired>
  /**
   * Runs an effect while the lease lives: a loss interrupts it, awaits its end, and fails the whole, also when the effect has
   * ended by itself after the lease. `Lock.BodySuccess` is what it succeeded with then.
   */
  readonly whileAlive: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LeaseExpired, R>
  /**
   * Renews the lease now, in one attempt that ends within twice the request timeout and a third of the TTL. It fails with the
   * `EtcdError` if etcd has not acknowledged it, which leaves the lease as it was, and with `LeaseExpired` if the lease is
   * lost. Calls at the same time share one attempt, which goes on when they are interrupted.
   */
  readonly renew: Effect.Effect<Renewal, LeaseExpired | EtcdError>
  /**
   * Revokes the lease before its scope closes, and in the same way: what runs under it is interrupted and awaited first,
   * and a lease whose bodies outlast the wait is left to expire. Otherwise it fails if etcd has not confirmed that the
   * lease is gone, and can then be called again. After a success the scope's closing sends no request.
   */
  readonly revoke: Effect.Effect<void, EtcdError>
  /** Every renewal that etcd acknowledges from now on; ends with the lease. */
  readonly renewals: Stream.Stream<Renewal>
}

/**
 * A renewal of a lease that etcd acknowledged.
 *
 * @category models
 * @since 0.1.0
 */
export interface Renewal {
  readonly leaseId: bigint
  /** How long the lease can be trusted from now on if no further renewal succeeds. */
  readonly remaining: Duration.Duration
}

/**
 * How long a lease lives without renewals, and how long before its end it counts as lost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How long keys outlive a program that dies. Whole seconds, rounded up; at
   * least 1 second, and etcd raises a TTL below its own minimum (2 seconds by
   * default). Default: 15 seconds.
   */
  readonly ttl?: Duration.Input | undefined
  /**
   * How long before etcd's own expiry a lease that could not be renewed counts as
   * lost. It has to cover the drift between the machines' clocks, and the time that work
   * takes to stop once it is interrupted. It is half of the TTL at most.
   * Default: a tenth of the TTL, but at least 300 milliseconds.
   */
  readonly safetyMargin?: Duration.Input | undefined
  /**
   * Who renews the lease. `automatic`: a fiber of its own, until its scope closes. `manual`: its user, by calls of `renew`,
   * so that the lease is lost when these calls stop, although the process lives. Default: `automatic`.
   */
  readonly renewal?: "automatic" | "manual" | undefined
}

/**
 * Grants a lease and keeps it alive until the scope closes, then stops renewing
 * and revokes it.
 *
 * **Details**
 *
 * A renewal is sent every third of the TTL, with a deadline, and repeated soon when it
 * fails. With `renewal: "manual"`, only `renew` sends one.
 *
 * Closing the scope interrupts what runs under the lease, and waits for its end
 * with renewals going on; only then it revokes the lease. A warning names what has
 * not ended after one TTL, and the lease is left to expire. The revoke takes
 * no longer than one request may; if etcd cannot be reached then, the lease expires
 * by itself.
 *
 * **Gotchas**
 *
 * The scope does not stop the fiber that uses it: run the work through
 * `whileAlive`, or race it with `awaitLoss`.
 *
 * A TTL or a safety margin that can never work is a defect that names the option.
 *
 * **Example** (Attaching a key to a program's life)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Etcd, Lease } from "effect-etcd-lock"
 *
 * export const announced = Effect.scoped(Effect.gen(function*() {
 *   const etcd = yield* Etcd.Etcd
 *   const lease = yield* Lease.make({ ttl: "5 seconds" })
 *   yield* etcd.txn({ then: [Etcd.put("workers/7", "ready", { lease: lease.id })], idempotent: true })
 *   return yield* lease.whileAlive(Effect.succeed("worked"))
 * }))
 * ```
 *
 * **Example** (A lease that lives only as long as a loop turns)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Etcd, Lease } from "effect-etcd-lock"
 *
 * export const poll = (once: Effect.Effect<void>, times: number) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const etcd = yield* Etcd.Etcd
 *     const lease = yield* Lease.make({ ttl: "30 seconds", renewal: "manual" })
 *     yield* etcd.txn({ then: [Etcd.put("pollers/7", "polls", { lease: lease.id })], idempotent: true })
 *     // A poll that hangs loses the key, which a fiber that renews beside it would keep.
 *     yield* once.pipe(
 *       Effect.andThen(lease.renew),
 *       Effect.repeat(Schedule.spaced("5 seconds").pipe(Schedule.upTo({ times })))
 *     )
 *   }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Lease, EtcdError, Etcd | Scope.Scope> = internal.make
