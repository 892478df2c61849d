import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import { BodySuccess } from "../BodySuccess.ts"

/** Calls its listener once at most, and returns how to unsubscribe it. */
export interface OnLoss<E> {
  (listener: (loss: E) => void): () => void
}

/** What bodies run for: a lock that is held, or a lease. */
export interface Owner {
  readonly key: string
}

/** The bodies that run under one lease. A lock or the lease is given away when they have ended. */
export class Bodies {
  readonly #running = new Map<Owner, number>()
  /** By owner: a lease that is lost ends the bodies of thousands, one after the other. */
  readonly #listeners = new Map<Owner, Set<() => void>>()
  readonly #idle = new Set<() => void>()

  start(owner: Owner) {
    this.#running.set(owner, (this.#running.get(owner) ?? 0) + 1)
  }

  end(owner: Owner) {
    const running = this.#running.get(owner)! - 1
    if (running > 0) return void this.#running.set(owner, running)
    this.#running.delete(owner)
    const listeners = this.#listeners.get(owner)
    this.#listeners.delete(owner)
    for (const done of listeners ?? []) done()
    if (this.#running.size > 0) return
    for (const done of this.#idle) done()
    this.#idle.clear()
  }

  isRunning(owner: Owner): boolean {
    return this.#running.has(owner)
  }

  get owners(): ReadonlyArray<Owner> {
    return [...this.#running.keys()]
  }

  /** Calls `done` as soon as no body of the owner runs, at once if none does. */
  onEnd(owner: Owner, done: () => void): void {
    if (!this.#running.has(owner)) return done()
    const listeners = this.#listeners.get(owner)
    if (listeners === undefined) this.#listeners.set(owner, new Set([done]))
    else listeners.add(done)
  }

  /** Ends as soon as no body runs at all. */
  readonly ended: Effect.Effect<void> = Effect.callback((resume) => {
    const done = () => resume(Effect.void)
    if (this.#running.size === 0) return done()
    this.#idle.add(done)
    return Effect.sync(() => this.#idle.delete(done))
  })
}

/** Never succeeds; fails with the loss. */
export const awaitLoss = <E>(onLoss: OnLoss<E>): Effect.Effect<never, E> =>
  Effect.callback((resume) => {
    const unsubscribe = onLoss((loss) => resume(Effect.fail(loss)))
    return Effect.sync(unsubscribe)
  })

/**
 * Runs `self` as a body of `owner` until it exits or `onLoss` reports a loss, whichever
 * comes first. After a loss `self` is interrupted and awaited, and what it
 * fails with while it unwinds is kept beside the loss, even when the caller is
 * interrupted. `self` does not start at all when the loss came first, and is no success when
 * the loss is found at its end.
 */
export const supervise = <A, E, R, E2>(
  self: Effect.Effect<A, E, R>,
  onLoss: OnLoss<E2>,
  bodies: Bodies,
  owner: Owner
): Effect.Effect<A, E | E2, R> => superviseIn(self, identity, onLoss, bodies, owner)

/** Supervises `self` in a context that is made from the caller's. */
export const superviseIn = <A, E, R, R2, E2>(
  self: Effect.Effect<A, E, R>,
  contextOf: (context: Context.Context<R2>) => Context.Context<R>,
  onLoss: OnLoss<E2>,
  bodies: Bodies,
  owner: Owner
): Effect.Effect<A, E | E2, R2> =>
  Effect.withFiber((parent) =>
    // The child starts and gets its observer in one step, so that no interruption comes between.
    Effect.callback<A, E | E2, R2>((resume) => {
      let lost: Cause.Cause<E2> | undefined
      let child: Fiber.Fiber<A, E> | undefined
      const onLost = (loss: E2) => {
        lost = Cause.fail(loss)
        child?.interruptUnsafe()
      }
      const unsubscribe = onLoss(onLost)
      if (lost !== undefined) return resume(Effect.failCause(lost))
      bodies.start(owner)
      child = Effect.runForkWith(contextOf(parent.context as Context.Context<R2>))(self)
      // The body may have lost its lock by itself, before it first waited.
      if (lost !== undefined) child.interruptUnsafe()
      child.addObserver((exit) => {
        unsubscribe()
        // A body that did not wait let no timer and no event tell of a loss, so the owner is asked again.
        if (lost === undefined) onLoss(onLost)()
        // The caller goes on at once, and is to find that the body has ended.
        bodies.end(owner)
        resume(lost === undefined ? exit : Exit.failCause(besideLoss(lost, withoutInterrupts(exit))))
      })
      // The caller is interrupted: whatever the body dies with meanwhile belongs beside the interruption.
      return Effect.flatMap(Effect.andThen(Fiber.interrupt(child), Fiber.await(child)), (exit) => {
        const own = withoutInterrupts(exit)
        // The types know of no errors beside an interruption; causes do.
        const cause = besideLoss(lost ?? Cause.empty, own) as Cause.Cause<never>
        return cause.reasons.length === 0 ? Effect.void : Effect.failCause(cause)
      })
    })
  )

/** A loss, which comes first, and beside it what the body ended with. */
export const besideLoss = <E, E2>(lost: Cause.Cause<E2>, exit: Exit.Exit<unknown, E>): Cause.Cause<E | E2> =>
  Exit.isSuccess(exit)
    ? Cause.annotate(lost, Context.make(BodySuccess, exit.value))
    : Cause.combine(lost, exit.cause)

const withoutInterrupts = <A, E>(exit: Exit.Exit<A, E>): Exit.Exit<A, E> =>
  Exit.isSuccess(exit)
    ? exit
    : Exit.failCause(Cause.fromReasons(exit.cause.reasons.filter((reason) => !Cause.isInterruptReason(reason))))
