/**
 * An etcd lease as a scoped resource: granted, kept alive by a fiber, and revoked
 * when its scope closes. Keys that hang on it live as long as it does.
 *
 * **When to use**
 *
 * Locks bring their own lease; see `Session`. Use a `Lease` by itself to tie
 * other keys to the life of a program, or several locks to one fate.
 *
 * **Details**
 *
 * The lease is trusted only for as long as etcd must keep it: its TTL, counted
 * from the moment at which the last acknowledged request was *sent*, less a
 * safety margin. When that time is over it is lost, whatever the network says
 * later.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Etcd, type EtcdError } from "./Etcd.ts"
import * as Check from "./internal/options.ts"
import { awaitLoss, Bodies, type Owner, supervise } from "./internal/supervise.ts"

/**
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-etcd-lock/Lease"

/**
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
  /** What etcd granted, which may be more than what was asked for. */
  readonly ttl: Duration.Duration
  /** For how long the lease can still be trusted if no renewal succeeds; zero once it is lost. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Never succeeds; fails as soon as the lease is lost or its scope has closed. */
  readonly awaitLoss: Effect.Effect<never, LeaseExpired>
  /** Runs an effect for as long as the lease lives: a loss interrupts it, awaits it, and fails the whole. */
  readonly whileAlive: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LeaseExpired, R>
  /** Every renewal that etcd acknowledges from now on; ends with the lease. */
  readonly renewals: Stream.Stream<Renewal>
  /** @internal The ID as keys show it. */
  readonly hex: string
  /** @internal */
  readonly isAlive: () => boolean
  /** @internal Returns how to unsubscribe. */
  readonly onLoss: (listener: (loss: LeaseExpired) => void) => () => void
  /** @internal A request on this lease was answered with "no such lease". */
  readonly notFound: () => void
  /** @internal All that runs under the lease or under a lock on it. */
  readonly bodies: Bodies
  /** @internal Reports `Released`, and waits until all bodies have ended, with renewals going on. */
  readonly end: Effect.Effect<void>
  /** @internal The keys of lock entries on this lease, also of those that may be left behind. */
  readonly entries: Set<string>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Renewal {
  readonly leaseId: bigint
  /** For how long the lease can be trusted from now on if no further renewal succeeds. */
  readonly remaining: Duration.Duration
}

/**
 * The lease is gone, and with it every key that hung on it.
 *
 * - `Expired`: it could not be renewed in time. Reported before etcd's own expiry.
 * - `Revoked`: etcd does not know it any more; somebody revoked it.
 * - `Released`: its scope has closed, or is about to.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseExpired extends Schema.TaggedError<LeaseExpired>("effect-etcd-lock/Lease/LeaseExpired")(
  "LeaseExpired",
  {
    leaseId: Schema.BigInt,
    reason: Schema.Literals(["Expired", "Revoked", "Released"])
  }
) {
  override get message(): string {
    const id = this.leaseId.toString(16)
    switch (this.reason) {
      case "Expired": {
        return `Lease ${id} expired: etcd acknowledged no renewal in time`
      }
      case "Revoked": {
        return `Lease ${id} was revoked: etcd does not know it any more`
      }
      case "Released": {
        return `Lease ${id} was released: its scope has closed`
      }
    }
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * For how long keys outlive a program that dies. Whole seconds, rounded up; at
   * least 1 second, and etcd raises what is below its own minimum (2 seconds by
   * default). Default: 15 seconds.
   */
  readonly ttl?: Duration.Input | undefined
  /**
   * How long before etcd's own expiry a lease that could not be renewed counts as
   * lost. It has to cover the drift between the machines' clocks, and the time in
   * which work stops once it is interrupted. Less than two thirds of the TTL.
   * Default: a tenth of the TTL, but at least 300 milliseconds.
   */
  readonly safetyMargin?: Duration.Input | undefined
}

