import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { fork, freezable, pass, provideMemory, session } from "../support/inMemory.ts"

/** Acquires a lock, and lets the test do what ends it. */
const holding = <A, E, R>(use: (handle: Lock.Handle) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(Lock.acquire("job"), use))

const deleteKey = Effect.flatMap(Etcd.Faults, (faults) => faults.deletePrefix("job/"))

const expireLeases = Effect.gen(function*() {
  const faults = yield* Etcd.Faults
  yield* faults.delayWatches("1 minute")
  for (const lease of yield* faults.leases) yield* faults.revokeLease(lease)
})

const lost = (signal: AbortSignal) => {
  assert.isTrue(signal.aborted)
  assert.instanceOf(signal.reason, Lock.LockLost)
  return (signal.reason as Lock.LockLost).reason
}

describe("a handle's signal", () => {
  it.effect.each(
    [
      ["its key is deleted", "KeyDeleted", () => deleteKey],
      ["its lease is lost", "LeaseExpired", () => expireLeases],
      ["it is released", "Released", ({ release }: Lock.Handle) => release]
    ] as const
  )("is aborted with the loss as its reason when %s", ([, reason, end]) =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const aborted: Array<unknown> = []
      const running = yield* holding((handle) =>
        Effect.gen(function*() {
          const { signal } = handle
          signal.addEventListener("abort", () => aborted.push(signal.reason))
          yield* Effect.sleep("2 seconds")
          assert.isFalse(signal.aborted)
          yield* end(handle)
          yield* Effect.sleep("2 seconds")
          assert.strictEqual(lost(signal), reason)
          assert.strictEqual(handle.signal, signal)
          return signal.reason as unknown
        })
      ).pipe(run, fork)
      for (let i = 0; i < 8; i++) yield* pass("500 millis")
      assert.deepStrictEqual(aborted, [yield* Fiber.join(running)])
    })))

  it.effect("is aborted when the scope of the handle, or the section, ends", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      assert.strictEqual(lost(yield* run(holding((handle) => Effect.succeed(handle.signal)))), "Released")
      const inSection = Effect.map(Lock.Current, ({ signal }) => signal)
      assert.strictEqual(lost(yield* run(Lock.withLock(inSection, "job"))), "Released")
    })))

  it.effect("is aborted already when it is asked for after the loss", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const handle = yield* run(holding(Effect.succeed))
      assert.strictEqual(lost(handle.signal), "Released")
    })))

  it.effect("costs nothing unless it is asked for", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const Original = globalThis.AbortController
      let made = 0
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          globalThis.AbortController = class extends Original {
            constructor() {
              super()
              made++
            }
          }
        }),
        () => Effect.sync(() => void (globalThis.AbortController = Original))
      )
      yield* run(Lock.withLock(Effect.void, "job"))
      yield* run(holding((handle) => handle.whileHeld(handle.check)))
      assert.strictEqual(made, 0)
      yield* run(holding((handle) => Effect.sync(() => [handle.signal, handle.signal])))
      assert.strictEqual(made, 1)
    })))
})

describe("what remains of a lock", () => {
  it.effect("is nothing once it is lost, although its lease goes on", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      yield* run(holding((handle) =>
        Effect.gen(function*() {
          assert.isAbove(Duration.toSeconds(yield* handle.remaining), 50)
          yield* deleteKey
          yield* Effect.flip(handle.verify)
          assert.strictEqual(Duration.toMillis(yield* handle.remaining), 0)
          assert.lengthOf(yield* faults.leases, 1)
        })
      ))
    })))
})

describe("isHeldUnsafe", () => {
  it.effect("says what `check` says, without an effect", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const acquired = yield* Deferred.make<Lock.Handle>()
      const running = yield* fork(
        run(holding((handle) => Effect.andThen(Deferred.succeed(acquired, handle), handle.awaitLoss)))
      )
      const handle = yield* Deferred.await(acquired)
      assert.strictEqual(handle.lock, "job")
      assert.isTrue(handle.isHeldUnsafe())
      yield* pass("1 second")
      assert.isTrue(handle.isHeldUnsafe())
      yield* deleteKey
      yield* pass("1 second")
      assert.isFalse(handle.isHeldUnsafe())
      yield* Effect.exit(Fiber.join(running))
    })))

  it.effect("is false once the handle is released", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const handle = yield* run(holding((handle) => Effect.as(handle.whileHeld(Effect.void), handle)))
      assert.isFalse(handle.isHeldUnsafe())
    })))

  it.effect("is false after a pause, before any timer has run", () =>
    provideMemory(Effect.gen(function*() {
      const { freeze, process } = yield* freezable
      const held = yield* process.run(holding((handle) =>
        Effect.sync(() => {
          const { isHeldUnsafe } = handle
          const before = isHeldUnsafe()
          freeze()
          return [before, isHeldUnsafe()]
        })
      ))
      assert.deepStrictEqual(held, [true, false])
    })))
})
