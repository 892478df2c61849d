/** What a lock costs while it is held, waited for or cut off from etcd. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Scheduler, Stream } from "effect"
import { Etcd, Lease, Lock } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { cite } from "../promises.ts"
import { failureOf } from "../support/exits.ts"
import { heap } from "../support/heap.ts"
import { counted, fork, pass, provideMemory, seconds, session, sessionThrough, stop } from "../support/inMemory.ts"
import { observe } from "../support/watches.ts"

/** Ends a wait without waiting for etcd. */
const holderOf = (error: unknown) => (error as Lock.LockTimeout).holder

describe("what may be left of a lock whose answers were lost", () => {
  it.effect("is looked after for a while by a few transactions, however many locks there were", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { counts, run } = yield* counted({ ttl: "15 seconds" })
      yield* run(Lock.withLock(Effect.void, "warm"))
      yield* faults.drop("Reply", { method: "txn" })
      const held = yield* fork(run(Lock.withLock(Effect.never, "long")))
      const many = yield* fork(Effect.forEach(
        Array.from({ length: 99 }, (_, i) => `short-${i}`),
        (name) => run(Lock.withLock(Effect.void, name)),
        { concurrency: "unbounded", discard: true }
      ))
      yield* seconds(2)
      yield* Fiber.join(many)
      const before = counts.txn
      yield* seconds(30)
      assert.isAtMost(counts.txn - before, 2 * 10)
      const after = { ...counts }
      yield* seconds(60)
      const heartbeats = counts.leaseKeepAlive - after.leaseKeepAlive
      assert.strictEqual(counts.txn - after.txn, heartbeats, "no transaction but those of heartbeats")
      assert.isUndefined(held.pollUnsafe())
      yield* Fiber.interrupt(held)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("on the user's own lease reserves no key after the clean-up", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { counts, run } = yield* counted()
      const lease = yield* Lease.make({ ttl: "5 minutes" })
      for (let i = 0; i < 5; i++) {
        yield* faults.drop("Reply", { method: "txn" })
        yield* fork(run(Lock.withLock(Effect.void, "job", { lease })))
        yield* seconds(3)
      }
      yield* seconds(20)
      const after = counts.txn
      yield* seconds(60)
      assert.strictEqual(counts.txn, after)
      const lock = yield* run(Lock.acquire("job", { lease }))
      assert.strictEqual(lock.key, `job/${lease.id.toString(16)}-1`, "the first number is free again")
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is still removed when it comes as late as etcd may apply it", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const held = yield* fork(run(Lock.withLock(Effect.never, "other")))
      yield* pass(1)
      // The first sending arrives after eleven seconds. Meanwhile the second one does all that there is to do.
      yield* faults.delay("22 seconds")
      const late = yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      yield* faults.heal
      yield* seconds(5)
      assert.deepStrictEqual(late.pollUnsafe(), Exit.void)
      const locks = Effect.map(faults.keys, (kvs) => kvs.map(({ key }) => String(key).split("/")[0]))
      assert.deepStrictEqual(yield* locks, ["other"])
      yield* seconds(20)
      assert.deepStrictEqual(yield* locks, ["other"])
      assert.isUndefined(held.pollUnsafe())
      yield* Fiber.interrupt(held)
    }).pipe(Effect.scoped, provideMemory))
})

