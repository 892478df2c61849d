/**
 * A lease as the rest of the package sees it: with its clock, its renewals and all
 * that runs under it. Users get the same object as a `Lease`.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import { Etcd } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Lease, Options, Renewal } from "../../Lease.ts"
import { LeaseExpired } from "../../LeaseExpired.ts"
import type { EntryLease } from "../line/entry.ts"
import * as Check from "../options.ts"
import { awaitLoss, Bodies, type OnLoss, type Owner, supervise } from "../supervise.ts"

const TypeId = "~effect-etcd-lock/Lease"

export class LeaseImpl implements EntryLease {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly id: bigint
  readonly ttl: Duration.Duration
  /** All that runs under the lease or under a lock on it. */
  readonly bodies = new Bodies()
  readonly renewals: Stream.Stream<Renewal>
  readonly #clock: Clock.Clock
  readonly #marginOf: (ttlMillis: number) => number
  readonly #acknowledged: PubSub.PubSub<Renewal>
  readonly #owner: Owner
  readonly #listeners = new Set<(loss: LeaseExpired) => void>()
  /** Open once etcd has the lease no more, or may have it no more. */
  readonly #gone = Latch.makeUnsafe()
  /** When the last request was sent that etcd acknowledged. */
  #sent: Instant
  /** For how many milliseconds after that the lease can be trusted. */
  #validity: number
  #loss: LeaseExpired | undefined
  #isAbandoned = false

  constructor(options: {
    readonly id: bigint
    readonly ttlMillis: number
    readonly sent: Instant
    readonly clock: Clock.Clock
    readonly marginOf: (ttlMillis: number) => number
    readonly acknowledged: PubSub.PubSub<Renewal>
  }) {
    this.id = options.id
    this.ttl = Duration.millis(options.ttlMillis)
    this.#clock = options.clock
    this.#marginOf = options.marginOf
    this.#acknowledged = options.acknowledged
    this.#owner = { key: `lease ${options.id.toString(16)}` }
    this.#sent = options.sent
    this.#validity = options.ttlMillis - options.marginOf(options.ttlMillis)
    this.renewals = Stream.fromPubSub(options.acknowledged).pipe(
      Stream.interruptWhen(Effect.exit(awaitLoss(this.onLoss)))
    )
  }

  get remaining(): Lease["remaining"] {
    return Effect.sync(() => Duration.millis(this.#loss === undefined ? this.#remaining() : 0))
  }

  get awaitLoss(): Lease["awaitLoss"] {
    return awaitLoss(this.onLoss)
  }

  get whileAlive(): Lease["whileAlive"] {
    return (self) => supervise(self, this.onLoss, this.bodies, this.#owner)
  }

  isAlive(): boolean {
    // Timers are late after the process stood still; the clocks are not.
    if (this.#loss === undefined && this.#remaining() === 0) this.#lose("Expired")
    return this.#loss === undefined
  }

  get onLoss(): OnLoss<LeaseExpired> {
    return (listener) => {
      if (this.isAlive()) this.#listeners.add(listener)
      else listener(this.#loss!)
      return () => this.#listeners.delete(listener)
    }
  }

  /** Called when a request on this lease was answered with "no such lease". */
  notFound(): void {
    this.#lose("Revoked")
  }

  /** Whether the lease is to be revoked when its scope closes. */
  get isToBeRevoked(): boolean {
    // Bodies outlast an abandoned one: a revoke would give their locks away, if etcd should know the lease yet.
    return this.#loss?.reason !== "Revoked" && !this.#isAbandoned
  }

  /** Renews the lease until it is lost. */
  keepAlive(etcd: Etcd["Service"]): Effect.Effect<void> {
    // Whole milliseconds, as timers count.
    const period = Math.floor(Duration.toMillis(this.ttl) / 3)
    // It leaves time for another attempt, on a fresh connection.
    const attemptTimeout = Math.floor(period / 2)
    const pause = Math.min(Math.floor(period / 10), 100)
    const renewing = Effect.gen({ self: this }, function*() {
      while (true) {
        yield* Effect.sleep(Math.max(0, Math.min(period - elapsed(this.#sent, now(this.#clock)), this.#remaining())))
        while (true) {
          if (this.#remaining() === 0) return this.#lose("Expired")
          const sending = now(this.#clock)
          const timeout = Math.min(attemptTimeout, this.#remaining())
          // The end of the lease does not wait for a renewal that takes longer than it may.
          const renewed = yield* Effect.exit(Effect.timeout(etcd.leaseKeepAlive(this.id, timeout), timeout))
          if (this.#remaining() === 0) return this.#lose("Expired")
          if (Exit.isSuccess(renewed)) {
            if (renewed.value === 0) return this.#lose("Revoked")
            this.#renewed(sending, renewed.value * 1000)
            break
          }
          yield* Effect.sleep(Math.min(pause, this.#remaining()))
        }
      }
    })
    return Effect.ensuring(renewing, Effect.sync(() => this.#lose("Expired")))
  }

  /** Reports `Released`, and waits until all bodies have ended, with renewals going on. */
  get end(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#lose("Released")
      if (this.bodies.owners.length === 0 || this.#isAbandoned) return Effect.void
      return Effect.raceFirst(this.bodies.ended, this.#gone.await).pipe(
        Effect.timeoutOrElse({ duration: this.ttl, orElse: () => this.#warning }),
        Effect.andThen(Effect.sync(() => {
          this.#isAbandoned = this.bodies.owners.length > 0
        }))
      )
    })
  }

  get #warning(): Effect.Effect<void> {
    const names = this.bodies.owners.map(({ key }) => `'${key}'`).join(", ")
    const ttl = Duration.toMillis(this.ttl)
    return Effect.logWarning(
      `Lease ${
        this.id.toString(16)
      } is left to expire: what runs under ${names} has not ended within ${ttl} ms after it was interrupted`
    )
  }

  #remaining(): number {
    const millis = this.#gone.isOpen() ? 0 : this.#validity - elapsed(this.#sent, now(this.#clock))
    // A clock may be too coarse to ever see less than this pass.
    return millis > 0.001 ? millis : 0
  }

  #renewed(sent: Instant, ttlMillis: number) {
    this.#sent = sent
    this.#validity = ttlMillis - this.#marginOf(ttlMillis)
    PubSub.publishUnsafe(this.#acknowledged, { leaseId: this.id, remaining: Duration.millis(this.#remaining()) })
  }

  #lose(reason: LeaseExpired["reason"]) {
    if (reason !== "Released") this.#gone.openUnsafe()
    if (this.#loss !== undefined) return
    this.#loss = new LeaseExpired({ leaseId: this.id, reason })
    for (const listener of this.#listeners) listener(this.#loss)
    this.#listeners.clear()
  }
}

export const make = Effect.fnUntraced(function*(options?: Options) {
  const seconds = validate(options)
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const id = randomId()
  const acknowledged = yield* PubSub.sliding<Renewal>(16)
  let sent = now(clock)
  const granted = grant(etcd, id, seconds, () => {
    sent = now(clock)
  })
  const lease = yield* Effect.acquireRelease(
    Effect.map(
      granted,
      (ttlMillis) =>
        new LeaseImpl({ id, ttlMillis, sent, clock, marginOf: (ttl) => safetyMargin(options, ttl), acknowledged })
    ),
    (lease) => lease.isToBeRevoked ? revoke(etcd, id) : Effect.void
  )
  // The scope closes in the reverse order: what runs under the lease ends, then the renewals, then the lease.
  yield* Effect.forkScoped(lease.keepAlive(etcd), { startImmediately: true })
  yield* Effect.addFinalizer(() => lease.end)
  return lease
})

export const isLease = (u: unknown): u is LeaseImpl => Predicate.hasProperty(u, TypeId)

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

const maxSeconds = 9_000_000_000

/** Returns the TTL to ask for, in seconds. */
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

// An ID of our own makes the grant repeatable. It is not 0, which would ask etcd to choose one.
const randomId = (): bigint => {
  const id = BigInt.asUintN(63, crypto.getRandomValues(new BigUint64Array(1))[0]!)
  return id === 0n ? 1n : id
}

// -----------------------------------------------------------------------------
// time and requests
// -----------------------------------------------------------------------------

export interface Instant {
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

// Returns milliseconds. "Exists already" can only be our own grant, whose answer was lost; a renewal returns its TTL.
// Nobody waits for a lease that may have been granted all the same, so it is revoked.
const grant = (
  etcd: Etcd["Service"],
  id: bigint,
  seconds: number,
  beforeRenewal: () => void
): Effect.Effect<number, EtcdError> => {
  const abandon = Effect.suspend(() => Effect.forkDetach(revoke(etcd, id)))
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
