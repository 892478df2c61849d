/** Many readers, and a writer behind them. On a real etcd of its own, whose commits are counted. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Lock, ReadWriteLock } from "effect-etcd-lock"
import { isThere, startEtcd } from "../bench/stores.ts"
import { until } from "../support/eventually.ts"
import * as World from "../support/World.ts"

describe("a read-write lock", () => {
  it.live("is held by 64 readers of one process after two commits, when they ask at the same time", () =>
    Effect.gen(function*() {
      const { endpoint, meter } = yield* startEtcd(isThere("tmpfs") ? "tmpfs" : "disk")
      const world = yield* World.make({ endpoint })
      const { run } = yield* world.process()
      const leave = yield* Deferred.make<void>()
      let inside = 0
      const read = Effect.sync(() => inside++).pipe(
        Effect.andThen(Deferred.await(leave)),
        ReadWriteLock.withReadLock("job")
      )
      // Then the session has its lease.
      yield* run(Lock.withLock(Effect.void, "warm"))
      const before = yield* meter
      const readers = yield* Effect.forkChild(
        run(Effect.forEach(Array.from({ length: 64 }), () => read, { concurrency: "unbounded", discard: true })),
        { startImmediately: true }
      )
      yield* until("64 readers", Effect.sync(() => inside === 64))
      const after = yield* meter
      assert.isAtMost(after.commits! - before.commits!, 2)
      yield* Deferred.succeed(leave, undefined)
      yield* Fiber.join(readers)
    }))

  it.live("is given to a writer when the hundred readers before it have left, and to later ones after that", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const processes = yield* Effect.forEach(Array.from({ length: 10 }), () => world.process())
      const events: Array<string> = []
      const note = (event: string) => Effect.sync(() => events.push(event))
      const leave = yield* Effect.forEach(Array.from({ length: 100 }), () => Deferred.make<void>())
      const readers = yield* Effect.forEach(leave, (leave, i) =>
        Effect.forkChild(
          note("in").pipe(
            Effect.andThen(Deferred.await(leave)),
            Effect.andThen(note("out")),
            ReadWriteLock.withReadLock("job"),
            processes[i % 10]!.run
          ),
          { startImmediately: true }
        ))
      yield* until("a hundred readers", Effect.sync(() => events.length === 100))
      const writer = yield* world.process()
      const writing = yield* Effect.forkChild(writer.run(ReadWriteLock.withWriteLock(note("written"), "job")))
      const isInLine = Effect.map(writer.run(ReadWriteLock.inspect("job")), ({ queue }) => queue.length === 1)
      yield* until("the writer", isInLine)
      const late = yield* Effect.forEach(
        processes,
        ({ run }) => Effect.forkChild(run(ReadWriteLock.withReadLock(note("late"), "job")))
      )
      for (const some of leave.slice(1)) yield* Deferred.succeed(some, undefined)
      yield* until("all but one to leave", Effect.sync(() => events.length === 199))
      yield* Effect.sleep(300)
      assert.deepStrictEqual(events, [
        ...Array.from({ length: 100 }, () => "in"),
        ...Array.from({ length: 99 }, () => "out")
      ])
      yield* Deferred.succeed(leave[0]!, undefined)
      yield* Effect.forEach([...readers, writing, ...late], Fiber.join, { discard: true })
      assert.deepStrictEqual(events.slice(199), ["out", "written", ...processes.map(() => "late")])
    }))
})
