import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/** Calls its listener once at most, and returns how to unsubscribe it. */
export interface OnLoss<E> {
  (listener: (loss: E) => void): () => void
}

/** Never succeeds; fails with the loss. */
export const awaitLoss = <E>(onLoss: OnLoss<E>): Effect.Effect<never, E> =>
  Effect.callback((resume) => {
    const unsubscribe = onLoss((loss) => resume(Effect.fail(loss)))
    return Effect.sync(unsubscribe)
  })

/**
 * Runs `self` until it exits or `onLoss` tells of a loss, whichever is first. After
 * a loss `self` is interrupted and awaited, and what it reports while it unwinds is
 * kept beside the loss. `self` does not start at all when the loss came first.
 */
export const supervise = <A, E, R, E2>(
  self: Effect.Effect<A, E, R>,
  onLoss: OnLoss<E2>
): Effect.Effect<A, E | E2, R> =>
  Effect.withFiber((parent) =>
    // begins and ends in one step: no interruption may come between the start of `self` and its watch
    Effect.callback((resume) => {
      let lost: Cause.Cause<E2> | undefined
      let child: Fiber.Fiber<A, E> | undefined
      const unsubscribe = onLoss((loss) => {
        lost = Cause.fail(loss)
        child?.interruptUnsafe()
      })
      if (lost !== undefined) return resume(Effect.failCause(lost))
      child = Effect.runForkWith(parent.context as Context.Context<R>)(self)
      // lost by what `self` did before it first waited
      if (lost !== undefined) child.interruptUnsafe()
      child.addObserver((exit) => {
        unsubscribe()
        resume(lost === undefined ? exit : Exit.failCause(Cause.combine(lost, failures(exit))))
      })
      return Fiber.interrupt(child)
    })
  )

const failures = <E>(exit: Exit.Exit<unknown, E>): Cause.Cause<E> =>
  Exit.isSuccess(exit)
    ? Cause.empty
    : Cause.fromReasons(exit.cause.reasons.filter((reason) => !Cause.isInterruptReason(reason)))
