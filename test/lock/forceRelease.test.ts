/** An operator takes a lock away while it changes hands. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { fork, keys, pass, provideMemory, session } from "../support/inMemory.ts"

describe("a holder that is taken away", () => {
  // First it is read, and then it is deleted.
  for (const request of [1, 2]) {
    it.effect(`is the one that was named, and none that came after it under the same key (request ${request})`, () =>
      provideMemory(Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const { run } = yield* session()
        const hold = fork(run(Lock.withLock(Effect.never, "job")))
        const first = yield* hold
        yield* pass(1)
        const before = yield* keys
        const { holder } = yield* Lock.inspect("job")
        let second: Effect.Success<typeof hold> | undefined
        const handOver = Effect.gen(function*() {
          yield* Fiber.interrupt(first)
          second = yield* hold
          yield* Effect.repeat(Effect.yieldNow, { times: 20 })
        })
        let requests = 0
        const isTaken = yield* Lock.forceRelease("job", { createRevision: holder!.createRevision }).pipe(
          Effect.provideService(Etcd.Etcd, {
            ...etcd,
            txn: (txn) =>
              Effect.suspend(() => ++requests === request ? Effect.andThen(handOver, etcd.txn(txn)) : etcd.txn(txn))
          })
        )
        assert.isFalse(isTaken)
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, before, "the key is used again")
        assert.isUndefined(second!.pollUnsafe())
      })))
  }
})
