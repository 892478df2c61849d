import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { inject } from "vitest"
import { connect, leased, unique } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { until } from "../support/eventually.ts"
import * as Proxy from "../support/Proxy.ts"

const shared = inject("etcdEndpoint")

describe.concurrent("a connection", () => {
  it.live("replaces its streams when it was cut", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: proxy.endpoint })
      const id = yield* leased(etcd)
      const key = unique("cut")
      for (let i = 0; i < 3; i++) {
        const watch = yield* etcd.watch({ key: Buffer.from(key) })
        yield* etcd.txn({ then: [Etcd.put(key, "")] })
        assert.strictEqual((yield* watch.next).length, 1)
        assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 60)
        yield* proxy.cut
        const lost = yield* Effect.flip(watch.next)
        assert.deepStrictEqual([lost.reason, lost.method], ["Unavailable", "watch"])
      }
      assert.strictEqual((yield* Effect.retry(etcd.leaseKeepAlive(id, 5000), { times: 1 })).ttl, 60)
    }))

  it.live("gives up streams that have fallen silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: [proxy.endpoint, shared], requestTimeout: "4500 millis" })
      const id = yield* leased(etcd)
      yield* etcd.leaseKeepAlive(id, 5000)
      yield* proxy.stall
      assert.strictEqual((yield* Effect.flip(etcd.leaseKeepAlive(id, 300))).reason, "Timeout")
      assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 60)
    }))

  it.live("answers each renewal of a lease, also those that are asked for at the same time", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const [id, other] = [yield* leased(etcd), yield* leased(etcd)]
      const renewed = yield* Effect.forEach([id, other, id, id, other], (id) => etcd.leaseKeepAlive(id, 2000), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(renewed.map(({ ttl }) => ttl), [60, 60, 60, 60, 60])
    }))

  it.live("does not take the answer to a renewal that was interrupted for that to the next one", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const [etcd, direct] = yield* Effect.all([connect({ hosts: proxy.endpoint }), connect()])
      const id = yield* leased(direct)
      assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 60)
      yield* proxy.delayReplies(500)
      const first = yield* Effect.forkChild(etcd.leaseKeepAlive(id, 5000), { startImmediately: true })
      yield* Effect.sleep("200 millis")
      yield* Fiber.interrupt(first)
      yield* direct.leaseRevoke(id)
      assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 0)
    }))

  it.live("gives up streams of watches that have fallen silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: [proxy.endpoint, shared], requestTimeout: "4500 millis" })
      const key = Buffer.from(unique("silent"))
      const first = yield* etcd.watch({ key })
      yield* proxy.stall
      const second = yield* etcd.watch({ key })
      assert.strictEqual((yield* Effect.flip(first.next)).reason, "Timeout")
      yield* etcd.txn({ then: [Etcd.put(key, "")] })
      assert.strictEqual((yield* second.next).length, 1)
    }))

  for (const layout of ["queue", "single-key"] as const) {
    it.live(`has a stream for what the program watches, and another one for its locks: ${layout}`, () =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const etcd = yield* connect({ hosts: server.endpoint, prefix: "mine/" })
        const streams = Effect.map(
          Effect.promise(() => fetch(`http://${server.endpoint}/metrics`).then((response) => response.text())),
          (metrics) => Number(/^grpc_server_started_total\{.*grpc_method="Watch".*\} (\d+)/m.exec(metrics)?.[1])
        )
        const before = yield* streams
        const { next } = yield* etcd.watch(Etcd.getPrefix("job"))
        assert.strictEqual(yield* streams, before + 1)
        const run = Effect.map(
          Effect.provideService(Session.make({ ttl: "5 seconds" }), Etcd.Etcd, etcd),
          (session) => Effect.provideService(Session.Session, session)
        )
        const [holder, waiter] = yield* Effect.all([run, run])
        const isHeld = yield* Deferred.make<void>()
        const release = yield* Deferred.make<void>()
        const held = Effect.andThen(Deferred.succeed(isHeld, undefined), Deferred.await(release))
        const holding = yield* Effect.forkChild(holder(Lock.withLock(held, "job", { layout })))
        yield* Deferred.await(isHeld)
        const waiting = yield* Effect.forkChild(waiter(Lock.withLock(Effect.succeed("done"), "job", { layout })))
        yield* until("the watch of the line", Effect.map(streams, (count) => count === before + 2))
        // What the program watches is the line itself.
        assert.strictEqual((yield* next)[0]?._tag, "Put")
        yield* Deferred.succeed(release, undefined)
        assert.strictEqual(yield* Fiber.join(waiting), "done")
        yield* Fiber.join(holding)
        assert.strictEqual(yield* streams, before + 2)
      }))
  }
})
