/** Many that want a permit, and one that wants all. On a real etcd. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { Lock, Semaphore } from "effect-etcd-lock"
import { isThere, startEtcd } from "../bench/stores.ts"
import { until } from "../support/eventually.ts"
import * as World from "../support/World.ts"

describe("a semaphore", () => {
  it.live("serves a claim to all permits in its turn, under a stream of claims to one", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const of = 4
      let used = 0
      let entered = 0
      const hold = (permits: number, inside: Effect.Effect<unknown>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            used += permits
            entered++
            assert.isAtMost(used, of)
          }),
          () => inside,
          () => Effect.sync(() => (used -= permits))
        ).pipe(Semaphore.withPermits("pool", { permits, of }))
      let isOver = false
      const stream = yield* Effect.forEach(
        Array.from({ length: 6 }),
        () => world.process()
      ).pipe(
        Effect.flatMap(Effect.forEach(({ run }) =>
          Effect.forkChild(Effect.repeat(run(hold(1, Effect.sleep(50))), { until: () => isOver }))
        ))
      )
      yield* until(
        "a stream",
        Effect.sync(() =>
          entered > 20
        )
      )
      const last = yield* world.process()
      const isSeen = yield* Deferred.make<void>()
      let enteredBefore = 0
      const all = yield* Effect.forkChild(
        last.run(hold(of, Effect.andThen(Effect.sync(() => (enteredBefore = entered - 1)), Deferred.await(isSeen))))
      )
      let ahead = 0
      const seen = Effect.map(world.line("pool"), (kvs) => {
        ahead = kvs.findIndex(({ key }) => Buffer.from(key).toString().endsWith(`-${of}of${of}`))
        return ahead >= 0
      })
      yield* until("the claim to all", seen)
      const enteredUntilSeen = entered
      yield* Deferred.succeed(isSeen, undefined)
      yield* Fiber.join(all)
      assert.isAtMost(enteredBefore, enteredUntilSeen + ahead)
      const then = entered
      yield* until("the stream to go on", Effect.sync(() => entered > then + 12))
      isOver = true
      yield* Effect.forEach(stream, Fiber.join, { discard: true })
    }))

  it.live("has as many entries as fit, though 10 000 fibers of a process wait", () =>
    Effect.gen(function*() {
      const { endpoint, meter } = yield* startEtcd(isThere("tmpfs") ? "tmpfs" : "disk")
      const world = yield* World.make({ endpoint })
      const { run } = yield* world.process()
      const of = 8
      const leave = yield* Deferred.make<void>()
      let inside = 0
      let most = 0
      let served = 0
      const one = Effect.acquireUseRelease(
        Effect.sync(() => (most = Math.max(most, ++inside))),
        () => Deferred.await(leave),
        () => Effect.sync(() => (inside--, served++))
      ).pipe(Semaphore.withPermits("pool", { of }))
      yield* run(Lock.withLock(Effect.void, "warm"))
      const before = yield* meter
      const start = yield* Clock.currentTimeMillis
      const waiting = yield* Effect.forkChild(
        run(Effect.forEach(Array.from({ length: 10_000 }), () => one, { concurrency: "unbounded", discard: true })),
        { startImmediately: true }
      )
      yield* until("all permits to be held", Effect.sync(() => inside === of))
      // Whatever else they would ask for.
      yield* Effect.sleep(500)
      assert.lengthOf(yield* world.line("pool"), of)
      const { commits } = yield* meter
      // Besides the entries, the first of them tells how many wait behind it, at most once a second.
      const told = 1 + Math.floor(((yield* Clock.currentTimeMillis) - start) / 1000)
      assert.isAtMost(commits! - before.commits!, of + told)
      yield* Deferred.succeed(leave, undefined)
      yield* until("many to have been served", Effect.sync(() => served > 100))
      assert.isAtMost((yield* world.line("pool")).length, of)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(most, of)
    }))
})
