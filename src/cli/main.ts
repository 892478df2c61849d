/** The whole command: from its words to its exit code. */
import { NodeServices } from "@effect/platform-node"
import { CliConfig, type CliError, CliOutput, Command, Completions, Flag, GlobalFlag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { elect } from "./elect.ts"
import { codes, Misuse, report } from "./ending.ts"
import { hold } from "./hold.ts"
import { inspect } from "./inspect.ts"
import { ls } from "./ls.ts"
import { observe } from "./observe.ts"
import { separated } from "./operands.ts"
import { release } from "./release.ts"
import { root } from "./root.ts"
import { run } from "./run.ts"
import { forget, runs } from "./runs.ts"
import * as Signals from "./signals.ts"
import { watch } from "./watch.ts"
import * as Words from "./words.ts"

/** As effect/cli's own, without its `-v`, which is that of `--verbose`. */
const version = GlobalFlag.Action({
  flag: Flag.Boolean("version").pipe(
    Flag.withAlias("V"),
    Flag.withDescription("Show version information"),
    Flag.withDefault(false)
  ),
  run: GlobalFlag.Version.run
})

export const command = root.pipe(
  Command.withSubcommands([run, hold, ls, inspect, watch, release, runs, forget, elect, observe]),
  Command.withGlobalFlags([version])
)

/** Runs the command, and returns its exit code. */
export const main = (words: ReadonlyArray<string>, version: string): Promise<number> => {
  // Without any word, it shows what there is.
  const own = separated(Completions.fromCommand(command), words.length === 0 ? ["help"] : words)
  return checked(words).pipe(
    Effect.andThen(Command.runWith(command, { version, renderErrors: false })(own)),
    Effect.as(words.length === 0 ? codes.misuse : 0),
    Effect.catchTag("ShowHelp", misuse),
    Effect.catchCause((cause) => report(cause)),
    Effect.provide(Layer.mergeAll(
      Signals.layer,
      NodeServices.layer,
      CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Completions] }),
      CliOutput.layerPresenter(presenter),
      Words.layer({ json: asksForJson(own), quiet: false, verbose: false })
    )),
    Effect.runPromise
  )
}

/** Whether messages are JSON, also where the words are none that the parser takes. */
const asksForJson = (own: ReadonlyArray<string>): boolean => {
  const end = own.indexOf("--")
  return own.slice(0, end < 0 ? own.length : end).includes("--json=true")
}

/** Node has put the replacement character where bytes were no UTF-8, so they can reach neither a lock nor a command. */
const checked = (words: ReadonlyArray<string>): Effect.Effect<void, Misuse> => {
  const replaced = words.find((word) => word.includes("\u{fffd}"))
  return replaced === undefined
    ? Effect.void
    : Effect.fail(new Misuse({ message: `The argument ${JSON.stringify(replaced)} is not UTF-8.` }))
}

/** Prints what is asked for on stdout, and nothing else there. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "Help" && event.reason === "Implicit" ? Effect.void : CliOutput.defaultPresenter.present(event)
}

const misuse = ({ commandPath, errors }: CliError.ShowHelp) =>
  Effect.gen(function*() {
    yield* Effect.forEach(errors, (error) => Effect.logError(refusalOf(error)))
    yield* Effect.logInfo(`Try '${commandPath.join(" ")} --help'.`)
    return codes.misuse
  })

/** The parser's errors in one line. It suggests any short option for another one, however different they are. */
const refusalOf = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption": {
      return `There is no option ${error.option}.${
        suggestion(error.suggestions.filter((name) => name.startsWith("--")))
      }`
    }
    case "UnknownSubcommand": {
      return `There is no command ${JSON.stringify(error.subcommand)}.${suggestion(error.suggestions)}`
    }
    case "InvalidValue": {
      const times = /^(\d+) occurrences$/.exec(error.value)?.[1]
      if (times !== undefined) return `--${error.option} is given ${times} times. Give it once.`
      // The checks of an option speak in whole sentences.
      return error.expected.startsWith(`--${error.option}`) ? error.expected : error.message
    }
    default: {
      return error.message
    }
  }
}

const suggestion = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "" : ` Did you mean ${names.join(" or ")}?`
