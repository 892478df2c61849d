/** What the package logs. Loggers are the program's: what one of them throws ends nothing of ours. */
import * as Effect from "effect/Effect"

interface Log {
  (
    message: string | readonly [message: string, cause: unknown],
    annotations?: Record<string, unknown>
  ): Effect.Effect<void>
}

const through =
  (log: (...message: ReadonlyArray<unknown>) => Effect.Effect<void>): Log => (message, annotations = {}) =>
    Effect.catchDefect(
      Effect.annotateLogs(typeof message === "string" ? log(message) : log(...message), annotations),
      () => Effect.void
    )

export const debug = through(Effect.logDebug)
export const info = through(Effect.logInfo)
export const warning = through(Effect.logWarning)
export const error = through(Effect.logError)
