import { Effect, type Fiber, Scheduler } from "effect"

/**
 * Runs fibers strictly in the order in which they become ready, which is repeatable, and can tell
 * when nothing is left to do until time passes.
 */
export class Ticks implements Scheduler.Scheduler {
  readonly executionMode = "async"
  private tasks: Array<() => void> = []
  private isScheduled = false
  private ready = 0
  private turns = 0
  private readonly afterTask: () => void

  /** Calls back whenever a fiber has run, before the next one does. */
  constructor(afterTask: () => void = () => {}) {
    this.afterTask = afterTask
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return fiber.currentOpCount >= Scheduler.MaxOpsBeforeYield.defaultValue()
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return {
      scheduleTask: (task) => {
        this.tasks.push(task)
        this.schedule()
      },
      flush: this.run
    }
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    // a turn of the event loop takes longer, but without any there is no end to what is busy for ever
    if (++this.turns % 1000 === 0) setImmediate(this.run)
    else queueMicrotask(this.run)
  }

  private readonly run = (): void => {
    const tasks = this.tasks
    this.tasks = []
    for (const [index, task] of tasks.entries()) {
      this.ready = tasks.length - index - 1
      task()
      this.afterTask()
    }
    this.isScheduled = false
    if (this.tasks.length > 0) this.schedule()
  }

  private readonly microtask = Effect.callback<void>((resume) => queueMicrotask(() => resume(Effect.void)))

  /** Lets all other fibers run until each of them waits for time to pass; answers whether they ever do. */
  readonly settle: Effect.Effect<boolean> = Effect.gen({ self: this }, function*() {
    const patience = this.turns + 10_000
    do {
      while (this.ready + this.tasks.length > 0) {
        if (this.turns > patience) return false
        yield* Effect.yieldNow
      }
      // what goes on in a microtask is not seen
      yield* this.microtask
    } while (this.ready + this.tasks.length > 0)
    return true
  })
}
