/** The lease that all locks of a session share: how long it lives. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { fork, pass, provideMemory, session, sessionThrough } from "../support/inMemory.ts"

describe(`the lease of a session (${cite("P5")})`, () => {
  it.effect("is revoked one TTL after its last lock was released, and not before", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "3 seconds" })
      yield* fork(run(Lock.withLock(Effect.sleep(2900), "job")))
      yield* Effect.repeat(pass(100), { times: 55 })
      assert.lengthOf(yield* faults.leases, 1)
      yield* Effect.repeat(pass(100), { times: 5 })
      assert.lengthOf(yield* faults.leases, 0)
    })))

  it.effect("is revoked when it is granted after the session has ended", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) => Effect.delay(etcd.leaseGrant(id, seconds), "7 seconds")
      }), { ttl: "60 seconds" })
      yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      const closing = yield* fork(close)
      yield* Effect.repeat(pass("1 second"), { times: 5 })
      assert.isDefined(closing.pollUnsafe())
      assert.deepStrictEqual(yield* faults.leases, [])
      yield* Effect.repeat(pass("1 second"), { times: 10 })
      assert.deepStrictEqual(yield* faults.leases, [])
    })))
})
