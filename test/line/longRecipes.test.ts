/** Readers, writers and permits in a line that is too long to be watched as a whole. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Etcd, type Lock } from "effect-etcd-lock"
import { Lengths } from "../../src/internal/line/line.ts"
import { failureOf } from "../support/exits.ts"
import { fork, pass, type Process, provideMemory, session, sessionThrough } from "../support/inMemory.ts"
import { otherClient, ownKey } from "../support/otherClient.ts"
import * as Recipes from "../support/recipes.ts"
import { observe } from "../support/watches.ts"

/** A waiter, and what is ahead of it in the line, oldest first, as the keys of other clients end. */
interface Row {
  readonly recipe: Recipes.Recipe
  readonly ahead: ReadonlyArray<string>
  /** Those of them that its turn waits for, in the order in which it watches them, with none gone. */
  readonly guards: ReadonlyArray<number>
  /** Those that may stay when its turn comes. */
  readonly beside: ReadonlyArray<number>
}

const line = (name: (i: number) => string) => Array.from({ length: 30 }, (_, i) => name(i))

const rows: Record<string, Row> = {
  "a lock": { recipe: Recipes.lock(), ahead: line((i) => `7-${i}`), guards: [29], beside: [] },
  "a writer behind readers": {
    recipe: Recipes.write,
    ahead: line((i) => `read/7-${i}`),
    guards: [29],
    beside: []
  },
  "a writer behind both": {
    recipe: Recipes.write,
    ahead: line((i) => i % 3 === 0 ? `write/7-${i}` : `read/7-${i}`),
    guards: [29],
    beside: []
  },
  "a reader behind writers": { recipe: Recipes.read, ahead: line((i) => `write/7-${i}`), guards: [29], beside: [] },
  "a reader behind both": {
    recipe: Recipes.read,
    ahead: line((i) => i % 10 === 5 ? `write/7-${i}` : `read/7-${i}`),
    guards: [25],
    beside: [0, 1, 2, 3, 4, 26, 27, 28, 29]
  },
  "one permit of three": {
    recipe: Recipes.permits(1, 3),
    ahead: line((i) => `7-${i}-1of3`),
    guards: [29, 28, 27],
    beside: [0, 29]
  },
  "two permits of three": {
    recipe: Recipes.permits(2, 3),
    ahead: line((i) => i % 2 === 0 ? `7-${i}-2of3` : `7-${i}-1of3`),
    guards: [28],
    beside: [29]
  },
  "all permits": {
    recipe: Recipes.permits(3, 3),
    ahead: line((i) => `7-${i}-1of3`),
    guards: [29],
    beside: []
  }
}

const keyOf = ({ ahead }: Row, i: number) => `job/${ahead[i]}`

/** Another client's entries, in the order of the row. */
const entries = (row: Row) =>
  Effect.gen(function*() {
    const client = yield* otherClient
    yield* client.put(row.ahead.map((_, i) => keyOf(row, i)))
    return { remove: (...numbers: ReadonlyArray<number>) => client.remove(numbers.map((i) => keyOf(row, i))) }
  })

const wait = ({ recipe }: Row, { run }: Pick<Process, "run">) =>
  Effect.tap(fork(run(recipe.withLock(Effect.succeed("done"), "job"))), () => pass(5))

const keyDeleted = { _tag: "LockLost", reason: "KeyDeleted" } as const

