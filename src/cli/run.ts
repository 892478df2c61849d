/** `etcd-lock run`: a command under a lock. */
import { Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { claimFlags, name, sectionOf } from "./claim.ts"
import { connection } from "./connection.ts"
import { Misuse } from "./ending.ts"
import * as flags from "./flags.ts"
import { commandArgument, commandFlags, hold, lockFlags, wordsOf } from "./holding.ts"
import { spoken } from "./words.ts"

export const run = Command.make("run", {
  ...claimFlags,
  ...lockFlags,
  ...commandFlags,
  once: Flag.String("once").pipe(
    Flag.withMetavar("run-id"),
    Flag.withDescription(
      "Do nothing if the run of this ID has succeeded already, on whichever machine, in the last 7 days."
    ),
    Flag.optional
  ),
  keepFor: flags.duration("keep-for").pipe(
    Flag.withDescription("For how long --once remembers a success. Default: 7d."),
    Flag.optional
  ),
  name,
  command: commandArgument
}, (options) =>
  Effect.gen(function*() {
    const words = yield* wordsOf(options)
    if (Option.isNone(words)) {
      const instead = `To hold the lock without one, write etcd-lock hold ${JSON.stringify(options.name)}.`
      return yield* new Misuse({ message: `run needs a command. ${instead}` })
    }
    const section = yield* sectionOf(options)
    yield* hold(options, words, section, Option.isSome(options.once))
  }).pipe(Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Run a command under a lock."),
    Command.withDescription(
      "Waits for the lock, runs the command, and releases the lock when the command has ended. Ends as the command did."
    ),
    Command.withExamples([
      { command: "etcd-lock run nightly-report -- ./report.sh --all", description: "One at a time, on all machines" },
      { command: "etcd-lock run -n -E 0 backup ./backup.sh", description: "Do nothing if another machine does it" },
      { command: "etcd-lock run --once \"$(date +%F)\" nightly ./job.sh", description: "Once a day on many machines" },
      { command: "etcd-lock run --of 4 crawler ./crawl.sh", description: "Four at a time" },
      { command: "etcd-lock run -w 30s deploy -c 'make && make install'", description: "Wait for half a minute" }
    ])
  )
