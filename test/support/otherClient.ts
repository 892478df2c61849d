/** The keys of another client in a line, on an etcd in memory. */
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { pass } from "./inMemory.ts"

const lease = 7n

/** A client with one lease. */
export const otherClient = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  yield* etcd.leaseGrant(lease, 600)
  return {
    /** Each at a revision of its own. */
    put: (keys: ReadonlyArray<string>) =>
      Effect.forEach(keys, (key) => etcd.txn({ then: [Etcd.put(key, "", { lease })] }), { discard: true }),
    /** All at one revision. */
    remove: (keys: ReadonlyArray<string>) =>
      Effect.andThen(etcd.txn({ then: keys.map((key) => Etcd.remove(key)) }), pass(5))
  }
})

/** The first key in etcd that is not that client's. */
export const ownKey = Effect.gen(function*() {
  const faults = yield* Etcd.Faults
  return (yield* faults.keys).find((kv) => kv.lease !== lease)!.key
})
