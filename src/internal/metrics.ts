/**
 * What is measured, and the series of it. A series is made once for each set of attributes: to merge them at each update
 * would cost more than the update.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Metric from "effect/Metric"
import type { EtcdError } from "../EtcdError.ts"
import type { Claim } from "./line/discipline.ts"
import { monotonicMillis } from "./monotonic.ts"
import { quietly } from "./quietly.ts"

// -----------------------------------------------------------------------------
// definitions
// -----------------------------------------------------------------------------

type Attributes = Readonly<Record<string, string>>

const counter = (id: string, description: string) => (attributes?: Attributes) =>
  Metric.counter(id, { description, attributes, incremental: true })

const gauge = (id: string, description: string) => (attributes?: Attributes) =>
  Metric.gauge(id, { description, attributes })

const timer = (id: string, description: string) => (attributes?: Attributes) =>
  Metric.timer(id, { description, attributes })

const histogram = (id: string, boundaries: ReadonlyArray<number>, description: string) => (attributes?: Attributes) =>
  Metric.histogram(id, { boundaries, description, attributes })

export const held = gauge("etcd_lock_held", "Locks that this process holds")
export const waiting = gauge("etcd_lock_waiting", "Callers in this process that wait for a lock")
export const oldestWait = gauge(
  "etcd_lock_oldest_wait",
  "For how many milliseconds the longest waiting caller has waited"
)
export const acquisitions = counter("etcd_lock_acquisitions", "Locks that were asked for, by what came of it")
export const contended = counter("etcd_lock_contended", "Locks that were asked for and were not free")
export const losses = counter("etcd_lock_losses", "Locks that were lost while they were held")
export const wait = timer("etcd_lock_wait", "Time from the call until the lock was held")
export const hold = timer("etcd_lock_hold", "Time for which a lock was held")
export const stop = timer("etcd_lock_stop", "Time from the loss of a lock until what ran under it had stopped")
export const renewals = counter("etcd_lock_lease_renewals", "Attempts to renew a lease, by what came of them")
export const renewal = timer("etcd_lock_lease_renewal", "Time until etcd acknowledged a renewal")
export const margin = histogram(
  "etcd_lock_lease_margin",
  Metric.linearBoundaries({ start: 5, width: 5, count: 20 }),
  "How much of the TTL was left when a renewal was acknowledged, in percent"
)
export const leasesRetired = counter(
  "etcd_lock_leases_retired",
  "Leases that got no more locks, for a request whose outcome is unknown"
)
export const entriesReaped = counter(
  "etcd_lock_entries_reaped",
  "Entries that had to be removed after a request whose outcome is unknown"
)
export const requests = counter("etcd_lock_requests", "Requests to etcd, by what came of them")
export const request = timer("etcd_lock_request", "Time until etcd replied")
export const batchSize = histogram(
  "etcd_lock_batch_size",
  Metric.exponentialBoundaries({ start: 1, factor: 2, count: 8 }),
  "Transactions that travelled in one request"
)

// -----------------------------------------------------------------------------
// series
// -----------------------------------------------------------------------------

/** Updates the series that has these values of the attributes that vary. */
interface Recording<Input> {
  (input: Input, ...values: ReadonlyArray<string>): void
}

const recording = <Input>(
  context: Context.Context<never>,
  define: (attributes: Attributes) => Metric.Metric<Input, unknown>,
  attributes: Attributes = {},
  ...varying: ReadonlyArray<string>
): Recording<Input> => {
  const series = new Map<string, Metric.Metric<Input, unknown>>()
  return (input, ...values) => {
    const key = values.join(" ")
    let one = series.get(key)
    if (one === undefined) {
      series.set(
        key,
        one = define({ ...attributes, ...Object.fromEntries(varying.map((name, i) => [name, values[i]!])) })
      )
    }
    const found = one
    quietly(() => found.updateUnsafe(input, context))
  }
}

/**
 * Has a counter's series begin at zero. A monitor takes the first value that it sees of a series for its beginning, and so
 * would miss the first event of each, such as the only loss in the life of a process.
 */
const fromZero = (record: Recording<number>, ...values: ReadonlyArray<string>): Recording<number> => {
  if (values.length === 0) record(0)
  for (const value of values) record(0, value)
  return record
}

/** Makes something once for each registry and set of attributes. */
const perRegistry = <A>(make: (context: Context.Context<never>, attributes: Attributes) => A) => {
  const made = new WeakMap<Metric.MetricRegistry, Map<string, A>>()
  return (context: Context.Context<never>, attributes: Attributes): A => {
    const registry = Context.get(context, Metric.MetricRegistry)
    const key = JSON.stringify([Context.get(context, Metric.CurrentMetricAttributes), attributes])
    let inRegistry = made.get(registry)
    if (inRegistry === undefined) made.set(registry, inRegistry = new Map())
    let found = inRegistry.get(key)
    if (found === undefined) inRegistry.set(key, found = make(context, attributes))
    return found
  }
}

