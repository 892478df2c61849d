import { Cause, Exit, Option } from "effect"

/** What an effect failed with, if it has ended and failed. */
export const failureOf = <A, E>(exit: Exit.Exit<A, E> | undefined): unknown =>
  exit !== undefined && Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** What an effect failed or died with. */
export const defectOf = <A, E>(exit: Exit.Exit<A, E>): unknown =>
  Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
