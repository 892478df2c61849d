/** How a command ends: its exit code, and what it prints of an error. */
import { Etcd, Lock, Semaphore } from "effect-etcd-lock"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** Ends the command with a code. All that there is to print has been printed. */
export class ExitWith extends Data.TaggedError("ExitWith")<{ readonly code: number }> {}

/** Options that do not go together, or that can never work. */
export class Misuse extends Data.TaggedError("Misuse")<{ readonly message: string }> {}

/** Those of sysexits.h where there is one. */
export const codes = {
  misuse: 64,
  unreachable: 69,
  internal: 70,
  output: 74,
  held: 75,
  lost: 76,
  denied: 77,
  configuration: 78,
  displaced: 79,
  notExecutable: 126,
  notFound: 127
}

/** Prints an error in one line, and returns the exit code that it stands for. */
export const report = (cause: Cause.Cause<unknown>): Effect.Effect<number> => {
  const error = Cause.squash(cause)
  if (error instanceof ExitWith) return Effect.succeed(error.code)
  const code = codeOf(error)
  return Effect.as(
    code === codes.internal
      ? Effect.logError("This is a fault of etcd-lock itself.", cause)
      : Effect.logError((error as Error).message),
    code
  )
}

const codeOf = (error: unknown): number => {
  if (error instanceof Misuse || isInvalidOption(error)) return codes.misuse
  if (error instanceof Etcd.EtcdError) return codeOfReason[error.reason] ?? codes.unreachable
  if (error instanceof Config.ConfigError) return codes.configuration
  if (error instanceof Lock.LockNameConflict || error instanceof Semaphore.SemaphoreMismatch) return codes.configuration
  if (error instanceof Lock.LockLost) return codes.lost
  return codes.internal
}

const codeOfReason: { readonly [Reason in Etcd.EtcdErrorReason]?: number } = {
  Tls: codes.configuration,
  InvalidArgument: codes.misuse,
  Unauthenticated: codes.denied,
  PermissionDenied: codes.denied
}

/** The library's own check of an option, such as a lock's name. */
const isInvalidOption = (error: unknown): error is RangeError => error instanceof RangeError && "option" in error
