/** `etcd-lock inspect`: who holds a lock and who waits for it. */
import { Argument, Command } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { json } from "../internal/printable.ts"
import { connection } from "./connection.ts"
import * as Line from "./line.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { printed, spoken } from "./words.ts"

export const inspect = Command.make("inspect", {
  name: Argument.String("name").pipe(Argument.withDescription("The lock's name."))
}, ({ name }) =>
  Effect.gen(function*() {
    const line = yield* Line.lineOf(name)
    yield* Console.log((yield* root).json ? json(Line.toData(line)) : Line.text(line, yield* printed))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Show who holds a lock and who waits for it."),
    Command.withDescription(
      "Shows who holds a lock and who waits for it, in order, since when they hold or ask, and when their leases were renewed."
    )
  )
