/** Keeps the screen of `watch` true: it paints what etcd has said, and asks etcd whether it is there. */
import { Etcd } from "effect-etcd-lock"
import { TerminalCapabilities } from "effect/cli"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Terminal from "effect/Terminal"
import { renewalOf } from "../internal/recipe/inspection.ts"
import { codes, ExitWith } from "./ending.ts"
import * as Screen from "./screen.ts"
import { stop, stopAsked } from "./signals.ts"

const every = "1 second"

/** How often etcd is asked about a lease at most, in milliseconds. */
const askAboutLeaseEvery = 3000

/** The screen that programs have for themselves, which does not scroll, without a cursor. */
const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"

/** Shows what a stream emits. The key `probe` is one that a user who may read the locks may read as well. */
export const show = Effect.fnUntraced(
  function*<A, E, R>(kind: Screen.Kind<A>, stream: Stream.Stream<A, E, R>, probe: string) {
    const etcd = yield* Etcd.Etcd
    const terminal = yield* Terminal.Terminal
    const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
    const heard = yield* SubscriptionRef.make<Screen.Heard<A> | undefined>(undefined)
    // A terminal that is gone shows no message either.
    const display = (text: string) =>
      Effect.mapError(terminal.display(text), () => new ExitWith({ code: codes.output }))
    const turns = yield* Semaphore.make(1)
    let isEntered = false
    const left = Effect.suspend(() => {
      if (!isEntered) return Effect.void
      isEntered = false
      return display(leave)
    })
    yield* Effect.addFinalizer(() => Effect.ignore(left))

    const sizes = Stream.map(Stream.fromQueue(yield* terminal.size), (size) => Screen.sizeOf(size, canColor))

    const followed = stream.pipe(
      // The screen tells of an outage itself.
      Stream.provideService(References.MinimumLogLevel, "None"),
      Stream.runForEach(Effect.fnUntraced(function*(shown) {
        const at = yield* Clock.currentTimeMillis
        yield* SubscriptionRef.update(
          heard,
          (before) => ({ renewals: new Map(), ...before, shown, at, trouble: undefined })
        )
      }))
    )

    const askedOf = Effect.fnUntraced(function*(lease: bigint, before: Screen.Asked | undefined, now: number) {
      if (before !== undefined && now - before.at < askAboutLeaseEvery) return before
      return { ...(yield* renewalOf(etcd, lease)), at: now }
    })

    const ask = Effect.fnUntraced(function*({ renewals, shown }: Screen.Heard<A>) {
      yield* etcd.range({ ...Etcd.get(probe), keysOnly: true })
      const now = yield* Clock.currentTimeMillis
      const { rows } = Screen.sizeOf({ columns: 0, rows: yield* terminal.rows }, canColor)
      const leases = new Set(kind.holders(shown).slice(0, rows).map(({ leaseId }) => leaseId))
      const answers = yield* Effect.forEach(
        leases,
        (lease) => Effect.map(askedOf(lease, renewals.get(lease), now), (asked) => [lease, asked] as const),
        { concurrency: 16 }
      )
      return { at: yield* Clock.currentTimeMillis, renewals: new Map(answers), trouble: undefined }
    })

    const asked = Effect.gen(function*() {
      const before = yield* SubscriptionRef.get(heard)
      if (before === undefined) return
      const news = yield* Effect.catch(ask(before), ({ message }) => Effect.succeed({ trouble: message }))
      yield* SubscriptionRef.update(heard, (now) => now && { ...now, ...news })
    }).pipe(Effect.repeat(Schedule.spaced(every)))

    const painted = Stream.zipLatestAll(sizes, SubscriptionRef.changes(heard), Stream.tick(every)).pipe(
      Stream.runForEach(Effect.fnUntraced(function*([size, heard]) {
        if (heard === undefined) return
        const text = Screen.overwrite(Screen.paint(kind, heard, yield* Clock.currentTimeMillis, size))
        yield* turns.withPermit(Effect.suspend(() => {
          const isFirst = !isEntered
          isEntered = true
          return display(isFirst ? enter + text : text)
        }))
      }))
    )

    // The shell has its own screen while this process is stopped, and the next paint takes it back.
    const pausing = Effect.forever(Effect.andThen(stopAsked, turns.withPermit(Effect.andThen(left, stop))))

    yield* Effect.raceAllFirst([followed, asked, painted, pausing])
  },
  Effect.scoped
)
