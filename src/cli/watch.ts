/** `etcd-lock watch`: a lock, or the locks under a prefix, as they change. */
import { Lock } from "effect-etcd-lock"
import { Argument, Command, TerminalCapabilities } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { connection } from "./connection.ts"
import * as Line from "./line.ts"
import * as Ls from "./ls.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { spoken } from "./words.ts"

export const watch = Command.make("watch", {
  name: Argument.String("name").pipe(
    Argument.withDescription("The lock's name, or the beginning of names, with a / at its end.")
  )
}, ({ name }) =>
  Effect.gen(function*() {
    const { json } = yield* root
    const { canAnimate } = yield* TerminalCapabilities.TerminalCapabilities
    const view = json ? "json" : canAnimate ? "screen" : "lines"
    const texts = name.endsWith("/") ? ofPrefix[view](Lock.listChanges(name)) : ofLock[view](Line.linesOf(name))
    yield* Stream.runForEach(Stream.changes(texts), (text) => Console.log(view === "screen" ? clear + text : text))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Show a lock, or those under a prefix, as they change."),
    Command.withDescription(
      "Shows who holds a lock and who waits for it, now and after every change: in place on a terminal, and as a line " +
        "for each change elsewhere."
    ),
    Command.withExamples([
      { command: "etcd-lock watch nightly-report", description: "One lock" },
      { command: "etcd-lock watch orders/ --json", description: "All locks under a prefix, for a program" }
    ])
  )

/** Moves the cursor to the corner of the terminal, and clears it. */
const clear = "\u001b[H\u001b[2J"

type Lines = ReturnType<typeof Line.linesOf>

const ofLock = {
  json: (lines: Lines) => Stream.map(lines, Line.toJson),
  screen: (lines: Lines) => Stream.mapEffect(lines, Line.text),
  lines: (lines: Lines) => Stream.map(lines, Line.summary)
}

type Lists = ReturnType<typeof Lock.listChanges>

const ofPrefix = {
  json: (lists: Lists) => Stream.map(changed(lists), Ls.toJson),
  screen: (lists: Lists) => Stream.mapEffect(lists, Ls.toText),
  lines: (lists: Lists) => Stream.map(changed(lists), Ls.summary)
}

/** Emits the locks in which a list differs from the one before, including those that have become free. */
const changed = (lists: Lists): Stream.Stream<Ls.Listed, Stream.Error<Lists>, Stream.Services<Lists>> =>
  Stream.mapAccum(lists, () => new Map<string, Ls.Listed>(), (before, list) => {
    const now = new Map(list.map((lock): [string, Ls.Listed] => [`${lock.layout} ${lock.lock}`, lock]))
    const free = [...before].filter(([id]) => !now.has(id)).map(([, { layout, lock }]): Ls.Listed => (
      { lock, layout, holder: undefined, holding: 0, waiting: 0 }
    ))
    const others = [...now].filter(([id, lock]) => !isSame(before.get(id), lock)).map(([, lock]) => lock)
    return [now, [...free, ...others]]
  })

const isSame = (a: Ls.Listed | undefined, b: Ls.Listed) =>
  a !== undefined && a.holder?.key === b.holder?.key && a.holding === b.holding && a.waiting === b.waiting &&
  a.holder?.behind === b.holder?.behind
