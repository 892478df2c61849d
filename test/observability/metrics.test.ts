/** Each metric counts what was done, and gauges are back at zero after every way out. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Metric, Scope } from "effect"
import { Etcd, Lock, LockMetrics, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { fork, freezable, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"

/** Provides an etcd in memory and a registry of the test's own. */
const provide = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(provideMemory(self), Metric.MetricRegistry, new Map())

const count = (
  counter: typeof LockMetrics.acquisitions,
  attributes: Record<string, string>
): Effect.Effect<number> => Effect.map(Metric.value(Metric.withAttributes(counter, attributes)), ({ count }) => count)

const gauge = (gauge: typeof LockMetrics.held, attributes: Record<string, string>): Effect.Effect<number> =>
  Effect.map(Metric.value(Metric.withAttributes(gauge, attributes)), ({ value }) => value)

const timer = (timer: typeof LockMetrics.wait, attributes: Record<string, string> = {}) =>
  Effect.map(Metric.value(Metric.withAttributes(timer, attributes)), ({ count, sum }) => ({ count, sum }))

const recipe = "lock"

const allZero = Effect.gen(function*() {
  for (const recipe of ["lock", "read", "write", "semaphore"]) {
    assert.strictEqual(yield* gauge(LockMetrics.held, { recipe }), 0, `held ${recipe}`)
    assert.strictEqual(yield* gauge(LockMetrics.waiting, { recipe }), 0, `waiting ${recipe}`)
    assert.strictEqual(yield* gauge(LockMetrics.oldestWait, { recipe }), 0, `oldest wait of ${recipe}`)
  }
})

const results = Effect.gen(function*() {
  const found: Record<string, number> = {}
  for (const result of ["acquired", "refused", "timeout", "lost", "interrupted", "failed"]) {
    const times = yield* count(LockMetrics.acquisitions, { recipe, result })
    if (times > 0) found[result] = times
  }
  return found
})

