/**
 * Removes what may be left of entries whose transactions have an unknown outcome.
 *
 * A put may be applied later than its call ended, so one removal is not enough: the entry is removed again and again until
 * no such put can come any more, or its lease has ended. All entries are removed by the same few transactions, and each
 * alone where etcd refuses them together. That goes on after the session has ended, for those on a lease that goes on: the
 * user's.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import * as Batch from "../etcd/batch.ts"
import * as Metrics from "../metrics.ts"
import { monotonicMillis } from "../monotonic.ts"
import type { Entry } from "./entry.ts"
import * as Requests from "./requests.ts"

export interface Cleanup {
  readonly add: (entry: Entry) => void
}

interface Leftover {
  /** When its last put, or a removal of it that had no answer, has come at the latest, if it comes. */
  until: number
  readonly unsubscribe: () => void
}

/**
 * How many milliseconds a proposal may take inside of etcd: 5 seconds, and twice the election timeout, which etcd tells no
 * client. This covers 1.5 seconds, and the default is 1.
 */
export const proposalTimeout = 8000

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  /** Called when nothing of the entry is in etcd, nor will be. */
  onGone: (entry: Entry) => void
): Cleanup => {
  const patience = Duration.toMillis(etcd.requestTimeout) + proposalTimeout
  const fork = Effect.runForkWith(background.context)
  const recordReaped = Metrics.reaped(background.context)
  // The session's own batch ends with it.
  const batch = Batch.make(etcd, clock, Object.assign(fork, { context: background.context }))
  const entries = new Map<Entry, Leftover>()
  const added = Latch.makeUnsafe()
  let sweeping: Fiber.Fiber<void> | undefined

  const add: Cleanup["add"] = (entry) => {
    const { lease } = entry.ref
    // With its lease an entry goes by itself.
    if (!lease.isAlive()) return onGone(entry)
    entries.set(entry, {
      until: monotonicMillis(clock) + patience,
      unsubscribe: lease.onLoss(() => gone(entry))
    })
    added.openUnsafe()
    sweeping ??= fork(run)
  }

  const run = Effect.gen(function*() {
    let pause = shortestPause
    while (true) {
      added.closeUnsafe()
      yield* sweep
      const isNew = Option.isSome(yield* Effect.timeoutOption(added.await, pause))
      pause = isNew ? shortestPause : Math.min(pause * 2, longestPause)
    }
  })

  const sweep = Effect.suspend(() =>
    Effect.forEach([...entries], ([entry, leftover]) => remove(entry, leftover), {
      concurrency: "unbounded",
      discard: true
    })
  )

  const remove = (entry: Entry, leftover: Leftover) =>
    Effect.callback<void>((resume) => {
      const sent = monotonicMillis(clock)
      // Its own key as the line: removals do not read, so those of one line may travel together.
      batch.send(entry.key, Requests.cleanUp(entry), (exit) => {
        if (entries.has(entry)) {
          const result = Exit.match(exit, { onSuccess: ofAnswer, onFailure: ofFailure })
          const latest = monotonicMillis(clock) + proposalTimeout
          if (result === "MayComeLate") leftover.until = Math.max(leftover.until, latest)
          else if (result === "Over" && sent >= leftover.until) gone(entry)
        }
        resume(Effect.void)
      })
    })

  const gone = (entry: Entry) => {
    entries.get(entry)?.unsubscribe()
    entries.delete(entry)
    recordReaped(1)
    onGone(entry)
    if (entries.size > 0) return
    sweeping?.interruptUnsafe()
    sweeping = undefined
  }

  return { add }
}

// An attempt without an answer may come when another entry has the key.
const ofAnswer = ({ repeated }: { readonly repeated: boolean }) => repeated ? "MayComeLate" : "Over"

// What etcd refuses now, it may allow later: a role may be given back. Until then it blocks its line, unless its lease ends.
const ofFailure = (cause: Cause.Cause<Etcd.EtcdError>) =>
  Option.exists(Cause.findErrorOption(cause), ({ outcome }) => outcome === "Refused") ? "Refused" : "MayComeLate"

/** In milliseconds. */
const shortestPause = 200
const longestPause = 5000
