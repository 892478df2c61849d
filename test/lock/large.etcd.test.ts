/** Lines whose values together are more than an answer of etcd may hold, which is 4 MiB. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { eventually } from "../support/eventually.ts"
import * as World from "../support/World.ts"

const untilWaiting = (world: World.World, name: string, count: number) =>
  eventually(
    Effect.map(
      world.etcd.range({ ...Etcd.getPrefix(`${name}/`), limit: 1, keysOnly: true }),
      (answer) => assert.strictEqual(answer.count, count)
    ),
    20_000
  )

describe.concurrent("a line", () => {
  for (const [count, kilobytes] of [[41, 100], [3, 1400]] as const) {
    it.live(`of ${count} waiters with ${kilobytes} kB of metadata each serves all of them in order`, () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const start = yield* Deferred.make<void>()
        const served: Array<number> = []
        const metadata = { text: "x".repeat(kilobytes * 1000) }
        const holder = yield* world.process()
        const holding = yield* Effect.forkChild(holder.run(Lock.withLock(Deferred.await(start), "job", { metadata })))
        yield* untilWaiting(world, "job", 1)
        const waiting: Array<Fiber.Fiber<unknown, Lock.AcquireError>> = []
        for (let i = 1; i < count; i++) {
          const process = yield* world.process()
          const body = Effect.sync(() => served.push(i))
          waiting.push(yield* Effect.forkChild(process.run(Lock.withLock(body, "job", { metadata }))))
          yield* untilWaiting(world, "job", i + 1)
        }
        const inspected = yield* holder.run(Lock.inspect("job"))
        assert.lengthOf(inspected.queue, count - 1)
        for (const { metadata: seen } of inspected.queue) assert.deepStrictEqual(seen, metadata)
        yield* Deferred.succeed(start, undefined)
        yield* Fiber.join(holding)
        yield* Effect.forEach(waiting, Fiber.join, { discard: true })
        assert.deepStrictEqual(served, Array.from({ length: count - 1 }, (_, i) => i + 1))
      }))
  }

  it.live("of 4000 entries with 1 kB each is waited in, and its first one is named", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const { etcd } = world
      const lease = 1n + BigInt(Math.floor(Math.random() * 2 ** 52))
      yield* etcd.leaseGrant(lease, 600)
      const value = JSON.stringify({
        host: "elsewhere",
        pid: 1,
        since: "2020-01-01T00:00:00Z",
        metadata: { text: "x".repeat(1000) }
      })
      for (let start = 0; start < 4000; start += 100) {
        yield* etcd.txn({ then: [Etcd.put(`job/${start}`, value, { lease })] })
        yield* etcd.txn({
          then: Array.from({ length: 99 }, (_, i) => Etcd.put(`job/${start + i + 1}`, value, { lease }))
        })
      }
      const { run } = yield* world.process()
      const error = yield* Effect.flip(run(Lock.withLock(Effect.void, "job", { timeout: "2 seconds" })))
      assert.include(error as Lock.LockTimeout, { _tag: "LockTimeout" })
      assert.include((error as Lock.LockTimeout).holder ?? {}, { key: "job/0", host: "elsewhere" })
      const { holder, queue } = yield* run(Lock.inspect("job"))
      assert.include(holder ?? {}, { key: "job/0", host: "elsewhere" })
      assert.lengthOf(queue, 3999)
      const last = queue.at(-1)!
      assert.strictEqual(last.host, "elsewhere")
      assert.isTrue(yield* run(Lock.forceRelease("job", { createRevision: last.createRevision })))
      const waiting = yield* Effect.forkChild(run(Lock.withLock(Effect.succeed("done"), "job")))
      yield* untilWaiting(world, "job", 4000)
      yield* etcd.leaseRevoke(lease)
      assert.strictEqual(yield* Fiber.join(waiting), "done")
    }))
})
