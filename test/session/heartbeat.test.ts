/** What a session hears of its lease and of all that hangs on it, whatever its watches report, on an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Latch, Record, type Scope } from "effect"
import { Election, Etcd, Lease, Lock, Semaphore, type Session } from "effect-etcd-lock"
import { prefixed } from "../../src/internal/etcd/namespace.ts"
import * as Service from "../../src/internal/etcd/service.ts"
import * as EtcdStub from "../support/EtcdStub.ts"
import { failureOf } from "../support/exits.ts"
import { counted, fork, keys, pass, provideMemory, seconds, session, sessionThrough } from "../support/inMemory.ts"
import { lossOf, observed } from "../support/leases.ts"
import { logs } from "../support/logs.ts"
import * as Recipes from "../support/recipes.ts"

const ttl = "9 seconds"

/** Lets time pass in the steps in which it would. */
const refused = (reason: Etcd.EtcdErrorReason) => (method: string) =>
  Effect.suspend(() => {
    refusals.push(method)
    return Effect.fail(new Etcd.EtcdError({ reason, method, outcome: "Refused", description: "no" }))
  })
const denied = refused("PermissionDenied")
const refusals: Array<string> = []

/** Another connection to the same etcd, with a prefix of its own. */
const prefixedBy = (prefix: string, etcd: Etcd.Etcd["Service"]): Etcd.Etcd["Service"] => {
  const { requestTimeout } = etcd
  const transport = prefixed({
    ...etcd,
    txn: (txn) => Effect.map(etcd.txn({ ...txn, idempotent: true }), (result) => result as any),
    leaseTimeToLive: (id, keys) => etcd.leaseTimeToLive(id, { keys }),
    watch: (options, _, subscriber) =>
      Effect.map(
        etcd.subscribe(options, {
          onEvents: (events) => subscriber.publish(events),
          onEnd: (error) => subscriber.end(error)
        }),
        (subscription) => {
          subscriber.source = { cancel: subscription.close }
          return subscription.revision
        }
      )
  }, Buffer.from(prefix))
  return Service.make(transport, Duration.toMillis(requestTimeout))
}

const lossReason = (exit: unknown) => {
  const error = failureOf(exit as Parameters<typeof failureOf>[0]) as Lock.LockLost
  return [error._tag, error.reason]
}

describe("a renewal", () => {
  const grant = (stub: EtcdStub.EtcdStub, change: Partial<Etcd.Etcd["Service"]> = {}) =>
    Effect.provideService(observed(Lease.make()), Etcd.Etcd, { ...stub.etcd, ...change })

  it.effect("counts once a read has been answered after it", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ read: () => EtcdStub.failing("Timeout", "Unknown") })
      const lease = yield* grant(stub)
      yield* seconds(13)
      assert.isAbove(stub.times("renew").length, 2)
      assert.isUndefined(yield* lossOf(lease))
      yield* pass("1 second")
      assert.strictEqual(yield* lossOf(lease), "Expired")
    }))

  it.effect("counts from when it was sent, and not from the answer to the read", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* grant(stub, {
        txn: ((request: Etcd.TxnRequest<[], []>) =>
          Effect.delay(stub.etcd.txn(request), "2 seconds")) as typeof stub.etcd.txn
      })
      yield* seconds(7)
      // Renewed at 5 s, for 13.5 s.
      assert.strictEqual(Duration.toSeconds(yield* lease.remaining), 11.5)
    }))

  for (const [what, terms, reason] of [["the same", 0n, undefined], ["another", 1n, "Expired"]] as const) {
    it.effect(`counts ${reason === undefined ? "" : "not "}if the read is answered in ${what} term`, () =>
      Effect.gen(function*() {
        const stub = EtcdStub.make()
        const lease = yield* grant(stub, {
          txn: ((request: Etcd.TxnRequest<[], []>) =>
            Effect.map(
              stub.etcd.txn(request),
              (answer) => ({ ...answer, term: answer.term + terms })
            )) as typeof stub.etcd.txn
        })
        yield* seconds(30)
        assert.strictEqual(yield* lossOf(lease), reason)
      }))
  }
})

