/** So many permits for all clients together. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { counted, fork, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"
import { otherClient } from "../support/otherClient.ts"

/** Adds up the permits that are held at a time. */
const counter = (of: number) => {
  const events: Array<string> = []
  let used = 0
  let most = 0
  const hold = (who: string, permits: number, millis: number) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        used += permits
        most = Math.max(most, used)
        events.push(`${who} in`)
      }),
      () => Effect.sleep(millis),
      () =>
        Effect.sync(() => {
          used -= permits
          events.push(`${who} out`)
        })
    ).pipe(Semaphore.withPermits("pool", { permits, of }))
  return { events, hold, most: () => most }
}

describe(`a semaphore (${cite("P1")})`, () => {
  for (const processes of [1, 12, 40]) {
    it.effect(
      `never gives more permits than there are, and gives all of them (${processes} processes)`,
      () =>
        provideMemory(Effect.gen(function*() {
          const sessions = yield* Effect.forEach(Array.from({ length: processes }), () => session())
          const { hold, most } = counter(5)
          const fibers = yield* Effect.forEach(
            Array.from({ length: 80 }),
            (_, i) => fork(sessions[i % processes]!.run(hold(`${i}`, 1 + (i % 3), 50 + (i * 7) % 40)))
          )
          yield* Effect.repeat(pass(20), { times: 250 })
          for (const fiber of fibers) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
          assert.strictEqual(most(), 5)
          assert.deepStrictEqual(yield* keys, [])
        })),
      20_000
    )
  }

  for (const processes of [1, 5]) {
    it.effect(`serves a claim to all permits in its turn, under a stream of claims to one (${processes})`, () =>
      provideMemory(Effect.gen(function*() {
        const sessions = yield* Effect.forEach(Array.from({ length: processes }), () => session())
        const { events, hold } = counter(4)
        const start = (who: string, permits: number, i: number) =>
          Effect.tap(fork(sessions[i % processes]!.run(hold(who, permits, 100))), pass(5))
        yield* Effect.forEach([0, 1, 2, 3], (i) => start(`early${i}`, 1, i))
        yield* start("all", 4, 4)
        yield* Effect.forEach([0, 1, 2, 3, 4, 5], (i) => start(`late${i}`, 1, i))
        yield* Effect.repeat(pass(10), { times: 80 })
        assert.lengthOf(events, 22)
        const all = events.indexOf("all in")
        assert.deepStrictEqual(events.slice(all, all + 2), ["all in", "all out"])
        assert.isTrue(events.slice(0, all).every((event) => event.startsWith("early")))
        assert.isTrue(events.slice(all + 2).every((event) => event.startsWith("late")))
      })))
  }

  it.effect("is one line with a lock of the same name, which takes all permits", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const permit = yield* fork(a.run(Semaphore.withPermits(Effect.sleep(100), "pool", { of: 8 })))
      yield* pass(1)
      let locked = false
      const lock = yield* fork(b.run(Lock.withLock(
        Effect.andThen(Effect.sync(() => (locked = true)), Effect.sleep(100)),
        "pool"
      )))
      yield* pass(1)
      const late = yield* fork(c.run(Semaphore.withPermits(Effect.sync(() => locked), "pool", { of: 8 })))
      yield* pass(50)
      assert.isFalse(locked)
      assert.isUndefined(late.pollUnsafe())
      yield* Effect.repeat(pass(20), { times: 15 })
      assert.deepStrictEqual(late.pollUnsafe(), Exit.succeed(true))
      yield* Fiber.join(permit)
      yield* Fiber.join(lock)
    })))

  for (const first of ["the reader", "the permit"] as const) {
    it.effect(`excludes a reader of the same name, also in its own process (${first} comes first)`, () =>
      provideMemory(Effect.gen(function*() {
        const { run } = yield* session()
        yield* run(Lock.withLock(Effect.void, "warm"))
        const events: Array<string> = []
        const body = (who: string) =>
          Effect.acquireUseRelease(
            Effect.sync(() => events.push(`${who} in`)),
            () => Effect.sleep(100),
            () => Effect.sync(() => events.push(`${who} out`))
          )
        const reader = fork(run(ReadWriteLock.withReadLock(body("reader"), "pool")))
        const permit = fork(run(Semaphore.withPermits(body("permit"), "pool", { of: 4 })))
        // In one step, so that their requests could travel together.
        yield* first === "the reader" ? Effect.andThen(reader, permit) : Effect.andThen(permit, reader)
        yield* Effect.repeat(pass(50), { times: 10 })
        const [one, other] = first === "the reader" ? ["reader", "permit"] : ["permit", "reader"]
        assert.deepStrictEqual(events, [`${one} in`, `${one} out`, `${other} in`, `${other} out`])
      })))
  }
})