describe("metrics of locks", () => {
  it.effect("count a try that is refused as one that has found the lock contended", () =>
    provide(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      // The second one knows without a request that it would be refused.
      for (const { run } of [b, a]) yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "job")))
      assert.strictEqual(yield* count(LockMetrics.contended, { recipe }), 2)
    })))

  it.effect("count a wait as contended once, in this process and in etcd's line", () =>
    provide(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const hold = Lock.withLock(Effect.never, "job")
      const holder = yield* fork(a.run(hold))
      yield* pass(1)
      yield* fork(a.run(hold))
      yield* pass(1)
      yield* fork(b.run(hold))
      yield* pass(1)
      // The next fiber of that process is behind the other one then.
      yield* stop(holder)
      yield* pass(1)
      assert.strictEqual(yield* gauge(LockMetrics.waiting, { recipe }), 1)
      assert.strictEqual(yield* count(LockMetrics.contended, { recipe }), 2)
    })))

  it.effect("are series of their own for sessions under different attributes", () =>
    provide(Effect.gen(function*() {
      const of = (tenant: string) => Effect.provideService(session(), Metric.CurrentMetricAttributes, { tenant })
      const [a, b] = yield* Effect.all([of("a"), of("b")])
      for (const { run } of [a, b, b]) yield* run(Lock.withLock(Effect.void, "job"))
      const acquired = { recipe, result: "acquired" }
      assert.strictEqual(yield* count(LockMetrics.acquisitions, { ...acquired, tenant: "a" }), 1)
      assert.strictEqual(yield* count(LockMetrics.acquisitions, { ...acquired, tenant: "b" }), 2)
    })))

  it.effect("count what is held and what waits, for how long, and how both ended", () =>
    provide(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Lock.withLock(Effect.sleep("3 seconds"), "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.sleep("1 second"), "job")))
      yield* pass("2 seconds")
      assert.strictEqual(yield* gauge(LockMetrics.held, { recipe }), 1)
      assert.strictEqual(yield* gauge(LockMetrics.waiting, { recipe }), 1)
      assert.strictEqual(yield* gauge(LockMetrics.oldestWait, { recipe }), 2000)
      yield* pass(999)
      yield* pass("1 second")
      yield* pass(10)
      assert.isTrue(Exit.isSuccess(holding.pollUnsafe()!) && Exit.isSuccess(waiting.pollUnsafe()!))
      assert.deepStrictEqual(yield* results, { acquired: 2 })
      assert.strictEqual(yield* count(LockMetrics.contended, { recipe }), 1)
      const { count: waits, sum: waited } = yield* timer(LockMetrics.wait, { recipe })
      assert.strictEqual(waits, 2)
      assert.isAtLeast(waited, 2900)
      assert.deepStrictEqual(yield* timer(LockMetrics.hold, { recipe }), { count: 2, sum: 4000 })
      yield* allZero
    })))

  for (
    const [way, result, run] of [
      ["a failing body", "acquired", ({ run }) => run(Lock.withLock(Effect.fail("boom"), "job"))],
      ["a body that dies", "acquired", ({ run }) => run(Lock.withLock(Effect.die("boom"), "job"))],
      [
        "an interrupted body",
        "acquired",
        ({ run }) =>
          Effect.flatMap(
            fork(run(Lock.withLock(Effect.never, "job"))),
            (fiber) => Effect.andThen(pass(10), stop(fiber))
          )
      ],
      [
        "a handle that is released",
        "acquired",
        ({ run }) =>
          Effect.scoped(run(Effect.flatMap(Lock.acquire("job"), ({ release }) => Effect.andThen(release, release))))
      ],
      ["a try where it is free", "acquired", ({ run }) => run(Lock.tryWithLock(Effect.void, "job"))],
      ["a refused try", "refused", ({ run }) => run(Lock.tryWithLock(Effect.void, "held"))],
      ["a refused section", "refused", ({ run }) => run(Lock.withLockIfAvailable(Effect.void, "held"))],
      ["a timeout", "timeout", ({ run }) => run(Lock.withLock(Effect.void, "held", { timeout: "1 second" }))],
      [
        "an interrupted wait",
        "interrupted",
        ({ run }) =>
          Effect.flatMap(
            fork(run(Lock.withLock(Effect.void, "held"))),
            (fiber) => Effect.andThen(pass(10), stop(fiber))
          )
      ],
      [
        "a session that closes under a body",
        "acquired",
        ({ close, run }) =>
          Effect.andThen(Effect.andThen(fork(run(Lock.withLock(Effect.never, "job"))), pass(10)), close)
      ],
      [
        "a session that closes under a waiter",
        "lost",
        ({ close, run }) =>
          Effect.andThen(Effect.andThen(fork(run(Lock.withLock(Effect.void, "held"))), pass(10)), close)
      ],
      ["a name that lies under another lock", "failed", ({ run }) => run(Lock.withLock(Effect.void, "outer"))],
      ["several locks at once", "acquired", ({ run }) => run(Lock.withLocks(Effect.void, ["job"]))]
    ] satisfies ReadonlyArray<
      readonly [
        string,
        string,
        (process: Effect.Success<ReturnType<typeof session>>) => Effect.Effect<unknown, unknown>
      ]
    >
  ) {
    it.effect(`are back at zero after ${way}`, () =>
      provide(Effect.gen(function*() {
        const [other, process] = yield* Effect.all([session(), session()])
        const scope = yield* Scope.make()
        yield* other.run(Scope.provide(Semaphore.acquire("held", { of: 1 }), scope))
        yield* other.run(Scope.provide(Semaphore.acquire("outer/inner", { of: 1 }), scope))
        const fiber = yield* fork(Effect.exit(run(process) as Effect.Effect<unknown, unknown>))
        yield* pass(10)
        yield* pass("2 seconds")
        yield* pass("5 seconds")
        assert.isDefined(fiber.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        yield* pass(10)
        assert.deepStrictEqual(yield* results, { [result]: 1 })
        assert.strictEqual((yield* timer(LockMetrics.hold, { recipe })).count, result === "acquired" ? 1 : 0)
        yield* allZero
      })))
  }

  for (
    const [what, reason, lose] of [
      ["its key was deleted", "KeyDeleted", (faults) => faults.deletePrefix("job/")],
      ["its lease expired", "LeaseExpired", (faults) => faults.drop("Request", { times: 1000 })]
    ] satisfies ReadonlyArray<readonly [string, string, (faults: Etcd.Faults["Service"]) => Effect.Effect<void>]>
  ) {
    it.effect(`count a loss once (${what}), and how long the body took to stop`, () =>
      provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        const body = Effect.onInterrupt(Effect.never, () => Effect.sleep(200))
        const fiber = yield* fork(run(Lock.withLock(body, "job")))
        yield* pass("1 second")
        yield* lose(faults)
        yield* Effect.repeat(pass(100), { times: 40 })
        yield* faults.heal
        yield* pass("1 second")
        assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
        assert.strictEqual(yield* count(LockMetrics.losses, { recipe, reason }), 1)
        const { count: stops, sum } = yield* timer(LockMetrics.stop, { recipe })
        assert.strictEqual(stops, 1)
        assert.isAtLeast(sum, 200)
        assert.strictEqual((yield* timer(LockMetrics.hold, { recipe })).count, 1)
        yield* allZero
      })))
  }

  it.effect("are at zero before the first loss, so that a monitor sees it as an increase", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "job"))
      const atZero = (yield* Metric.snapshot).flatMap((metric) =>
        (metric.type === "Counter" || metric.type === "Histogram") && metric.state.count === 0
          ? [[metric.id, ...Object.values(metric.attributes ?? {})].join(" ")]
          : []
      )
      assert.sameMembers(atZero, [
        "etcd_lock_losses lock LeaseExpired",
        "etcd_lock_losses lock KeyDeleted",
        "etcd_lock_stop lock milliseconds",
        "etcd_lock_lease_renewals acknowledged",
        "etcd_lock_lease_renewals failed",
        "etcd_lock_lease_renewals revoked",
        "etcd_lock_lease_renewals too_late",
        "etcd_lock_leases_retired",
        "etcd_lock_entries_reaped"
      ])
    })))

  it.effect("count a lock as contended that another fiber of the process holds", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      const fiber = yield* fork(run(Effect.replicateEffect(Lock.withLock(Effect.sleep(10), "job"), 3, {
        concurrency: "unbounded"
      })))
      yield* Effect.repeat(pass(10), { times: 5 })
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      assert.strictEqual(yield* count(LockMetrics.contended, { recipe }), 2)
    })))

  it.effect("tell recipes and labels apart, and never the names", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      const label = "orders"
      yield* run(Lock.withLock(Effect.void, "orders/1", { label }))
      yield* run(Lock.withLock(Effect.void, "orders/2", { label }))
      yield* run(ReadWriteLock.withReadLock(Effect.void, "catalogue"))
      yield* run(ReadWriteLock.withWriteLock(Effect.void, "catalogue"))
      yield* run(Semaphore.withPermits(Effect.void, "pool", { of: 2 }))
      yield* run(Lock.withLocks(Effect.void, ["a", "b", "c"]))
      const result = "acquired"
      const acquired = (attributes: Record<string, string>) =>
        count(LockMetrics.acquisitions, { ...attributes, result })
      assert.strictEqual(yield* acquired({ recipe, lock: label }), 2)
      assert.strictEqual(yield* acquired({ recipe: "read" }), 1)
      assert.strictEqual(yield* acquired({ recipe: "write" }), 1)
      assert.strictEqual(yield* acquired({ recipe: "semaphore" }), 1)
      assert.strictEqual(yield* acquired({ recipe }), 3)
      for (const { attributes } of yield* Metric.snapshot) {
        assert.notInclude(Object.values(attributes ?? {}), "catalogue")
        assert.notInclude(Object.values(attributes ?? {}), "orders/1")
      }
    })))

  it.effect("count a writer that becomes a reader as one and then as the other", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      yield* Effect.scoped(run(Effect.gen(function*() {
        const writing = yield* ReadWriteLock.acquireWrite("job", { downgradable: true })
        assert.strictEqual(yield* gauge(LockMetrics.held, { recipe: "write" }), 1)
        assert.strictEqual(yield* gauge(LockMetrics.held, { recipe: "read" }), 0)
        yield* writing.downgrade
        assert.strictEqual(yield* gauge(LockMetrics.held, { recipe: "write" }), 0)
        assert.strictEqual(yield* gauge(LockMetrics.held, { recipe: "read" }), 1)
      })))
      assert.strictEqual(yield* count(LockMetrics.acquisitions, { recipe: "write", result: "acquired" }), 1)
      assert.strictEqual(yield* count(LockMetrics.acquisitions, { recipe: "read", result: "acquired" }), 0)
      yield* allZero
    })))

  it.effect("add up over the sessions of a process, and go on after one of them has closed", () =>
    provide(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const fibers = [
        yield* fork(a.run(Lock.withLock(Effect.never, "a"))),
        yield* fork(b.run(Lock.withLock(Effect.never, "b")))
      ]
      yield* pass(10)
      assert.strictEqual(yield* gauge(LockMetrics.held, { recipe }), 2)
      yield* a.close
      assert.strictEqual(yield* gauge(LockMetrics.held, { recipe }), 1)
      yield* Effect.forEach(fibers, stop)
      yield* pass(10)
      yield* allZero
    })))
})

