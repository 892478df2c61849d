import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream } from "effect"
import { Etcd, Lease } from "effect-etcd-lock"
import { inject } from "vitest"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { lossOf, observed, reasons } from "../support/leases.ts"
import { logs } from "../support/logs.ts"
import * as Proxy from "../support/Proxy.ts"

describe.concurrent("on a real etcd", () => {
  it.live.each(
    [
      ["success", "Success", Effect.void],
      ["failure", "mine", Effect.fail("mine")],
      ["defect", "defect mine", Effect.die("mine")],
      ["interruption", "Interrupt", Effect.interrupt]
    ] as ReadonlyArray<[string, string, Effect.Effect<void, string>]>
  )("is revoked with its keys on %s", ([, reason, end]) =>
    Effect.gen(function*() {
      const etcd = yield* recording()
      const key = `lease-test-${crypto.randomUUID()}`
      const exit = yield* Effect.gen(function*() {
        const lease = yield* Lease.make({ ttl: "5 seconds" })
        yield* etcd.txn({ then: [Etcd.put(key, "", { lease: lease.id })] })
        assert.strictEqual((yield* etcd.leaseTimeToLive(lease.id)).granted, 5)
        assert.strictEqual(Duration.toMillis(lease.ttl), 5000)
        yield* lease.whileAlive(end)
      }).pipe(Effect.scoped, Effect.provideService(Etcd.Etcd, etcd), Effect.exit)
      assert.deepStrictEqual(reasons(exit), [reason])
      assert.strictEqual((yield* etcd.range(Etcd.get(key))).count, 0)
      yield* etcd.leftNothing
    }))

  it.live("has the TTL that etcd raised it to", () =>
    Effect.gen(function*() {
      const etcd = yield* recording()
      const lease = yield* lasting(etcd, "1 second")
      const { granted } = yield* etcd.leaseTimeToLive(lease.id)
      assert.isAtLeast(granted, 2)
      assert.strictEqual(Duration.toSeconds(lease.ttl), granted)
    }))

  it.live("may live as long as etcd allows", () =>
    Effect.gen(function*() {
      const etcd = yield* recording()
      const lease = yield* lasting(etcd, Duration.seconds(9_000_000_000))
      yield* Effect.sleep("50 millis")
      assert.strictEqual(Duration.toSeconds(lease.ttl), 9_000_000_000)
      assert.deepStrictEqual(etcd.renewals(), [])
    }))

  it.live("lives longer than its TTL", () =>
    Effect.gen(function*() {
      const etcd = yield* recording()
      const lease = yield* lasting(etcd, "5 seconds")
      yield* Effect.sleep("7 seconds")
      assert.isAtLeast((yield* etcd.leaseTimeToLive(lease.id)).remaining, 0)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("is lost as soon as a renewal meets that somebody revoked it", () =>
    Effect.gen(function*() {
      const etcd = yield* recording()
      const lease = yield* lasting(etcd, "9 seconds")
      yield* etcd.leaseRevoke(lease.id)
      const exit = yield* Effect.exit(lease.whileAlive(Effect.never))
      assert.deepStrictEqual(reasons(exit), ["LeaseExpired Revoked"])
    }))

  it.live("expires before etcd could let it, when etcd stands still", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* recording({ hosts: server.endpoint })
      const lease = yield* lasting(etcd, "4 seconds")
      yield* nextRenewals(lease, 1)
      yield* server.pause
      const loss = yield* Effect.flip(lease.awaitLoss)
      assert.strictEqual(loss.reason, "Expired")
      assert.include(loss.cause!, { reason: "Timeout", method: "leaseKeepAlive" })
      // etcd counts from when it received what we count from when we sent it
      assert.isBelow(performance.now() - etcd.renewals().at(-1)!, 4000)
      yield* server.resume
    }))

  it.live("survives a connection that is cut, and one that goes silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(inject("etcdEndpoint"))
      const etcd = yield* recording({ hosts: proxy.endpoint })
      const lease = yield* lasting(etcd, "6 seconds")
      yield* nextRenewals(lease, 1)
      yield* proxy.cut
      yield* nextRenewals(lease, 1)
      yield* proxy.stall
      // until the silence was noticed and an attempt given up
      yield* Effect.sleep("3200 millis")
      yield* proxy.cut
      yield* proxy.resume
      yield* nextRenewals(lease, 1)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("survives a restart of etcd", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* recording({ hosts: server.endpoint })
      const lease = yield* lasting(etcd, "9 seconds")
      yield* nextRenewals(lease, 1)
      yield* server.kill
      yield* server.restart
      yield* nextRenewals(lease, 1)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("does not keep its scope open when etcd is gone", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const server = yield* EtcdServer.start()
      const etcd = yield* recording({ hosts: server.endpoint, requestTimeout: "1 second" })
      yield* Lease.make().pipe(
        Effect.andThen(server.pause),
        Effect.scoped,
        Effect.provideService(Etcd.Etcd, etcd),
        Effect.provide(logger),
        Effect.timeout("5 seconds")
      )
      assert.strictEqual(logged.length, 1)
      yield* server.resume
    }))
})

/** A connection that knows which leases were asked for, and when acknowledged renewals were sent. */
const recording = Effect.fnUntraced(function*(options?: Partial<Etcd.Options>) {
  const etcd = yield* connect(options)
  const granted: Array<bigint> = []
  const renewals: Array<number> = []
  return {
    ...etcd,
    leaseGrant: (leaseId: bigint, seconds: number) => {
      granted.push(leaseId)
      return etcd.leaseGrant(leaseId, seconds)
    },
    leaseKeepAlive: (leaseId: bigint, timeout: number) => {
      const sent = performance.now()
      return Effect.tap(etcd.leaseKeepAlive(leaseId, timeout), () => Effect.sync(() => renewals.push(sent)))
    },
    renewals: () => renewals,
    leftNothing: Effect.suspend(() =>
      Effect.forEach(
        granted,
        (id) => Effect.map(etcd.leaseTimeToLive(id), ({ remaining }) => assert.strictEqual(remaining, -1))
      )
    ).pipe(Effect.orDie, Effect.asVoid)
  }
})

/** A lease for the rest of the test, after which nothing of it may be left. */
const lasting = (etcd: Effect.Success<ReturnType<typeof recording>>, ttl: Duration.Input) =>
  Effect.andThen(
    Effect.addFinalizer(() => etcd.leftNothing),
    Effect.provideService(observed(Lease.make({ ttl })), Etcd.Etcd, etcd)
  )

const nextRenewals = (lease: Lease.Lease, count: number) =>
  lease.renewals.pipe(
    Stream.take(count),
    Stream.runCount,
    Effect.map((renewed) => assert.strictEqual(renewed, count, "the lease was lost"))
  )
