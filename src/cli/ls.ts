/** `etcd-lock ls`: the locks under a prefix. */
import { Lock } from "effect-etcd-lock"
import { Argument, Command } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { json, printable } from "../internal/printable.ts"
import { connection } from "./connection.ts"
import { clientOf, clientToJson, sinceOf, waitingText } from "./line.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { table } from "./table.ts"
import { spoken } from "./words.ts"

export const ls = Command.make("ls", {
  prefix: Argument.String("prefix").pipe(
    Argument.withDescription("What the names begin with. Default: all names."),
    Argument.withDefault("")
  )
}, ({ prefix }) =>
  Effect.gen(function*() {
    const locks = yield* Lock.list(prefix)
    if ((yield* root).json) yield* Effect.forEach(locks, (lock) => Console.log(toJson(lock)))
    else yield* Console.log(yield* toText(locks))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("List the locks that are held."),
    Command.withDescription("Lists the locks that are held: by whom, since when, and how many wait."),
    Command.withExamples([{ command: "etcd-lock ls orders/", description: "All locks whose names begin with orders/" }])
  )

/** A lock that is held, or that was and is free now. */
export type Listed = Omit<Lock.Summary, "holder"> & { readonly holder: Lock.Holder | undefined }

export const toText = (locks: ReadonlyArray<Lock.Summary>): Effect.Effect<string> =>
  locks.length === 0
    ? Effect.succeed("No lock is held.")
    : table(
      ["LOCK", "HELD BY", "SINCE", "HOLD", "WAIT"],
      locks.map(({ holder, holding, lock, waiting }) => [
        lock,
        clientOf(holder),
        sinceOf(holder),
        String(holding),
        String(waiting + (holder.behind ?? 0))
      ])
    )

export const summary = ({ holder, holding, lock, waiting }: Listed): string => {
  const others = holding > 1 ? ` and ${holding - 1} more` : ""
  const state = holder === undefined ? "is free" : `is held by ${clientOf(holder)}${others}`
  return printable(`'${lock}' ${state}${waitingText(waiting, holder === undefined ? [] : [holder])}`)
}

export const toJson = ({ holder, ...lock }: Listed): string =>
  json({ ...lock, holder: holder === undefined ? null : clientToJson(holder) })
