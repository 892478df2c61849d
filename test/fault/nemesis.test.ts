import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Draw, draw, type World } from "./nemesis.ts"
import { dice } from "./random.ts"

const world = {} as World

const at = (...places: ReadonlyArray<string>): Draw => (_, dice) =>
  Effect.succeed({
    name: places.join(),
    at: places,
    millis: dice.between(0, 1000),
    inject: Effect.void,
    mend: Effect.void
  })

const draws = [at("a"), at("a", "b"), at("b", "c"), at("d")]

const rounds = (seed: number) =>
  Effect.map(
    Effect.forEach(Array.from({ length: 100 }, () => dice), (_, i) => draw(draws)(world, dice(seed + i))),
    (rounds) => rounds.map((plans) => plans.map(({ at, millis, name }) => ({ at, millis, name })))
  )

describe("the nemesis", () => {
  it.effect("has several faults at once, and no two at the same place", () =>
    Effect.gen(function*() {
      const drawn = yield* rounds(1)
      for (const plans of drawn) {
        const places = plans.flatMap(({ at }) => at)
        assert.strictEqual(new Set(places).size, places.length)
      }
      assert.deepStrictEqual([...new Set(drawn.map(({ length }) => length))].sort(), [1, 2, 3])
    }))

  it.effect("does the same again for the same seed, and else for another", () =>
    Effect.gen(function*() {
      const first = yield* rounds(1)
      assert.deepStrictEqual(yield* rounds(1), first)
      assert.notDeepEqual(yield* rounds(1001), first)
    }))
})

describe("the dice", () => {
  it("fall between both ends, and on either", () => {
    const { between } = dice(7)
    const fallen = Array.from({ length: 1000 }, () => between(2, 5))
    assert.deepStrictEqual([...new Set(fallen)].sort(), [2, 3, 4, 5])
  })

  it("are true as often as they are to be", () => {
    const { percent } = dice(7)
    const times = Array.from({ length: 10_000 }, () => percent(15)).filter(Boolean).length
    assert.approximately(times, 1500, 150)
  })
})
