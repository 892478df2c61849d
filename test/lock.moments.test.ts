/** Moments of a lock's life that random schedules seldom hit, on an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"

const provideMemory = Effect.provide(Etcd.layerMemory())

const session = (options?: Session.Options) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
    const session = yield* Session.make({ ttl: "3 seconds", ...options }).pipe(Scope.provide(scope))
    return {
      run: Effect.provideService(Session.Session, session),
      close: Scope.close(scope, Exit.void)
    }
  })

const fork = Effect.forkChild({ startImmediately: true })

const failure = <A, E>(exit: Exit.Exit<A, E> | undefined): unknown =>
  exit !== undefined && Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

describe("a handle's own release", () => {
  it.effect("goes to its end when it is interrupted", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job")
        yield* faults.delay("1 second")
        yield* lock.release
      })).pipe(run, fork)
      yield* TestClock.adjust("100 millis")
      const interrupting = yield* fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("900 millis")
      yield* Fiber.join(interrupting)
      yield* faults.heal
      assert.deepStrictEqual(yield* faults.keys, [])
      yield* run(Lock.withLock(Effect.void, "job"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* faults.leases, [], "the lease was not left hanging")
    }).pipe(provideMemory))
})

describe("an idle lease", () => {
  it.effect("does not wait busily where the clock's fractions do not add up", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "2 seconds" })
      // 48.112343 + 2000 - 48.112343 < 2000
      yield* TestClock.adjust(48.112343)
      yield* run(Lock.withLock(Effect.void, "job"))
      const started = performance.now()
      yield* TestClock.adjust("3 seconds")
      assert.isBelow(performance.now() - started, 900, "the test clock gives up on busy fibers after a second")
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))
})

describe("a closed session", () => {
  it.effect("fails whoever waits in its own line, at once", () =>
    Effect.gen(function*() {
      const { close, run } = yield* session()
      const [holder, ...waiting] = yield* Effect.forEach([1, 2, 3], () => fork(run(Lock.withLock(Effect.never, "job"))))
      yield* TestClock.adjust(1)
      yield* close
      yield* TestClock.adjust(1)
      assert.include(failure(holder!.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "LeaseExpired" })
      for (const fiber of waiting) assert.include(failure(fiber.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("fails whoever waits for the lease, or for the answer to a join", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      for (const millis of [500, 1500]) {
        const { close, run } = yield* session()
        yield* faults.delay("1 second")
        const waiting = yield* Effect.forEach([1, 2], () => fork(run(Lock.withLock(Effect.never, "job"))))
        yield* TestClock.adjust(millis)
        yield* faults.heal
        const closing = yield* fork(close)
        yield* TestClock.adjust("2 seconds")
        assert.isDefined(closing.pollUnsafe())
        for (const fiber of waiting) assert.isDefined(failure(fiber.pollUnsafe()), `after ${millis} ms`)
      }
    }).pipe(provideMemory))

  it.effect("fails whoever waits for a single key", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      yield* fork(a.run(Lock.withLock(Effect.never, "job", { layout: "single-key" })))
      yield* TestClock.adjust(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.never, "job", { layout: "single-key" })))
      yield* TestClock.adjust(1)
      yield* b.close
      yield* TestClock.adjust(1)
      assert.include(failure(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("fails whoever still asks it for a lock", () =>
    Effect.gen(function*() {
      const { close, run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "job"))
      yield* close
      const errors = [
        yield* Effect.flip(run(Lock.withLock(Effect.void, "job"))),
        yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "other")))
      ]
      for (const error of errors) assert.include(error as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("does not keep a release from ending", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, run } = yield* session()
      const holder = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* TestClock.adjust(1)
      yield* faults.delay("1 second")
      const interrupting = yield* fork(Fiber.interrupt(holder))
      yield* TestClock.adjust(100)
      const closing = yield* fork(close)
      yield* TestClock.adjust("2 seconds")
      assert.isDefined(interrupting.pollUnsafe())
      assert.isDefined(closing.pollUnsafe())
    }).pipe(provideMemory))
})

describe("a join whose answer was lost", () => {
  it.effect("retires its lease, even when the next answer arrived, since the first may be applied late", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "15 seconds" })
      const leaseOf = (name: string) => run(Effect.scoped(Effect.map(Lock.acquire(name), ({ leaseId }) => leaseId)))
      const lease = yield* leaseOf("job")
      assert.strictEqual(yield* leaseOf("job"), lease)
      yield* faults.drop("Reply", { method: "txn" })
      const repeated = yield* fork(leaseOf("job"))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* Fiber.join(repeated), lease)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* faults.leases, [], "it was revoked when its last holder left")
      assert.notStrictEqual(yield* leaseOf("job"), lease)
    }).pipe(provideMemory))
})
