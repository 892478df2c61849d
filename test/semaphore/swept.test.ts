/** A try for permits that lasts longer than a line without entries is kept. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, type Lock, Semaphore } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, pass, provideMemory, seconds, session, sessionThrough, stop } from "../support/inMemory.ts"

const ttl = "60 seconds"
const options = { permits: 1, of: 1 }

describe("a try for permits that etcd is slow to answer", () => {
  it.effect("hears by its watch that its key was deleted", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let isSlow = false
      const other = yield* session({ ttl })
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => isSlow ? Effect.delay(etcd.txn(request), "3 seconds") : etcd.txn(request)
      }), { ttl })
      const holding = yield* fork(other.run(Semaphore.withPermits(Effect.never, "job", options)))
      yield* pass(1)
      // A try that was refused lets the next one look before it joins.
      yield* run(Semaphore.withPermitsIfAvailable(Effect.void, "job", options))
      yield* stop(holding)
      yield* pass(1)
      isSlow = true
      const tried = yield* fork(run(Semaphore.tryWithPermits(Effect.never, "job", options)))
      yield* seconds(7)
      isSlow = false
      yield* seconds(2)
      assert.lengthOf(yield* faults.keys, 1)
      yield* faults.deletePrefix("job/")
      yield* pass(1)
      assert.strictEqual((failureOf(tried.pollUnsafe()) as Lock.LockLost).reason, "KeyDeleted")
    })))
})
