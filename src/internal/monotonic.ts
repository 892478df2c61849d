import type * as Clock from "effect/Clock"

/** Milliseconds of a clock that is never set, for everything that is timed within this process. */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
