import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { Etcd, Lease, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"

const layout = "single-key"

const memory = Session.layer({ ttl: "15 seconds" }).pipe(Layer.provideMerge(Etcd.layerMemory()))

describe("a single key that is released", () => {
  it.effect("between the refusal and the watch is taken at once", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const other = Effect.provideService(Session.Session, yield* Session.make())
      yield* other(Lock.withLock(Effect.void, "job", { layout }))
      const first = yield* Lock.acquire("job", { layout })
      yield* faults.delay("1 second")
      const second = yield* Effect.forkChild(other(Lock.withLock(Effect.void, "job", { layout })), {
        startImmediately: true
      })
      // the try is applied half a second from now, and the watch one and a half
      yield* TestClock.adjust(300)
      yield* Effect.forkChild(first.release, { startImmediately: true })
      yield* TestClock.adjust("6 seconds")
      assert.isDefined(second.pollUnsafe())
      assert.deepStrictEqual(yield* faults.keys, [])
      yield* faults.delay(0)
    }).pipe(Effect.provide(memory)))
})

describe("an answer that was lost", () => {
  it.effect("is no refusal: the key that one's own put created is one's own", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* Lock.tryWithLock(Effect.void, "warm", { layout })
      yield* faults.drop("Reply", { method: "txn" })
      const fiber = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.tryAcquire("job", { layout })
        yield* lock.verify
        return lock.fencingToken === lock.createRevision
      })))
      yield* TestClock.adjust("5 seconds")
      assert.isTrue(yield* Fiber.join(fiber))
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(Effect.provide(memory)))

  it.effect("for good leaves no key, and does not delete that of a later holder", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const lease = yield* Lease.make({ ttl: "60 seconds" })
      yield* faults.stall
      const attempt = yield* Effect.forkChild(
        Effect.flip(Lock.withLock(Effect.void, "job", { layout, lease })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("6 seconds")
      assert.include((yield* Fiber.join(attempt)) as Etcd.EtcdError, { _tag: "EtcdError", outcome: "Unknown" })
      yield* faults.resume
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* faults.keys, [])
      // on the same lease, with the first put still looked for
      const holding = yield* Effect.forkChild(Lock.withLock(Effect.sleep("30 seconds"), "job", { layout, lease }), {
        startImmediately: true
      })
      yield* TestClock.adjust("29 seconds")
      assert.lengthOf(yield* faults.keys, 1)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(holding)
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(Effect.provide(memory)))
})
