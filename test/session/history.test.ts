/** An etcd whose history is another one from one moment to the next, in memory: restored from a backup, wiped, replaced. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, type Fiber } from "effect"
import { Etcd, Lease, Lock, Semaphore, type Session } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, seconds, session, sessionThrough } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"
import * as Recipes from "../support/recipes.ts"

const ttl = "30 seconds"

/** Bodies of one lock, and how many have run at once. */
const bodies = () => {
  let running = 0
  let most = 0
  const body = (ends: Effect.Effect<unknown>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        most = Math.max(most, ++running)
      }),
      () => ends,
      () => Effect.sync(() => running--)
    )
  return { body, most: () => most }
}

const lossOf = (fiber: Fiber.Fiber<unknown, unknown>) => failureOf(fiber.pollUnsafe() as never) as Lock.LockLost

const changes: ReadonlyArray<{
  readonly what: string
  readonly options: Parameters<Etcd.Faults["Service"]["restore"]>[1]
  readonly isWipe?: boolean
  readonly says: RegExp
}> = [
  { what: "a backup is restored", options: {}, says: /etcd's history went back from revision \d+ to \d+/ },
  {
    what: "a backup is restored with its revision bumped",
    options: { bumpRevision: 1_000_000_000n },
    says: /etcd's history leapt from revision \d+ to 1\d{9}/
  },
  { what: "etcd is wiped", options: {}, isWipe: true, says: /etcd's history went back from revision \d+ to \d+/ },
  {
    what: "another cluster takes its place",
    options: { anotherCluster: true, bumpRevision: 10n },
    says: /etcd is another cluster now, [\da-f]+ instead of [\da-f]+/
  }
]

describe("when", () => {
  for (const { isWipe, options, says, what } of changes) {
    it.effect(`${what}, a lock that is held all the time has no second holder, and all that is left of the past goes`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const empty = yield* faults.snapshot
        const [x, a, b] = yield* Effect.all([session({ ttl }), session({ ttl }), session({ ttl })])
        const { body, most } = bodies()
        const holding = yield* fork(x.run(Lock.withLock(body(Effect.never), "job")))
        yield* pass("1 second")
        const waiting = yield* fork(a.run(Lock.withLock(Effect.void, "job")))
        const released = yield* fork(a.run(Lock.withLock(Effect.never, "released")))
        yield* pass("1 second")
        const backup = yield* faults.snapshot
        waiting.interruptUnsafe()
        released.interruptUnsafe()
        // More is written than what a request after the restore writes.
        yield* Effect.repeat(b.run(Lock.withLock(Effect.void, "more")), { times: 20 })
        yield* seconds(2)
        yield* faults.restore(isWipe === true ? empty : backup, options)
        const again = yield* fork(
          a.run(Lock.withLock(body(Effect.sleep("1 second")), "job"))
        )
        const other = yield* fork(b.run(Lock.withLock(Effect.void, "released")))
        yield* seconds(12)
        if (isWipe !== true) assert.strictEqual(most(), 1)
        assert.strictEqual(lossOf(holding)._tag, "LockLost")
        yield* seconds(30)
        assert.isTrue(again.pollUnsafe()?._tag === "Success")
        assert.isTrue(other.pollUnsafe()?._tag === "Success")
        yield* Effect.all([x.close, a.close, b.close], { concurrency: "unbounded" })
        assert.deepStrictEqual(yield* keys, [])
        assert.deepStrictEqual(yield* faults.leases, [])
      }).pipe(Effect.scoped, provideMemory))

    it.effect(`${what}, all leases of a session are lost at once, and say so`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const empty = yield* faults.snapshot
        const { run } = yield* session({ ttl })
        const own = yield* Lease.make({ ttl: "60 seconds" })
        yield* run(Lock.withLock(Effect.void, "warm"))
        const backup = yield* faults.snapshot
        const held = yield* fork(run(Lock.withLock(Effect.never, "job", { lease: own })))
        const permits = yield* fork(run(Semaphore.withPermits(Effect.never, "downloads", { permits: 2, of: 5 })))
        yield* Effect.repeat(run(Lock.withLock(Effect.void, "more")), { times: 20 })
        yield* seconds(2)
        yield* faults.restore(isWipe === true ? empty : backup, options)
        // The answer to any request shows it, here to those with which watches are opened again.
        yield* pass("1 second")
        for (const fiber of [held, permits]) {
          const { cause, message, reason } = lossOf(fiber)
          assert.deepStrictEqual([reason, cause?.reason], ["LeaseExpired", "HistoryChanged"])
          assert.match(message, says)
        }
        yield* faults.heal
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("etcd was not asked for anything since, a heartbeat finds it", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl })
      const backup = yield* Effect.andThen(run(Lock.withLock(Effect.void, "warm")), faults.snapshot)
      const lease = yield* Lease.make({ ttl: "30 seconds" })
      const etcd = yield* Etcd.Etcd
      yield* Effect.repeat(etcd.txn({ then: [Etcd.put("more", "")] }), { times: 20 })
      const lost = yield* fork(Effect.flip(lease.awaitLoss))
      yield* seconds(11)
      yield* faults.restore(backup, { bumpRevision: 1_000_000_000n })
      yield* seconds(10)
      assert.strictEqual(lost.pollUnsafe()?._tag, "Success")
    }).pipe(Effect.scoped, provideMemory))

  it.effect("etcd goes on as it was, nothing is taken for a change: answers in any order, and much that is written", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      let isSlow = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: ((request: Etcd.TxnRequest<[], []>) =>
          isSlow ? Effect.delay(etcd.txn(request), "500 millis") : etcd.txn(request)) as typeof etcd.txn
      }), { ttl })
      const holding = yield* fork(run(Lock.withLock(Effect.never, "job")))
      isSlow = true
      const slow = yield* fork(run(Lock.withLock(Effect.void, "slow")))
      isSlow = false
      yield* fork(run(Lock.withLock(Effect.never, "quick")))
      yield* Effect.repeat(etcd.txn({ then: [Etcd.put("more", "")] }), { times: 1000 })
      yield* seconds(60)
      assert.isDefined(slow.pollUnsafe())
      assert.isUndefined(holding.pollUnsafe())
    }).pipe(Effect.scoped, provideMemory))
})

