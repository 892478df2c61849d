/** A caller whose time is up gives up its place first, and asks who holds the lock then. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, seconds, session } from "../support/inMemory.ts"
import * as Recipes from "../support/recipes.ts"

for (const [name, recipe] of Object.entries(Recipes.exclusive)) {
  describe(`a caller of ${name} whose time is up`, () => {
    const within = (timeout: number) => recipe.withLock(Effect.succeed("ran"), "job", { timeout })

    /** A lock that another process holds, and a caller that waits for one second. */
    const waiting = Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session({ ttl: "1 minute" }), session({ ttl: "1 minute" })])
      yield* fork(a.run(recipe.withLock(Effect.never, "job")))
      yield* pass(1)
      const held = yield* keys
      const caller = yield* fork(b.run(within(1000)))
      yield* pass(1)
      return { a, b, caller, held }
    })

    it.effect("is not told that it holds the lock itself, where it is the first by then", () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { caller, held } = yield* waiting
        yield* faults.delayWatches("1 minute")
        yield* pass(990)
        for (const key of held) yield* faults.deleteKey(key)
        yield* pass(100)
        assert.include(failureOf(caller.pollUnsafe()) as Lock.LockTimeout, { _tag: "LockTimeout", holder: undefined })
        assert.deepStrictEqual(yield* keys, [])
      })))

    it.effect("is not told so, either, where its request is on its way", () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl: "1 minute" })
        yield* run(recipe.withLock(Effect.void, "warm"))
        yield* pass("5 seconds")
        // Applied after 200 ms, answered after 400.
        yield* faults.delay(400)
        const caller = yield* fork(run(within(300)))
        yield* Effect.repeat(pass(100), { times: 10 })
        assert.include(failureOf(caller.pollUnsafe()) as Lock.LockTimeout, { _tag: "LockTimeout", holder: undefined })
        yield* Effect.repeat(pass(100), { times: 10 })
        assert.deepStrictEqual(yield* keys, [])
      })))

    it.effect("has left the line when it asks, so that nobody waits for the answer", () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { caller, held } = yield* waiting
        yield* pass(900)
        yield* faults.delay(400)
        // The time is up at 1001 ms, and what is sent then is applied 200 ms later.
        yield* Effect.repeat(pass(50), { times: 6 })
        assert.sameMembers([...(yield* keys)], [...held])
        assert.isUndefined(caller.pollUnsafe())
        yield* Effect.repeat(pass(100), { times: 4 })
        assert.include((failureOf(caller.pollUnsafe()) as Lock.LockTimeout).holder!, { key: held[0]! })
      })))

    it.effect("is told of a fiber of its own process that holds it", () =>
      provideMemory(Effect.gen(function*() {
        const { a, held } = yield* waiting
        const caller = yield* fork(a.run(within(1000)))
        yield* pass(1000)
        assert.include((failureOf(caller.pollUnsafe()) as Lock.LockTimeout).holder!, { key: held[0]! })
      })))
  })
}

describe("the time that a caller has waited", () => {
  it.effect("is never shorter than its timeout, though its clock is behind its timers", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const clock = yield* Clock.Clock
      const began = clock.monotonicTimeNanosUnsafe()
      const behind = {
        ...clock,
        monotonicTimeNanosUnsafe: () => began + (clock.monotonicTimeNanosUnsafe() - began) * 99n / 100n
      }
      const caller = yield* fork(
        Effect.provideService(b.run(Lock.withLock(Effect.void, "job", { timeout: "1 second" })), Clock.Clock, behind)
      )
      yield* seconds(2)
      const { waited } = failureOf(caller.pollUnsafe()) as Lock.LockTimeout
      assert.strictEqual(Duration.toMillis(waited), 1000)
    })))
})
