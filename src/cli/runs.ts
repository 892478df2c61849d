/** `etcd-lock runs` and `forget`: what `run --once` remembers. */
import { Lock } from "effect-etcd-lock"
import { Argument, Command } from "effect/cli"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { json } from "../internal/printable.ts"
import { name } from "./claim.ts"
import { connection } from "./connection.ts"
import { ExitWith } from "./ending.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { table } from "./table.ts"
import { printed, spoken } from "./words.ts"

export const runs = Command.make("runs", { name }, ({ name }) =>
  Effect.gen(function*() {
    const now = yield* DateTime.now
    const rows = (yield* Lock.runs(name)).map(({ host, pid, remaining, run, succeededAt }) => ({
      run,
      host,
      pid,
      succeededAt: isoOf(succeededAt),
      keptUntil: isoOf(remaining && DateTime.addDuration(now, remaining))
    }))
    if ((yield* root).json) return yield* Effect.forEach(rows, (row) => Console.log(json(row)), { discard: true })
    yield* Console.log(
      rows.length === 0
        ? `No run of '${name}' is remembered.`
        : table(
          ["RUN", "SUCCEEDED AT", "ON", "KEPT UNTIL"],
          rows.map(({ host, keptUntil, pid, run, succeededAt }) => ({
            cells: [run, succeededAt ?? "", host === undefined ? "" : `${host}:${pid}`, keptUntil ?? ""]
          })),
          yield* printed
        ).join("\n")
    )
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("List the runs that --once remembers."),
    Command.withDescription(
      "Lists the runs of run --once that have succeeded: which, when, on which machine, and until when they are remembered."
    )
  )

const isoOf = (time: DateTime.Utc | undefined) => time && DateTime.formatIso(time)

export const forget = Command.make("forget", {
  name,
  run: Argument.String("run-id").pipe(Argument.withDescription("The run's ID, as --once has it."))
}, ({ name, run }) =>
  Effect.gen(function*() {
    const what = `The run ${JSON.stringify(run)} of '${name}'`
    if (yield* Lock.forgetRun(name, run)) return yield* Effect.logInfo(`${what} is forgotten`)
    yield* Effect.logWarning(`${what} is not remembered`)
    return yield* new ExitWith({ code: 1 })
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Forget a run that --once remembers."),
    Command.withDescription("Forgets that a run has succeeded, so that run --once runs it again."),
    Command.withExamples([
      { command: "etcd-lock forget nightly 2026-11-27", description: "Yesterday's report was wrong" }
    ])
  )