describe("metrics of leases", () => {
  const renewals = (result: string) => count(LockMetrics.renewals, { result })

  it.effect("count renewals, and how much of the TTL was left", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* Effect.repeat(pass(100), { times: 49 })
      const acknowledged = yield* renewals("acknowledged")
      // Every second, of a TTL of three.
      assert.isAtLeast(acknowledged, 4)
      assert.isAtMost(acknowledged, 5)
      assert.strictEqual((yield* timer(LockMetrics.renewal)).count, acknowledged)
      const { count: margins, min } = yield* Metric.value(LockMetrics.leaseMargin)
      assert.strictEqual(margins, acknowledged)
      assert.isAtLeast(min, 60)
      assert.isAtMost(min, 67)
      yield* stop(fiber)
      yield* pass(10)
    })))

  it.effect("count renewals that fail, and what was left when one succeeded again", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(10)
      yield* faults.drop("Request", { method: "leaseKeepAlive", times: 2 })
      yield* Effect.repeat(pass(100), { times: 30 })
      assert.strictEqual(yield* renewals("failed"), 2)
      const { min } = yield* Metric.value(LockMetrics.leaseMargin)
      assert.isBelow(min, 60)
      yield* stop(fiber)
      yield* pass(10)
    })))

  it.effect("count a lease that was revoked", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(10)
      const [kv] = yield* faults.keys
      yield* faults.revokeLease(kv!.lease)
      yield* Effect.repeat(pass(100), { times: 20 })
      assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
      // The deleted key may be seen before the renewal finds no lease.
      assert.isAtLeast(yield* renewals("revoked"), 1)
    })))

  it.effect("count a renewal that comes too late", () =>
    provide(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(10)
      const faults = yield* Etcd.Faults
      yield* faults.delay(500)
      yield* pass(1200)
      freeze()
      yield* pass(600)
      yield* faults.heal
      yield* Effect.repeat(pass("1 second"), { times: 20 })
      assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
      assert.strictEqual(yield* renewals("too_late"), 1)
    })))

  it.effect("count leases that are retired and entries that are removed, for an outcome that is unknown", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const other = yield* fork(run(Lock.withLock(Effect.never, "other")))
      yield* pass(1)
      yield* faults.drop("Reply", { method: "txn" })
      const fiber = yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* Effect.repeat(pass(100), { times: 50 })
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      assert.strictEqual(yield* Effect.map(Metric.value(LockMetrics.leasesRetired), ({ count }) => count), 1)
      const reaped = Effect.map(Metric.value(LockMetrics.entriesReaped), ({ count }) => count)
      yield* Effect.repeat(pass(1000), { times: 30 })
      assert.strictEqual(yield* reaped, 1)
      // That ends the lease, on which it was.
      yield* stop(other)
      yield* pass("1 second")
      assert.deepStrictEqual(yield* faults.leases, [])
      assert.strictEqual(yield* reaped, 1)
    })))
})

