/** `etcd-lock hold`: a lock that is held until a signal comes. */
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { claimFlags, name, sectionOf } from "./claim.ts"
import { connection } from "./connection.ts"
import * as Holding from "./holding.ts"
import { spoken } from "./words.ts"

export const hold = Command.make(
  "hold",
  { ...claimFlags, ...Holding.lockFlags, name },
  (options) =>
    Effect.gen(function*() {
      const section = yield* sectionOf({ ...options, once: Option.none(), keepFor: Option.none() })
      yield* Holding.hold({ ...options, ...Holding.noCommand }, Option.none(), section)
    }).pipe(Effect.provide(connection), spoken)
).pipe(
  Command.withShortDescription("Hold a lock until a signal comes."),
  Command.withDescription(
    "Waits for the lock, prints its key and token as a line of JSON, and holds it until a signal comes."
  ),
  Command.withExamples([
    { command: "etcd-lock hold maintenance", description: "Keep all others out, until Ctrl-C" }
  ])
)
