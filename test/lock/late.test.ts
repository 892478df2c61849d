/** What comes late, or at the very moment of something else: events, turns, writes, on an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scheduler, type Scope } from "effect"
import { Etcd, Lease, Lock, ReadWriteLock, Session } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, freezable, pass, provideMemory, session, sessionThrough } from "../support/inMemory.ts"

const hold = (name: string) => Lock.withLock(Effect.never, name)

const puts = (
  { else: otherwise = [], then }: Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, ReadonlyArray<Etcd.Op>>
): boolean => [...then, ...otherwise].some((op) => op._tag === "Put" || (op._tag === "Txn" && puts(op)))

/** The key that is first in a lock's line. */
const firstOf = (name: string) =>
  Effect.map(
    Effect.flatMap(Etcd.Faults, (faults) => faults.keys),
    (kvs) =>
      kvs.filter(({ key }) => String(key).startsWith(`${name}/`))
        .toSorted((a, b) => Number(a.createRevision - b.createRevision))
        .map(({ key }) => String(key))[0]
  )

describe("the end of an entry, reported when the same key is in use again,", () => {
  for (const layout of ["queue", "single-key"] as const) {
    it.effect(`is not the loss of the entry that has the key by then (${layout})`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        const holding = run(Lock.withLock(Effect.never, "job", { layout }))
        const key = Effect.map(faults.keys, (kvs) => kvs.map(({ key }) => String(key)))
        const first = yield* fork(holding)
        // By then the watch for the end of what is held stands.
        yield* pass("1 second")
        const before = yield* key
        yield* faults.delayWatches("1 second")
        yield* Fiber.interrupt(first)
        const second = yield* fork(holding)
        yield* pass(1)
        assert.deepStrictEqual(yield* key, before, "keys are used again")
        yield* pass("2 seconds")
        assert.isUndefined(second.pollUnsafe())
        assert.deepStrictEqual(yield* key, before)
        yield* Fiber.interrupt(second)
      }).pipe(provideMemory))
  }

  it.effect("gives no turn to those who wait behind the entry that has the key by then", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const first = yield* fork(a.run(hold("job")))
      yield* pass(1)
      const key = yield* firstOf("job")
      // The watch of one who waits outlives the wait.
      const waiting = yield* fork(b.run(hold("job")))
      yield* pass(1)
      yield* Fiber.interrupt(waiting)
      yield* faults.delayWatches("500 millis")
      yield* Fiber.interrupt(first)
      const second = yield* fork(a.run(hold("job")))
      yield* pass(1)
      assert.strictEqual(yield* firstOf("job"), key, "keys are used again")
      let started = false
      const behind = yield* fork(b.run(Lock.withLock(Effect.sync(() => started = true), "job")))
      yield* pass("2 seconds")
      assert.isFalse(started)
      yield* Fiber.interrupt(second)
      yield* pass("500 millis")
      assert.isTrue(started)
      yield* Fiber.join(behind)
    }).pipe(provideMemory))
})

// Only fibers that yield after very few operations let anything come between the turn and the end of a wait with a
// timeout, which is a race of fibers, or between the steps of an acquire.
const slowly = (maxOps: number) => Effect.provideService(Scheduler.MaxOpsBeforeYield, maxOps)

describe("a lock that is got at the very moment in which its waiter gives up", () => {
  it.effect("is given back when that is an interruption", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      for (let maxOps = 5; maxOps <= 12; maxOps++) {
        for (let ticks = 0; ticks < 30; ticks++) {
          const holder = yield* fork(a.run(hold("job")))
          yield* pass(1)
          const waiting = yield* fork(
            b.run(Effect.scoped(Lock.acquire("job", { timeout: "1 hour" }))).pipe(slowly(maxOps))
          )
          yield* pass(1)
          yield* fork(Fiber.interrupt(holder))
          yield* Effect.repeat(Effect.yieldNow, { times: ticks })
          yield* Fiber.interrupt(waiting)
          yield* pass(1)
          assert.deepStrictEqual(yield* faults.keys, [], `after ${ticks} ticks, with ${maxOps} operations at a time`)
        }
      }
    }).pipe(provideMemory))

  it.effect("is given back when that is the end of its time", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      for (let maxOps = 5; maxOps <= 12; maxOps++) {
        for (let ticks = 1; ticks < 30; ticks++) {
          const body = Effect.andThen(Effect.sleep(10), Effect.repeat(Effect.yieldNow, { times: ticks }))
          const holder = yield* fork(a.run(Lock.withLock(body, "job")))
          yield* pass(1)
          const waiting = yield* fork(b.run(Effect.scoped(Lock.acquire("job", { timeout: 9 }))).pipe(slowly(maxOps)))
          yield* pass(9)
          yield* pass(1)
          assert.isDefined(holder.pollUnsafe())
          assert.isDefined(waiting.pollUnsafe())
          assert.deepStrictEqual(yield* faults.keys, [], `after ${ticks} ticks, with ${maxOps} operations at a time`)
        }
      }
    }).pipe(provideMemory))
})

