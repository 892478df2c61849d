/** `etcd-lock ls`: the locks under a prefix. */
import { Lock } from "effect-etcd-lock"
import { Argument, Command } from "effect/cli"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { json, printable } from "../internal/printable.ts"
import * as Client from "./client.ts"
import { connection } from "./connection.ts"
import { asPrefix, Misuse } from "./ending.ts"
import { waitingText } from "./line.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { type Room, table } from "./table.ts"
import { printed, spoken } from "./words.ts"

export const ls = Command.make("ls", {
  prefix: Argument.String("prefix").pipe(
    Argument.withDescription("What the names begin with. Default: all names."),
    Argument.withDefault("")
  )
}, ({ prefix }) =>
  Effect.gen(function*() {
    const locks = yield* Lock.list(yield* checked(prefix))
    if ((yield* root).json) yield* Effect.forEach(locks, (lock) => Console.log(json(toData(lock))))
    else yield* Console.log(toText(prefix, locks, yield* Clock.currentTimeMillis, yield* printed))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("List the locks that are held."),
    Command.withDescription(
      "Lists the locks that are held: by whom, since when, whether the holder's lease is renewed, how many wait, and for " +
        "how long the first of them has."
    ),
    Command.withExamples([{ command: "etcd-lock ls orders/", description: "All locks whose names begin with orders/" }])
  )

/** Refuses a prefix under which there is never a lock. */
export const checked = (prefix: string): Effect.Effect<string, Misuse> => {
  const slashes = /^\/+/.exec(prefix)?.[0]
  if (slashes === undefined) return Effect.succeed(prefix)
  return Effect.fail(
    new Misuse({
      message: `cannot use the prefix ${JSON.stringify(prefix)}: no name begins with a "/". ${asPrefix(slashes)}`
    })
  )
}

/** A lock that is held, or that was and is free now. */
export type Listed = Omit<Lock.Summary, "holder"> & { readonly holder: Lock.Holder | undefined }

/** There is no lock under a prefix, whatever there is elsewhere. */
export const noneText = (prefix: string): string =>
  prefix === "" ? "No lock is held." : printable(`No lock under '${prefix}' is held.`)

export const toText = (prefix: string, locks: ReadonlyArray<Lock.Summary>, now: number, room: Room): string => {
  if (locks.length === 0) return noneText(prefix)
  const rows = locks.map(({ holder, holding, lock, next, waiting }) => ({
    cells: [
      lock,
      Client.nameOf(holder),
      Client.timeOf(holder.heldSince),
      Client.timeOf(holder.askedAt),
      Client.leaseOf(holder),
      String(holding),
      String(waitingFor({ holder, waiting })),
      Client.ageOf(next?.askedAt, now),
      Client.valueOf(holder)
    ],
    style: Client.isLate(holder) ? "yellow" as const : undefined
  }))
  const header = ["LOCK", "HELD BY", "HELD SINCE", "ASKED AT", "LEASE", "HOLD", "WAIT", "FOR", "VALUE"]
  return table(header, rows, room).join("\n")
}

/** How many wait for a lock, those included that stand behind its holder in its process. */
export const waitingFor = ({ holder, waiting }: Pick<Lock.Summary, "holder" | "waiting">): number =>
  waiting + (holder.behind ?? 0)

export const summary = ({ holder, holding, lock, waiting }: Listed): string => {
  const others = holding > 1 ? ` and ${holding - 1} more` : ""
  const state = holder === undefined ? "is free" : `is held by ${Client.nameOf(holder)}${others}`
  return printable(`'${lock}' ${state}${waitingText(waiting, holder === undefined ? [] : [holder])}`)
}

export const toData = ({ holder, next, ...lock }: Listed) => ({
  ...lock,
  holder: holder === undefined ? null : Client.toData(holder),
  next: next === undefined ? null : Client.toData(next)
})
