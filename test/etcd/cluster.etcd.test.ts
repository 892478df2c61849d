import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import * as Cluster from "../fault/cluster.ts"
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

  describe.skipIf(process.env.ETCD_FROM === "docker")("with a learner among the hosts", () => {
    const start = Effect.gen(function*() {
      const { addLearner, members: [first, ...others], spare } = yield* Cluster.start({ spare: true })
      const learner = spare!
      yield* addLearner(learner)
      const hosts = [first!, learner, ...others].map(({ endpoint }) => endpoint)
      return { first: first!, learner, others, etcd: yield* connect({ hosts, requestTimeout: "20 seconds" }) }
    })
    const session = (etcd: Etcd.Etcd["Service"], ttl: Duration.Input) =>
      Layer.build(Layer.fresh(Session.layer({ ttl }))).pipe(Effect.provideService(Etcd.Etcd, etcd))

    it.live("has locks after the member before it has died, for a client that was idle", () =>
      Effect.gen(function*() {
        const { etcd, first } = yield* start
        const lock = Effect.scoped(Effect.flatMap(
          session(etcd, "60 seconds"),
          (session) => Lock.withLock(Effect.succeed("ran"), "a").pipe(Effect.provide(session))
        ))
        assert.strictEqual(yield* lock, "ran")
        // Until its streams are closed.
        yield* Effect.sleep("11 seconds")
        yield* first.kill
        assert.strictEqual(yield* lock, "ran")
      }))

    it.live("keeps a lock, and wakes who waits for it", () =>
      Effect.gen(function*() {
        const { etcd, first } = yield* start
        const [holder, waiter] = [yield* session(etcd, "10 seconds"), yield* session(etcd, "10 seconds")]
        yield* Effect.gen(function*() {
          const handle = yield* Lock.acquire("a")
          const waiting = yield* Effect.forkChild(
            Lock.withLock(Effect.succeed("ran"), "a").pipe(Effect.provide(waiter))
          )
          yield* Effect.sleep("1 second")
          yield* first.kill
          // Longer than the lease lives without a renewal.
          yield* Effect.sleep("15 seconds")
          yield* handle.verify
          yield* handle.release
          assert.strictEqual(yield* Fiber.join(waiting), "ran")
        }).pipe(Effect.scoped, Effect.provide(holder))
      }))

    it.live("has what may not be repeated done by another member, once", () =>
      Effect.gen(function*() {
        const { learner, others } = yield* start
        const etcd = yield* connect({ hosts: [learner.endpoint, others[0]!.endpoint], requestTimeout: "20 seconds" })
        const key = "not-idempotent"
        yield* etcd.txn({ then: [Etcd.put(key, "")] })
        const { kvs } = yield* etcd.range(Etcd.get(key))
        assert.strictEqual(kvs[0]?.version, 1n)
      }))
  })

  it.live("is not confused with another one among the hosts, which knows none of its leases", () =>
    Effect.gen(function*() {
      const [own, other] = [yield* EtcdServer.start(), yield* EtcdServer.start()]
      const etcd = yield* connect({ hosts: [own.endpoint, other.endpoint] })
      const session = yield* Layer.build(Layer.fresh(Session.layer({ ttl: "9 seconds" }))).pipe(
        Effect.provideService(Etcd.Etcd, etcd)
      )
      const holding = yield* Effect.forkChild(Effect.provide(Lock.withLock(Effect.never, "a"), session))
      yield* Effect.sleep("2500 millis")
      yield* own.pause
      yield* Effect.sleep("2 seconds")
      yield* own.resume
      yield* Effect.sleep("6 seconds")
      assert.isUndefined(holding.pollUnsafe())
    }).pipe(Effect.scoped))

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