describe("metrics of requests", () => {
  const requests = (method: string, outcome: string) => count(LockMetrics.requests, { method, outcome })

  it.effect("count one that is interrupted as such", () =>
    provide(Effect.gen(function*() {
      const [etcd, faults] = yield* Effect.all([Etcd.Etcd, Etcd.Faults])
      yield* faults.delay(50)
      const asking = yield* fork(etcd.range(Etcd.get("a")))
      yield* pass(10)
      yield* stop(asking)
      yield* pass(100)
      assert.deepStrictEqual([yield* requests("range", "interrupted"), yield* requests("range", "ok")], [1, 0])
    })))

  it.effect("count each attempt, by its method and outcome", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "job"))
      assert.strictEqual(yield* requests("txn", "ok"), 2)
      assert.strictEqual(yield* requests("leaseGrant", "ok"), 1)
      yield* faults.delay(50)
      yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* Effect.repeat(pass(50), { times: 5 })
      assert.strictEqual(yield* requests("txn", "ok"), 4)
      assert.strictEqual((yield* timer(LockMetrics.request, { method: "txn", outcome: "ok" })).sum, 100)
      yield* faults.heal
      yield* faults.drop("Request", { method: "txn" })
      yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* Effect.repeat(pass(500), { times: 10 })
      assert.strictEqual(yield* requests("txn", "Timeout"), 1)
    })))

  it.effect("say how many transactions travel together", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* sessionThrough(({ txn }) => ({ txn: (request) => Effect.delay(txn(request), 1) }))
      const names = Array.from({ length: 8 }, (_, i) => `job-${i}`)
      const fiber = yield* fork(run(Effect.forEach(names, (name) => Lock.withLock(Effect.void, name), {
        concurrency: "unbounded",
        discard: true
      })))
      yield* Effect.repeat(pass(1), { times: 10 })
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      const { count, max, sum } = yield* Metric.value(LockMetrics.batchSize)
      assert.strictEqual(sum, 16)
      assert.isAtLeast(max, 7)
      assert.isAtMost(count, 6)
    })))
})