describe("a semaphore whose number of permits changes", () => {
  it.effect("passes the place of a fiber that gives up to none that has to wait for others of its process", () =>
    provideMemory(Effect.gen(function*() {
      const [other, { run }] = yield* Effect.all([session(), session()])
      const holder = yield* fork(other.run(Lock.withLock(Effect.never, "pool")))
      yield* pass(1)
      const ask = (of: number, permits = 1) =>
        fork(run(Semaphore.withPermits(Effect.succeed("done"), "pool", { permits, of, acceptOf: () => true })))
      const givesUp = yield* ask(4)
      yield* Effect.repeat(ask(8), { times: 5 })
      const waits = yield* ask(4)
      yield* pass(1)
      yield* stop(givesUp)
      yield* pass(1)
      yield* stop(holder)
      yield* pass("1 second")
      assert.deepStrictEqual(waits.pollUnsafe(), Exit.succeed("done"))
      const all = yield* ask(4, 4)
      yield* pass("1 second")
      assert.deepStrictEqual(all.pollUnsafe(), Exit.succeed("done"))
    })))
})

describe(`the tokens (${cite("P2")})`, () => {
  it.effect("of two holders that exclude each other increase, and those of others may be the same", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.all([session(), session(), session(), session()])
      const tokens: Array<bigint> = []
      const fibers = yield* Effect.forEach([3, 1, 2, 3], (permits, i) =>
        Effect.tap(
          fork(sessions[i]!.run(Semaphore.withPermits(
            Effect.tap(Lock.Current, ({ fencingToken }) => {
              tokens[i] = fencingToken
              return Effect.sleep(100)
            }),
            "pool",
            { permits, of: 3 }
          ))),
          pass(1)
        ))
      yield* Effect.repeat(pass(50), { times: 10 })
      for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      const [first, one, two, last] = tokens as [bigint, bigint, bigint, bigint]
      assert.isTrue(first < one && one < last && first < two && two < last)
      assert.strictEqual(one, two, "one release gave both their turn")
    })))
})

