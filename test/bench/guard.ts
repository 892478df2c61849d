/**
 * The regression guard: what this library adds to the raw floor, both measured in
 * the same run, compared with what was committed.
 */
import { Console, Data, Effect } from "effect"
import type { EtcdNotFound } from "../support/EtcdServer.ts"
import { cases } from "./cases.ts"
import { caseOf, type Guarded } from "./results.ts"
import * as Roster from "./roster.ts"
import { measure, type Plan } from "./rounds.ts"
import { spread } from "./statistics.ts"
import type { Disk, StoreFailed } from "./stores.ts"

export class FellBehind extends Data.TaggedError("FellBehind")<{ readonly message: string }> {}

const guarded = ["uncontended", "try", "hand-over-8", "many-64"]

// many short rounds, since what else the machine does passes by both sides of one
const plan: Plan = {
  generations: 4,
  rounds: 10,
  millis: 150,
  warmUpMillis: 1000,
  warmUps: 4,
  heldMillis: 0,
  repeats: 0
}

/** Measures the library's costs as multiples of the floor's: 1 is as fast, 2 takes twice as long. */
export const costs = (
  disk: Disk,
  names = guarded
): Effect.Effect<ReadonlyArray<Guarded>, EtcdNotFound | StoreFailed> =>
  Effect.gen(function*() {
    const roster = yield* Roster.muster([Roster.library, Roster.floor])
    return yield* Effect.forEach(cases.filter(({ name }) => names.includes(name)), (one) =>
      Effect.map(measure(one, roster, disk, plan), ({ absent, case: name, samples }): Guarded => {
        const failed = absent.find(({ why }) =>
          why.startsWith("failed")
        )
        if (failed !== undefined) throw new Error(`${name}: ${failed.name} ${failed.why}`)
        const floor = samples[Roster.floor]!
        const ratios = samples[Roster.library]!.map((sample, i) => sample[one.compared]! / floor[i]![one.compared]!)
        return { case: name, costs: one.compared === "rate" ? ratios.map((ratio) => 1 / ratio) : ratios }
      }))
  })

/**
 * Fails when a cost is higher than the committed one by more than the noise of this
 * measurement and of that one, and is so again when it is measured once more.
 */
export const check = (
  disk: Disk,
  committed: ReadonlyArray<Guarded>
): Effect.Effect<void, FellBehind | EtcdNotFound | StoreFailed> =>
  Effect.gen(function*() {
    const first = yield* judged(yield* costs(disk), committed)
    if (first.length === 0) return
    yield* Console.log(`Measuring ${first.join(", ")} once more`)
    const second = yield* judged(yield* costs(disk, first), committed)
    if (second.length > 0) {
      return yield* new FellBehind({ message: `Slower than what is committed: ${second.join(", ")}` })
    }
  })

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** Prints what is compared, and answers which cases fell behind. */
const judged = (now: ReadonlyArray<Guarded>, committed: ReadonlyArray<Guarded>) =>
  Effect.gen(function*() {
    const behind: Array<string> = []
    for (const { case: name, costs } of now) {
      const here = spread(costs)
      const then = committed.find((one) => one.case === name)
      if (then === undefined) {
        yield* Console.log(`${name}: ${here.median.toFixed(3)} x the floor; nothing committed to compare with`)
        continue
      }
      const before = spread(then.costs)
      const noise = 3 * Math.hypot(errorOfMedian(costs), errorOfMedian(then.costs))
      const isBehind = here.median - before.median > noise
      const verdict = isBehind ? "SLOWER" : noise > before.median / 4 ? "too noisy to tell" : "fine"
      if (isBehind) behind.push(name)
      yield* Console.log(
        `${name}: ${here.median.toFixed(3)} x the floor's ${caseOf(then).compared === "rate" ? "time" : "p50"}, ` +
          `committed ${before.median.toFixed(3)}, allowed up to ${(before.median + noise).toFixed(3)} ` +
          `(noise ${noise.toFixed(3)}): ${verdict}`
      )
    }
    return behind
  })

/** The standard error of the median of so many values, told from their quartiles. */
const errorOfMedian = (values: ReadonlyArray<number>): number => {
  const { q1, q3 } = spread(values)
  return 0.93 * (q3 - q1) / Math.sqrt(values.length)
}
