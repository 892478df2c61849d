import { type Clock, Duration, Effect, type Fiber, type Metric, type Random, Scheduler } from "effect"

interface Timer {
  readonly at: number
  readonly fire: () => void
}

/**
 * A machine on which nothing happens by itself: fibers run in the order in which they become ready, and only in `settle`,
 * and time passes only in `advanceTo`. All of it is synchronous, so a run of hundreds of steps takes about a millisecond.
 */
export class Machine implements Scheduler.Scheduler, Clock.Clock, Metric.FiberRuntimeMetricsService {
  readonly executionMode = "sync"
  now = 0
  /** How many fibers there are. */
  fibers = 0
  #ready: Array<() => void> = []
  /** The next one is the last. */
  readonly #timers: Array<Timer> = []

  // ---------------------------------------------------------------------------
  // the scheduler
  // ---------------------------------------------------------------------------

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return fiber.currentOpCount >= Scheduler.MaxOpsBeforeYield.defaultValue()
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return { scheduleTask: this.schedule, flush: () => this.settle() }
  }

  readonly schedule = (task: () => void): void => {
    this.#ready.push(task)
  }

  /** Runs until every fiber waits; answers whether they ever do. */
  settle(): boolean {
    for (let rounds = 0; this.#ready.length > 0; rounds++) {
      if (rounds > 10_000) return false
      const tasks = this.#ready
      this.#ready = []
      for (const task of tasks) task()
    }
    return true
  }

  recordFiberStart() {
    this.fibers++
  }

  recordFiberEnd() {
    this.fibers--
  }

  // ---------------------------------------------------------------------------
  // the clock
  // ---------------------------------------------------------------------------

  /** When the next timer fires. */
  get nextTimer(): number | undefined {
    return this.#timers.at(-1)?.at
  }

  advanceTo(now: number) {
    this.now = now
    for (let timer = this.#timers.at(-1); timer !== undefined && timer.at <= now; timer = this.#timers.at(-1)) {
      this.#timers.pop()
      timer.fire()
    }
  }

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const millis = Duration.toMillis(duration)
    if (millis <= 0) return Effect.yieldNow
    if (millis === Infinity) return Effect.never
    return Effect.callback((resume) => {
      const timer: Timer = { at: this.now + millis, fire: () => resume(Effect.void) }
      // Those of one moment fire in the order in which they were set.
      const index = this.#timers.findIndex(({ at }) => at <= timer.at)
      this.#timers.splice(index < 0 ? this.#timers.length : index, 0, timer)
      return Effect.sync(() => {
        const index = this.#timers.indexOf(timer)
        if (index >= 0) this.#timers.splice(index, 1)
      })
    })
  }

  currentTimeMillisUnsafe(): number {
    return this.now
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(Math.round(this.now * 1e6))
  }

  monotonicTimeNanosUnsafe(): bigint {
    return this.currentTimeNanosUnsafe()
  }

  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  /**
   * Runs `body` with what goes around the scheduler brought back to it: microtasks, and random numbers, which are the same
   * in every run.
   */
  inCharge<A>(body: () => A): A {
    const { queueMicrotask } = globalThis
    const { getRandomValues } = crypto
    let last = 1n
    globalThis.queueMicrotask = this.schedule
    crypto.getRandomValues = (array) => {
      if (array instanceof BigUint64Array) array.fill(last = BigInt.asUintN(63, last * 6364136223846793005n + 1n))
      return array
    }
    try {
      return body()
    } finally {
      globalThis.queueMicrotask = queueMicrotask
      crypto.getRandomValues = getRandomValues
    }
  }
}

/** Random numbers of one client, which depend on no other one. */
export const random = (): typeof Random.Random.Service => {
  let state = 1
  const nextDoubleUnsafe = () => (state = state * 48_271 % 2_147_483_647) / 2_147_483_647
  return { nextDoubleUnsafe, nextIntUnsafe: () => Math.floor((nextDoubleUnsafe() * 2 - 1) * Number.MAX_SAFE_INTEGER) }
}
