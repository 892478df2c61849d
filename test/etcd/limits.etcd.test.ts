import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { machine, shards } from "../cluster/machine.ts"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"

/** A connection to an etcd of its own, and how many transactions it has refused for their size. */
const limitedTo = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const { endpoint } = yield* EtcdServer.start({ args })
  const etcd = yield* connect({ hosts: endpoint, requestTimeout: "30 seconds" })
  let refused = 0
  const counted = Etcd.Etcd.of({
    ...etcd,
    txn: (request) =>
      Effect.tapError(etcd.txn(request), ({ reason }) =>
        Effect.sync(() => {
          if (reason === "InvalidArgument") refused++
        }))
  })
  return { etcd: counted, refused: () => refused }
})

describe.concurrent("an etcd that takes less in a transaction", () => {
  /** Takes and releases many locks at once, several times, and returns how many refusals each time met. */
  const rounds = Effect.fnUntraced(function*(args: ReadonlyArray<string>, value = "") {
    const { etcd, refused } = yield* limitedTo(...args)
    return yield* Effect.gen(function*() {
      const met: Array<number> = []
      for (let round = 0; round < 3; round++) {
        const before = refused()
        yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) => Lock.withLock(Effect.void, `lock-${i}`, { metadata: { value } }),
          { concurrency: "unbounded" }
        )
        met.push(refused() - before)
      }
      return met
    }).pipe(Effect.provide(Session.layer({ ttl: "60 seconds" })), Effect.provideService(Etcd.Etcd, etcd))
  })

  it.live.each([128, 64, 20, 5])(
    "is refused batches once, and none later, where it takes %d operations",
    (operations) =>
      Effect.gen(function*() {
        const [first = 0, ...later] = yield* rounds([`--max-txn-ops=${operations}`])
        if (operations === 128) assert.strictEqual(first, 0)
        else assert.isAtLeast(first, 1)
        assert.deepStrictEqual(later, [0, 0])
      })
  )

  it.live("is refused batches once, and none later, where it takes few bytes", () =>
    Effect.gen(function*() {
      const [first, ...later] = yield* rounds(["--max-request-bytes=20000"], "x".repeat(500))
      assert.isAtLeast(first!, 1)
      assert.deepStrictEqual(later, [0, 0])
    }))

  it.live("has no lock if it does not take that of one, and the error names what to set", () =>
    Effect.gen(function*() {
      const { etcd } = yield* limitedTo("--max-txn-ops=1")
      const locked = Lock.withLock(Effect.void, "a").pipe(
        Effect.provide(Session.layer()),
        Effect.provideService(Etcd.Etcd, etcd)
      )
      const error = yield* Effect.flip(locked)
      assert.include(error.message, "too many operations in txn request; allow it more by --max-txn-ops")
    }))

  it.live("has all shards of a cluster's runner", () =>
    Effect.gen(function*() {
      const { etcd, refused } = yield* limitedTo("--max-txn-ops=20")
      const runner = yield* machine(etcd)
      yield* runner.register
      assert.lengthOf(yield* runner.acquire(shards(300)), 300)
      const met = refused()
      assert.isAtLeast(met, 1)
      assert.lengthOf(yield* runner.acquire(shards(300)), 300)
      assert.strictEqual(refused(), met)
    }))

  it.live("keeps the few shards of a runner, which are read one by one where it takes as many", () =>
    Effect.gen(function*() {
      const { etcd } = yield* limitedTo("--max-txn-ops=10")
      const runner = yield* machine(etcd)
      yield* runner.register
      assert.lengthOf(yield* runner.acquire(shards(15)), 15)
      for (let i = 0; i < 3; i++) assert.lengthOf(yield* runner.refresh(shards(15)), 15)
    }))
})