describe("a key of a released entry that a backup brings back, which no answer tells from etcd's history going on", () => {
  const recipes: ReadonlyArray<readonly [string, Recipes.Recipe]> = [
    ["a lock", Recipes.lock()],
    ["a writer", Recipes.write],
    ["permits", Recipes.permits(1, 1)],
    ["a leader", Recipes.election],
    ["several locks", Recipes.several("other")]
  ]
  const ways = { waits: "withLock", tries: "withLockIfAvailable" } as const

  for (const [what, recipe] of recipes) {
    for (const [asks, way] of Object.entries(ways)) {
      for (const stood of ["ahead of", "behind"] as const) {
        it.effect(`is no entry of a caller that ${asks} again, which stood ${stood} one that holds: ${what}`, () =>
          Effect.gen(function*() {
            const [etcd, faults] = [yield* Etcd.Etcd, yield* Etcd.Faults]
            const [x, a] = yield* Effect.all([session({ ttl }), session({ ttl })])
            const { body, most } = bodies()
            const first = yield* fork((stood === "behind" ? x : a).run(recipe.withLock(body(Effect.never), "job")))
            yield* pass("1 second")
            const second = yield* fork((stood === "behind" ? a : x).run(recipe.withLock(body(Effect.never), "job")))
            yield* pass("1 second")
            const [holding, released] = stood === "behind" ? [first, second] : [second, first]
            const backup = yield* faults.snapshot
            released.interruptUnsafe()
            // By then its line is given up, with all that is known of it.
            yield* seconds(3)
            yield* faults.restore(backup)
            // The revision is beyond the latest that a session has seen.
            yield* Effect.repeat(etcd.txn({ then: [Etcd.put("more", "")] }), { times: 40 })
            const asking: Effect.Effect<unknown, unknown, Session.Session> = recipe[way](body(Effect.never), "job")
            const again = yield* fork(a.run(asking))
            yield* pass("1 second")
            assert.isUndefined(holding.pollUnsafe())
            assert.strictEqual(most(), 1)
            yield* Effect.forEach([holding, again], (fiber) => Effect.sync(() => fiber.interruptUnsafe()))
            yield* seconds(3)
          }).pipe(Effect.scoped, provideMemory))
      }
    }
  }
})