for (const [name, row] of Object.entries(rows)) {
  const all = row.ahead.map((_, i) => i)
  const inTheWay = all.filter((i) => !row.beside.includes(i))

  describe(`in a long line, ${name}`, () => {
    it.effect("watches the nearest entries that cannot all stay, and nothing else", () =>
      Effect.gen(function*() {
        const { remove } = yield* entries(row)
        const watches = observe(yield* Etcd.Etcd)
        const waiting = yield* wait(row, yield* sessionThrough(() => ({ subscribe: watches.subscribe })))
        assert.deepStrictEqual(watches.open(), row.guards.map((i) => keyOf(row, i)))
        yield* remove(...all.filter((i) => !row.guards.includes(i) && !row.beside.includes(i)))
        assert.lengthOf(watches.asked, row.guards.length, "the end of others does not wake it")
        assert.isUndefined(waiting.pollUnsafe())
        yield* fork(Fiber.interrupt(waiting))
        yield* pass("3 seconds")
        assert.deepStrictEqual(watches.open(), [])
      }).pipe(Effect.scoped, provideMemory))

    for (const [how, order] of [["oldest", inTheWay], ["newest", inTheWay.toReversed()]] as const) {
      it.effect(`enters when those in its way have left, the ${how} first, and not before`, () =>
        Effect.gen(function*() {
          const { remove } = yield* entries(row)
          const waiting = yield* wait(row, yield* session())
          for (const i of order) {
            assert.isUndefined(waiting.pollUnsafe(), `before ${i} left`)
            yield* remove(i)
          }
          assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
        }).pipe(Effect.scoped, provideMemory))
    }

    it.effect("goes on when its watches are cut while those in its way leave", () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { remove } = yield* entries(row)
        const waiting = yield* wait(row, yield* session())
        yield* faults.cut
        yield* remove(...inTheWay)
        yield* pass("1 second")
        assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
      }).pipe(Effect.scoped, provideMemory))

    it.effect("notices a guard that went while the watch of it was opened", () =>
      Effect.gen(function*() {
        const { remove } = yield* entries(row)
        const waiting = yield* wait(
          row,
          yield* sessionThrough((etcd) => ({
            subscribe: (options, listener) => Effect.delay(etcd.subscribe(options, listener), 100)
          }))
        )
        yield* remove(...inTheWay)
        yield* Effect.repeat(pass(100), { times: 4 })
        assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
      }).pipe(Effect.scoped, provideMemory))

    it.effect("does not enter when its own key goes in one revision with all that is ahead", () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        yield* entries(row)
        const waiting = yield* wait(row, yield* session())
        yield* faults.deletePrefix("job/")
        yield* pass(5)
        assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, keyDeleted)
      }).pipe(Effect.scoped, provideMemory))

    it.effect("does not enter when its own key went before its guards did", () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { remove } = yield* entries(row)
        const waiting = yield* wait(row, yield* session())
        yield* faults.deleteKey(yield* ownKey)
        yield* remove(...inTheWay)
        assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, keyDeleted)
      }).pipe(Effect.scoped, provideMemory))

    it.effect("hears of its own key's end after two seconds at the latest, whatever its guards do", () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        yield* entries(row)
        const waiting = yield* wait(row, yield* session())
        yield* faults.deleteKey(yield* ownKey)
        yield* pass("2500 millis")
        assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, keyDeleted)
      }).pipe(Effect.scoped, provideMemory))
  })
}

describe("in a line that has become long", () => {
  it.effect("a read of it from before does not make waiters rely on the watch that is closed", () =>
    provideMemory(Effect.gen(function*() {
      const recipe = Recipes.permits(1, 3)
      const { remove } = yield* entries({ recipe, ahead: ["7-0-3of3"], guards: [], beside: [] })
      let joinTakes = 0
      let readTakes = 0
      const late = <A, E>(answer: Effect.Effect<A, E>, takes: number) =>
        Effect.tap(answer, () => takes > 0 ? Effect.sleep(takes) : Effect.void)
      const process = yield* sessionThrough(({ range, subscribe, txn }) => ({
        subscribe: (options, listener) => Effect.delay(subscribe(options, listener), 50),
        txn: (request) => Effect.suspend(() => late(txn(request), joinTakes)),
        range: (request) => Effect.suspend(() => late(range(request), readTakes))
      })).pipe(Effect.provideService(Lengths, { short: 3, long: 3, longest: 3 }))
      const join = Effect.tap(fork(process.run(recipe.withLock(Effect.succeed("done"), "job"))), () => pass(5))
      const first = yield* join
      // The watch that the first one opens is younger than the second one, so the line is read, and that takes long.
      joinTakes = 100
      const second = yield* join
      joinTakes = 0
      yield* pass(60)
      readTakes = 1000
      yield* pass(40)
      readTakes = 0
      // With the third one the line is a long one, and all look for guards.
      const third = yield* join
      yield* pass(1000)
      yield* remove(0)
      yield* pass(1000)
      assert.deepStrictEqual(
        [first, second, third].map((waiting) => waiting.pollUnsafe()),
        [1, 2, 3].map(() => Exit.succeed("done"))
      )
    })))
})
