/** Moments of a lock's life that random schedules seldom hit, on an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option } from "effect"
import { Etcd, Lease, Lock } from "effect-etcd-lock"
import { lock } from "../../src/internal/line/discipline.ts"
import { Entry, EntryLost } from "../../src/internal/line/entry.ts"
import { queue } from "../../src/internal/line/layout.ts"
import type { LeaseRef } from "../../src/internal/line/leaseRef.ts"
import type { Line } from "../../src/internal/line/line.ts"
import { failureOf } from "../support/exits.ts"
import { fork, freezable, pass, type Process, provideMemory, session, sessionThrough } from "../support/inMemory.ts"

describe("a handle's own release", () => {
  it.effect("completes even when it is interrupted", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job")
        yield* faults.delay("1 second")
        yield* lock.release
      })).pipe(run, fork)
      yield* pass("100 millis")
      const interrupting = yield* fork(Fiber.interrupt(fiber))
      yield* pass("900 millis")
      yield* Fiber.join(interrupting)
      yield* faults.heal
      assert.deepStrictEqual(yield* faults.keys, [])
      yield* run(Lock.withLock(Effect.void, "job"))
      yield* pass("10 seconds")
      assert.deepStrictEqual(yield* faults.leases, [], "the lease was not left hanging")
    }).pipe(provideMemory))
})

describe("an idle lease", () => {
  it.effect("does not wait in a busy loop when fractions of the clock do not add up", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "2 seconds" })
      // 48.112343 + 2000 - 48.112343 < 2000
      yield* pass(48.112343)
      yield* run(Lock.withLock(Effect.void, "job"))
      const started = performance.now()
      yield* pass("3 seconds")
      assert.isBelow(performance.now() - started, 900, "the test clock gives up on busy fibers after a second")
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))
})

describe("a closed session", () => {
  it.effect("fails the waiters in its own line, at once", () =>
    Effect.gen(function*() {
      const { close, run } = yield* session()
      const [holder, ...waiting] = yield* Effect.forEach([1, 2, 3], () => fork(run(Lock.withLock(Effect.never, "job"))))
      yield* pass(1)
      yield* close
      yield* pass(1)
      assert.include(failureOf(holder!.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      for (const fiber of waiting) assert.include(failureOf(fiber.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("fails those who wait for the lease, or for the answer to a join", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      for (const millis of [500, 1500]) {
        const { close, run } = yield* session()
        yield* faults.delay("1 second")
        const waiting = yield* Effect.forEach([1, 2], () => fork(run(Lock.withLock(Effect.never, "job"))))
        yield* pass(millis)
        yield* faults.heal
        const closing = yield* fork(close)
        yield* pass("2 seconds")
        assert.isDefined(closing.pollUnsafe())
        for (const fiber of waiting) assert.isDefined(failureOf(fiber.pollUnsafe()), `after ${millis} ms`)
      }
    }).pipe(provideMemory))

  it.effect("fails those who wait for a single key", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      yield* fork(a.run(Lock.withLock(Effect.never, "job", { layout: "single-key" })))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.never, "job", { layout: "single-key" })))
      yield* pass(1)
      yield* b.close
      yield* pass(1)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("fails those who still ask it for a lock", () =>
    Effect.gen(function*() {
      const { close, run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "job"))
      yield* close
      const errors = [
        yield* Effect.flip(run(Lock.withLock(Effect.void, "job"))),
        yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "other")))
      ]
      for (const error of errors) assert.include(error as Lock.LockLost, { _tag: "LockLost" })
    }).pipe(provideMemory))

  it.effect("has revoked its lease, also when a join was under way", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, run } = yield* session()
      yield* faults.delay("100 millis")
      yield* fork(run(Lock.withLock(Effect.never, "job")))
      // the lease is granted, and the join is on its way
      yield* pass("150 millis")
      const closing = yield* fork(Effect.andThen(close, faults.leases))
      yield* pass("2 seconds")
      assert.deepStrictEqual(closing.pollUnsafe(), Exit.succeed([]))
    }).pipe(provideMemory))

  it.effect("asks etcd for no lease any more, also for the next in its own line", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let grants = 0
      const { close, run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) => {
          grants++
          return etcd.leaseGrant(id, seconds)
        }
      }))
      yield* faults.delay("100 millis")
      yield* Effect.forEach([1, 2], () => fork(run(Lock.withLock(Effect.never, "job"))))
      yield* pass("50 millis")
      const closing = yield* fork(close)
      yield* pass("2 seconds")
      assert.isDefined(closing.pollUnsafe())
      assert.strictEqual(grants, 1)
    }).pipe(provideMemory))

  it.effect("does not keep a release from ending", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, run } = yield* session()
      const holder = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      yield* faults.delay("1 second")
      const interrupting = yield* fork(Fiber.interrupt(holder))
      yield* pass(100)
      const closing = yield* fork(close)
      yield* pass("2 seconds")
      assert.isDefined(interrupting.pollUnsafe())
      assert.isDefined(closing.pollUnsafe())
    }).pipe(provideMemory))
})

describe("a lease that is revoked behind its session's back", () => {
  it.effect("is replaced a bounded number of times", () =>
    Effect.gen(function*() {
      let toRevoke = 2
      const { run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) =>
          Effect.tap(etcd.leaseGrant(id, seconds), () => toRevoke-- > 0 ? etcd.leaseRevoke(id) : Effect.void)
      }))
      assert.strictEqual(yield* run(Lock.withLock(Effect.succeed("done"), "job")), "done")
      yield* pass("4 seconds")
      toRevoke = Infinity
      const error = yield* Effect.flip(run(Lock.withLock(Effect.void, "job")))
      assert.include(error as Lock.LockLost, { _tag: "LockLost", reason: "LeaseExpired" })
    }).pipe(provideMemory))
})

describe("a join whose answer was lost", () => {
  it.effect("retires its lease, even when the next answer arrived, since the first may be applied late", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "15 seconds" })
      const leaseOf = (name: string) => run(Effect.scoped(Effect.map(Lock.acquire(name), ({ leaseId }) => leaseId)))
      const lease = yield* leaseOf("job")
      assert.strictEqual(yield* leaseOf("job"), lease)
      yield* faults.drop("Reply", { method: "txn" })
      const repeated = yield* fork(leaseOf("job"))
      yield* pass("3 seconds")
      assert.strictEqual(yield* Fiber.join(repeated), lease)
      yield* pass("1 second")
      assert.deepStrictEqual(yield* faults.leases, [], "it was revoked when its last holder left")
      assert.notStrictEqual(yield* leaseOf("job"), lease)
    }).pipe(provideMemory))
})

/** A session whose watch of the lock's line stands, and which has no entry there. */
const watching = (run: Process["run"], name: string) =>
  Effect.gen(function*() {
    const other = yield* session()
    const holder = yield* fork(other.run(Lock.withLock(Effect.never, name)))
    yield* pass(1)
    const waiting = yield* fork(run(Lock.withLock(Effect.void, name)))
    yield* pass(1)
    yield* Fiber.interrupt(holder)
    yield* pass(1)
    yield* Fiber.join(waiting)
    yield* other.close
  })

