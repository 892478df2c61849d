import * as Result from "effect/Result"

/** Runs what is the program's, as its tracer and its metrics are: what it throws ends nothing of ours. */
export const quietly = (run: () => void): void => void Result.try(run)