// -----------------------------------------------------------------------------
// locks
// -----------------------------------------------------------------------------

/** What came of asking for a lock. */
export type Result = "acquired" | "refused" | "timeout" | "lost" | "interrupted" | "failed"

/** A call that has not ended. */
export interface Asked {
  readonly clock: Clock.Clock
  /** In milliseconds of its monotonic clock. */
  readonly since: number
}

/** Records what happens to the locks of one recipe, or to those of them that have one label. */
export class LockRecorder {
  readonly #acquisitions: Recording<number>
  readonly #contended: Recording<number>
  readonly #losses: Recording<number>
  readonly #wait: Recording<Duration.Duration>
  readonly #hold: Recording<Duration.Duration>
  readonly #stop: Recording<Duration.Duration>
  readonly #asked = new Set<Asked>()
  #held = 0

  constructor(context: Context.Context<never>, attributes: Attributes) {
    this.#acquisitions = recording(context, acquisitions, attributes, "result")
    this.#contended = recording(context, contended, attributes)
    this.#losses = fromZero(recording(context, losses, attributes, "reason"), "LeaseExpired", "KeyDeleted")
    this.#wait = recording(context, wait, attributes)
    this.#hold = recording(context, hold, attributes)
    this.#stop = recording(context, stop, attributes)
    // It begins at zero, like the losses that it follows.
    quietly(() => stop(attributes).valueUnsafe(context))
    // Computed when the metrics are read, so that they cost nothing before.
    const read = (define: typeof held, value: () => number) =>
      quietly(() =>
        Metric.registerUnsafe(define(attributes), context, {
          get: () => ({ value: value() }),
          update: () => {},
          modify: () => {}
        })
      )
    read(held, () => this.#held)
    read(waiting, () => this.#asked.size)
    read(oldestWait, () => {
      const oldest = this.#asked.values().next().value
      return oldest === undefined ? 0 : Math.round(monotonicMillis(oldest.clock) - oldest.since)
    })
  }

  /** A caller asks for a lock. Returns what to call with what came of it. */
  asked(clock: Clock.Clock): (result: Result) => void {
    const asked = { clock, since: monotonicMillis(clock) }
    this.#asked.add(asked)
    return (result) => {
      this.#asked.delete(asked)
      this.#acquisitions(1, result)
      if (result === "acquired") this.#wait(Duration.millis(monotonicMillis(clock) - asked.since))
      else if (result === "refused") this.contended()
    }
  }

  /** The lock was not free. */
  contended() {
    this.#contended(1)
  }

  taken() {
    this.#held++
  }

  /** The lock is no longer held. */
  ended(millis: number) {
    this.#held--
    this.#hold(Duration.millis(millis))
  }

  /** The lock was lost while it was held. */
  lost(reason: string) {
    this.#losses(1, reason)
  }

  /** What ran under a lock that was lost has stopped. */
  stopped(millis: number) {
    this.#stop(Duration.millis(millis))
  }
}

/** Returns the recorder of a claim's recipe, and of a label. */
export const locks = (context: Context.Context<never>, { kind }: Claim, label: string | undefined): LockRecorder =>
  lockRecorder(context, label === undefined ? { recipe: recipes[kind] } : { recipe: recipes[kind], lock: label })

const lockRecorder = perRegistry((context, attributes) => new LockRecorder(context, attributes))

const recipes = { lock: "lock", read: "read", write: "write", permits: "semaphore", election: "election" } as const

// -----------------------------------------------------------------------------
// leases and requests
// -----------------------------------------------------------------------------

/** Records the renewals of leases. */
export const leases = (context: Context.Context<never>) => ({
  renewals: fromZero(recording(context, renewals, {}, "result"), "acknowledged", "failed", "revoked", "too_late"),
  renewal: recording(context, renewal),
  margin: recording(context, margin)
})

export type LeaseRecorder = ReturnType<typeof leases>

/** Records requests, each by its method and by `ok` or the reason of its error. */
export const etcdRequests = (context: Context.Context<never>) => {
  const count = recording(context, requests, {}, "method", "outcome")
  const time = recording(context, request, {}, "method", "outcome")
  return (method: EtcdError["method"], outcome: "ok" | "interrupted" | EtcdError["reason"], millis: number) => {
    count(1, method, outcome)
    time(Duration.millis(millis), method, outcome)
  }
}

export const retired = (context: Context.Context<never>) => fromZero(recording(context, leasesRetired))

export const reaped = (context: Context.Context<never>) => fromZero(recording(context, entriesReaped))

export const batches = (context: Context.Context<never>) => recording(context, batchSize)
