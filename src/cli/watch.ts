/** `etcd-lock watch`: a lock, or the locks under a prefix, as they change. */
import { Lock } from "effect-etcd-lock"
import { Argument, Command, TerminalCapabilities } from "effect/cli"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { json } from "../internal/printable.ts"
import { connection } from "./connection.ts"
import * as Line from "./line.ts"
import * as Live from "./live.ts"
import * as Ls from "./ls.ts"
import { root } from "./root.ts"
import * as Screen from "./screen.ts"
import { untilSignal } from "./signals.ts"
import { spoken } from "./words.ts"

export const watch = Command.make("watch", {
  name: Argument.String("name").pipe(
    Argument.withDescription("The lock's name, or the beginning of names, with a / at its end. Default: all locks."),
    Argument.withDefault("")
  )
}, ({ name }) =>
  Effect.gen(function*() {
    const { json: isJson } = yield* root
    const { canAnimate } = yield* TerminalCapabilities.TerminalCapabilities
    const view = isJson ? "json" : canAnimate ? "screen" : "lines"
    yield* name === "" || name.endsWith("/") ? ofLocks[view](yield* Ls.checked(name)) : ofLock[view](name)
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Show a lock, those under a prefix, or all, as they change."),
    Command.withDescription(
      "Shows who holds a lock, who waits for it, and whether the holder's lease is renewed: in place on a terminal, every " +
        "second, and as a line for each change elsewhere."
    ),
    Command.withExamples([
      { command: "etcd-lock watch", description: "All locks, those with the longest waits first" },
      { command: "etcd-lock watch nightly-report", description: "One lock" },
      { command: "etcd-lock watch orders/ --json", description: "All locks under a prefix, for a program" }
    ])
  )

const ofLock = {
  screen: (name: string) => Live.show(Screen.ofLock, Line.linesOf(name), `${name}/`),
  json: (name: string) => asJson(Stream.map(Line.linesOf(name), Line.toData)),
  lines: (name: string) => asLines(Stream.map(Line.linesOf(name), Line.summary))
}

const ofLocks = {
  screen: (prefix: string) => Live.show(Screen.ofLocks(prefix), Lock.listChanges(prefix), prefix || "/"),
  json: (prefix: string) =>
    asJson(Stream.map(changed(Lock.listChanges(prefix), (lock) => json(Ls.toData(lock))), Ls.toData)),
  lines: (prefix: string) => asLines(Stream.map(changed(Lock.listChanges(prefix), Ls.summary), Ls.summary))
}

const now = Effect.map(DateTime.now, DateTime.formatIso)

/** Prints each state once, with when it was seen. */
const asLines = <E, R>(lines: Stream.Stream<string, E, R>) =>
  Stream.runForEach(
    Stream.changes(lines),
    (line) => Effect.flatMap(now, (time) => Console.log(`${time} ${line}`))
  )

const asJson = <E, R>(states: Stream.Stream<object, E, R>) =>
  Stream.runForEach(
    Stream.changesWith(states, (a, b) => json(a) === json(b)),
    (state) => Effect.flatMap(now, (time) => Console.log(json({ time, ...state })))
  )

type Lists = ReturnType<typeof Lock.listChanges>

/** Emits the locks whose texts differ from those in the list before, including those that have become free. */
const changed = (
  lists: Lists,
  textOf: (lock: Ls.Listed) => string
): Stream.Stream<Ls.Listed, Stream.Error<Lists>, Stream.Services<Lists>> =>
  Stream.mapAccum(lists, () => new Map<string, Ls.Listed>(), (before, list) => {
    const now = new Map(list.map((lock): [string, Ls.Listed] => [`${lock.layout} ${lock.lock}`, lock]))
    const free = [...before].filter(([id]) => !now.has(id)).map(([, { layout, lock }]): Ls.Listed => (
      { lock, layout, holder: undefined, holding: 0, waiting: 0, next: undefined }
    ))
    const isSame = (lock: Ls.Listed, former: Ls.Listed | undefined) =>
      former !== undefined && textOf(lock) === textOf(former)
    const others = [...now].filter(([id, lock]) => !isSame(lock, before.get(id))).map(([, lock]) => lock)
    return [now, [...free, ...others]]
  })
