import * as Effect from "effect/Effect"
import type { Background } from "../background.ts"
import type { EntryLease } from "../line/leaseRef.ts"
import * as Log from "../log.ts"

/** Logs that a lock on a lease was lost. */
export interface LossLog {
  (lease: EntryLease, loss: Loss): void
}

interface Loss {
  readonly message: string
  readonly annotations: Readonly<Record<string, string>>
}

/** How many losses get a warning each when a lease loses many locks at once. */
const maxWarnings = 10

/** A lease may take thousands of locks with it, and a warning for each would drown the cause. */
export const make = (background: Background): LossLog => {
  const losses = new Map<EntryLease, Array<Loss>>()

  const logAll = (lease: EntryLease) =>
    Effect.suspend(() => {
      const all = losses.get(lease)!
      losses.delete(lease)
      const each = Effect.forEach(
        all,
        ({ annotations, message }, i) => (i < maxWarnings ? Log.warning : Log.debug)(message, annotations),
        { discard: true }
      )
      const more = all.length - maxWarnings
      return more <= 0 ? each : Effect.andThen(each, warnOf(lease.id.toString(16), more))
    })

  return (lease, loss) => {
    const others = losses.get(lease)
    if (others !== undefined) return void others.push(loss)
    losses.set(lease, [loss])
    // A lease reports its end to all its locks in one step, which is over after the yield.
    background(Effect.andThen(Effect.yieldNow, logAll(lease)))
  }
}

const warnOf = (lease: string, more: number) =>
  Log.warning(
    more === 1
      ? `1 more lock of lease ${lease} was lost, which is logged at debug`
      : `${more} more locks of lease ${lease} were lost, each of which is logged at debug`,
    { lease }
  )
