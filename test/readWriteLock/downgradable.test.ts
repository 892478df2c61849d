/** Writers that become readers. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Metric, Scope } from "effect"
import { Etcd, Lock, LockMetrics, ReadWriteLock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import {
  counted,
  fork,
  keys,
  pass,
  type Process,
  provideMemory,
  session,
  sessionThrough,
  stop
} from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

/** A writer whose scope the test closes. */
const writer = Effect.fnUntraced(function*({ run }: Pick<Process, "run">) {
  const scope = yield* Scope.make()
  const acquired = ReadWriteLock.acquireWrite("job", { downgradable: true }).pipe(Scope.provide(scope))
  return { acquired: run(acquired), release: Scope.close(scope, Exit.void) }
})

/** Notes when it runs. */
const noting = (events: Array<string>, who: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => void events.push(`${who} in`)),
    () => Effect.never,
    () => Effect.sync(() => void events.push(`${who} out`))
  )

describe(`a writer that becomes a reader (${cite("P1")}, ${cite("P4")})`, () => {
  for (const isLocal of [true, false]) {
    it.effect(`lets readers in, and no writer before they all have left (${isLocal ? "one process" : "many"})`, () =>
      provideMemory(Effect.gen(function*() {
        const first = yield* session()
        const others = yield* Effect.replicateEffect(isLocal ? Effect.succeed(first) : session(), 4)
        const events: Array<string> = []
        const { acquired, release } = yield* writer(first)
        const writing = yield* acquired
        const visits = [
          ReadWriteLock.withReadLock(noting(events, "a"), "job"),
          ReadWriteLock.withReadLock(noting(events, "b"), "job"),
          ReadWriteLock.withWriteLock(noting(events, "c"), "job"),
          ReadWriteLock.withReadLock(noting(events, "d"), "job")
        ]
        const fibers = yield* Effect.forEach(visits, (visit, i) => Effect.tap(fork(others[i]!.run(visit)), pass(10)))
        yield* pass("2 seconds")
        assert.deepStrictEqual(events, [])

        const reading = yield* writing.downgrade
        yield* pass(10)
        assert.deepStrictEqual(events.toSorted(), ["a in", "b in"])
        assert.strictEqual(reading.fencingToken, writing.fencingToken)
        assert.strictEqual(yield* reading.whileHeld(Effect.succeed(1)), 1)
        yield* Effect.forEach(fibers.slice(0, 2), stop)
        yield* pass("2 seconds")
        assert.lengthOf(events, 4)

        yield* release
        yield* pass(10)
        assert.deepStrictEqual(events.slice(4), ["c in"])
        yield* stop(fibers[2]!)
        yield* pass(10)
        assert.deepStrictEqual(events.slice(4), ["c in", "c out", "d in"])
        yield* stop(fibers[3]!)
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  for (const ends of ["with the body", "a while after the body"]) {
    it.effect(`lets readers of its process in when it ends without becoming one, ${ends}`, () =>
      provideMemory(Effect.gen(function*() {
        const { run } = yield* session()
        const writing = yield* fork(run(Effect.scoped(Effect.gen(function*() {
          const handle = yield* ReadWriteLock.acquireWrite("x", { downgradable: true })
          yield* handle.whileHeld(Effect.sleep(50))
          if (ends !== "with the body") yield* Effect.sleep(50)
        }))))
        yield* pass(10)
        const readers = yield* Effect.forEach([1, 2, 3], () => fork(run(ReadWriteLock.withReadLock(Effect.void, "x"))))
        yield* Effect.repeat(pass(50), { times: 10 })
        for (const fiber of [writing, ...readers]) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("waits for its turn as every writer does, and has a token greater than all before it", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const scope = yield* Scope.make()
      const before = yield* a.run(ReadWriteLock.acquireWrite("job").pipe(Scope.provide(scope)))
      const { acquired, release } = yield* writer(b)
      const waiting = yield* fork(acquired)
      yield* pass(10)
      const behind = yield* fork(
        c.run(ReadWriteLock.withReadLock(Effect.map(Lock.Current, (it) => it.fencingToken), "job"))
      )
      yield* pass("1 second")
      assert.isUndefined(waiting.pollUnsafe())
      yield* Scope.close(scope, Exit.void)
      yield* pass(10)
      const writing = waiting.pollUnsafe()
      assert.isTrue(writing !== undefined && Exit.isSuccess(writing))
      const { downgrade, fencingToken } = (writing as Exit.Success<ReadWriteLock.WriteHandle>).value
      assert.isAbove(Number(fencingToken), Number(before.fencingToken))
      const reading = yield* downgrade
      yield* pass(10)
      const token = behind.pollUnsafe() as Exit.Success<bigint>
      assert.isAbove(Number(token.value), Number(fencingToken))
      assert.strictEqual(reading.fencingToken, fencingToken)
      yield* release
    })))

  it.effect("waits in a long line for the one before it, and asks for nothing meanwhile", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(7n, 600)
      const others = Array.from({ length: 30 }, (_, i) => `job/${i % 3 === 0 ? "write" : "read"}/7-${i}`)
      for (const key of others) yield* etcd.txn({ then: [Etcd.put(key, "", { lease: 7n })] })
      const { counts, run } = yield* counted({ ttl: "60 seconds" })
      const { acquired, release } = yield* writer({ run })
      const waiting = yield* fork(acquired)
      yield* Effect.repeat(pass("1 second"), { times: 5 })
      const before = { ...counts }
      yield* Effect.repeat(pass("1 second"), { times: 5 })
      assert.deepStrictEqual(counts, before)
      for (const key of others.toReversed()) {
        assert.isUndefined(waiting.pollUnsafe())
        yield* etcd.txn({ then: [Etcd.remove(key)] })
        yield* pass(10)
      }
      const writing = (waiting.pollUnsafe() as Exit.Success<ReadWriteLock.WriteHandle>).value
      yield* writing.downgrade
      yield* release
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("keeps its token, also where only readers were ahead", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const ahead = yield* fork(a.run(ReadWriteLock.withReadLock(Effect.never, "job")))
      yield* pass(10)
      const { acquired, release } = yield* writer(b)
      const waiting = yield* fork(acquired)
      yield* pass(10)
      yield* stop(ahead)
      yield* pass(10)
      const writing = (waiting.pollUnsafe() as Exit.Success<ReadWriteLock.WriteHandle>).value
      assert.isAbove(Number(writing.fencingToken), Number(writing.createRevision))
      assert.strictEqual((yield* writing.downgrade).fencingToken, writing.fencingToken)
      yield* release
    })))

  it.effect("is a writer until then, which tries find", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const { acquired, release } = yield* writer(a)
      const writing = yield* acquired
      const tryRead = Effect.exit(b.run(ReadWriteLock.tryWithReadLock(Effect.void, "job")))
      const tryWrite = Effect.scoped(Effect.exit(b.run(ReadWriteLock.tryAcquireWrite("job", { downgradable: true }))))
      assert.include(failureOf(yield* tryRead) as Lock.LockHeld, { _tag: "LockHeld" })
      yield* writing.downgrade
      assert.isTrue(Exit.isSuccess(yield* tryRead))
      assert.include(failureOf(yield* tryWrite) as Lock.LockHeld, { _tag: "LockHeld" })
      yield* release
      assert.isTrue(Exit.isSuccess(yield* tryWrite))
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe(`the loss of either key (${cite("P3")})`, () => {
  for (const folder of ["write", "read"]) {
    it.effect(`interrupts a writer that could become a reader (${folder})`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { acquired, release } = yield* writer(yield* session())
        const writing = yield* acquired
        const body = yield* fork(writing.whileHeld(Effect.never))
        yield* faults.deletePrefix(`job/${folder}/`)
        yield* pass("1 second")
        assert.include(failureOf(body.pollUnsafe()) as Lock.LockLost, {
          _tag: "LockLost",
          reason: "KeyDeleted",
          lock: "job"
        })
        const downgraded = yield* Effect.exit(writing.downgrade)
        assert.include(failureOf(downgraded) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
        yield* release
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("of a reader that was a writer interrupts it", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { acquired, release } = yield* writer(yield* session())
      const reading = yield* Effect.flatMap(acquired, ({ downgrade }) => downgrade)
      const body = yield* fork(reading.whileHeld(Effect.never))
      yield* pass("1 second")
      assert.isUndefined(body.pollUnsafe())
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      assert.include(failureOf(body.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      yield* release
    })))
})

describe("downgrade", () => {
  it.effect("interrupts and awaits what runs under the write lock before it lets readers in", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const { acquired, release } = yield* writer(a)
      const writing = yield* acquired
      const unwinding = Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => void events.push("writer out")))
      const body = yield* fork(writing.whileHeld(Effect.onInterrupt(Effect.never, () => unwinding)))
      const behind = yield* fork(b.run(ReadWriteLock.withReadLock(noting(events, "b"), "job")))
      yield* pass(10)
      const downgrading = yield* fork(writing.downgrade)
      yield* pass(900)
      assert.deepStrictEqual(events, [])
      assert.isUndefined(downgrading.pollUnsafe())
      yield* pass(200)
      assert.deepStrictEqual(events, ["writer out", "b in"])
      assert.include(failureOf(body.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      assert.isTrue(Exit.isSuccess(downgrading.pollUnsafe()!))
      yield* stop(behind)
      yield* release
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("leaves no reader where the release of the writer finds that its key had gone", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { acquired, release } = yield* writer(yield* session())
      const writing = yield* acquired
      // No watch is open yet that would tell.
      yield* faults.deletePrefix("job/write/")
      assert.include(yield* Effect.flip(writing.downgrade), { _tag: "LockLost", reason: "KeyDeleted" })
      assert.deepStrictEqual(yield* keys, [])
      yield* release
    })))

  it.effect("fails once the write lock has been released or has become a read lock", () =>
    provideMemory(Effect.gen(function*() {
      const { acquired, release } = yield* writer(yield* session())
      const writing = yield* acquired
      yield* writing.downgrade
      const again = failureOf(yield* Effect.exit(writing.downgrade))
      assert.include(again as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      yield* release
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("costs one commit more than a write lock", () =>
    provideMemory(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      const { acquired, release } = yield* writer({ run })
      yield* pass(1)
      const before = counts.txn
      const writing = yield* acquired
      yield* writing.downgrade
      yield* release
      assert.strictEqual(counts.txn - before, 3)
    })))

  it.effect("finds a wrong option", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const options = { downgradable: "yes" as unknown as boolean }
      const exit = yield* Effect.exit(Effect.scoped(run(ReadWriteLock.acquireWrite("job", options))))
      assert.match((defectOf(exit) as Error).message, /^ReadWriteLock: downgradable must be true or false, got "yes"/)
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("operators", () => {
  it.effect("see one client, and can release both of its keys", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const { acquired, release } = yield* writer(a)
      const writing = yield* acquired
      const waiting = yield* writer(b)
      const fiber = yield* fork(waiting.acquired)
      yield* pass(10)
      const { holders, queue } = yield* a.run(ReadWriteLock.inspect("job"))
      assert.deepStrictEqual(holders.map(({ mode }) => mode), ["write"])
      assert.deepStrictEqual(queue.map(({ mode }) => mode), ["write"])
      const [listed] = yield* a.run(Lock.list("job"))
      assert.deepInclude(listed, { lock: "job", holding: 1, waiting: 1 })
      const { createRevision } = writing
      assert.isTrue(yield* a.run(ReadWriteLock.forceRelease("job", { createRevision })))
      yield* pass(10)
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      yield* waiting.release
      yield* release
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe(`a loss of one of its two keys (${cite("P3")})`, () => {
  const lossesBy = (recipe: string, reason: string) =>
    Effect.map(Metric.value(Metric.withAttributes(LockMetrics.losses, { recipe, reason })), ({ count }) => count)
  const heldBy = (recipe: string) =>
    Effect.map(Metric.value(Metric.withAttributes(LockMetrics.held, { recipe })), ({ value }) => value)
  const measured = <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.provideService(provideMemory(self), Metric.MetricRegistry, new Map())

  it.effect("is counted and logged as the writer's, once, when the reader's key is deleted", () => {
    const { logged, logger } = logs()
    return measured(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const writing = ReadWriteLock.acquireWrite("job", { downgradable: true })
      const holding = yield* fork(run(Effect.scoped(Effect.flatMap(writing, (lock) => lock.whileHeld(Effect.never)))))
      yield* pass("1 second")
      yield* faults.deletePrefix("job/read/")
      yield* pass("1 second")
      assert.include(failureOf(holding.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      assert.deepStrictEqual([yield* lossesBy("write", "KeyDeleted"), yield* lossesBy("read", "KeyDeleted")], [1, 0])
      assert.deepStrictEqual([yield* heldBy("write"), yield* heldBy("read")], [0, 0])
      assert.lengthOf(logged.filter((message) => message.startsWith("Lock 'job' was lost")), 1)
      assert.deepStrictEqual(yield* keys, [])
    })).pipe(Effect.provide(logger))
  })

  it.effect("is none where the writer has ended before anything told that the reader's key was deleted", () =>
    measured(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { acquired, release } = yield* writer(yield* session())
      yield* acquired
      yield* faults.deletePrefix("job/read/")
      yield* release
      assert.deepStrictEqual([yield* lossesBy("write", "KeyDeleted"), yield* lossesBy("read", "KeyDeleted")], [0, 0])
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("is counted once when the process stands still while the writer becomes a reader", () =>
    measured(Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let frozen = 0n
      let freezes = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: ((request: Etcd.TxnRequest<[], []>) =>
          Effect.tap(etcd.txn(request), () =>
            Effect.sync(() => {
              if (freezes) frozen += 10_000_000_000n
              freezes = false
            }))) as typeof etcd.txn
      })).pipe(Effect.provideService(Clock.Clock, {
        ...clock,
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + frozen
      }))
      const becoming = yield* fork(run(Effect.scoped(Effect.gen(function*() {
        const lock = yield* ReadWriteLock.acquireWrite("job", { downgradable: true })
        freezes = true
        yield* Effect.exit(lock.downgrade)
        yield* Effect.sleep("1 second")
      }))))
      yield* Effect.repeat(pass(100), { times: 20 })
      assert.isDefined(becoming.pollUnsafe())
      const losses = (yield* lossesBy("write", "LeaseExpired")) + (yield* lossesBy("read", "LeaseExpired"))
      assert.strictEqual(losses, 1)
      assert.deepStrictEqual([yield* heldBy("write"), yield* heldBy("read")], [0, 0])
    })))
})