describe("a session whose watches are silent", () => {
  const recipes: ReadonlyArray<readonly [string, Recipes.Recipe]> = [
    ["a lock", Recipes.lock()],
    ["a lock with a single key", Recipes.lock("single-key")],
    ["a reader", Recipes.read],
    ["a writer", Recipes.write],
    ["permits", Recipes.permits(1, 1)],
    ["a leader", Recipes.election],
    ["one of several locks", Recipes.several("other")]
  ]

  /** What a recipe waits for, where that is not its own kind. */
  const inTheWay: { readonly [what: string]: Recipes.Recipe } = { "a reader": Recipes.write }

  for (const [what, recipe] of recipes) {
    it.effect(`learns within one TTL that its turn has come: ${what}`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const [a, b] = yield* Effect.all([session({ ttl }), session({ ttl })])
        const leave = yield* Latch.make()
        const holding = yield* fork(a.run((inTheWay[what] ?? recipe).withLock(leave.await, "job")))
        yield* pass("1 second")
        const served = yield* Deferred.make<bigint>()
        const waiting = yield* fork(b.run(
          recipe.withLock(Effect.flatMap(Lock.Current, (lock) => Deferred.succeed(served, lock.fencingToken)), "job")
        ))
        yield* seconds(3)
        yield* faults.delayWatches("24 hours")
        yield* leave.open
        yield* Fiber.join(holding)
        yield* seconds(9)
        assert.isTrue(Deferred.isDoneUnsafe(served))
        yield* Fiber.join(waiting)
      }).pipe(provideMemory))

    it.effect(`learns within one TTL that its key was deleted: ${what}`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl })
        const holding = yield* fork(run(recipe.withLock(Effect.never, "job")))
        yield* seconds(3)
        yield* faults.delayWatches("24 hours")
        yield* faults.deletePrefix("job")
        yield* seconds(9)
        assert.deepStrictEqual(lossReason(holding.pollUnsafe()), ["LockLost", "KeyDeleted"])
      }).pipe(provideMemory))
  }

  it.effect("learns within one TTL that its place in the line was deleted", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session({ ttl }), session({ ttl })])
      yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.void, "job")))
      yield* seconds(3)
      yield* faults.delayWatches("24 hours")
      const [place] = (yield* faults.keys).toSorted((a, b) => Number(b.createRevision - a.createRevision))
      yield* faults.deleteKey(place!.key)
      yield* seconds(9)
      assert.deepStrictEqual(lossReason(waiting.pollUnsafe()), ["LockLost", "KeyDeleted"])
    }).pipe(provideMemory))

  it.effect("watches anew what it should have been told, and is told of what happens then", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const process = yield* counted({ ttl })
      // As if the one event were lost: watches that are opened later are not late.
      const held = ["a", "b"].map((name) => process.run(Lock.withLock(Effect.never, name)))
      const [first, second] = yield* Effect.forEach(held, fork)
      yield* seconds(3)
      const { subscribe } = process.counts
      yield* faults.delayWatches("24 hours")
      yield* faults.deletePrefix("a/")
      yield* seconds(9)
      assert.isDefined(first!.pollUnsafe())
      assert.isUndefined(second!.pollUnsafe())
      yield* faults.delayWatches(0)
      yield* seconds(3)
      assert.strictEqual(process.counts.subscribe, subscribe + 1, "the watch that was open beside the silent one")
      yield* faults.deletePrefix("b/")
      yield* pass(1)
      assert.deepStrictEqual(lossReason(second!.pollUnsafe()), ["LockLost", "KeyDeleted"])
    }).pipe(provideMemory))
})

describe("what a heartbeat costs", () => {
  const costOf = (
    use: (
      run: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Session.Session>>
    ) => Effect.Effect<
      unknown,
      unknown,
      Scope.Scope
    >
  ) =>
    Effect.gen(function*() {
      const process = yield* counted({ ttl: "15 seconds" })
      yield* fork(Effect.ignoreCause(use(process.run)))
      yield* seconds(11)
      const before = { ...process.counts }
      yield* seconds(60)
      return Record.map(process.counts, (count, method) => count - before[method])
    }).pipe(Effect.scoped, provideMemory)

  const names = (count: number) => Array.from({ length: count }, (_, i) => `job-${i}`)
  const flat = { leaseKeepAlive: 12, leaseTimeToLive: 12, txn: 12, range: 0, subscribe: 0 }

  for (const count of [1, 100, 1000]) {
    it.effect(`does not grow with the locks that are held: ${count}`, () =>
      Effect.gen(function*() {
        const cost = yield* costOf((run) =>
          Effect.forEach(names(count), (name) => run(Lock.withLock(Effect.never, name)), { concurrency: "unbounded" })
        )
        assert.deepStrictEqual(cost, flat)
      }))
  }

  it.effect("is one transaction for the lines in which the session waits, as long as etcd takes it", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const other = yield* session({ ttl: "60 seconds" })
      yield* fork(Effect.forEach(names(50), (name) => other.run(Lock.withLock(Effect.never, name)), {
        concurrency: "unbounded"
      }))
      yield* pass("1 second")
      const process = yield* counted({ ttl: "15 seconds" })
      yield* fork(Effect.forEach(names(50), (name) => process.run(Lock.withLock(Effect.never, name)), {
        concurrency: "unbounded"
      }))
      yield* seconds(11)
      const before = { ...process.counts }
      yield* seconds(60)
      assert.strictEqual(process.counts.txn - before.txn, 12 + 4)
      yield* faults.heal
    }).pipe(provideMemory))
})

