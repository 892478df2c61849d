import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/**
 * Runs `self` until it exits or `loss` fails, whichever is first. After a loss
 * `self` is interrupted and awaited, and what it reports while it unwinds is kept
 * beside the loss. `self` does not start at all when the loss came first.
 */
export const supervise = <A, E, R, E2>(
  self: Effect.Effect<A, E, R>,
  loss: Effect.Effect<never, E2>
): Effect.Effect<A, E | E2, R> =>
  Effect.suspend(() => {
    let lost = false
    let own: Exit.Exit<A, E> | undefined
    return Effect.raceFirst(
      // the race starts its sides in order, and not the second when the first has already ended
      Effect.onError(loss, (cause) => {
        lost = !Cause.hasInterruptsOnly(cause)
        return Effect.void
      }),
      Effect.onExit(self, (exit) => {
        own = exit
        return Effect.void
      })
    ).pipe(
      Effect.onExit((): Effect.Effect<void, E> => lost ? Effect.failCause(failures(own)) : Effect.void)
    )
  })

const failures = <E>(exit: Exit.Exit<unknown, E> | undefined): Cause.Cause<E> =>
  exit === undefined || Exit.isSuccess(exit)
    ? Cause.empty
    : Cause.fromReasons(exit.cause.reasons.filter((reason) => !Cause.isInterruptReason(reason)))
