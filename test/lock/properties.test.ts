/**
 * All recipes under random schedules, on an etcd in memory.
 *
 * A schedule that breaks a promise is shrunk and printed as one line of JSON. To play it again,
 * telling every step:
 *
 *     PROPS_SCHEDULE='{"processes":...}' npx vitest run --project unit test/lock/properties.test.ts
 *
 * `PROPS_SEED` repeats a whole run, and `PROPS_RUNS` says how many schedules it has: 1 000 by default, and 10 000 in
 * `npm test`. Runs of other seeds have other schedules, so that two processes play twice as many as one in the same time:
 *
 *     for seed in a b; do PROPS_SEED=$seed PROPS_RUNS=50000 npx vitest run --project unit test/lock/properties.test.ts & done
 */
import { assert, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { play } from "../support/play.ts"
import * as Schedule from "../support/Schedule.ts"
import { schedules } from "../support/schedules.ts"

const runs = Number(process.env.PROPS_RUNS ?? 1000)
const seed = process.env.PROPS_SEED ?? crypto.randomUUID().slice(0, 8)

const check = (schedule: Schedule.Schedule) =>
  Effect.flatMap(play(schedule), (broken) => broken.length === 0 ? Effect.succeed(true) : Effect.fail(broken))

for (const { about, schedule } of schedules) {
  it.live(`the lock keeps its promises when ${about}`, () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* play(schedule), [])
    }))
}

it.live(
  `the lock keeps its promises under ${runs} random schedules`,
  () =>
    Effect.gen(function*() {
      if (process.env.PROPS_SCHEDULE !== undefined) {
        const trace = (line: string) => void process.stdout.write(`${line}\n`)
        const broken = yield* play(Schedule.decode(process.env.PROPS_SCHEDULE), { trace })
        return assert.deepStrictEqual(broken, [])
      }
      const result = yield* Arbitrary.checkEffect(Schedule.arbitrary, check, { runs, seed, size: 40, maxShrinks: 2000 })
      if (result._tag === "Passed") {
        return
      }
      if (result._tag !== "Falsified") {
        return assert.fail(Arbitrary.formatCheckFailure(result)!)
      }
      const broken = result.failure._tag === "PropertyError" ? result.failure.error : []
      assert.fail(
        `the lock broke its promises in run ${result.runs} with PROPS_SEED=${seed}\n${broken.join("\n")}\n` +
          `play it again with\nPROPS_SCHEDULE='${Schedule.encode(result.shrunkInput)}'`
      )
    }),
  Math.max(600_000, 60 * runs)
)