/**
 * Grants a lease and keeps it alive until the scope closes, then stops renewing
 * and revokes it.
 *
 * **Details**
 *
 * Renewals are sent every third of the TTL, each with a deadline, and repeated at
 * once when they fail.
 *
 * Closing the scope interrupts what runs under the lease, and waits for its end
 * with renewals going on; only then it revokes the lease. What has not ended after
 * one TTL is named in a warning, and the lease is left to expire. The revoke takes
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
 * **Example** (Tying a key to a program's life)
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
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Lease, EtcdError, Etcd | Scope.Scope> = Effect.fnUntraced(
  function*(options?: Options) {
    const seconds = validate(options)
    const etcd = yield* Etcd
    const clock = yield* Clock.Clock
    const id = randomId()
    const margin = (ttlMillis: number) => safetyMargin(options, ttlMillis)

    const listeners = new Set<(loss: LeaseExpired) => void>()
    const bodies = new Bodies()
    const gone = Latch.makeUnsafe()
    let loss: LeaseExpired | undefined
    // Bodies outlast it. A revoke would give their locks away, if etcd should know the lease yet.
    let isAbandoned = false
    const lose = (reason: LeaseExpired["reason"]) => {
      if (reason !== "Released") gone.openUnsafe()
      if (loss !== undefined) return
      loss = new LeaseExpired({ leaseId: id, reason })
      for (const listener of listeners) listener(loss)
      listeners.clear()
    }

    let sent = now(clock)
    const ttl = yield* Effect.acquireRelease(
      grant(etcd, id, seconds, () => {
        sent = now(clock)
      }),
      () => loss?.reason === "Revoked" || isAbandoned ? Effect.void : revoke(etcd, id)
    )
    // Timers count whole milliseconds.
    const period = Math.floor(ttl / 3)
    // Half a period leaves time for another attempt on a fresh connection.
    const patience = Math.floor(period / 2)
    const pause = Math.min(Math.floor(period / 10), 100)
    let validity = ttl - margin(ttl)
    const left = () => {
      const millis = gone.isOpen() ? 0 : validity - elapsed(sent, now(clock))
      // A clock may be too coarse to see less time than this pass.
      return millis > 0.001 ? millis : 0
    }

    const renewals = yield* PubSub.sliding<Renewal>(16)

    const keepAlive = Effect.gen(function*() {
      while (true) {
        yield* Effect.sleep(Math.max(0, Math.min(period - elapsed(sent, now(clock)), left())))
        while (true) {
          if (left() === 0) return lose("Expired")
          const sending = now(clock)
          const answer = yield* Effect.exit(etcd.leaseKeepAlive(id, Math.min(patience, left())))
          if (left() === 0) return lose("Expired")
          if (Exit.isSuccess(answer)) {
            if (answer.value === 0) return lose("Revoked")
            sent = sending
            validity = answer.value * 1000 - margin(answer.value * 1000)
            PubSub.publishUnsafe(renewals, { leaseId: id, remaining: Duration.millis(left()) })
            break
          }
          yield* Effect.sleep(Math.min(pause, left()))
        }
      }
    })
    const end = Effect.suspend(() => {
      lose("Released")
      if (bodies.owners.length === 0 || isAbandoned) return Effect.void
      return Effect.raceFirst(bodies.ended, gone.await).pipe(
        Effect.timeoutOrElse({
          duration: ttl,
          orElse: () => {
            const names = bodies.owners.map(({ key }) => `'${key}'`).join(", ")
            return Effect.logWarning(
              `Lease ${
                id.toString(16)
              } is left to expire: what runs under ${names} has not ended within ${ttl} ms after it was interrupted`
            )
          }
        }),
        Effect.andThen(Effect.sync(() => {
          isAbandoned = bodies.owners.length > 0
        }))
      )
    })
    // The scope closes in the reverse order: what runs under the lease ends, then the renewals, then the lease.
    yield* keepAlive.pipe(
      Effect.ensuring(Effect.sync(() => lose("Expired"))),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* Effect.addFinalizer(() => end)

    const isAlive = () => {
      // Timers are late after a freeze of the process; the clocks are not.
      if (loss === undefined && left() === 0) lose("Expired")
      return loss === undefined
    }

    const onLoss: Lease["onLoss"] = (listener) => {
      if (isAlive()) listeners.add(listener)
      else listener(loss!)
      return () => listeners.delete(listener)
    }

    const owner: Owner = { key: `lease ${id.toString(16)}` }
    const lease: Lease = {
      [TypeId]: TypeId,
      id,
      hex: id.toString(16),
      ttl: Duration.millis(ttl),
      remaining: Effect.sync(() => Duration.millis(loss === undefined ? left() : 0)),
      awaitLoss: awaitLoss(onLoss),
      whileAlive: (self) => supervise(self, onLoss, bodies, owner),
      renewals: Stream.fromPubSub(renewals).pipe(Stream.interruptWhen(Effect.exit(awaitLoss(onLoss)))),
      isAlive,
      onLoss,
      notFound: () => lose("Revoked"),
      bodies,
      end,
      entries: new Set()
    }
    return lease
  }
)

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** @internal */
export const isLease = (u: unknown): u is Lease => Predicate.hasProperty(u, TypeId)