describe("a permit that is free", () => {
  it.effect("costs one commit and one more to release, and opens no watch", () =>
    provideMemory(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      const other = yield* session()
      const holding = yield* Effect.forEach([1, 2, 3], () =>
        fork(other.run(Semaphore.withPermits(Effect.never, "pool", { of: 8 }))))
      yield* pass(10)
      yield* run(Semaphore.withPermits(Effect.void, "pool", { permits: 5, of: 8 }))
      assert.deepInclude(counts, { txn: 2, range: 0, subscribe: 0 })
      yield* Effect.forEach(holding, stop)
      yield* pass(10)
    })))

  it.effect("is taken by a try, which leaves nothing where it is refused, and says how many are left", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { permits: 5, of: 8 })))
      yield* pass(1)
      const error = yield* Effect.flip(b.run(Semaphore.tryWithPermits(Effect.void, "pool", { permits: 4, of: 8 })))
      assert.include(error as Semaphore.PermitsUnavailable, {
        _tag: "PermitsUnavailable",
        lock: "pool",
        permits: 4,
        of: 8,
        available: 3,
        message: "Semaphore 'pool' has 3 of its 8 permits left, and 4 were asked for"
      })
      const four = Semaphore.withPermitsIfAvailable(Effect.void, "pool", { permits: 4, of: 8 })
      assert.deepStrictEqual(yield* b.run(four), Option.none())
      assert.lengthOf(yield* keys, 1)
      const { permits } = yield* b.run(Effect.scoped(Semaphore.tryAcquire("pool", { permits: 3, of: 8 })))
      assert.strictEqual(permits, 3)
      yield* stop(holding)
      yield* pass(10)
      assert.deepStrictEqual(yield* b.run(four), Option.some(undefined))
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("is counted for a try in the same process, too, without those that others hold or wait for", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const attempt = (permits: number) =>
        Effect.flip(a.run(Semaphore.tryWithPermits(Effect.void, "pool", { permits, of: 8 })))
      const hold = (process: typeof a, permits: number) =>
        fork(process.run(Semaphore.withPermits(Effect.never, "pool", { permits, of: 8 })))
      const holding = [yield* hold(a, 2), yield* hold(b, 1)]
      yield* pass(1)
      assert.include(yield* attempt(7), { _tag: "PermitsUnavailable", available: 5 })
      // It waits in its own process.
      holding.push(yield* hold(a, 7))
      yield* pass(1)
      assert.include(yield* attempt(1), { available: 0 })
      const late = a.run(Semaphore.withPermits(Effect.void, "pool", { permits: 1, of: 8, timeout: 0 }))
      assert.isString(((yield* Effect.flip(late)) as Lock.LockTimeout).holder?.host)
      yield* Effect.forEach(holding, stop)
      yield* pass("1 second")
    })))

  it.effect("is counted by the smaller number of permits, where clients know of two", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { permits: 3, of: 4 })))
      yield* pass(1)
      const options = { permits: 2, of: 8, acceptOf: () => true }
      const error = yield* Effect.flip(b.run(Semaphore.tryWithPermits(Effect.void, "pool", options)))
      assert.include(error, { _tag: "PermitsUnavailable", available: 1 })
      yield* stop(holding)
      yield* pass(1)
    })))

  it.effect("is given to one of two tries that see it at the same time", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const sessions = yield* Effect.all([session(), session(), session()])
      yield* Effect.forEach(sessions, ({ run }) => run(Lock.withLock(Effect.void, "warm")), { discard: true })
      yield* faults.delay("100 millis")
      const tries = yield* Effect.forEach(sessions, ({ run }) =>
        fork(run(Semaphore.withPermitsIfAvailable(Effect.sleep("10 seconds"), "pool", { permits: 2, of: 4 }))))
      yield* Effect.repeat(pass(100), { times: 10 })
      yield* faults.heal
      assert.lengthOf(yield* keys, 2)
      assert.lengthOf(
        tries.filter((fiber) =>
          fiber.pollUnsafe() !== undefined
        ),
        1
      )
      assert.deepStrictEqual(
        tries.find((fiber) => fiber.pollUnsafe() !== undefined)?.pollUnsafe(),
        Exit.succeed(Option.none())
      )
      yield* Effect.forEach(tries, stop)
      yield* pass("1 second")
    })))

  for (const processes of [1, 8]) {
    it.effect(`is refused to none of 20 tries of one of 100 at the same moment (${processes} processes)`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const sessions = yield* Effect.forEach(Array.from({ length: processes }), () => session())
        yield* Effect.forEach(sessions, ({ run }) => run(Lock.withLock(Effect.void, "warm")), { discard: true })
        yield* faults.delay("20 millis")
        const tokens: Array<bigint> = []
        const body = Effect.flatMap(Lock.Current, ({ createRevision, fencingToken }) => {
          assert.strictEqual(fencingToken, createRevision)
          tokens.push(fencingToken)
          return Effect.never
        })
        const tries = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => sessions[i % processes]!),
          ({ run }) => fork(run(Semaphore.tryWithPermits(body, "pool", { of: 100 })))
        )
        yield* Effect.repeat(pass(20), { times: 30 })
        for (const fiber of tries) assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual(new Set(tokens).size, 20)
        yield* faults.heal
        yield* Effect.forEach(tries, stop)
        yield* pass("1 second")
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("is given to the first of the tries that fit, in the order of their commits", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const sessions = yield* Effect.forEach(Array.from({ length: 8 }), () => session())
      yield* Effect.forEach(sessions, ({ run }) => run(Lock.withLock(Effect.void, "warm")), { discard: true })
      yield* faults.delay("20 millis")
      const tries = yield* Effect.forEach(
        sessions,
        ({ run }) => fork(run(Semaphore.tryWithPermits(Effect.never, "pool", { permits: 2, of: 7 })))
      )
      yield* Effect.repeat(pass(20), { times: 10 })
      const refused = tries.flatMap((fiber) => fiber.pollUnsafe() ?? [])
      assert.lengthOf(refused, 5)
      for (const exit of refused) {
        assert.include(failureOf(exit), { _tag: "PermitsUnavailable", permits: 2, of: 7 })
        assert.isBelow((failureOf(exit) as Semaphore.PermitsUnavailable).available, 2)
      }
      assert.lengthOf(yield* keys, 3)
      yield* faults.heal
      yield* Effect.forEach(tries, stop)
      yield* pass("1 second")
    })))

  it.effect("costs a try one commit; one that is refused leaves by one more, and the next finds that out by a read", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const revision = Effect.map(etcd.range(Etcd.get("pool")), (answer) => answer.revision)
      const commits = <A, E>(self: Effect.Effect<A, E>) =>
        Effect.gen(function*() {
          const before = yield* revision
          yield* Effect.exit(self)
          return Number((yield* revision) - before)
        })
      const [a, b] = yield* Effect.all([session(), session()])
      const attempt = b.run(Semaphore.withPermitsIfAvailable(Effect.void, "pool", { permits: 2, of: 4 }))
      assert.strictEqual(yield* commits(attempt), 2)
      const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { permits: 3, of: 4 })))
      yield* pass(1)
      assert.strictEqual(yield* commits(attempt), 2)
      assert.strictEqual(yield* commits(Effect.repeat(attempt, { times: 3 })), 0)
      yield* stop(holding)
      yield* pass(1)
      assert.strictEqual(yield* commits(attempt), 2)
    })))

  it.effect("is left in etcd by no try whose answers were lost, whether it was refused or not", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      // The holder outlives the answers to its heartbeats that are lost.
      const [a, b] = yield* Effect.all([session({ ttl: "5 minutes" }), session({ ttl: "30 seconds" })])
      const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { permits: 3, of: 4 })))
      yield* b.run(Lock.withLock(Effect.void, "warm"))
      const attempt = (permits: number) =>
        fork(b.run(Semaphore.tryWithPermits(Effect.void, "pool", { permits, of: 4 })))
      for (const lost of [1, 2, 3, 9]) {
        for (const permits of [1, 2]) {
          yield* faults.drop("Reply", { method: "txn", times: lost })
          const trying = yield* attempt(permits)
          yield* Effect.repeat(pass("1 second"), { times: 20 })
          assert.isDefined(trying.pollUnsafe(), `${lost} lost answers, ${permits} permits`)
          yield* faults.heal
          yield* Effect.repeat(pass("1 second"), { times: 20 })
          assert.lengthOf(yield* keys, 1, `${lost} lost answers, ${permits} permits`)
        }
      }
      yield* stop(holding)
      yield* pass(1)
    })))

  it.effect("keeps no lease of a try alive whose read fails", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session({ ttl: "60 seconds" })
      let isFailing = false
      const failure = new Etcd.EtcdError({ reason: "Timeout", method: "txn", outcome: "Unknown", description: "lost" })
      const b = yield* sessionThrough((etcd) => ({
        txn: (request) => isFailing ? Effect.fail(failure) : etcd.txn(request)
      }), { ttl: "2 seconds" })
      yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { of: 1 })))
      yield* pass(1)
      const attempt = b.run(Effect.flip(Semaphore.tryWithPermits(Effect.void, "pool", { of: 1 })))
      assert.strictEqual((yield* attempt)._tag, "PermitsUnavailable")
      // Since that one was refused, the next one reads first.
      isFailing = true
      assert.strictEqual(yield* attempt, failure)
      isFailing = false
      yield* Effect.repeat(pass("1 second"), { times: 6 })
      assert.lengthOf(yield* faults.leases, 1, "that of the holder")
    })))

  it.effect("goes to no try whose own key was deleted while it asked about a key of another client", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(7n, 60)
      yield* etcd.txn({ then: [Etcd.put("pool/foreign", "", { lease: 7n })] })
      const other = yield* session()
      const ran: Array<string> = []
      const hold = (who: string) => Effect.andThen(Effect.sync(() => ran.push(who)), Effect.never)
      let isAsked = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: ((request: Etcd.TxnRequest<[], []>) => {
          if (isAsked || request.compare?.some(({ target }) => target === "Lease") !== true) return etcd.txn(request)
          isAsked = true
          return Effect.gen(function*() {
            const own = (yield* faults.keys).find(({ lease }) => lease !== 7n)
            yield* faults.deleteKey(own!.key)
            yield* fork(other.run(Semaphore.withPermits(hold("other"), "pool", { of: 2, permits: 2 })))
            yield* Effect.sleep(100)
            yield* faults.deleteKey("pool/foreign")
            yield* Effect.sleep(100)
            return yield* etcd.txn(request)
          })
        }) as typeof etcd.txn
      }))
      yield* faults.delayWatches("1 minute")
      const trying = yield* fork(run(Semaphore.tryWithPermits(hold("try"), "pool", { of: 2 })))
      yield* Effect.repeat(pass(100), { times: 8 })
      assert.notInclude(ran, "try")
      assert.include(failureOf(trying.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))

  it.effect("is lost with its lease, however long a try had to ask about a key of another client", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(7n, 60)
      // Its name says nothing of a lease, so etcd is asked, and answers after three seconds.
      yield* etcd.txn({ then: [Etcd.put("pool/other-1-1of4", "", { lease: 7n })] })
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) =>
          request.compare?.some(({ target }) => target === "Lease") === true
            ? Effect.delay(etcd.txn(request), "3 seconds")
            : etcd.txn(request)
      }))
      yield* run(Lock.withLock(Effect.void, "warm"))
      const holding = yield* fork(run(Semaphore.tryWithPermits(Effect.never, "pool", { of: 4 })))
      yield* Effect.repeat(pass("1 second"), { times: 8 })
      assert.isUndefined(holding.pollUnsafe())
      yield* faults.unreachable
      yield* Effect.repeat(pass("1 second"), { times: 4 })
      assert.include(failureOf(holding.pollUnsafe()), { _tag: "LockLost", reason: "LeaseExpired" })
      yield* faults.heal
      yield* Effect.repeat(pass("1 second"), { times: 9 })
    })))

  it.effect("is held once by a try whose answer was lost", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "30 seconds" })
      yield* run(Lock.withLock(Effect.void, "warm"))
      yield* faults.drop("Reply", { method: "txn", times: 2 })
      const trying = yield* fork(run(Effect.scoped(
        Effect.flatMap(Semaphore.tryAcquire("pool", { of: 1 }), (handle) => Effect.as(handle.verify, handle))
      )))
      yield* Effect.repeat(pass("1 second"), { times: 8 })
      const { createRevision, fencingToken } = yield* Fiber.join(trying)
      // What it was met beside was read when it was put for the third time.
      assert.isTrue(fencingToken > createRevision)
      yield* Effect.repeat(pass("1 second"), { times: 20 })
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("fibers of one process", () => {
  it.effect("are as many entries as fit, however many wait", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const fibers = yield* Effect.forEach(Array.from({ length: 1000 }), () =>
        fork(run(Semaphore.withPermits(Effect.never, "pool", { of: 8 }))))
      yield* pass(10)
      assert.lengthOf(yield* keys, 8)
      yield* Effect.forEach(fibers, stop)
      yield* pass(10)
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("that wait behind one that gives up go on at once where they fit", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const hold = (permits: number) => fork(run(Semaphore.withPermits(Effect.never, "pool", { permits, of: 4 })))
      yield* hold(2)
      yield* pass(1)
      const large = yield* hold(3)
      yield* hold(1)
      yield* hold(1)
      yield* pass(1)
      assert.lengthOf(yield* keys, 1)
      yield* stop(large)
      yield* pass(1)
      assert.lengthOf(yield* keys, 3)
    })))

  it.effect("hand their permits over in one commit", () =>
    provideMemory(Effect.gen(function*() {
      let txns = 0
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => Effect.suspend(() => (txns++, etcd.txn(request)))
      }))
      const first = yield* fork(run(Semaphore.withPermits(Effect.sleep(100), "pool", { of: 1 })))
      yield* pass(10)
      const second = yield* fork(run(Semaphore.withPermits(Effect.sleep(100), "pool", { of: 1 })))
      yield* pass(10)
      txns = 0
      yield* pass(100)
      assert.deepStrictEqual(first.pollUnsafe(), Exit.void)
      assert.strictEqual(txns, 1)
      yield* pass(200)
      assert.deepStrictEqual(second.pollUnsafe(), Exit.void)
      assert.strictEqual(txns, 2)
    })))

  it.effect("that are interrupted while they wait cost those behind them nothing", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const { events, hold } = counter(2)
      yield* fork(run(hold("first", 2, 100)))
      const leaving = yield* fork(run(hold("leaving", 2, 100)))
      const small = yield* fork(run(hold("small", 1, 100)))
      yield* pass(10)
      yield* stop(leaving)
      yield* Effect.repeat(pass(20), { times: 15 })
      assert.deepStrictEqual(small.pollUnsafe(), Exit.void)
      assert.deepStrictEqual(events, ["first in", "first out", "small in", "small out"])
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("wait for a reader of the same name as clients of others do, and a reader for them", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const inside = new Set<string>()
      const hold = (who: string) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            inside.add(who)
            assert.isFalse(inside.has("reader") && inside.size > 1, [...inside].join(" beside "))
          }),
          () => Effect.sleep(10),
          () => Effect.sync(() => inside.delete(who))
        )
      const fibers = yield* Effect.forEach(["one", "reader", "two", "three"], (who) =>
        fork(run(
          who === "reader"
            ? ReadWriteLock.withReadLock(hold(who), "pool")
            : Semaphore.withPermits(hold(who), "pool", { of: 8 })
        )))
      yield* Effect.repeat(pass(10), { times: 20 })
      for (const fiber of fibers) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
    })))
})