describe("a part of a heartbeat", () => {
  it.effect("that is denied costs the evidence of its own entries, and of no other", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let isDenied = false
      const isSecret = ({ key }: Etcd.Range) => String(key).startsWith("secret/")
      const { run } = yield* sessionThrough((etcd) => ({
        leaseTimeToLive: (id, options) =>
          isDenied && options?.keys === true ? denied("leaseTimeToLive") : etcd.leaseTimeToLive(id, options),
        txn: ((request: Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, []>) =>
          isDenied && request.then.some((op) => op._tag === "Range" && isSecret(op))
            ? denied("txn")
            : etcd.txn(request)) as typeof etcd.txn
      }), { ttl })
      const hold = (name: string) =>
        fork(run(Lock.withLock(Effect.never, name)))
      const secret = yield* hold("secret")
      const others = yield* Effect.forEach(["a", "b", "c", "d"], hold)
      yield* seconds(3)
      isDenied = true
      refusals.length = 0
      yield* seconds(30)
      assert.includeMembers(refusals, ["leaseTimeToLive", "txn"])
      assert.deepStrictEqual([secret, ...others].map((fiber) => fiber.pollUnsafe()), Array(5).fill(undefined))
      yield* faults.delayWatches("24 hours")
      yield* faults.deletePrefix("c/")
      yield* seconds(9)
      assert.deepStrictEqual(
        [secret, ...others].map((fiber) => fiber.pollUnsafe() === undefined),
        [true, true, true, false, true]
      )
    }).pipe(provideMemory))

  it.effect("that is all of it is an answer all the same", () =>
    Effect.gen(function*() {
      let isDenied = false
      const { run } = yield* sessionThrough((etcd) => ({
        leaseTimeToLive: (id, options) => isDenied ? denied("leaseTimeToLive") : etcd.leaseTimeToLive(id, options),
        txn: (request) => isDenied ? denied("txn") : etcd.txn(request)
      }), { ttl })
      const holding = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* seconds(3)
      isDenied = true
      refusals.length = 0
      yield* seconds(30)
      assert.includeMembers(refusals, ["leaseTimeToLive", "txn"])
      assert.isUndefined(holding.pollUnsafe())
      isDenied = false
    }).pipe(provideMemory))

  it.effect("that is refused by itself for another reason is no answer", () =>
    Effect.gen(function*() {
      let isRefused = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => isRefused ? refused("InvalidArgument")("txn") : etcd.txn(request)
      }), { ttl })
      const holding = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* seconds(3)
      isRefused = true
      yield* seconds(12)
      isRefused = false
      assert.deepStrictEqual(lossReason(holding.pollUnsafe()), ["LockLost", "LeaseExpired"])
    }).pipe(provideMemory))

  it.effect("the list of the keys on the lease, is read key by key where it fails, hangs or is of another term", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      let how: "fails" | "hangs" | "is of another term" = "fails"
      const { run } = yield* sessionThrough((etcd) => ({
        leaseTimeToLive: (id, options) =>
          how === "fails"
            ? refused("Internal")("leaseTimeToLive")
            : how === "hangs"
            ? Effect.never
            : Effect.map(etcd.leaseTimeToLive(id, options), (answer) => ({
              ...answer,
              // It knows of a key that has gone.
              keys: [Buffer.from(key)],
              term: answer.term + 1n
            }))
      }), { ttl })
      let key = ""
      for (how of ["fails", "hangs", "is of another term"] as const) {
        const holding = yield* fork(run(Lock.withLock(Effect.never, "job")))
        yield* seconds(20)
        assert.isUndefined(holding.pollUnsafe(), how)
        yield* faults.delayWatches("24 hours")
        key = (yield* keys)[0]!
        yield* faults.deletePrefix("job/")
        yield* seconds(9)
        assert.deepStrictEqual(lossReason(holding.pollUnsafe()), ["LockLost", "KeyDeleted"], how)
        yield* faults.heal
      }
    }).pipe(provideMemory))

  it.effect("that is too much for one request is asked for in several", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const other = yield* session({ ttl: "60 seconds" })
      const names = Array.from({ length: 20 }, (_, i) => `job-${i}`)
      yield* Effect.forEach(names, (name) => fork(other.run(Lock.withLock(Effect.never, name))))
      yield* pass("1 second")
      const largest: Array<number> = []
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => {
          largest.push(request.then.length)
          return request.then.length > 6
            ? Effect.fail(
              new Etcd.EtcdError({
                reason: "InvalidArgument",
                method: "txn",
                outcome: "Refused",
                description: "etcdserver: too many operations in txn request"
              })
            )
            : etcd.txn(request)
        }
      }), { ttl })
      const waiting = yield* Effect.forEach(names, (name) => fork(run(Lock.withLock(Effect.void, name))))
      yield* seconds(3)
      yield* faults.delayWatches("24 hours")
      largest.length = 0
      yield* faults.deletePrefix("job-7/")
      yield* seconds(9)
      assert.strictEqual(waiting.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 1)
      // What etcd takes is known by then.
      assert.isAtMost(Math.max(...largest), 6)
    }).pipe(provideMemory))
})

