/** `etcd-lock elect`: a command on the leader. */
import { Election } from "effect-etcd-lock"
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { claimFlags, timeoutOf } from "./claim.ts"
import { connection } from "./connection.ts"
import { commandArgument, commandFlags, hold, lockFlags, wordsOf } from "./holding.ts"
import { spoken } from "./words.ts"

export const elect = Command.make("elect", {
  value: Flag.String("value").pipe(
    Flag.withDescription("What observers see of this candidate, such as its address. Default: the name of its host."),
    Flag.optional
  ),
  nonblock: claimFlags.nonblock,
  ...lockFlags,
  ...commandFlags,
  name: Argument.String("name").pipe(Argument.withDescription("The election's name.")),
  command: commandArgument
}, (options) =>
  Effect.gen(function*() {
    const words = yield* wordsOf(options)
    const timeout = yield* timeoutOf(options)
    const value = Option.getOrUndefined(options.value)
    yield* hold(options, words, Election.withLeadership(options.name, { timeout, value }))
  }).pipe(Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Run a command on the leader."),
    Command.withDescription(
      "Stands in the election, runs the command when it leads, and resigns when the command has ended. Without a command, it " +
        "leads until a signal comes. It leads for one term: after a loss, the service that has started it starts it again."
    ),
    Command.withExamples([
      {
        command: "etcd-lock elect scheduler --value 10.0.0.7:8080 -- ./scheduler",
        description: "One of many schedulers"
      }
    ])
  )
