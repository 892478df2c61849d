/** Readers, writers and permits in a line that is too long to be watched as a whole. On a real etcd. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { Etcd, type Lock, type Semaphore } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Recipes from "../support/recipes.ts"
import * as World from "../support/World.ts"

interface Row {
  readonly recipe: Recipes.Recipe
  /** What others' keys end with, all of which are in its way. */
  readonly ahead: (i: number, lease: string) => string
  /** How many of the newest may stay when its turn comes. */
  readonly beside: number
}

const rows: Record<string, Row> = {
  "a writer": { recipe: Recipes.write, ahead: (i, lease) => `read/${lease}-${i}`, beside: 0 },
  "a reader": { recipe: Recipes.read, ahead: (i, lease) => `${i < 20 ? "write" : "read"}/${lease}-${i}`, beside: 10 },
  "a claim to permits": {
    recipe: Recipes.permits(2, 4),
    ahead: (i, lease) => `${lease}-${i}-1of4`,
    beside: 2
  }
}

const others = 30

/** A waiter behind other clients' entries. */
const waiting = Effect.fnUntraced(function*({ ahead, recipe }: Row, world: World.World, process: World.Process) {
  const { etcd } = world
  const lease = 1n + BigInt(Math.floor(Math.random() * 2 ** 52))
  const key = (i: number) => `job/${ahead(i, lease.toString(16))}`
  yield* etcd.leaseGrant(lease, 600)
  yield* Effect.addFinalizer(() => Effect.exit(etcd.leaseRevoke(lease)))
  for (let i = 0; i < others; i++) yield* etcd.txn({ then: [Etcd.put(key(i), "", { lease })] })
  const fiber = yield* Effect.forkChild(process.run(recipe.withLock(Effect.succeed("done"), "job")))
  yield* world.untilLine("job", others + 1)
  // Its watches stand, which etcd does not show.
  yield* Effect.sleep(300)
  const remove = (...numbers: ReadonlyArray<number>) =>
    etcd.txn({ then: numbers.map((i) => Etcd.remove(key(i))), idempotent: true })
  return { fiber, remove }
})

const assertWaits = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.map(Effect.sleep(300), () => assert.isUndefined(fiber.pollUnsafe()))

for (const [name, row] of Object.entries(rows)) {
  const inTheWay = Array.from({ length: others - row.beside }, (_, i) => i)

  describe.concurrent(`${name} in a long line`, () => {
    it.live("takes the next guards when its own leave, and enters when none is in its way", () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const { fiber, remove } = yield* waiting(row, world, yield* world.process())
        yield* remove(inTheWay.at(-1)!)
        yield* remove(3, 4, inTheWay.at(-2)!)
        yield* assertWaits(fiber)
        yield* remove(...inTheWay.slice(1, -2))
        yield* assertWaits(fiber)
        yield* remove(0)
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      }))

    for (const what of ["its own key", "its own key and all that is ahead, in one revision,"]) {
      it.live(`does not enter when ${what} is deleted`, () =>
        Effect.gen(function*() {
          const world = yield* World.make()
          const { fiber } = yield* waiting(row, world, yield* world.process())
          const own = (yield* world.line("job")).at(-1)!
          yield* world.etcd.txn({
            then: [what === "its own key" ? Etcd.remove(own.key) : Etcd.removePrefix("job/")]
          })
          const exit = yield* Fiber.await(fiber)
          assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
        }))
    }

    // etcd issue 16221: such a waiter of etcd's own recipe entered.
    it.live("does not enter when its lease is revoked, and then all leave that were in its way", () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const { fiber, remove } = yield* waiting(row, world, yield* world.process())
        yield* world.etcd.leaseRevoke((yield* world.line("job")).at(-1)!.lease)
        yield* remove(...inTheWay)
        assert.include(failureOf(yield* Fiber.await(fiber)) as Lock.LockLost, { _tag: "LockLost" })
      }))

    it.live("goes on when its connection is cut while its guards leave", () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const proxy = yield* Proxy.make(world.endpoint)
        const { fiber, remove } = yield* waiting(row, world, yield* world.process({ endpoint: proxy.endpoint }))
        yield* Effect.andThen(proxy.refuse, proxy.cut)
        yield* remove(...inTheWay)
        yield* proxy.accept
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      }))
  })
}

describe.concurrent("a line of many processes", () => {
  /** Each with whether it excludes all others. */
  const lines: Record<string, ReadonlyArray<readonly [recipe: Recipes.Recipe, isAlone: boolean]>> = {
    "readers and writers": [
      [Recipes.write, true],
      [Recipes.read, false],
      [Recipes.read, false],
      [Recipes.lock(), true],
      [Recipes.read, false]
    ],
    "claims to permits": [
      [Recipes.permits(3, 3), true],
      [Recipes.permits(1, 3), false],
      [Recipes.permits(2, 3), false],
      [Recipes.permits(1, 3), false],
      [Recipes.permits(1, 3), false]
    ]
  }

  for (const [name, recipes] of Object.entries(lines)) {
    it.live(`of ${name} serves those in order who exclude each other, while some leave from its middle`, () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const start = yield* Deferred.make<void>()
        const served: Array<number> = []
        const fibers: Array<Fiber.Fiber<unknown, Semaphore.AcquireError>> = []
        const rowOf = (i: number) => recipes[i % recipes.length]!
        for (let i = 0; i < 40; i++) {
          const { run } = yield* world.process()
          const body = Effect.andThen(i === 0 ? Deferred.await(start) : Effect.void, Effect.sync(() => served.push(i)))
          const [recipe] = rowOf(i)
          fibers.push(yield* Effect.forkChild(run(recipe.withLock(body, "job"))))
          yield* world.untilLine("job", i + 1)
        }
        const leave = (i: number) => i % 7 === 3
        for (const [i, fiber] of fibers.entries()) if (leave(i)) yield* Fiber.interrupt(fiber)
        yield* Deferred.succeed(start, undefined)
        for (const [i, fiber] of fibers.entries()) {
          if (!leave(i)) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
        }
        assert.deepStrictEqual(
          served.toSorted((a, b) => a - b),
          fibers.map((_, i) => i).filter((i) => !leave(i))
        )
        for (const [at, i] of served.entries()) {
          for (const later of served.slice(at + 1)) {
            if (later < i) assert.isFalse(rowOf(i)[1] || rowOf(later)[1], `${i} is served before ${later}`)
          }
        }
      }))
  }
})
