/** `etcd-lock watch`: a lock, or the locks under a prefix, as they change. */
import { Etcd, Lock } from "effect-etcd-lock"
import { Argument, Command, TerminalCapabilities } from "effect/cli"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Terminal from "effect/Terminal"
import { json } from "../internal/printable.ts"
import { connection } from "./connection.ts"
import * as Line from "./line.ts"
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
    if (name === "" || name.endsWith("/")) {
      const locks = Lock.listChanges(name)
      if (canAnimate && !isJson) return yield* onScreen(Screen.ofLocks, locks, name || "/")
      const changes = changed(locks)
      yield* isJson ? asJson(Stream.map(changes, Ls.toData)) : asLines(Stream.map(changes, Ls.summary))
    } else {
      const lines = Line.linesOf(name)
      if (canAnimate && !isJson) return yield* onScreen(Screen.ofLock, lines, `${name}/`)
      yield* isJson ? asJson(Stream.map(lines, Line.toData)) : asLines(Stream.map(lines, Line.summary))
    }
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

// -----------------------------------------------------------------------------
// on a terminal
// -----------------------------------------------------------------------------

/** How often etcd is asked whether it is there. */
const askEvery = "1 second"

/** How often it is asked about a lease at most, in milliseconds. */
const askAboutLeaseEvery = 3000

/** The screen that programs have for themselves, which does not scroll, and the cursor. */
const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"

/** Paints what a stream emits, every second. A role that may read the locks may read the key `probe`, which is asked for. */
const onScreen = Effect.fnUntraced(
  function*<A, E, R>(kind: Screen.Kind<A>, all: Stream.Stream<A, E, R>, probe: string) {
    const etcd = yield* Etcd.Etcd
    const terminal = yield* Terminal.Terminal
    const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
    const heard = yield* SubscriptionRef.make<Screen.Heard<A> | undefined>(undefined)
    const display = (text: string) => Effect.orDie(terminal.display(text))
    yield* Effect.acquireRelease(display(enter), () => display(leave))

    const sizes = Stream.fromQueue(yield* terminal.size).pipe(
      Stream.map(({ columns, rows }): Screen.Size => ({
        // A terminal wraps what ends in its last column. One that does not tell its size is taken for a common one.
        columns: (columns || 80) - 1,
        rows: rows || 24,
        cell: 60,
        canColor
      }))
    )

    const followed = all.pipe(
      // The screen tells of an outage.
      Stream.provideService(References.MinimumLogLevel, "None"),
      Stream.runForEach((shown) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) =>
          SubscriptionRef.update(heard, (before): Screen.Heard<A> => ({
            renewals: new Map(),
            ...before,
            shown,
            at,
            trouble: undefined
          })))
      )
    )

    const ask = Effect.fnUntraced(function*({ renewals, shown }: Screen.Heard<A>) {
      const now = yield* Clock.currentTimeMillis
      const rows = yield* terminal.rows
      yield* etcd.range({ ...Etcd.get(probe), keysOnly: true })
      const leases = new Set(kind.holders(shown).slice(0, rows || 24).map(({ leaseId }) => leaseId))
      const isKnown = (lease: bigint) => now - (renewals.get(lease)?.at ?? -Infinity) < askAboutLeaseEvery
      const answers = yield* Effect.forEach(
        leases,
        (lease) =>
          isKnown(lease)
            ? Effect.succeed([lease, renewals.get(lease)!] as const)
            : Effect.map(etcd.leaseTimeToLive(lease), ({ granted, remaining }) =>
              [lease, {
                at: now,
                remaining: Duration.seconds(Math.max(0, remaining)),
                notRenewedFor: remaining < 0 ? undefined : Duration.seconds(granted - remaining)
              }] as const),
        { concurrency: 16 }
      )
      const at = yield* Clock.currentTimeMillis
      return { at, renewals: new Map(answers), trouble: undefined }
    })

    const asked = Effect.gen(function*() {
      const before = yield* SubscriptionRef.get(heard)
      if (before === undefined) return
      const news = yield* Effect.catch(ask(before), ({ message }) => Effect.succeed({ trouble: message }))
      yield* SubscriptionRef.update(heard, (now) => now && { ...now, ...news })
    }).pipe(Effect.repeat(Schedule.spaced(askEvery)))

    const painted = Stream.zipLatestAll(sizes, SubscriptionRef.changes(heard), Stream.tick("1 second")).pipe(
      Stream.runForEach(([size, heard]) =>
        Effect.flatMap(
          Clock.currentTimeMillis,
          (now) => heard === undefined ? Effect.void : display(Screen.overwrite(Screen.paint(kind, heard, now, size)))
        )
      )
    )

    yield* Effect.raceAllFirst([followed, asked, painted])
  },
  Effect.scoped
)

// -----------------------------------------------------------------------------
// elsewhere
// -----------------------------------------------------------------------------

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

/** Emits the locks in which a list differs from the one before, including those that have become free. */
const changed = (lists: Lists): Stream.Stream<Ls.Listed, Stream.Error<Lists>, Stream.Services<Lists>> =>
  Stream.mapAccum(lists, () => new Map<string, Ls.Listed>(), (before, list) => {
    const now = new Map(list.map((lock): [string, Ls.Listed] => [`${lock.layout} ${lock.lock}`, lock]))
    const free = [...before].filter(([id]) => !now.has(id)).map(([, { layout, lock }]): Ls.Listed => (
      { lock, layout, holder: undefined, holding: 0, waiting: 0, next: undefined }
    ))
    const others = [...now].filter(([id, lock]) => !isSame(before.get(id), lock)).map(([, lock]) => lock)
    return [now, [...free, ...others]]
  })

const isSame = (a: Ls.Listed | undefined, b: Ls.Listed) =>
  a !== undefined && a.holder?.key === b.holder?.key && a.holding === b.holding && a.waiting === b.waiting &&
  a.holder?.behind === b.holder?.behind