describe("an acquire that is interrupted", () => {
  const ways = {
    withLock: Lock.withLock(Effect.void, "job"),
    "withLock with a timeout": Lock.withLock(Effect.void, "job", { timeout: "1 hour" }),
    tryWithLock: Lock.withLockIfAvailable(Effect.void, "job"),
    withLocks: Lock.withLocks(Effect.void, ["job", "other"]),
    "a session's lease": Effect.scoped(Effect.flatMap(Session.Session, ({ lease }) => lease))
  }
  for (const [way, acquire] of Object.entries<Effect.Effect<unknown, unknown, Session.Session>>(ways)) {
    it.effect(`keeps no lease alive, whenever it lets others run (${way})`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl: "2 seconds" })
        for (let maxOps = 3; maxOps <= 25; maxOps++) {
          for (let ticks = 0; ticks < 10; ticks++) {
            yield* run(Lock.withLock(Effect.void, "warm"))
            const acquiring = yield* Effect.forkChild(slowly(maxOps)(run(acquire)))
            yield* Effect.repeat(Effect.yieldNow, { times: ticks })
            yield* Fiber.interrupt(acquiring)
            yield* pass("5 seconds")
            assert.deepStrictEqual(
              yield* faults.leases,
              [],
              `after ${ticks} ticks, with ${maxOps} operations at a time`
            )
          }
        }
      }).pipe(Effect.scoped, provideMemory))
  }
})

describe("a turn that comes when the lease's time is over, which no timer has noticed yet,", () => {
  it.effect("gives no handle", () =>
    Effect.gen(function*() {
      const a = yield* session()
      const { freeze, process: b } = yield* freezable
      const holder = yield* fork(a.run(hold("job")))
      yield* pass(1)
      let isAcquired = false
      const acquired = Effect.tap(Lock.acquire("job"), () => Effect.sync(() => isAcquired = true))
      const waiting = yield* fork(b.run(Effect.scoped(acquired)))
      yield* pass(1)
      freeze()
      yield* Fiber.interrupt(holder)
      yield* pass(1)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "LeaseExpired" })
      assert.isFalse(isAcquired)
    }).pipe(provideMemory))

  type Try = Effect.Effect<Lock.Handle, Lock.AcquireError | Lock.LockHeld, Session.Session | Scope.Scope>
  const tries: Record<string, Try> = {
    "of one lock": Lock.tryAcquire("job"),
    "of several": Lock.acquireAll(["job", "other"], { timeout: 0 })
  }
  for (const [what, attempt] of Object.entries(tries)) {
    it.effect(`gives no handle to a try ${what} either`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { freeze, process: { run } } = yield* freezable
        yield* run(Lock.withLock(Effect.void, "warm"))
        yield* faults.delay(20)
        let isAcquired = false
        const acquired = Effect.tap(attempt, () => Effect.sync(() => isAcquired = true))
        const trying = yield* fork(run(Effect.scoped(acquired)))
        yield* pass(10)
        freeze()
        yield* pass(10)
        yield* faults.heal
        yield* pass("1 second")
        assert.isFalse(isAcquired)
        const error = failureOf(trying.pollUnsafe()) as Lock.LockLost
        assert.include(error, { _tag: "LockLost", reason: "LeaseExpired", fencingToken: undefined })
      }).pipe(provideMemory))
  }
})

describe("a hand-over that fails", () => {
  const failures = [
    ["NoSpace", "Unknown"],
    ["PermissionDenied", "Refused"],
    ["Unavailable", "Unknown"]
  ] as const

  for (const [reason, outcome] of failures) {
    it.effect(`with ${reason} leaves the lock free, though its lease lives on`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        let isFull = false
        const a = yield* sessionThrough((etcd) => ({
          txn: (request) =>
            isFull && puts(request)
              ? Effect.fail(new Etcd.EtcdError({ reason, method: "txn", outcome, description: "no put" }))
              : etcd.txn(request)
        }))
        yield* fork(a.run(hold("other")))
        const holder = yield* fork(a.run(hold("job")))
        yield* pass(1)
        const next = yield* fork(a.run(hold("job")))
        const [lease] = yield* faults.leases
        isFull = true
        yield* Fiber.interrupt(holder)
        yield* pass("1 second")
        assert.include(failureOf(next.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", reason })
        assert.isUndefined(yield* firstOf("job"))
        assert.include(yield* faults.leases, lease!)
        const b = yield* session()
        yield* b.run(Lock.withLock(Effect.void, "job"))
      }).pipe(provideMemory))
  }
})

describe("a join that arrives after its first removal", () => {
  it.effect("is removed again, though its lease lives on", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const holder = yield* fork(run(hold("other")))
      yield* pass(1)
      // All attempts are on their way for 7 seconds, and given up after 5. The first removal overtakes them.
      yield* faults.delay("14 seconds")
      const late = yield* fork(run(hold("job")))
      yield* pass("4900 millis")
      yield* faults.heal
      yield* pass("100 millis")
      assert.include(failureOf(late.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", outcome: "Unknown" })
      yield* pass("1 second")
      assert.isUndefined(yield* firstOf("job"))
      yield* pass("1 second")
      assert.isDefined(yield* firstOf("job"), "it has arrived")
      yield* pass("30 seconds")
      assert.isUndefined(yield* firstOf("job"))
      assert.isUndefined(holder.pollUnsafe())
      assert.strictEqual((yield* faults.leases).length, 1)
    }).pipe(provideMemory))
})

