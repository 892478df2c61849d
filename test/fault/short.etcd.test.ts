/** A short run with a fixed seed; `npm run test:faults` has the long ones. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { cite } from "../promises.ts"
import { check } from "./checks.ts"
import { isHeld, sectionsOf } from "./history.ts"
import * as Nemesis from "./nemesis.ts"
import { ours, recipes } from "./plots.ts"
import * as Roster from "./roster.ts"
import { run } from "./run.ts"

describe(`three members under faults (${cite("P1")}, ${cite("P2")}, ${cite("P4")}, ${cite("P5")})`, () => {
  it.live("leave no two holders, no wrong write, no wrong order, and nothing behind", () =>
    Effect.gen(function*() {
      const { locks, workers } = ours(recipes)
      const { command } = yield* Roster.muster("ours")
      const history = yield* run({
        seed: 3,
        ttl: 4,
        locks,
        tasks: [0, 1, 2].map((i) => ({ kind: "ours", workers: workers(i) })),
        rounds: Nemesis.atRandom(Nemesis.forEveryEtcd, 14_000),
        commands: { ours: command }
      })
      const { counters, recoveries, violations } = check(history)
      assert.deepStrictEqual(violations.map(({ check, what }) => `${check}: ${what}`), [])
      // It has seen something, too: how much depends on how busy the machine is.
      assert.isNotEmpty(history.faults)
      for (const { name } of locks) {
        assert.isAbove(
          sectionsOf(history).filter((section) => section.lock === name && isHeld(section)).length,
          0,
          name
        )
      }
      assert.isNotEmpty(recoveries)
      assert.isTrue(counters.some(({ applied, counter }) => counter === "fenced" && applied > 0))
    }), 120_000)
})
