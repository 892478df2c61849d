/** How a command ends: its exit code, and what it prints of an error. */
import { Etcd, Lock, Semaphore } from "effect-etcd-lock"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import { InvalidOption, isFolder, isName } from "../internal/options.ts"

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

/**
 * Prints an error in one line, and returns the exit code that it stands for. `renamed` has the library's errors speak of the
 * options that were given.
 */
export const report = (
  cause: Cause.Cause<unknown>,
  renamed: (text: string) => string = identity
): Effect.Effect<number> => {
  const error = Cause.squash(cause)
  if (error instanceof ExitWith) return Effect.succeed(error.code)
  const code = codeOf(error)
  return Effect.as(
    code === codes.internal
      ? Effect.logError("This is a fault of etcd-lock itself.", cause)
      : Effect.logError(error instanceof Misuse ? error.message : renamed(messageOf(error as Error))),
    code
  )
}

const messageOf = (error: Error): string => {
  if (error instanceof InvalidOption) {
    const refused = error.describe((option) => named[option] ?? option, cures[error.option])
    const [, slashes, rest] = /the name "(\/+)((?:[^"\\]|\\.)*)"\. /.exec(refused) ?? []
    return slashes !== undefined && isName(rest) && !isFolder(rest)
      ? `${refused} ${asPrefix(slashes)}`
      : refused
  }
  // Its own message begins with the class of its cause.
  return error instanceof Config.ConfigError ? error.cause.message : error.message
}

/** How to reach what begins with slashes. */
export const asPrefix = (slashes: string): string => `Give the "${slashes}" that it begins with as --prefix ${slashes}.`

const codeOf = (error: unknown): number => {
  if (error instanceof Misuse || error instanceof InvalidOption) return codes.misuse
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

/** The options of the library as the command has them, where they have other names. */
const named: Readonly<Record<string, string>> = {
  of: "--of",
  permits: "--permits",
  ttl: "--ttl",
  timeout: "--timeout",
  keepFor: "--keep-for",
  value: "--value",
  metadata: "--metadata",
  run: "the ID of a run"
}

/** Advice on those that the command reads in another way. */
const cures: Readonly<Record<string, string>> = {
  of: "Write how many permits there are for all clients, such as 8.",
  ttl: "Write 15s, or 1m30s.",
  timeout: "Write 15s, or 1m30s.",
  keepFor: "Write 12h, or 7d.",
  value: "Write what observers are to see of this candidate, such as 10.0.0.7:8080.",
  run: "Write what the run is for, such as 2026-11-25."
}
