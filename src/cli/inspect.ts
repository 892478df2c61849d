/** `etcd-lock inspect`: who holds a lock and who waits for it. */
import { Argument, Command } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { connection } from "./connection.ts"
import * as Line from "./line.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { spoken } from "./words.ts"

export const inspect = Command.make("inspect", {
  name: Argument.String("name").pipe(Argument.withDescription("The lock's name."))
}, ({ name }) =>
  Effect.gen(function*() {
    const line = yield* Line.lineOf(name)
    yield* Console.log((yield* root).json ? Line.toJson(line) : yield* Line.text(line))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Show who holds a lock and who waits for it."),
    Command.withDescription("Shows who holds a lock and who waits for it, in order, and how long their leases last.")
  )