describe("a key on the lease", () => {
  it.effect("that was released, and that a backup has brought back, is removed", () =>
    Effect.gen(function*() {
      const [etcd, faults] = [yield* Etcd.Etcd, yield* Etcd.Faults]
      const { logged, logger } = logs()
      const { run } = yield* session({ ttl }).pipe(Effect.provide(logger))
      yield* fork(run(Lock.withLock(Effect.never, "held")))
      const released = yield* fork(run(Lock.withLock(Effect.never, "released")))
      yield* pass(1)
      const backup = yield* faults.snapshot
      yield* Fiber.interrupt(released)
      yield* faults.restore(backup)
      // The revision is beyond the latest that the session has seen, so that its history seems to go on.
      yield* Effect.repeat(etcd.txn({ then: [Etcd.put("more", "")] }), { times: 20 })
      assert.lengthOf(yield* keys, 3)
      yield* seconds(6)
      assert.sameMembers((yield* keys).map((key) => key.split("/")[0]), ["held", "more"])
      assert.isTrue(logged.some((message) => message.startsWith("'released/")))
    }).pipe(provideMemory))

  it.effect("of which this process knows nothing stays, whatever its name", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { run } = yield* session({ ttl })
      const held = yield* Deferred.make<Lock.Handle>()
      yield* fork(run(Lock.withLock(
        Effect.andThen(Effect.flatMap(Lock.Current, (lock) => Deferred.succeed(held, lock)), Effect.never),
        "job"
      )))
      const { leaseId: lease } = yield* Deferred.await(held)
      const hex = lease.toString(16)
      // A program's own, and those of a copy of this machine.
      const others = ["workers/7", `services/web/${hex}-8080`, `job/${hex}-2`, `other/${hex}-1`]
      yield* etcd.txn({ then: others.map((key) => Etcd.put(key, "", { lease })) })
      yield* seconds(20)
      assert.sameMembers(yield* keys, [`job/${hex}-1`, ...others])
    }).pipe(provideMemory))
})

describe("a lease of the user's", () => {
  for (const isReversed of [false, true]) {
    const what = isReversed ? "that has a prefix, under a session that has none" : "under a session that has a prefix"
    it.effect(`keeps the locks on it that are taken through another connection, ${what}`, () =>
      Effect.gen(function*() {
        const base = yield* Etcd.Etcd
        const prefixed = prefixedBy("app/", base)
        const [ofLease, ofSession] = isReversed ? [prefixed, base] : [base, prefixed]
        const lease = yield* Effect.provideService(Lease.make({ ttl }), Etcd.Etcd, ofLease)
        const { run } = yield* Effect.provideService(session({ ttl }), Etcd.Etcd, ofSession)
        const faults = yield* Etcd.Faults
        const [holding, deleted] = yield* Effect.forEach(
          ["job", "deleted"],
          (name) => fork(run(Lock.withLock(Effect.never, name, { lease })))
        )
        yield* fork(run(Lock.withLock(Effect.void, "released", { lease })))
        yield* seconds(20)
        assert.isUndefined(holding!.pollUnsafe())
        assert.lengthOf(yield* keys, 2)
        yield* faults.delayWatches("24 hours")
        yield* faults.deletePrefix(isReversed ? "deleted/" : "app/deleted/")
        yield* seconds(9)
        assert.isUndefined(holding!.pollUnsafe())
        assert.deepStrictEqual(lossReason(deleted!.pollUnsafe()), ["LockLost", "KeyDeleted"])
      }).pipe(Effect.scoped, provideMemory))
  }
})

describe("elections, semaphores and readers", () => {
  it.effect("hear of each of several entries on one lease", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl })
      const leading = yield* fork(run(Election.whileLeader(Effect.never, "boss", { value: "a" })))
      const permits = yield* fork(run(Semaphore.withPermits(Effect.never, "downloads", { permits: 2, of: 5 })))
      yield* seconds(3)
      yield* faults.delayWatches("24 hours")
      yield* faults.deletePrefix("downloads/")
      yield* seconds(9)
      assert.deepStrictEqual(lossReason(permits.pollUnsafe()), ["LockLost", "KeyDeleted"])
      assert.isUndefined(leading.pollUnsafe())
    }).pipe(provideMemory))
})