const maxSeconds = 9_000_000_000

/** @internal Answers the TTL to ask for, in seconds. */
export const validate = (options: Options | undefined): number => {
  Check.object("Lease", "options", options, "{ ttl: \"15 seconds\" }")
  const seconds = options?.ttl === undefined ? 15 : secondsOf(Check.duration(ttlOption, options.ttl))
  safetyMargin(options, seconds * 1000)
  return seconds
}

const secondsOf = (duration: Duration.Duration): number => Math.ceil(Duration.toSeconds(duration))

const ttlOption: Check.DurationOption = {
  module: "Lease",
  option: "ttl",
  range: `from 1 second to ${maxSeconds} seconds`,
  accepts: (ttl) => Duration.toSeconds(ttl) >= 1 && secondsOf(ttl) <= maxSeconds,
  example: "15 seconds"
}

const safetyMargin = (options: Options | undefined, ttl: number): number => {
  if (options?.safetyMargin === undefined) return Math.min(Math.max(ttl / 10, 300), ttl / 2)
  const margin: Check.DurationOption = {
    module: "Lease",
    option: "safetyMargin",
    range: `from 0 to less than two thirds of the ttl of ${ttl} ms, since renewals are a third of it apart`,
    accepts: (margin) => !Duration.isNegative(margin) && Duration.toMillis(margin) < ttl * 2 / 3,
    example: "2 seconds"
  }
  return Duration.toMillis(Check.duration(margin, options.safetyMargin))
}

// An ID of our own makes the grant repeatable. Not 0, which would ask etcd to choose one.
const randomId = (): bigint => {
  const id = BigInt.asUintN(63, crypto.getRandomValues(new BigUint64Array(1))[0]!)
  return id === 0n ? 1n : id
}

interface Instant {
  readonly monotonic: bigint
  readonly wall: number
}

const now = (clock: Clock.Clock): Instant => ({
  monotonic: clock.monotonicTimeNanosUnsafe(),
  wall: clock.currentTimeMillisUnsafe()
})

// Monotonic clocks stop while a machine sleeps, wall clocks are set back: the larger elapsed time is the safe one.
const elapsed = (from: Instant, to: Instant): number =>
  Math.max(Number(to.monotonic - from.monotonic) / 1e6, to.wall - from.wall)

// Answers milliseconds. "Exists already" can only be our own grant, whose answer was lost; a renewal tells its TTL.
// Nobody waits for a lease that may have been granted all the same, so it is revoked.
const grant = (
  etcd: Etcd["Service"],
  id: bigint,
  seconds: number,
  beforeRenewal: () => void
): Effect.Effect<number, EtcdError> => {
  const abandon = Effect.forkDetach(revoke(etcd, id))
  const renewed = Effect.suspend(() => {
    beforeRenewal()
    return etcd.leaseKeepAlive(id, 1000)
  })
  const granted = Effect.catch(etcd.leaseGrant(id, seconds), (error) => {
    if (error.reason === "LeaseExists") return Effect.tapError(renewed, () => abandon)
    return error.outcome === "Unknown" ? Effect.andThen(abandon, Effect.fail(error)) : Effect.fail(error)
  })
  return Effect.map(granted, (seconds) => seconds * 1000)
}

const revoke = (etcd: Etcd["Service"], id: bigint): Effect.Effect<void> =>
  Effect.catch(etcd.leaseRevoke(id), (error) =>
    error.reason === "LeaseNotFound"
      ? Effect.void
      : Effect.logWarning(`Lease ${id.toString(16)} could not be revoked and is left to expire: ${error.message}`))