describe("an answer to a join that comes late", () => {
  it.effect("is ignored when the watch has already reported the entry's deletion", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* watching(run, "job")
      yield* faults.delay(200)
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(150)
      yield* faults.deletePrefix("job/")
      yield* pass(50)
      assert.include(failureOf(fiber.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      // What a backup may have brought back is removed.
      yield* pass(200)
    }).pipe(provideMemory))

  it.effect("skips predecessors that the watch has already reported deleted", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      yield* watching(b.run, "job")
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const [held] = yield* faults.keys
      assert(held !== undefined)
      yield* faults.delay(200)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.void, "job")))
      yield* pass(150)
      yield* faults.deleteKey(held.key)
      yield* faults.heal
      yield* pass(50)
      assert.isDefined(waiting.pollUnsafe())
      yield* Fiber.interrupt(holder)
    }).pipe(provideMemory))
})

describe("a write that etcd applies twice", () => {
  it.effect("does not create a hand-over's entry again", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const holder = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const next = yield* fork(run(Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job")
        const [kv] = yield* faults.keys
        return { there: kv?.createRevision, told: lock.createRevision, version: kv?.version }
      }))))
      yield* faults.drop("Reply", { method: "txn" })
      yield* fork(Fiber.interrupt(holder))
      yield* pass("2 seconds")
      const { there, told, version } = yield* Fiber.join(next)
      assert.strictEqual(told, there)
      assert.strictEqual(version, 1n)
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(provideMemory))

  it.effect("does not delete the entry that came after the one that was left", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "30 seconds" })
      const first = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const [left] = yield* faults.keys
      // arrives after three seconds
      yield* faults.delay("6 seconds")
      yield* fork(Fiber.interrupt(first))
      yield* pass(10)
      yield* faults.heal
      yield* pass("2 seconds")
      assert.deepStrictEqual(yield* faults.keys, [], "it was sent again, and applied")
      yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(10)
      const [entry] = yield* faults.keys
      assert(entry !== undefined && left !== undefined)
      assert.strictEqual(String(entry.key), String(left.key), "keys are used again")
      yield* pass("2 seconds")
      assert.deepStrictEqual(yield* faults.keys, [entry])
    }).pipe(provideMemory))
})

