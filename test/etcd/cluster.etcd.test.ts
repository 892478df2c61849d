import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { connect, elapsed, leased } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"

describe.concurrent("a cluster", () => {
  it.live("is used by another member when one freezes or dies", () =>
    Effect.gen(function*() {
      const members = yield* EtcdServer.startCluster(3)
      const etcd = yield* connect({
        hosts: members.map(({ endpoint }) => endpoint),
        requestTimeout: "9 seconds"
      })
      const id = yield* leased(etcd)
      const watches = Effect.gen(function*() {
        const watch = yield* etcd.watch({ key: Buffer.from("a") })
        yield* etcd.txn({ then: [Etcd.put("a", "")], idempotent: true })
        assert.isAtLeast((yield* watch.next).length, 1)
      }).pipe(Effect.scoped)
      const works = Effect.gen(function*() {
        // the connection to a member that just woke up may be given up late, and its watches with it
        yield* Effect.retry(watches, { times: 1 })
        // one attempt at a time, since it tries no second
        yield* Effect.retry(etcd.leaseKeepAlive(id, 1000), { times: 8 })
      })
      yield* works
      yield* members[0]!.pause
      yield* works
      yield* members[0]!.resume
      yield* members[1]!.kill
      yield* works
    }))

  it.live("fails its streams when the member that they use has lost the others", () =>
    Effect.gen(function*() {
      const members = yield* EtcdServer.startCluster(3)
      const etcd = yield* connect({ hosts: members[0]!.endpoint })
      const id = yield* leased(etcd)
      yield* etcd.txn({ then: [Etcd.put("a", "x")], idempotent: true })
      const watch = yield* etcd.watch({ key: Buffer.from("a") })
      yield* etcd.leaseKeepAlive(id, 1000)
      yield* Effect.all([members[1]!.kill, members[2]!.kill], { concurrency: "unbounded" })
      const [error, millis] = yield* elapsed(Effect.flip(watch.next))
      assert.strictEqual(error.reason, "Unavailable")
      assert.include(error.message, "no leader")
      assert.isBelow(millis, 8000)
      assert.isTrue((yield* Effect.flip(etcd.leaseKeepAlive(id, 1000))).isTransient)
      const call = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.include(["Unavailable", "Timeout"], call.reason)
      // What this member has by itself, it can read.
      const { kvs } = yield* etcd.range({ ...Etcd.get("a"), serializable: true })
      assert.deepStrictEqual(kvs.map(({ value }) => Buffer.from(value).toString()), ["x"])
      yield* Effect.all([members[1]!.restart, members[2]!.restart], { concurrency: "unbounded" })
      yield* Effect.retry(etcd.watch({ key: Buffer.from("a") }), { times: 5 })
    }))
})