describe("a client that knows of another number of permits", () => {
  it.effect("fails, takes none and leaves nothing, whether it waits or tries", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { of: 8 })))
      yield* pass(1)
      const errors = [
        yield* Effect.flip(b.run(Semaphore.withPermits(Effect.void, "pool", { of: 9 }))),
        yield* Effect.flip(b.run(Semaphore.tryWithPermits(Effect.void, "pool", { of: 9 })))
      ]
      for (const error of errors) {
        assert.include(error as Semaphore.SemaphoreMismatch, {
          _tag: "SemaphoreMismatch",
          lock: "pool",
          of: 9,
          theirs: 8,
          key: (yield* keys)[0]!
        })
      }
      assert.lengthOf(yield* keys, 1)
      yield* stop(holding)
      yield* pass(10)
    })))

  it.effect("stands in line where it accepts theirs, and the smaller number counts", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const old = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { of: 2 })))
      yield* pass(1)
      const renewed = { of: 4, acceptOf: (theirs: number) => theirs === 2 }
      const first = yield* fork(b.run(Semaphore.withPermits(Effect.never, "pool", renewed)))
      yield* pass(1)
      assert.strictEqual((yield* a.run(Semaphore.inspect("pool"))).available, 0)
      const second = yield* fork(c.run(Semaphore.withPermits(Effect.void, "pool", renewed)))
      yield* pass(10)
      assert.isUndefined(second.pollUnsafe(), "there are two permits while the old client is there")
      yield* stop(old)
      yield* pass(10)
      assert.deepStrictEqual(second.pollUnsafe(), Exit.void)
      yield* stop(first)
      yield* pass(10)
    })))

  it.effect("passes its place on to a fiber of its process only if that has room beside others who know of more", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const claim = (process: typeof a, of: number, permits: number, millis: number, timeout?: number) =>
        Effect.tap(
          fork(process.run(
            Semaphore.withPermits(Effect.sleep(millis), "pool", { permits, of, timeout, acceptOf: () => true })
          )),
          pass(1)
        )
      const fibers = [
        yield* claim(b, 3, 1, 200),
        // It gives its place up, the second one stands behind it, and the third one waits in the process for both.
        yield* claim(a, 3, 3, 50, 100),
        yield* claim(a, 8, 3, 50),
        yield* claim(a, 3, 3, 50)
      ]
      yield* Effect.repeat(pass(50), { times: 20 })
      const [first, late, ...others] = fibers.map((fiber) => fiber.pollUnsafe())
      assert.strictEqual((failureOf(late) as Lock.LockTimeout)._tag, "LockTimeout")
      for (const exit of [first, ...others]) assert.deepStrictEqual(exit, Exit.void)
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("permits that are lost", () => {
  it.effect("go to others when their holder dies, after its TTL", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session({ ttl: "3 seconds" }), session()])
      const holding = yield* fork(a.run(
        Effect.flatMap(Semaphore.acquire("pool", { permits: 2, of: 2 }), () => Effect.never)
          .pipe(Effect.scoped)
      ))
      yield* pass(1)
      const [key] = yield* keys
      const waiting = yield* fork(b.run(Semaphore.withPermits(Effect.void, "pool", { of: 2 })))
      yield* pass(1)
      yield* faults.deleteKey(key!)
      yield* pass(10)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.void)
      yield* stop(holding)
      yield* pass(10)
    })))

  it.effect("interrupt their body", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const holding = yield* fork(run(Semaphore.withPermits(Effect.never, "pool", { of: 2 })))
      yield* pass(1)
      yield* faults.deletePrefix("pool/")
      yield* pass("1 second")
      assert.include(failureOf(holding.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))
})

