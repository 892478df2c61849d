/** A short run with a fixed seed; `npm run test:faults` has the long ones. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { cite } from "../promises.ts"
import { check } from "./checks.ts"
import { isHeld, sectionsOf } from "./history.ts"
import * as Nemesis from "./nemesis.ts"
import { ours } from "./plots.ts"
import * as Roster from "./roster.ts"
import { run } from "./run.ts"

describe(`three members under faults (${cite("P1")}, ${cite("P2")}, ${cite("P4")}, ${cite("P5")})`, () => {
  it.live("leave no two holders, no wrong write, no wrong order, and nothing behind", () =>
    Effect.gen(function*() {
      const { command } = yield* Roster.muster("ours")
      const history = yield* run({
        seed: 3,
        millis: 20_000,
        ttl: 4,
        locks: ours.locks,
        tasks: [0, 1, 2].map((i) => ({ kind: "ours", workers: ours.workers(i) })),
        draws: Nemesis.forEveryEtcd,
        commands: { ours: command }
      })
      const { counters, recoveries, violations } = check(history)
      assert.deepStrictEqual(violations.map(({ check, what }) => `${check}: ${what}`), [])
      // It has seen something, too.
      assert.isAbove(history.faults.length, 2)
      for (const { name } of ours.locks) {
        assert.isAbove(
          sectionsOf(history).filter((section) => section.lock === name && isHeld(section)).length,
          10,
          name
        )
      }
      assert.isAbove(recoveries.length, 4)
      assert.isTrue(counters.some(({ applied, counter }) => counter === "fenced" && applied > 10))
    }), 120_000)
})
