/**
 * Removes what may be left of entries whose transactions have an unknown outcome.
 *
 * A put may be applied later than its call ended, so one removal is not enough: the entry
 * is removed again and again until no such put can come any more. All
 * entries are removed by the same few transactions. That goes on after the session has ended, for
 * those on a lease that goes on: the user's.
 */
import * as Arr from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
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

/** How many milliseconds a proposal may take inside of etcd: 5 seconds, twice the election timeout, and a margin. */
export const proposalTimeout = 8000

/** Entries of one transaction: etcd takes 128 operations. */
const batchSize = 64

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

  const sweep = Effect.suspend(() => Effect.forEach(Arr.chunksOf(entries.keys(), batchSize), remove, { discard: true }))

  const remove = (some: ReadonlyArray<Entry>) =>
    Effect.suspend(() => {
      const sent = monotonicMillis(clock)
      const removals = some.map(Requests.cleanUp)
      return Effect.match(etcd.txn({ then: removals, idempotent: true }), {
        // An attempt without an answer may come when another entry has the key.
        onSuccess: ({ repeated }) => repeated ? "MayComeLate" : "Over",
        // To try again what etcd will never allow changes nothing.
        onFailure: ({ isTransient, outcome }) =>
          !isTransient ? "Over" : outcome === "Unknown" ? "MayComeLate" : "Refused"
      }).pipe(Effect.map((result) => {
        const latest = monotonicMillis(clock) + proposalTimeout
        for (const entry of some) {
          const leftover = entries.get(entry)
          if (leftover === undefined) continue
          if (result === "MayComeLate") leftover.until = Math.max(leftover.until, latest)
          else if (result === "Over" && sent >= leftover.until) gone(entry)
        }
      }))
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

/** In milliseconds. */
const shortestPause = 200
const longestPause = 5000