describe("a join that may come late", () => {
  const lateJoin = Effect.gen(function*() {
    const faults = yield* Etcd.Faults
    const { run } = yield* session({ ttl: "60 seconds" })
    yield* run(Lock.withLock(Effect.void, "job"))
    const [lease] = yield* faults.leases
    const holder = yield* fork(run(Lock.withLock(Effect.never, "other")))
    yield* pass(1)
    // the request times out after five seconds and arrives after ten
    yield* faults.delay("20 seconds")
    const late = yield* fork(run(Lock.withLock(Effect.void, "job")))
    yield* pass("6 seconds")
    yield* faults.heal
    assert.include(failureOf(late.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", outcome: "Unknown" })
    return { run, holder, lease: lease! }
  })

  it.effect("retires its lease, which is revoked after its last holder", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { holder, lease, run } = yield* lateJoin
      const next = yield* fork(run(Effect.scoped(Effect.map(Lock.acquire("next"), ({ leaseId }) => leaseId))))
      yield* pass(100)
      assert.notStrictEqual(yield* Fiber.join(next), lease)
      assert.include(yield* faults.leases, lease)
      yield* fork(Fiber.interrupt(holder))
      yield* pass(100)
      assert.notInclude(yield* faults.leases, lease)
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(provideMemory))

  it.effect("is removed although its lease lives on", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { holder } = yield* lateJoin
      yield* pass("20 seconds")
      assert.deepStrictEqual((yield* faults.keys).map(({ key }) => String(key).split("/")[0]), ["other"])
      assert.isUndefined(holder.pollUnsafe())
    }).pipe(provideMemory))
})

