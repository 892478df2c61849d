/** What users make of `Etcd` by themselves, with nothing but the public types. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Queue, type Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"

/** Counts the requests of each kind on their way to another etcd. */
const counting = (etcd: Etcd.Etcd["Service"]) => {
  const counts: Partial<Record<Etcd.Method | "close", number>> = {}
  const counted = <A>(method: keyof typeof counts, use: () => A): A => {
    counts[method] = (counts[method] ?? 0) + 1
    return use()
  }
  const service = Etcd.Etcd.of({
    requestTimeout: etcd.requestTimeout,
    txn: (request) => counted("txn", () => etcd.txn(request)),
    range: (range) => counted("range", () => etcd.range(range)),
    leaseGrant: (id, seconds) => counted("leaseGrant", () => etcd.leaseGrant(id, seconds)),
    leaseRevoke: (id) => counted("leaseRevoke", () => etcd.leaseRevoke(id)),
    leaseKeepAlive: (id, timeout) => counted("leaseKeepAlive", () => etcd.leaseKeepAlive(id, timeout)),
    leaseTimeToLive: (id, options) => counted("leaseTimeToLive", () => etcd.leaseTimeToLive(id, options)),
    watch: (options) => counted("watch", () => etcd.watch(options)),
    subscribe: (options, { onEnd, onEvents }) =>
      counted("watch", () =>
        Effect.map(etcd.subscribe(options, { onEnd, onEvents }), ({ close, revision }) => ({
          revision,
          close: () => counted("close", close)
        })))
  })
  return { service, counts }
}

/** An etcd that has nothing and refuses to change that. */
const readOnly = (watches: Set<Etcd.WatchListener>): Etcd.Etcd["Service"] => {
  const refused = (method: Etcd.Method) =>
    Effect.fail(new Etcd.EtcdError({ reason: "PermissionDenied", method, outcome: "Refused", description: "no" }))

  const header: Etcd.Header = { revision: 1n, clusterId: 1n, term: 1n }

  const txn: Etcd.Etcd["Service"]["txn"] = () => refused("txn")

  const range = (): Effect.Effect<Etcd.RangeResult & Etcd.Header, Etcd.EtcdError> =>
    Effect.succeed({ _tag: "Range", kvs: [], count: 0, ...header })

  const subscribe = (
    _: Etcd.WatchOptions,
    listener: Etcd.WatchListener
  ): Effect.Effect<Etcd.Subscription, Etcd.EtcdError> =>
    Effect.sync(() => {
      watches.add(listener)
      return { revision: 1n, close: () => void watches.delete(listener) }
    })

  const watch = (options: Etcd.WatchOptions): Effect.Effect<Etcd.Watch, Etcd.EtcdError, Scope.Scope> =>
    Effect.gen(function*() {
      const events = yield* Queue.unbounded<ReadonlyArray<Etcd.WatchEvent>, Etcd.EtcdError>()
      const subscribed = subscribe(options, {
        onEvents: (batch) => Queue.offerUnsafe(events, batch),
        onEnd: () => {}
      })
      const { revision } = yield* Effect.acquireRelease(subscribed, ({ close }) => Effect.sync(close))
      return { revision, next: Queue.take(events) }
    })

  return {
    requestTimeout: Duration.seconds(1),
    txn,
    range,
    leaseGrant: (_, seconds) => Effect.succeed(seconds),
    leaseRevoke: () => Effect.void,
    leaseKeepAlive: () => Effect.succeed({ ttl: 0, ...header }),
    leaseTimeToLive: () => Effect.succeed({ remaining: -1, granted: 0, keys: [], ...header }),
    watch,
    subscribe
  }
}

describe("an Etcd of a user's own", () => {
  it.live("can wrap another one, and has locks", () =>
    Effect.gen(function*() {
      const { counts, service } = counting(yield* Etcd.Etcd)
      const held = Lock.withLock(Effect.sleep(600), "job")
      const both = Effect.all([held, Effect.delay(held, 50)], { concurrency: 2 })
      const use = Effect.scoped(Effect.provide(both, Session.layer()))
      yield* Effect.provideService(use, Etcd.Etcd, service)
      assert.deepInclude(counts, { leaseGrant: 1, leaseRevoke: 1 })
      assert.isAtLeast(counts.txn ?? 0, 3)
      assert.isAtLeast(counts.watch ?? 0, 1)
      assert.strictEqual(counts.close, counts.watch)
    }).pipe(Effect.provide(Etcd.layerMemory())))

  it.live("can be a class, whose methods are not its own properties", () =>
    Effect.gen(function*() {
      const { service } = counting(yield* Etcd.Etcd)
      const methods = Object.create(null, Object.getOwnPropertyDescriptors(service)) as typeof service
      const instance = Object.create(methods) as typeof service
      const use = Lock.withLock(Effect.succeed("ran"), "job").pipe(Effect.provide(Session.layer()), Effect.scoped)
      assert.strictEqual(yield* Effect.provideService(use, Etcd.Etcd, instance), "ran")
    }).pipe(Effect.provide(Etcd.layerMemory())))

  it.live("can be written from scratch, and its errors reach those who want a lock", () =>
    Effect.gen(function*() {
      const watches = new Set<Etcd.WatchListener>()
      const session = Session.layer().pipe(Layer.provide(Layer.succeed(Etcd.Etcd, readOnly(watches))))
      const error = yield* Effect.flip(Effect.provide(Lock.withLock(Effect.void, "job"), session))
      assert.include(error, { _tag: "EtcdError", reason: "PermissionDenied", method: "txn" })
      assert.strictEqual(watches.size, 0)
    }))
})