describe("what may be left of an entry", () => {
  it.effect("is removed also when etcd could not be reached for as long as its last put may have come", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const holder = yield* fork(run(hold("other")))
      yield* pass(1)
      yield* faults.drop("Reply", { method: "txn" })
      const late = yield* fork(run(hold("job")))
      yield* pass(1)
      yield* faults.unreachable
      yield* Effect.repeat(pass("1 second"), { times: 25 })
      assert.include(failureOf(late.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", outcome: "Unknown" })
      assert.isDefined(yield* firstOf("job"))
      yield* faults.reachable
      yield* Effect.repeat(pass("1 second"), { times: 10 })
      assert.isUndefined(yield* firstOf("job"))
      assert.isUndefined(holder.pollUnsafe())
      assert.strictEqual((yield* faults.leases).length, 1)
    }).pipe(provideMemory))
})

describe("a removal that arrives after its answer, by an attempt of its own that had none", () => {
  for (const late of [3000, 7900]) {
    it.effect(`does not remove the entry that has the key by then (${late} ms later)`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const lost = new Etcd.EtcdError({
          reason: "Unavailable",
          method: "txn",
          outcome: "Unknown",
          description: "lost"
        })
        let now: "All is well" | "The release is lost" | "A removal is late" = "All is well"
        const { run } = yield* sessionThrough((etcd) => ({
          txn: (request) => {
            const [first] = request.then
            if (now === "The release is lost" && first?._tag === "Delete") return Effect.fail(lost)
            if (now !== "A removal is late" || first?._tag !== "Delete") return etcd.txn(request)
            now = "All is well"
            const again = Effect.forkDetach(Effect.delay(etcd.txn(request), late))
            return Effect.andThen(again, Effect.map(etcd.txn(request), (answer) => ({ ...answer, repeated: true })))
          }
        }))
        const lease = yield* Lease.make({ ttl: "10 minutes" })
        const holding = fork(run(Lock.withLock(Effect.never, "job", { lease })))
        const first = yield* holding
        yield* pass(1)
        now = "The release is lost"
        yield* Fiber.interrupt(first)
        now = "All is well"
        // No put can come late now, so this removal would be the last one.
        yield* pass("14 seconds")
        now = "A removal is late"
        yield* Effect.repeat(pass(100), { until: () => now === "All is well", times: 50 })
        yield* pass(late - 500)
        const second = yield* holding
        yield* pass("2 seconds")
        assert.isUndefined(second.pollUnsafe())
        assert.isDefined(yield* firstOf("job"))
        yield* Fiber.interrupt(second)
        yield* pass("20 seconds")
        assert.deepStrictEqual(yield* faults.keys, [])
      }).pipe(Effect.scoped, provideMemory))
  }
})

describe("a reader whose key was deleted, and put again by a late attempt at its join,", () => {
  it.effect("never starts", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      const b = yield* sessionThrough((etcd) => ({
        txn: (request) => {
          if (!puts(request)) return etcd.txn(request)
          const again = Effect.forkDetach(Effect.delay(etcd.txn(request), 400))
          return Effect.andThen(again, Effect.map(etcd.txn(request), (answer) => ({ ...answer, repeated: true })))
        }
      }), { ttl: "60 seconds" })
      const writing = yield* fork(a.run(ReadWriteLock.withWriteLock(Effect.never, "job")))
      yield* pass(1)
      let hasStarted = false
      const reading = yield* fork(
        b.run(ReadWriteLock.withReadLock(Effect.sync(() => hasStarted = true), "job"))
      )
      yield* pass(1)
      yield* pass(200)
      // By then no watch of the reader's own key is open.
      yield* faults.deletePrefix("job/read/")
      assert.strictEqual((yield* faults.keys).length, 1)
      yield* pass(300)
      assert.strictEqual((yield* faults.keys).length, 2, "it has come")
      yield* Fiber.interrupt(writing)
      yield* pass(100)
      assert.isFalse(hasStarted)
      assert.include(failureOf(reading.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      yield* pass("30 seconds")
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(provideMemory))
})

describe("a hand-over that finds the entry gone", () => {
  it.effect("keeps no lease alive, and its next holder joins by itself", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "2 seconds" })
      const holder = yield* fork(run(hold("job")))
      yield* pass(1)
      const next = yield* fork(run(Lock.withLock(Effect.succeed("ran"), "job")))
      yield* pass(1)
      // No watch is open yet that would tell.
      yield* faults.deletePrefix("job/")
      yield* Fiber.interrupt(holder)
      yield* pass(1)
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("ran"))
      yield* Effect.repeat(pass("1 second"), { times: 6 })
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))
})
