/** `etcd-lock release`: takes a lock away from who holds it. */
import { Lock, ReadWriteLock } from "effect-etcd-lock"
import { Argument, Command, Flag, Prompt, TerminalCapabilities } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Client from "./client.ts"
import { connection } from "./connection.ts"
import { codes, ExitWith, Misuse } from "./ending.ts"
import * as flags from "./flags.ts"
import * as Line from "./line.ts"
import { untilSignal } from "./signals.ts"
import { printed, spoken } from "./words.ts"

export const release = Command.make("release", {
  force: Flag.Boolean("force").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Do not ask."),
    flags.offByDefault
  ),
  name: Argument.String("name").pipe(Argument.withDescription("The lock's name."))
}, ({ force, name }) =>
  Effect.gen(function*() {
    const line = yield* Line.lineOf(name)
    if (line.holders.length === 0) {
      yield* Effect.logWarning(`'${name}' is held by nobody.`)
      return yield* new ExitWith({ code: codes.held })
    }
    if (!force) {
      const { canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
      if (!canPrompt) {
        return yield* new Misuse({
          message: `${Line.summary(line)}. Without a terminal to ask on, --force is needed to take it away.`
        })
      }
      yield* Console.log(Line.text(line, yield* printed))
      const message = "Take it away? What it runs goes on until it notices, beside the next holder."
      if (!(yield* Prompt.run(Prompt.Confirm({ message })))) return yield* new ExitWith({ code: 1 })
    }
    yield* Effect.forEach(line.holders, ({ claim, client }) =>
      Effect.gen(function*() {
        const { createRevision } = client
        const released = yield* claim === "single key"
          ? Lock.forceRelease(name, { layout: "single-key", createRevision })
          : ReadWriteLock.forceRelease(name, { createRevision })
        const who = Client.nameOf(client)
        yield* Effect.logInfo(
          released ? `'${name}' is taken away from ${who}` : `${who} has released '${name}' by itself`
        )
      }))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Take a lock away from its holder."),
    Command.withDescription(
      "Shows who holds a lock, asks, and deletes the holder's key. A live holder notices within a second, and the next " +
        "one may start before."
    )
  )
