/**
 * A lease as the rest of the package sees it: with its clock, its renewals and all
 * that runs under it. Users get the same object as a `Lease`.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Etcd } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Lease, Options, Renewal } from "../../Lease.ts"
import { LeaseExpired } from "../../LeaseExpired.ts"
import * as Background from "../background.ts"
import { copy, refuseOther } from "../copy.ts"
import * as History from "../etcd/history.ts"
import * as Leases from "../etcd/leases.ts"
import { type Entry, lostWith } from "../line/entry.ts"
import type { EntryLease } from "../line/leaseRef.ts"
import * as Log from "../log.ts"
import * as Metrics from "../metrics.ts"
import * as Check from "../options.ts"
import { Signal } from "../signal.ts"
import { awaitLoss, Bodies, type OnLoss, type Owner, supervise } from "../supervise.ts"
import * as Heartbeat from "./heartbeat.ts"

const TypeId = "~effect-etcd-lock/Lease"

export class LeaseImpl implements EntryLease {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly [copy] = true
  readonly id: bigint
  readonly ttl: Duration.Duration
  /** All that runs under the lease or under a lock on it. */
  readonly bodies = new Bodies()
  readonly entries = new Set<Entry>()
  readonly renewals: Stream.Stream<Renewal>
  readonly #etcd: Etcd["Service"]
  readonly #clock: Clock.Clock
  readonly #background: Background.Background
  readonly #isManual: boolean
  readonly #marginOf: (ttlMillis: number) => number
  readonly #acknowledged: PubSub.PubSub<Renewal>
  readonly #recorder: Metrics.LeaseRecorder
  readonly #owner: Owner
  readonly #heartbeat: Heartbeat.Heartbeat
  readonly #loss = new Signal<LeaseExpired>()
  /** Open once etcd no longer has the lease, or may no longer have it. */
  readonly #gone = Latch.makeUnsafe()
  /** When the last request was sent that etcd acknowledged. */
  #sent: Instant
  /** For how many milliseconds after that the lease can be trusted. */
  #validity: number
  #isAbandoned = false
  #isRevoked = false
  /** Renews the lease, or only waits for its end. */
  #keeper: Fiber.Fiber<void> | undefined
  /** The attempt to renew the lease that is under way. */
  #attempt: Fiber.Fiber<number, EtcdError> | undefined
  /** Since when the clocks have not been looked at, and for how long that was meant to be. */
  #unwatched: { readonly since: Instant; readonly millis: number } | undefined
  /** For how many milliseconds the process has stood still since the last acknowledged request, as each clock shows it. */
  #stoodStill = { monotonic: 0, wall: 0 }
  /** Why the last renewal failed, since then. */
  #error: EtcdError | undefined
  /** The level at which that was logged: the first failure may pass at once. */
  #logged: "Debug" | "Warn" | undefined

  constructor(options: {
    readonly etcd: Etcd["Service"]
    readonly id: bigint
    readonly ttlMillis: number
    readonly sent: Instant
    readonly clock: Clock.Clock
    readonly background: Background.Background
    readonly isManual: boolean
    readonly marginOf: (ttlMillis: number) => number
    readonly acknowledged: PubSub.PubSub<Renewal>
    readonly recorder: Metrics.LeaseRecorder
  }) {
    this.id = options.id
    this.ttl = Duration.millis(options.ttlMillis)
    this.#etcd = options.etcd
    this.#clock = options.clock
    this.#background = options.background
    this.#isManual = options.isManual
    this.#marginOf = options.marginOf
    this.#acknowledged = options.acknowledged
    this.#recorder = options.recorder
    this.#owner = { key: `lease ${options.id.toString(16)}` }
    this.#heartbeat = Heartbeat.make(options.etcd, options.background, this)
    this.#sent = options.sent
    this.#validity = options.ttlMillis - options.marginOf(options.ttlMillis)
    this.renewals = Stream.fromPubSub(options.acknowledged).pipe(
      Stream.interruptWhen(Effect.exit(awaitLoss(this.onLoss)))
    )
  }

  get remaining(): Lease["remaining"] {
    return Effect.sync(() => Duration.millis(this.#loss.value === undefined ? this.#remaining() : 0))
  }

  get awaitLoss(): Lease["awaitLoss"] {
    return awaitLoss(this.onLoss)
  }

  get whileAlive(): Lease["whileAlive"] {
    return (self) => supervise(self, this.onLoss, this.bodies, this.#owner)
  }

  /** For how many milliseconds etcd has acknowledged nothing. */
  get unacknowledgedFor(): number {
    return elapsed(this.#sent, now(this.#clock))
  }

  isAlive(): boolean {
    return this.loss === undefined
  }

  get loss(): LeaseExpired | undefined {
    // Timers are late after the process stood still; the clocks are not.
    if (this.#loss.value === undefined && this.#remaining() === 0) this.#lose("Expired")
    return this.#loss.value
  }

  get onLoss(): OnLoss<LeaseExpired> {
    return (listener) => {
      this.isAlive()
      return this.#loss.subscribe(listener)
    }
  }

  /** Called when a request on this lease was answered with "no such lease". */
  notFound(): void {
    this.#lose("Revoked")
  }

  get renew(): Lease["renew"] {
    return Effect.suspend(() => {
      if (!this.isAlive()) return Effect.fail(this.#loss.value!)
      return Effect.flatMap(
        this.#attempted,
        (renewed): Exit.Exit<Renewal, LeaseExpired | EtcdError> =>
          this.#loss.value === undefined ? Exit.map(renewed, () => this.#renewal) : Exit.fail(this.#loss.value)
      )
    })
  }

  get revoke(): Lease["revoke"] {
    return Effect.gen({ self: this }, function*() {
      yield* this.end
      // A renewal that is under way would find that the lease is gone, and log a warning.
      this.#keeper?.interruptUnsafe()
      this.#attempt?.interruptUnsafe()
      // Bodies still run under an abandoned lease: a revoke would give their locks away, if etcd still has the lease.
      if (this.#isRevoked || this.#isAbandoned || this.#loss.value?.reason === "Revoked") return
      yield* Leases.revoke(this.#etcd, this.id)
      this.#isRevoked = true
    })
  }

  /** Keeps the lease until it is lost, or until the scope closes. */
  get keep(): Effect.Effect<void, never, Scope.Scope> {
    const keeping = this.#isManual ? this.#watchClocks : Effect.raceFirst(this.#keepAlive, this.#watchClocks)
    return Effect.suspend(() => {
      const unsubscribe = History.onChange(this.#etcd, (what) => this.#lose("HistoryChanged", what))
      return Effect.ensuring(
        keeping,
        Effect.sync(() => {
          unsubscribe()
          this.#lose("Expired")
        })
      )
    }).pipe(
      Effect.forkScoped({ startImmediately: true }),
      Effect.map((keeper) => {
        this.#keeper = keeper
      })
    )
  }

  /** Renews the lease until it is lost. */
  get #keepAlive(): Effect.Effect<void> {
    // Whole milliseconds, as timers count.
    const period = Math.floor(Duration.toMillis(this.ttl) / 3)
    return Effect.gen({ self: this }, function*() {
      while (true) {
        yield* Effect.sleep(Math.max(0, Math.min(period - elapsed(this.#sent, now(this.#clock)), this.#remaining())))
        for (let failures = 1;; failures++) {
          if (this.#remaining() === 0) return this.#lose("Expired")
          const renewed = yield* this.#attempted
          if (this.#gone.isOpen()) return
          if (Exit.isSuccess(renewed)) break
          yield* this.#logFailed
          const pause = yield* pauseAfter(failures, this.#error, period)
          yield* Effect.sleep(Math.min(pause, this.#remaining()))
        }
      }
    })
  }

  /**
   * Loses the lease when its time is over: that waits for no renewal, however long it takes, and for no long timer, which
   * stands still while the machine sleeps.
   */
  get #watchClocks(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      while (this.#remaining() > 0) {
        const millis = Math.min(this.#remaining(), longestUnwatched)
        this.#unwatched = { since: now(this.#clock), millis }
        yield* Effect.sleep(millis)
        this.#noteDelay()
      }
      this.#lose("Expired")
    })
  }

  /**
   * Makes one attempt to renew the lease, which all callers share that ask for one meanwhile. None of them interrupts
   * it: its answer would be taken for that to the next attempt.
   */
  get #attempted(): Effect.Effect<Exit.Exit<number, EtcdError>> {
    return Effect.suspend(() => {
      if (this.#attempt !== undefined) return Fiber.await(this.#attempt)
      const attempt = this.#background(this.#renewOnce)
      this.#attempt = attempt
      attempt.addObserver(() => {
        this.#attempt = undefined
      })
      return Fiber.await(attempt)
    })
  }

  /** The lease is lost if etcd has it no more, or answers too late. */
  get #renewOnce(): Effect.Effect<number, EtcdError> {
    return Effect.gen({ self: this }, function*() {
      // It leaves time for another attempt, on a fresh connection.
      const sixth = Math.floor(Duration.toMillis(this.ttl) / 6)
      const timeout = Math.min(sixth, Duration.toMillis(this.#etcd.requestTimeout), this.#remaining())
      const sending = now(this.#clock)
      const renewed = yield* Effect.exit(this.#heartbeat(timeout))
      const isLate = this.#remaining() === 0
      if (!isLate || Exit.isFailure(renewed)) this.#recorder.renewals(1, resultOf(renewed))
      if (Exit.isFailure(renewed)) this.#error = Option.getOrUndefined(Cause.findErrorOption(renewed.cause))
      if (isLate) {
        this.#lose("Expired")
      } else if (Exit.isSuccess(renewed) && renewed.value <= 0) {
        const message = `Lease ${this.id.toString(16)} was revoked: etcd does not have it any more`
        // The loss interrupts this attempt.
        yield* Effect.uninterruptible(Effect.suspend(() => {
          this.#lose("Revoked")
          return this.#log(Log.warning, message)
        }))
      } else if (Exit.isSuccess(renewed)) {
        this.#renewed(sending, renewed.value * 1000)
        yield* this.#logRenewed
      }
      return yield* renewed
    })
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
    return this.#log(
      Log.warning,
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

  /** What takes longer than it was meant to shows that this process stood still. */
  #noteDelay() {
    if (this.#unwatched === undefined) return
    const { millis, since } = this.#unwatched
    const { monotonic, wall } = elapsedBy(since, now(this.#clock))
    this.#stoodStill.monotonic += Math.max(0, monotonic - millis)
    this.#stoodStill.wall += Math.max(0, wall - millis)
    this.#unwatched = undefined
  }

  get #renewal(): Renewal {
    return { leaseId: this.id, remaining: Duration.millis(this.#remaining()) }
  }

  #renewed(sent: Instant, ttlMillis: number) {
    this.#recorder.renewal(Duration.millis(elapsed(sent, now(this.#clock))))
    // What is left of the TTL, which is longer than the time for which the lease is trusted.
    const left = this.#validity + this.#marginOf(ttlMillis) - elapsed(this.#sent, now(this.#clock))
    this.#recorder.margin(left / ttlMillis * 100)
    this.#stoodStill = { monotonic: 0, wall: 0 }
    this.#error = undefined
    this.#sent = sent
    this.#validity = ttlMillis - this.#marginOf(ttlMillis)
    PubSub.publishUnsafe(this.#acknowledged, this.#renewal)
  }

  get #logFailed(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const remaining = this.#remaining()
      const isDanger = this.#logged !== undefined && remaining < this.#validity / 2
      if (this.#logged === "Warn" || (this.#logged === "Debug" && !isDanger)) return Effect.void
      this.#logged = isDanger ? "Warn" : "Debug"
      const left = Duration.format(Duration.millis(Math.round(remaining)))
      const why = this.#error?.message ?? "no answer"
      const message = `Lease ${this.id.toString(16)} could not be renewed, and can be trusted for ${left} more: ${why}`
      return this.#log(isDanger ? Log.warning : Log.debug, message)
    })
  }

  get #logRenewed(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const isWarned = this.#logged === "Warn"
      this.#logged = undefined
      return isWarned ? this.#log(Log.info, `Lease ${this.id.toString(16)} is renewed again`) : Effect.void
    })
  }

  #log(log: typeof Log.warning, message: string): Effect.Effect<void> {
    return log(message, { lease: this.id.toString(16) })
  }

  /** What happened since the last acknowledged request. */
  #story() {
    // If the process has only just woken up, the renewals have not noticed the pause yet.
    this.#noteDelay()
    const { monotonic, wall } = this.#stoodStill
    const notable = (millis: number) =>
      millis < Duration.toMillis(this.ttl) / 10 ? undefined : Duration.millis(Math.round(millis))
    return {
      unacknowledgedFor: Duration.millis(Math.round(this.unacknowledgedFor)),
      stoodStillFor: notable(monotonic),
      // Set back, the wall clock shows less.
      leaptBy: notable(wall - monotonic),
      cause: this.#error
    }
  }

  #lose(reason: LeaseExpired["reason"], description?: string) {
    if (reason !== "Released") this.#gone.openUnsafe()
    if (this.#loss.value !== undefined) return
    const story = reason === "Expired" ? this.#story() : undefined
    // If etcd did not fail, this process lost the time.
    const { cause, leaptBy, stoodStillFor } = story ?? {}
    if (story !== undefined && (cause === undefined || stoodStillFor !== undefined || leaptBy !== undefined)) {
      this.#recorder.renewals(1, "too_late")
    }
    const loss = new LeaseExpired({ leaseId: this.id, reason, description, ...story })
    this.#loss.set(loss)
    for (const entry of this.entries) entry.lose(lostWith(loss))
  }
}

/**
 * For how many whole milliseconds renewals pause after so many failures in a row. All clients of a cluster meet the same
 * failure at once, so they back off, each by its own measure. What no member can cure soon, such as a wrong password,
 * costs etcd much more to refuse than a renewal.
 */
const pauseAfter = (failures: number, error: EtcdError | undefined, period: number): Effect.Effect<number> => {
  const mayPass = error === undefined || error.isTransient || error.reason === "Tls"
  const [first, longest] = mayPass
    ? [Math.min(period / 10, 100), Math.min(period / 5, 1000)]
    : [Math.min(period / 2, 1000), Math.min(period, 4000)]
  const pause = Math.min(first * 2 ** (failures - 1), longest)
  return Effect.map(Random.next, (random) => Math.round(pause * (0.8 + 0.4 * random)))
}

const resultOf = (renewed: Exit.Exit<number, unknown>): "acknowledged" | "revoked" | "failed" => {
  if (Exit.isFailure(renewed)) return "failed"
  return renewed.value <= 0 ? "revoked" : "acknowledged"
}

/** For how many milliseconds the clocks are not compared with the end of the lease. */
const longestUnwatched = 500

export const make = Effect.fnUntraced(function*(options?: Options) {
  const { isManual, marginOf, seconds } = validate(options)
  const clock = yield* Clock.Clock
  const etcd = History.watched(yield* Etcd, clock)
  const recorder = Metrics.leases(yield* Effect.context<never>())
  // Renewals go on while the caller's scope closes, until what runs under the lease has ended.
  const renewing = yield* Scope.make()
  const background = yield* Scope.provide(Background.make, renewing)
  const acknowledged = yield* PubSub.sliding<Renewal>(16)
  const lease = yield* Effect.acquireRelease(
    Effect.map(
      grant(etcd, clock, background, seconds),
      (granted) => new LeaseImpl({ etcd, ...granted, clock, background, isManual, marginOf, acknowledged, recorder })
    ),
    // What runs under the lease ends, then the renewals, then the lease.
    (lease) => Effect.andThen(Leases.orLeftToExpire(lease.id, lease.revoke), Scope.close(renewing, Exit.void))
  )
  yield* Scope.provide(lease.keep, renewing)
  return lease
})

export const isLease = (u: unknown): u is LeaseImpl => {
  if (!Predicate.hasProperty(u, TypeId)) return false
  refuseOther("lease", u)
  return true
}

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

/** The longest TTL that etcd grants. */
export const maxSeconds = 9_000_000_000

/** Returns the TTL to ask for, in seconds, and the safety margin of the TTL that etcd grants, in milliseconds. */
export const validate = (options: Options | undefined) => {
  Check.object("Lease", "options", options, "{ ttl: \"15 seconds\" }")
  const isManual = Check.isManual("Lease", options?.renewal)
  const seconds = options?.ttl === undefined ? 15 : secondsOf(Check.duration(ttlOption, options.ttl))
  if (options?.safetyMargin === undefined) return { isManual, seconds, marginOf: defaultMargin }
  const margin = Duration.toMillis(Check.duration(marginOption(seconds * 1000), options.safetyMargin))
  return { isManual, seconds, marginOf: () => margin }
}

const secondsOf = (duration: Duration.Duration): number => Math.ceil(Duration.toSeconds(duration))

const ttlOption: Check.DurationOption = {
  module: "Lease",
  option: "ttl",
  range: `from 1 second to ${maxSeconds} seconds`,
  accepts: (ttl) => Duration.toSeconds(ttl) >= 1 && secondsOf(ttl) <= maxSeconds,
  example: "15 seconds"
}

const defaultMargin = (ttl: number): number => Math.min(Math.max(ttl / 10, 300), ttl / 2)

const marginOption = (ttl: number): Check.DurationOption => ({
  module: "Lease",
  option: "safetyMargin",
  range: `from 0 to half of the ttl of ${ttl} ms, since renewals are a third of it apart, and each may take a sixth`,
  accepts: (margin) => !Duration.isNegative(margin) && Duration.toMillis(margin) <= ttl / 2,
  example: "2 seconds"
})

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

const elapsedBy = (from: Instant, to: Instant) => ({
  monotonic: Number(to.monotonic - from.monotonic) / 1e6,
  wall: to.wall - from.wall
})

// Monotonic clocks stop while a machine sleeps, wall clocks are set back: the larger elapsed time is the safe one.
const elapsed = (from: Instant, to: Instant): number => {
  const { monotonic, wall } = elapsedBy(from, to)
  return Math.max(monotonic, wall)
}

/** Grants a lease. A heartbeat tells the TTL of one that an earlier attempt has granted, whose answer was lost. */
const grant = (etcd: Etcd["Service"], clock: Clock.Clock, background: Background.Background, seconds: number) =>
  Effect.suspend(() => {
    let sent = now(clock)
    return Effect.flatMap(Leases.grant(etcd, seconds), ({ id, seconds }) => {
      if (seconds !== undefined) return Effect.succeed({ id, ttlMillis: seconds * 1000, sent })
      sent = now(clock)
      return Heartbeat.make(etcd, background, { id, entries: new Set() })(1000).pipe(
        Effect.map((ttl) => ({ id, ttlMillis: ttl * 1000, sent })),
        Effect.tapError(() => Leases.abandon(etcd, id))
      )
    })
  })