describe("inspect", () => {
  it.effect("shows holders and queue with their permits, and how many are left", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.all([session(), session(), session()])
      const claims = [3, 4, 1]
      const fibers = yield* Effect.forEach(claims, (permits, i) =>
        Effect.tap(
          fork(sessions[i]!.run(Semaphore.withPermits(Effect.never, "pool", { permits, of: 6, metadata: { who: i } }))),
          pass(1)
        ))
      const { available, conflicts, holders, of, queue } = yield* sessions[0].run(Semaphore.inspect("pool"))
      assert.deepStrictEqual([of, available, conflicts], [6, 3, []])
      const shown = ({ client, permits }: Semaphore.Claimant) => [client.metadata?.who, permits]
      assert.deepStrictEqual(holders.map(shown), [[0, 3]])
      assert.deepStrictEqual(queue.map(shown), [[1, 4], [2, 1]])
      const { createRevision } = queue[0]!.client
      assert.isTrue(yield* sessions[0].run(Semaphore.forceRelease("pool", { createRevision })))
      yield* pass(100)
      assert.lengthOf((yield* sessions[0].run(Semaphore.inspect("pool"))).holders, 2)
      yield* Effect.forEach(fibers, stop)
      yield* pass(10)
    })))

  it.effect("counts by the smallest number of permits that anybody up to a claim knows of", () =>
    provideMemory(Effect.gen(function*() {
      const other = yield* otherClient
      yield* other.put(["pool/7-1-1of3", "pool/7-2-1of2", "pool/7-3-1of3"])
      const { available, holders, of, queue } = yield* Semaphore.inspect("pool")
      assert.deepStrictEqual([of, available, holders.length, queue.length], [2, 0, 2, 1])
    })))
})