describe("a leap of etcd's history", () => {
  it.effect("is noticed after an hour in which nothing was written", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl })
      const holding = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* Effect.repeat(pass("5 seconds"), { times: 720 })
      yield* faults.restore(yield* faults.snapshot, { bumpRevision: 1_000_000_000n })
      yield* seconds(12)
      assert.match(lossOf(holding).message, /etcd's history leapt/)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is none that a caller's own clock makes", () =>
    Effect.gen(function*() {
      const { run } = yield* session({ ttl })
      yield* pass("1 hour")
      const clock = yield* Clock.Clock
      const simulated = { ...clock, monotonicTimeNanosUnsafe: () => 0n }
      const holding = yield* fork(run(Lock.withLock(
        Effect.flatMap(Lock.Current, (lock) =>
          Effect.andThen(Effect.provideService(lock.verify, Clock.Clock, simulated), Effect.never)),
        "job"
      )))
      yield* seconds(20)
      assert.isUndefined(holding.pollUnsafe())
    }).pipe(Effect.scoped, provideMemory))
})

describe("a lease", () => {
  it.effect("that exists at the first attempt to grant it is another's: another one is granted", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let theirs: bigint | undefined
      const etcd = yield* Etcd.Etcd
      const copied = Etcd.Etcd.of({
        ...etcd,
        // A copy of this machine was first with the same random number.
        leaseGrant: (id, seconds) => {
          if (theirs !== undefined) return etcd.leaseGrant(id, seconds)
          theirs = id
          return Effect.andThen(etcd.leaseGrant(id, seconds), etcd.leaseGrant(id, seconds))
        }
      })
      const lease = yield* Effect.provideService(Lease.make(), Etcd.Etcd, copied)
      assert.notStrictEqual(lease.id, theirs)
      assert.sameMembers([...(yield* faults.leases)], [lease.id, theirs!])
      yield* lease.revoke
      assert.deepStrictEqual(yield* faults.leases, [theirs!])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("that exists after an attempt without an answer is the caller's own", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* faults.drop("Reply", { method: "leaseGrant" })
      const granting = yield* fork(Lease.make())
      yield* seconds(3)
      const exit = granting.pollUnsafe()
      assert.isTrue(exit?._tag === "Success")
      assert.lengthOf(yield* faults.leases, 1)
    }).pipe(Effect.scoped, provideMemory))
})

describe("fencing tokens that may fall", () => {
  it.effect("are announced in the log", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const { run } = yield* session({ ttl }).pipe(Effect.provide(logger))
      yield* Effect.repeat(run(Lock.withLock(Effect.void, "job")), { times: 5 })
      const backup = yield* faults.snapshot
      yield* Effect.repeat(run(Lock.withLock(Effect.void, "job")), { times: 5 })
      yield* faults.restore(backup)
      yield* fork(run(Lock.withLock(Effect.void, "job")))
      yield* seconds(5)
      const said = logged.filter((message) => message.includes("fencing tokens"))
      assert.lengthOf(said, 1)
      assert.match(said[0]!, /etcd's history went back from revision \d+ to \d+/)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("are announced by no session that has ended", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const [a, b] = yield* Effect.all([session({ ttl }), session({ ttl })]).pipe(Effect.provide(logger))
      const backup = yield* faults.snapshot
      for (const { run } of [a, b]) yield* run(Lock.withLock(Effect.void, "job"))
      yield* a.close
      yield* faults.restore(backup)
      yield* fork(b.run(Lock.withLock(Effect.void, "job")))
      yield* seconds(5)
      assert.lengthOf(logged.filter((message) => message.includes("fencing tokens")), 1)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("are announced once, however many requests were under way", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const { run } = yield* session({ ttl }).pipe(Effect.provide(logger))
      const backup = yield* faults.snapshot
      const handle = yield* run(Lock.acquire("job"))
      yield* faults.delay(100)
      const asking = yield* fork(Effect.replicateEffect(Effect.exit(handle.verify), 3, { concurrency: 3 }))
      yield* pass(20)
      yield* faults.restore(backup)
      yield* Effect.repeat(pass(100), { times: 10 })
      yield* faults.heal
      assert.isDefined(asking.pollUnsafe())
      assert.lengthOf(logged.filter((message) => message.includes("all leases of this session are lost")), 1)
    }).pipe(Effect.scoped, provideMemory))
})