describe("a watch", () => {
  it.effect("is not opened again when it ends together with its line", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const watches = observe(yield* Etcd.Etcd)
      const { run } = yield* sessionThrough(() => ({ subscribe: watches.subscribe }))
      // The lines end at different moments around the cut.
      const using = yield* fork(Effect.forEach(
        Array.from({ length: 200 }, (_, i) => i),
        (i) => Effect.delay(run(Lock.withLock(Effect.sleep(600), `job-${i}`)), i * 10),
        { concurrency: "unbounded", discard: true }
      ))
      for (let millis = 0; millis < 2600; millis += 50) yield* TestClock.adjust(50)
      yield* faults.cut
      for (let millis = 0; millis < 5000; millis += 50) yield* TestClock.adjust(50)
      yield* Fiber.join(using)
      assert.isAbove(watches.asked.length, 100)
      assert.deepStrictEqual(watches.open(), [])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("does not accumulate reports of other entries while a lock is held", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { run } = yield* session()
      const held = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass("1 second")
      const before = heap()
      for (let i = 0; i < 10_000; i++) {
        const key = `job/${i}${"x".repeat(1000)}`
        yield* etcd.txn({ then: [Etcd.put(key, "")] })
        yield* etcd.txn({ then: [Etcd.remove(key)] })
      }
      yield* pass("1 second")
      assert.isBelow(heap() - before, 5)
      yield* Fiber.interrupt(held)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("of a held lock is opened also when the wall clock was set back meanwhile", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const clock = yield* Clock.Clock
      let offset = 0
      const { run } = yield* Effect.provideService(session(), Clock.Clock, {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + offset
      })
      const held = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(100)
      offset = -3_600_000
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      assert.include(failureOf(held.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    }).pipe(Effect.scoped, provideMemory))
})

describe("a try", () => {
  it.effect("never waits for another one of its process, whenever the two let each other run", () =>
    Effect.gen(function*() {
      const { run } = yield* session()
      for (let ops = 4; ops <= 40; ops++) {
        const tries = yield* Effect.forEach(
          [1, 2],
          () =>
            Effect.forkChild(run(Lock.tryWithLock(Effect.never, `job-${ops}`))).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
            )
        )
        yield* pass(1)
        const ended = tries.filter((fiber) => fiber.pollUnsafe() !== undefined)
        assert.lengthOf(ended, 1, `with a yield every ${ops} operations`)
        assert.include(failureOf(ended[0]!.pollUnsafe()) as Lock.LockHeld, { _tag: "LockHeld" })
        yield* Effect.forEach(tries, Fiber.interrupt)
      }
    }).pipe(Effect.scoped, provideMemory))

  it.effect("asks etcd nothing any more when its session has closed, and fails with LockLost", () =>
    Effect.gen(function*() {
      let underWay = 0
      const { close, run } = yield* sessionThrough((etcd) => ({
        range: (range) =>
          Effect.andThen(
            Effect.sync(() => underWay++),
            Effect.ensuring(Effect.delay(etcd.range(range), "1 second"), Effect.sync(() => underWay--))
          )
      }))
      yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const trying = yield* fork(run(Lock.tryWithLock(Effect.void, "job")))
      yield* pass(1)
      assert.strictEqual(underWay, 1)
      yield* close
      assert.strictEqual(underWay, 0)
      assert.include(failureOf(trying.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
    }).pipe(Effect.scoped, provideMemory))
})

describe("keys that are no text", () => {
  it.effect("are told apart, so that the end of one is not that of the other", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { run } = yield* session()
      yield* etcd.leaseGrant(7n, 600)
      const keys = [0xfe, 0xff].map((byte) => Buffer.concat([Buffer.from("job/"), Buffer.of(byte)]))
      for (const key of keys) yield* etcd.txn({ then: [Etcd.put(key, "", { lease: 7n })] })
      const waiting = yield* fork(run(Lock.withLock(Effect.succeed("done"), "job")))
      yield* pass(1)
      yield* etcd.txn({ then: [Etcd.remove(keys[0]!)] })
      yield* pass("1 second")
      assert.isUndefined(waiting.pollUnsafe())
      yield* etcd.txn({ then: [Etcd.remove(keys[1]!)] })
      yield* pass(1)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))
})

describe(`without etcd (${cite("P6")})`, () => {
  for (const [fault, reason] of [["unreachable", "Unavailable"], ["stall", "Timeout"]] as const) {
    for (const missing of ["the lease", "the answer to a join"]) {
      it.effect(`(${fault}) all fibers that wait for one lock fail at the same time, for want of ${missing}`, () =>
        Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const { run } = yield* session({ ttl: "60 seconds" })
          if (missing !== "the lease") yield* run(Lock.withLock(Effect.void, "warm"))
          yield* faults[fault]
          const waiting = yield* Effect.forEach(
            Array.from({ length: 100 }),
            (_, i) => fork(run(Lock.withLock(Effect.void, "job", i % 2 === 0 ? undefined : { timeout: "60 seconds" })))
          )
          yield* seconds(6)
          for (const fiber of waiting) {
            assert.include(failureOf(fiber.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", reason })
          }
          yield* faults.heal
          yield* seconds(20)
        }).pipe(Effect.scoped, provideMemory))
    }
  }

  it.effect("a hand-over that fails also fails all who wait behind it", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const holder = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* Effect.forEach([1, 2, 3], () => fork(run(Lock.withLock(Effect.void, "job"))))
      yield* faults.stall
      yield* stop(holder)
      yield* seconds(6)
      for (const fiber of waiting) {
        assert.include(failureOf(fiber.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError" })
      }
      yield* faults.heal
      yield* seconds(20)
      assert.deepStrictEqual(yield* faults.keys, [])
      const later = yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      assert.deepStrictEqual(later.pollUnsafe(), Exit.void)
    }).pipe(Effect.scoped, provideMemory))

  for (const [fault, reason] of [["unreachable", "Unavailable"], ["stall", "Timeout"]] as const) {
    it.effect(`(${fault}) a timeout fails with the EtcdError and not with LockTimeout`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl: "60 seconds" })
        yield* run(Lock.withLock(Effect.void, "warm"))
        yield* faults[fault]
        const asking = yield* fork(run(Lock.withLock(Effect.void, "job", { timeout: "300 millis" })))
        yield* pass(299)
        assert.isUndefined(asking.pollUnsafe())
        yield* pass(501)
        assert.include(failureOf(asking.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", reason })
        yield* faults.heal
        yield* seconds(20)
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("a waiter that stood in the line hears of the outage, too, when its time is up", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session({ ttl: "60 seconds" }), session({ ttl: "60 seconds" })])
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.void, "job", { timeout: "2 seconds" })))
      yield* pass("1 second")
      yield* faults.unreachable
      yield* pass("1500 millis")
      assert.include(failureOf(waiting.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError" })
      yield* faults.heal
      yield* Fiber.interrupt(holder)
      yield* seconds(20)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("leases that come too late to be trusted end in an error, not in one grant after the other", () =>
    Effect.gen(function*() {
      let grants = 0
      const { run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) => {
          grants++
          return Effect.delay(etcd.leaseGrant(id, seconds), "2 seconds")
        }
      }), { ttl: "2 seconds" })
      const asking = yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* seconds(10)
      assert.include(failureOf(asking.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", method: "leaseGrant" })
      assert.strictEqual(grants, 1)
    }).pipe(Effect.scoped, provideMemory))
})

describe("a waiter whose time is up", () => {
  it.effect("is told who holds the lock then, not who held it when it came", () =>
    Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const hold = (process: typeof a, who: string) =>
        fork(process.run(Lock.withLock(Effect.never, "job", { metadata: { who } })))
      const first = yield* hold(a, "first")
      yield* pass(1)
      const second = yield* hold(b, "second")
      yield* pass(1)
      const waiting = yield* fork(c.run(Lock.withLock(Effect.void, "job", { timeout: "1 second" })))
      yield* pass(500)
      yield* Fiber.interrupt(first)
      yield* pass(500)
      assert.deepStrictEqual(holderOf(failureOf(waiting.pollUnsafe()))?.metadata, { who: "second" })
      yield* Fiber.interrupt(second)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("asks etcd for that only once for all fibers of its process", () =>
    Effect.gen(function*() {
      const a = yield* session()
      const b = yield* counted()
      const faults = yield* Etcd.Faults
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job", { metadata: { who: "a" } })))
      yield* pass(1)
      const waiting = yield* Effect.forEach(
        Array.from({ length: 100 }),
        () => fork(b.run(Lock.withLock(Effect.void, "job", { timeout: "1 second" })))
      )
      yield* pass(999)
      const before = b.counts.range
      yield* faults.delay("10 millis")
      yield* Effect.repeat(pass(1), { times: 20 })
      yield* faults.heal
      for (const fiber of waiting) {
        assert.deepStrictEqual(holderOf(failureOf(fiber.pollUnsafe()))?.metadata, { who: "a" })
      }
      assert.strictEqual(b.counts.range - before, 1)
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("fails with LockLost when its session closes while etcd is asked who holds the lock", () =>
    Effect.gen(function*() {
      const a = yield* session()
      let isSlow = false
      const b = yield* sessionThrough((etcd) => ({
        range: (range) => Effect.suspend(() => isSlow ? Effect.never : etcd.range(range))
      }))
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.void, "job", { timeout: "1 second" })))
      yield* pass(990)
      isSlow = true
      yield* pass(50)
      yield* b.close
      yield* pass(10)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      yield* stop(holder)
      yield* pass(10)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("passes its process's place in the line on to the next fiber, without a request", () =>
    Effect.gen(function*() {
      const [a, r] = yield* Effect.all([session(), session()])
      const p = yield* counted()
      const served: Array<string> = []
      const ask = (process: Pick<typeof a, "run">, who: string, options?: Lock.Options) =>
        fork(process.run(Lock.withLock(Effect.sync(() => served.push(who)), "job", options)))
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const first = yield* ask(p, "first", { timeout: "1 second" })
      yield* pass(1)
      yield* ask(p, "second")
      yield* pass(1)
      yield* ask(r, "third")
      yield* pass("500 millis")
      const { leaseKeepAlive, txn } = p.counts
      yield* pass("500 millis")
      assert.include(failureOf(first.pollUnsafe()) as Lock.LockTimeout, { _tag: "LockTimeout" })
      assert.strictEqual(p.counts.txn - txn, p.counts.leaseKeepAlive - leaseKeepAlive)
      yield* Fiber.interrupt(holder)
      yield* pass("1 second")
      assert.deepStrictEqual(served, ["second", "third"])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("leaves a description of the fiber that has its place now", () =>
    Effect.gen(function*() {
      const [a, p] = yield* Effect.all([session(), session()])
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      yield* fork(p.run(Lock.withLock(Effect.void, "job", { timeout: 100, metadata: { who: "first" } })))
      yield* pass(1)
      yield* fork(p.run(Lock.withLock(Effect.never, "job", { metadata: { who: "second" } })))
      yield* pass(200)
      const { queue } = yield* a.run(Lock.inspect("job"))
      assert.deepStrictEqual(queue.map(({ metadata }) => metadata), [{ who: "second" }])
      yield* Fiber.interrupt(holder)
      yield* pass(1)
      const now = yield* a.run(Lock.inspect("job"))
      assert.deepStrictEqual(now.holder?.metadata, { who: "second" })
    }).pipe(Effect.scoped, provideMemory))
})

describe("the changes of a lock", () => {
  it.effect("skip to the latest state when there are more than can be looked at", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const seen: Array<bigint | undefined> = []
      const watching = yield* fork(
        run(
          Stream.runForEach(Lock.changes("job"), ({ holder }) => Effect.sync(() => seen.push(holder?.createRevision)))
        )
      )
      yield* pass("1 second")
      yield* etcd.leaseGrant(7n, 600)
      yield* faults.delay("4 millis")
      for (let i = 0; i < 501; i++) {
        const change = i % 2 === 0 ? Etcd.put("job/1", "", { lease: 7n }) : Etcd.remove("job/1")
        yield* fork(etcd.txn({ then: [change] }))
        yield* pass("2 millis")
      }
      yield* Effect.repeat(pass(10), { times: 10 })
      yield* faults.heal
      const { kvs: [kv] } = yield* etcd.range(Etcd.get("job/1"))
      assert.isDefined(kv)
      assert.strictEqual(seen.at(-1), kv?.createRevision)
      assert.isBelow(seen.length, 400)
      const all = seen.length
      yield* pass("10 seconds")
      assert.lengthOf(seen, all, "nothing comes late")
      yield* Fiber.interrupt(watching)
    }).pipe(Effect.scoped, provideMemory))
})