describe("the proposals to all members", () => {
  /** A session that counts the transactions that may write. */
  const counted = Effect.gen(function*() {
    let count = 0
    const { run } = yield* sessionThrough((etcd) => ({
      txn: (request) => {
        if ([...request.then, ...request.else ?? []].some((op) => op._tag !== "Range")) count++
        return etcd.txn(request)
      }
    }))
    const proposals = () => {
      const counted = count
      count = 0
      return counted
    }
    return { run, proposals }
  })

  it.effect("of a lock that is free are one to take it and one to release it", () =>
    Effect.gen(function*() {
      const { proposals, run } = yield* counted
      for (let i = 0; i < 3; i++) {
        yield* run(Lock.withLock(Effect.void, "job"))
        assert.strictEqual(proposals(), 2)
      }
    }).pipe(provideMemory))

  it.effect("of a lock that is taken are one more, but only for the first who finds it so", () =>
    Effect.gen(function*() {
      const other = yield* session()
      const { proposals, run } = yield* counted
      for (const joins of [2, 1, 1]) {
        const holder = yield* fork(other.run(Lock.withLock(Effect.never, "job")))
        yield* pass(1)
        const waiting = yield* fork(run(Lock.withLock(Effect.void, "job")))
        yield* pass(1)
        assert.strictEqual(proposals(), joins)
        yield* Fiber.interrupt(holder)
        yield* pass(1)
        assert.isDefined(waiting.pollUnsafe())
        assert.strictEqual(proposals(), 1, "the release")
      }
      // nobody was before it, so the next one takes the lock for free
      for (let i = 0; i < 2; i++) {
        yield* run(Lock.withLock(Effect.void, "job"))
        assert.strictEqual(proposals(), 2)
      }
      const holder = yield* fork(other.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      assert.strictEqual(proposals(), 2)
      yield* Fiber.interrupt(holder)
    }).pipe(provideMemory))

  it.effect("are none for a try that is refused again and again, and it takes the lock once it is free", () =>
    Effect.gen(function*() {
      const other = yield* session()
      const { proposals, run } = yield* counted
      const holder = yield* fork(other.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const attempt = run(Lock.withLockIfAvailable(Effect.succeed("done"), "job"))
      for (let i = 0; i < 5; i++) assert.deepStrictEqual(yield* attempt, Option.none())
      assert.strictEqual(proposals(), 1)
      yield* Fiber.interrupt(holder)
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* attempt, Option.some("done"))
      assert.strictEqual(proposals(), 2 * 3)
    }).pipe(provideMemory))
})

describe("many locks", () => {
  /** A session whose watches take a while to open. */
  const slow = Effect.gen(function*() {
    const seen = { opening: 0, most: 0, standing: 0 }
    const { run } = yield* sessionThrough((etcd) => ({
      subscribe: (options, listener) =>
        Effect.suspend(() => {
          seen.most = Math.max(seen.most, ++seen.opening)
          return Effect.delay(etcd.subscribe(options, listener), "100 millis")
        }).pipe(
          Effect.ensuring(Effect.sync(() => seen.opening--)),
          Effect.tap(() => Effect.sync(() => seen.standing++))
        )
    }))
    return { run, seen }
  })

  const names = Array.from({ length: 600 }, (_, i) => `job-${i}`)

  const acquireAll = (run: Process["run"]) =>
    Effect.forEach(names, (name) => run(Lock.acquire(name)), { concurrency: "unbounded" })

  it.effect("that are held have their watches opened a few at a time, until all of them are open, also after a cut", () =>
    Effect.gen(function*() {
      const { run, seen } = yield* slow
      yield* acquireAll(run)
      for (const happens of [Effect.void, (yield* Etcd.Faults).cut]) {
        Object.assign(seen, { most: 0, standing: 0 })
        yield* happens
        yield* pass("500 millis")
        assert.isAtMost(seen.most, 64)
        assert.isAtLeast(seen.standing, 64)
        yield* pass("2 seconds")
        assert.strictEqual(seen.standing, names.length)
      }
    }).pipe(Effect.scoped, provideMemory))

  it.effect("that are waited for have theirs opened some at a time, too", () =>
    Effect.gen(function*() {
      const other = yield* session()
      yield* acquireAll(other.run)
      const { run, seen } = yield* slow
      yield* fork(acquireAll(run))
      for (const happens of [Effect.void, (yield* Etcd.Faults).cut]) {
        Object.assign(seen, { most: 0, standing: 0 })
        yield* happens
        yield* pass("2 seconds")
        assert.isAtMost(seen.most, 256)
        assert.strictEqual(seen.standing, names.length)
      }
    }).pipe(Effect.scoped, provideMemory))
})

describe("the watch of a held lock that is to be opened after others", () => {
  it.effect("is opened at once when the next one of its process waits for another client", () =>
    Effect.gen(function*() {
      const other = yield* session()
      const { run } = yield* sessionThrough((etcd) => ({
        subscribe: (options, listener) =>
          String(options.key).startsWith("slow-") ? Effect.never : etcd.subscribe(options, listener)
      }))
      yield* Effect.forEach(
        Array.from({ length: 64 }, (_, i) => `slow-${i}`),
        (name) => run(Lock.acquire(name)),
        { concurrency: "unbounded", discard: true }
      )
      const first = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass("1 second")
      const theirs = yield* fork(other.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const next = yield* fork(run(Lock.withLock(Effect.succeed("done"), "job")))
      yield* Fiber.interrupt(first)
      yield* pass(1)
      assert.isUndefined(next.pollUnsafe())
      yield* Fiber.interrupt(theirs)
      yield* pass(1)
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))
})

describe("the loss of a lease", () => {
  it.effect("is the loss of the locks on it, and of no others", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const own = yield* Lease.make({ ttl: "3 seconds" })
      const [onOwn, onShared] = yield* run(Effect.all([Lock.acquire("a", { lease: own }), Lock.acquire("b")]))
      yield* faults.revokeLease(own.id)
      yield* pass("3 seconds")
      assert.include(yield* Effect.flip(onOwn.check), { _tag: "LockLost" })
      yield* onShared.check
      yield* onShared.verify
    }).pipe(Effect.scoped, provideMemory))
})

describe("an entry", () => {
  it("notifies each remaining listener of its loss once", () => {
    const ref = { lease: { isAlive: () => true, id: 7n } } as LeaseRef
    const line = { prefix: "job/", layout: queue } as Line
    const entry = new Entry(line, { ref, value: new Uint8Array(), claim: lock })
    const told: Array<string> = []
    const [stay, leave] = ["stays", "leaves"].map((name) =>
      entry.onLoss(({ reason }) => told.push(`${name}: ${reason}`))
    )
    leave!()
    entry.lose(new EntryLost("KeyDeleted"))
    entry.lose(new EntryLost("LeaseExpired"))
    stay!()
    assert.deepStrictEqual(told, ["stays: KeyDeleted"])
  })
})

describe("a line's watch", () => {
  it.effect("is opened again when it ends while the line is being read", () =>
    Effect.gen(function*() {
      const ended = new Etcd.EtcdError({
        reason: "Unavailable",
        method: "watch",
        outcome: "Unknown",
        description: "cut"
      })
      let opened = 0
      const [holder, waiter] = yield* Effect.all([
        session(),
        sessionThrough((etcd) => ({
          range: (range) => Effect.delay(etcd.range(range), "100 millis"),
          subscribe: (options, listener) =>
            Effect.tap(etcd.subscribe(options, listener), ({ close }) =>
              Effect.sync(() => {
                if (opened++ > 0) return
                close()
                listener.onEnd(ended)
              }))
        }))
      ])
      const holding = yield* fork(holder.run(Lock.withLock(Effect.sleep("1 second"), "job")))
      yield* pass("100 millis")
      const waiting = yield* fork(waiter.run(Lock.withLock(Effect.succeed("done"), "job")))
      yield* pass("900 millis")
      assert.isDefined(holding.pollUnsafe())
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
      assert.strictEqual(opened, 2)
    }).pipe(Effect.scoped, provideMemory))
})

describe("a waiter", () => {
  it.effect("that is interrupted at any moment of a hand-over passes the lock on", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      for (let ticks = 0; ticks < 40; ticks++) {
        const [holder, next, last] = yield* Effect.forEach(
          [Effect.never, Effect.never, Effect.void],
          (body) => fork(run(Lock.withLock(body, "job")))
        )
        yield* pass(1)
        const releasing = yield* fork(Fiber.interrupt(holder!))
        yield* Effect.repeat(Effect.yieldNow, { times: ticks })
        yield* Fiber.interrupt(next!)
        yield* pass(1)
        assert.isDefined(last!.pollUnsafe(), `after ${ticks} ticks`)
        yield* Fiber.join(releasing)
      }
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(provideMemory))

  it.effect("whose process was frozen for longer than its lease lives does not take its turn", () =>
    Effect.gen(function*() {
      const a = yield* session()
      const { freeze, process: b } = yield* freezable
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      freeze()
      yield* Fiber.interrupt(holder)
      yield* pass(1)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "LeaseExpired" })
    }).pipe(provideMemory))
})

describe("a handle", () => {
  for (const look of ["check", "remaining", "awaitLoss", "whileHeld"] as const) {
    it.effect(`whose process was frozen for longer than its lease lives tells so by the first \`${look}\``, () =>
      Effect.gen(function*() {
        const { freeze, process: { run } } = yield* freezable
        const lock = yield* run(Lock.acquire("job"))
        yield* lock.check
        freeze()
        const lost = { _tag: "LockLost", reason: "LeaseExpired" } as const
        if (look === "remaining") {
          assert.deepStrictEqual(yield* lock.remaining, Duration.zero)
        } else {
          const looking = yield* fork(look === "whileHeld" ? lock.whileHeld(Effect.never) : lock[look])
          yield* pass(1)
          assert.include(failureOf(looking.pollUnsafe()) as Lock.LockLost, lost)
        }
      }).pipe(Effect.scoped, provideMemory))
  }
})
