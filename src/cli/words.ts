/** What the command has to say. It goes to stderr: stdout belongs to what a command prints, or to the command that it runs. */
import { TerminalCapabilities } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import { json, printable } from "../internal/printable.ts"
import { ExitWith, Misuse, report } from "./ending.ts"
import { inOptions, root } from "./root.ts"
import type { Room } from "./table.ts"

const levels: { readonly [Level in LogLevel.LogLevel]?: string } = {
  Warn: "warning: ",
  Error: "error: ",
  Fatal: "error: "
}

const text = Logger.make<unknown, string>(({ cause, logLevel, message }) => {
  const words = [message].flat().map(String).join(" ")
  const trace = cause.reasons.length === 0
    ? ""
    : `\n${String(cause).split("\n").map((line) => printable(line)).join("\n")}`
  return `etcd-lock: ${levels[logLevel] ?? ""}${printable(words)}${trace}`
})

export const layer = (options: {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
}): Layer.Layer<never> =>
  Layer.merge(
    Logger.layer([Logger.withConsoleError(options.json ? Logger.map(Logger.formatStructured, json) : text)]),
    Layer.succeed(References.MinimumLogLevel, options.quiet ? "Error" : options.verbose ? "Debug" : "Info")
  )

/** The room of what is printed once: a terminal breaks long lines, and a program wants all of each. */
export const printed: Effect.Effect<Room> = Effect.map(
  TerminalCapabilities.TerminalCapabilities,
  ({ canAnimate, canColor }) => ({ columns: Infinity, cell: canAnimate ? 60 : Infinity, canColor })
)

/** Runs a command with its words printed as the options ask for, also about what ends it. */
export const spoken = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.flatMap(root, (options) =>
    checked(options).pipe(
      Effect.andThen(self),
      Effect.catchCause((cause) =>
        Effect.flatMap(report(cause, inOptions(options)), (code) => Effect.fail(new ExitWith({ code })))
      ),
      Effect.provide(layer(options))
    ))

const checked = ({ quiet, verbose }: { readonly quiet: boolean; readonly verbose: boolean }) =>
  quiet && verbose
    ? Effect.fail(new Misuse({ message: "--quiet and --verbose contradict each other: give one of them." }))
    : Effect.void
