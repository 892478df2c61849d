/** A line that is too long to be watched as a whole. On a real etcd. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import * as Proxy from "../support/Proxy.ts"
import * as World from "../support/World.ts"

const others = 30

/** A waiter behind other clients' entries. */
const waiting = Effect.fnUntraced(function*(world: World.World, process: World.Process) {
  const { etcd } = world
  const lease = 1n + BigInt(Math.floor(Math.random() * 2 ** 52))
  yield* etcd.leaseGrant(lease, 600)
  for (let i = 0; i < others; i++) yield* etcd.txn({ then: [Etcd.put(`job/other-${i}`, "", { lease })] })
  const fiber = yield* Effect.forkChild(process.run(Lock.withLock(Effect.succeed("done"), "job")))
  yield* world.untilLine("job", others + 1)
  // Its watch stands, which etcd does not show.
  yield* Effect.sleep(300)
  yield* Effect.addFinalizer(() => Effect.exit(etcd.leaseRevoke(lease)))
  const remove = (...numbers: ReadonlyArray<number>) =>
    etcd.txn({ then: numbers.map((i) => Etcd.remove(`job/other-${i}`)), idempotent: true })
  return { fiber, remove }
})

const all = Array.from({ length: others }, (_, i) => i)

const assertWaits = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.map(Effect.sleep(300), () => assert.isUndefined(fiber.pollUnsafe()))

describe.concurrent("a waiter in a long line", () => {
  it.live("takes the next guard when its own leaves, and enters when nobody is before it", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const { fiber, remove } = yield* waiting(world, yield* world.process())
      yield* remove(others - 1)
      yield* remove(3, 4, others - 2)
      yield* assertWaits(fiber)
      yield* remove(...all.slice(1, -2))
      yield* assertWaits(fiber)
      yield* remove(0)
      assert.strictEqual(yield* Fiber.join(fiber), "done")
    }))

  for (const what of ["its own key", "its own key and all that is ahead, in one revision,"]) {
    it.live(`does not enter when ${what} is deleted`, () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const { fiber } = yield* waiting(world, yield* world.process())
        const own = (yield* world.line("job")).at(-1)!
        yield* world.etcd.txn({
          then: [what === "its own key" ? Etcd.remove(own.key) : Etcd.removePrefix("job/")]
        })
        const exit = yield* Fiber.await(fiber)
        assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      }))
  }

  it.live("does not enter when its own key goes right before the last entry ahead of it", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const { fiber, remove } = yield* waiting(world, yield* world.process())
      yield* remove(...all.slice(0, -1))
      const own = (yield* world.line("job")).at(-1)!
      yield* world.etcd.txn({ then: [Etcd.remove(own.key)], idempotent: true })
      yield* remove(others - 1)
      const exit = yield* Fiber.await(fiber)
      assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    }))

  it.live("goes on when its connection is cut while its guard leaves", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const proxy = yield* Proxy.make(world.endpoint)
      const { fiber, remove } = yield* waiting(world, yield* world.process({ endpoint: proxy.endpoint }))
      yield* Effect.andThen(proxy.refuse, proxy.cut)
      yield* remove(...all)
      yield* proxy.accept
      assert.strictEqual(yield* Fiber.join(fiber), "done")
    }))
})

describe("a line of many processes", () => {
  it.live("serves all in order, while some leave from its middle", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const start = yield* Deferred.make<void>()
      const served: Array<number> = []
      const fibers: Array<Fiber.Fiber<unknown, Lock.AcquireError>> = []
      for (let i = 0; i < 40; i++) {
        const { run } = yield* world.process()
        const body = Effect.andThen(i === 0 ? Deferred.await(start) : Effect.void, Effect.sync(() => served.push(i)))
        fibers.push(yield* Effect.forkChild(run(Lock.withLock(body, "job"))))
        yield* world.untilLine("job", i + 1)
      }
      const leave = (i: number) => i % 7 === 3
      for (const [i, fiber] of fibers.entries()) if (leave(i)) yield* Fiber.interrupt(fiber)
      yield* Deferred.succeed(start, undefined)
      for (const [i, fiber] of fibers.entries()) {
        if (!leave(i)) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
      }
      assert.deepStrictEqual(served, fibers.map((_, i) => i).filter((i) => !leave(i)))
    }))
})
