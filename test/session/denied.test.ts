/** A user whose roles do not allow all that a lock needs. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, pass, provideMemory, sessionThrough, stop } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

const denied = Effect.fail(
  new Etcd.EtcdError({ reason: "PermissionDenied", method: "txn", outcome: "Refused", description: "denied" })
)

/** Whether an operation, or one nested in it, reads all keys of a line. */
const readsLine = (prefix: string) => (op: Etcd.Op): boolean =>
  op._tag === "Txn"
    ? [...op.then, ...op.else].some(readsLine(prefix)) || op.compare.some((compare) => isLine(prefix, compare))
    : op._tag === "Range" && isLine(prefix, op)

const isLine = (prefix: string, { key, rangeEnd }: Pick<Etcd.Range, "key" | "rangeEnd">) =>
  rangeEnd !== undefined && String(key) === prefix

describe("a user who may put the entries of a lock, and not read its line,", () => {
  it.effect("is denied that lock, and keeps the session's lease for the others", () => {
    const { logged, logger } = logs()
    return provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let grants = 0
      const { run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) => {
          grants++
          return etcd.leaseGrant(id, seconds)
        },
        txn: ((request: Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, ReadonlyArray<Etcd.Op>>) =>
          readsLine("secret/")(Etcd.nested(request)) ? denied : etcd.txn(request)) as typeof etcd.txn
      }))
      const holding = yield* fork(run(Lock.withLock(Effect.never, "other")))
      yield* pass(1)
      for (let i = 0; i < 4; i++) {
        const asking = yield* fork(run(Lock.withLock(Effect.void, "secret")))
        yield* pass(100)
        assert.include(failureOf(asking.pollUnsafe()) as Etcd.EtcdError, { reason: "PermissionDenied" })
      }
      assert.strictEqual(grants, 1)
      assert.lengthOf(yield* faults.leases, 1)
      assert.deepStrictEqual(logged, [])
      yield* stop(holding)
      yield* pass(1)
    })).pipe(Effect.provide(logger))
  })
})
