/**
 * Sends a request again while that can help, within one budget of time for all
 * attempts.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { EtcdError } from "../../EtcdError.ts"

export interface Retry {
  /**
   * Makes attempts until one succeeds or no other can help. A request that is not idempotent is sent again only as
   * long as etcd certainly refused every attempt.
   */
  <A, R>(
    attempt: (timeout: number) => Effect.Effect<A, EtcdError, R>,
    isIdempotent?: boolean
  ): Effect.Effect<A, EtcdError, R>
}

/**
 * How long one attempt may take, in milliseconds. A request that may be repeated is worth several attempts: a member
 * that hangs must not use up the whole budget.
 */
export const attemptTimeout = (requestTimeout: number): number =>
  Math.max(requestTimeout / 3, Math.min(requestTimeout, 1000))

const backoff = Schedule.min([Schedule.exponential("40 millis"), Schedule.spaced("250 millis")]).pipe(Schedule.jittered)

/** In milliseconds. An attempt that would begin after the budget's end is not worth the wait for it. */
const longestBackoff = 300

/** How many milliseconds requests may take that are of no use later, and each attempt at one. */
export const Patience = Context.Reference<{ readonly budget: number; readonly attempt: number } | undefined>(
  "effect-etcd-lock/internal/etcd/Patience",
  { defaultValue: () => undefined }
)

/**
 * `requestTimeout` is the budget of a request, in milliseconds, counted from when it was asked for. `onFailed` is told of
 * each attempt that has failed.
 */
export const make = (
  requestTimeout: number,
  onFailed: (error: EtcdError, clock: Clock.Clock) => void = () => {}
): Retry => {
  const usual = { budget: requestTimeout, attempt: attemptTimeout(requestTimeout) }

  return (attempt, isIdempotent = true) =>
    Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const { attempt: perAttempt, budget } = fiber.getRef(Patience) ?? usual
      const started = clock.monotonicTimeNanosUnsafe()
      const remaining = () => budget - Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6
      const longest = isIdempotent ? perAttempt : budget
      // The first attempt is outside of `Effect.retry`: nearly every request needs no other, and should not pay for
      // the state, the schedule and the handlers of a retry.
      return Effect.catch(attempt(longest), (first) => {
        onFailed(first, clock)
        let reported = first
        let anyUnknown = first.outcome === "Unknown"
        let timeout = longest
        const isWorthAnother = (error: EtcdError) => {
          if (error !== first) onFailed(error, clock)
          if (error.outcome === "Unknown") anyUnknown = true
          // Prefer an earlier error over a timeout that only our own budget caused.
          if (error.reason !== "Timeout" || timeout >= perAttempt) reported = error
          return error.isTransient && remaining() > longestBackoff && (isIdempotent || !anyUnknown)
        }
        // `Effect.retry` has to see the first error as well, to decide about it and to wait after it.
        let next: typeof attempt = () => {
          next = attempt
          return Effect.fail(first)
        }
        return Effect.suspend(() => {
          if (next === attempt) timeout = Math.min(longest, remaining())
          return next(timeout)
        }).pipe(
          Effect.retry({ schedule: backoff, while: isWorthAnother }),
          Effect.mapError(() => anyUnknown ? asUnknown(reported) : reported)
        )
      })
    })
}

/** That the last attempt was refused says nothing about those before it. */
const asUnknown = (error: EtcdError): EtcdError => {
  if (error.outcome === "Unknown") return error
  const { cause, description, method, reason } = error
  return new EtcdError({ reason, method, description, cause, outcome: "Unknown" })
}