describe("a misuse", () => {
  const wrong: ReadonlyArray<readonly [options: any, message: RegExp]> = [
    [undefined, /^Semaphore: of must be a whole number from 1 to 10000, got undefined\. .* of: 8\.$/],
    [{ of: 0 }, /of must be a whole number from 1 to 10000, got 0/],
    [{ of: 1.5 }, /got 1\.5/],
    [{ of: Number.POSITIVE_INFINITY }, /got Infinity/],
    [{ of: "8" }, /got "8"/],
    [{ of: 8, permits: 0 }, /^Semaphore: permits must be a whole number from 1 to the 8 that there are, got 0$/],
    [{ of: 8, permits: 9 }, /got 9/],
    [{ of: 8, permits: -1 }, /got -1/],
    [{ of: 8, permits: 2.5 }, /got 2\.5/],
    [{ of: 8, permits: Number.NaN }, /got NaN/],
    [{ of: 8, timeout: "soon" }, /timeout must be/]
  ]
  it.effect.each(wrong)(
    "is refused with the options %j, and nothing is left in etcd",
    ([options, message]) =>
      provideMemory(Effect.gen(function*() {
        const { run } = yield* session()
        const exit = yield* Effect.exit(run(Semaphore.withPermits(Effect.void, "pool", options)))
        assert.match((defectOf(exit) as Error).message, message)
        assert.deepStrictEqual(yield* keys, [])
      }))
  )

  it.effect("is to wait for permits under permits of the same semaphore", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const inner = Semaphore.withPermits(Effect.void, "pool", { of: 8 })
      const exit = yield* Effect.exit(run(Semaphore.withPermits(inner, "pool", { of: 8 })))
      assert.match(
        (defectOf(exit) as Error).message,
        /^Semaphore 'pool' has permits of this fiber already: .* Ask for all permits at once/
      )
    })))
})
