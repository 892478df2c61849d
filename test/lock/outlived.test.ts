/**
 * A body that outlived its lease or its key is no success: its owner's clock is asked when it ends, and etcd when its
 * lock is released. On an etcd in memory, in virtual time.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Metric, type Scope, Tracer } from "effect"
import { Election, Etcd, type Lease, Lock, LockMetrics, ReadWriteLock, Semaphore, Session } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { counted, fork, freezable, keys, pass, provideMemory, session, stop } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

type Section = <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R | Session.Session>

const under = (acquire: Effect.Effect<Lock.Handle, unknown, Session.Session | Scope.Scope>): Section => (body) =>
  Effect.scoped(Effect.flatMap(acquire, ({ whileHeld }) => whileHeld(body)))

const sections: Record<string, Section> = {
  withLock: Lock.withLock("job"),
  tryWithLock: Lock.tryWithLock("job"),
  withLockIfAvailable: (body) => Effect.flatMap(Lock.withLockIfAvailable(body, "job"), Effect.fromOption),
  withLocks: Lock.withLocks(["job", "other"]),
  "a single key": Lock.withLock("job", { layout: "single-key" }),
  withReadLock: ReadWriteLock.withReadLock("job"),
  withWriteLock: ReadWriteLock.withWriteLock("job"),
  withPermits: Semaphore.withPermits("job", { of: 3 }),
  withLeadership: Election.withLeadership("job")
}

const handles: Record<string, Section> = {
  acquire: under(Lock.acquire("job")),
  acquireAll: under(Lock.acquireAll(["job", "other"])),
  "acquireWrite, downgradable": under(ReadWriteLock.acquireWrite("job", { downgradable: true })),
  "a reader that was a writer": under(
    Effect.flatMap(ReadWriteLock.acquireWrite("job", { downgradable: true }), ({ downgrade }) => downgrade)
  ),
  campaign: under(Election.campaign("job"))
}

/** The losses in a cause, what the body failed with itself, and what it succeeded with. */
const told = (exit: Exit.Exit<unknown, unknown>) => {
  if (Exit.isSuccess(exit)) return { losses: [], own: [], success: exit.value }
  const errors = exit.cause.reasons.filter(Cause.isFailReason).map(({ error }) => error)
  assert.isFalse(Cause.hasDies(exit.cause))
  return {
    losses: errors.filter((error) => error instanceof Lock.LockLost).map(({ reason }) => reason),
    own: errors.filter((error) => !(error instanceof Lock.LockLost)),
    success: Context.getOrUndefined(Cause.annotations(exit.cause), Lock.BodySuccess)
  }
}

const provide = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(provideMemory(self), Metric.MetricRegistry, new Map())

const losses = (recipe = "lock") =>
  Effect.all({
    LeaseExpired: lossesBy(recipe, "LeaseExpired"),
    KeyDeleted: lossesBy(recipe, "KeyDeleted")
  })

const lossesBy = (recipe: string, reason: string) =>
  Effect.map(Metric.value(Metric.withAttributes(LockMetrics.losses, { recipe, reason })), ({ count }) => count)

const deleteKeys = Effect.flatMap(Etcd.Faults, (faults) => faults.deletePrefix("job"))

/** Runs an effect to its end, while time passes. */
const ran = Effect.fnUntraced(function*<A, E, R>(self: Effect.Effect<A, E, R>) {
  const fiber = yield* fork(self)
  for (let i = 0; i < 40 && fiber.pollUnsafe() === undefined; i++) yield* pass(100)
  return fiber.pollUnsafe() ?? assert.fail("it has not ended")
})

describe("a body that stood still for longer than its lease lives", () => {
  for (const [name, section] of Object.entries({ ...sections, ...handles })) {
    it.effect(`fails, although no timer has fired (${name})`, () =>
      provide(Effect.gen(function*() {
        const { freeze, process: { run } } = yield* freezable
        const { losses, own, success } = told(yield* ran(run(section(Effect.sync(() => (freeze(), "all is well"))))))
        assert.isNotEmpty(losses)
        for (const reason of losses) assert.strictEqual(reason, "LeaseExpired")
        assert.deepStrictEqual(own, [])
        assert.strictEqual(success, "all is well")
      })))
  }

  it.effect("keeps its own failure beside the loss, and not its interruption", () =>
    provide(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      const body = Effect.suspend(() => (freeze(), Effect.fail("own")))
      assert.deepStrictEqual(told(yield* ran(run(Lock.withLock(body, "job")))), {
        losses: ["LeaseExpired"],
        own: ["own"],
        success: undefined
      })
      assert.deepStrictEqual(yield* losses(), { LeaseExpired: 1, KeyDeleted: 0 })
    })))

  it.effect("is told of the loss beside the interruption of its caller", () =>
    provide(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      const fiber = yield* fork(run(Lock.withLock(Effect.uninterruptible(Effect.sleep("1 second")), "job")))
      yield* pass(500)
      yield* stop(fiber)
      freeze()
      yield* pass(500)
      const exit = fiber.pollUnsafe()!
      assert.isTrue(Exit.hasInterrupts(exit))
      assert.deepStrictEqual(told(exit).losses, ["LeaseExpired"])
    })))

  it.effect("fails under a lease", () =>
    provide(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      const body = Effect.flatMap(Session.Session, ({ lease }) =>
        Effect.scoped(Effect.flatMap(lease, ({ whileAlive }) =>
          whileAlive(Effect.sync(() => (freeze(), 1))))))
      const exit = yield* ran(run(body))
      assert.include(failureOf(exit) as Lease.LeaseExpired, { _tag: "LeaseExpired", reason: "Expired" })
      assert.strictEqual(told(exit).success, 1)
    })))

  it.effect("loses the lock by its release, too, where nothing ran under the handle", () =>
    provide(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      yield* ran(run(Effect.scoped(Effect.tap(Lock.acquire("job"), () => Effect.sync(freeze)))))
      assert.deepStrictEqual(yield* losses(), { LeaseExpired: 1, KeyDeleted: 0 })
    })))

  it.effect("is told of its lease, also when it hears of its key first", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { freeze, process: { run } } = yield* freezable
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass("1 second")
      freeze()
      for (const lease of yield* faults.leases) yield* faults.expireLease(lease)
      yield* pass(1)
      const lost = failureOf(fiber.pollUnsafe()!) as Lock.LockLost
      assert.include(lost, { reason: "LeaseExpired" })
      assert.match(lost.message, /stood still for (9|10)s/)
    })))
})

describe("a body whose key was deleted just before it ended", () => {
  for (const [name, section] of Object.entries(sections)) {
    it.effect(`fails, by what etcd answers to the release (${name})`, () =>
      provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        yield* faults.delayWatches("1 minute")
        assert.deepStrictEqual(told(yield* ran(run(section(Effect.as(deleteKeys, "all is well"))))), {
          losses: ["KeyDeleted"],
          own: [],
          success: "all is well"
        })
        assert.deepStrictEqual(yield* keys, [])
        assert.strictEqual(yield* Effect.flatten(ran(run(section(Effect.succeed("again"))))), "again")
      })))
  }

  it.effect("keeps its own failure beside the loss, which comes first", () =>
    provide(Effect.gen(function*() {
      const { run } = yield* session()
      const body = Effect.andThen(deleteKeys, Effect.fail("own"))
      assert.deepStrictEqual(told(yield* ran(run(Lock.withLock(body, "job")))), {
        losses: ["KeyDeleted"],
        own: ["own"],
        success: undefined
      })
    })))

  it.effect("fails when the lock is handed over, and the next fiber runs all the same", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* faults.delayWatches("1 minute")
      const first = yield* fork(run(Lock.withLock(Effect.andThen(Effect.sleep(100), deleteKeys), "job")))
      const next = yield* fork(run(Lock.withLock(Effect.succeed("ran"), "job")))
      for (let i = 0; i < 10; i++) yield* pass(100)
      assert.deepStrictEqual(told(first.pollUnsafe()!).losses, ["KeyDeleted"])
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("ran"))
    })))

  it.effect("lost its lease, if the clock says so when etcd answers", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { freeze, process: { run } } = yield* freezable
      const fiber = yield* fork(run(Lock.withLock(Effect.sleep(200), "job")))
      yield* pass(100)
      yield* faults.stall
      yield* pass(100)
      freeze()
      for (const lease of yield* faults.leases) yield* faults.expireLease(lease)
      yield* faults.resume
      for (let i = 0; i < 10; i++) yield* pass(100)
      assert.deepStrictEqual(told(fiber.pollUnsafe()!).losses, ["LeaseExpired"])
    })))

  it.effect("is told of it by a downgrade, which does not happen", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* faults.delayWatches("1 minute")
      const downgraded = Effect.scoped(Effect.gen(function*() {
        const lock = yield* ReadWriteLock.acquireWrite("job", { downgradable: true })
        yield* faults.deleteKey(lock.key)
        const loss = yield* Effect.flip(lock.downgrade)
        assert.deepStrictEqual(yield* keys, [])
        return yield* loss
      }))
      assert.deepStrictEqual(told(yield* ran(run(downgraded))).losses, ["KeyDeleted"])
      assert.deepStrictEqual(yield* losses("write"), { LeaseExpired: 0, KeyDeleted: 1 })
      assert.deepStrictEqual(yield* losses("read"), { LeaseExpired: 0, KeyDeleted: 0 })
    })))

  it.effect("is believed where the release was sent twice, since the first may have removed the key", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const body = Effect.as(faults.drop("Reply", { method: "txn" }), "all is well")
      assert.strictEqual(yield* Effect.flatten(ran(run(Lock.withLock(body, "job")))), "all is well")
      assert.deepStrictEqual(yield* losses(), { LeaseExpired: 0, KeyDeleted: 0 })
    })))

  it.effect("is believed where etcd does not answer to the release", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "1 minute" })
      const fiber = yield* fork(run(Lock.withLock(Effect.as(faults.stall, "all is well"), "job")))
      for (let i = 0; i < 60; i++) yield* pass(100)
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("all is well"))
    })))

  it.effect("is believed where its session closes meanwhile", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(10)
      yield* faults.delay(20)
      yield* fork(close)
      for (let i = 0; i < 40; i++) yield* pass(10)
      assert.deepStrictEqual(told(fiber.pollUnsafe()!).losses, ["Released"])
      assert.deepStrictEqual(yield* losses(), { LeaseExpired: 0, KeyDeleted: 0 })
    })))
})

describe("a loss that a release finds", () => {
  const ways: Record<string, Effect.Effect<unknown, unknown, Session.Session | Etcd.Faults>> = {
    "of a section": Lock.withLock(deleteKeys, "job"),
    "of a scope": Effect.scoped(Effect.andThen(Lock.acquire("job"), deleteKeys)),
    "of a handle": Effect.scoped(
      Effect.flatMap(Lock.acquire("job"), ({ release }) => Effect.andThen(deleteKeys, release))
    )
  }

  for (const [name, self] of Object.entries(ways)) {
    it.effect(`${name} is counted, logged and in the trace once`, () =>
      provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { logged, logger } = logs()
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        yield* Effect.gen(function*() {
          const { run } = yield* session()
          yield* faults.delayWatches(500)
          yield* ran(Effect.withTracer(run(self), tracer))
          yield* Effect.repeat(pass(100), { times: 10 })
        }).pipe(Effect.provide(logger))
        assert.deepStrictEqual(yield* losses(), { LeaseExpired: 0, KeyDeleted: 1 })
        assert.deepStrictEqual(logged, ["Lock 'job' was lost at once: its key was deleted from etcd"])
        const hold = spans.find(({ name }) => name === "Lock.hold")
        assert.deepStrictEqual(hold!.events.map(([name]) => name), ["lock.lost"])
        assert.include(hold!.events[0]![2], { "lock.loss_reason": "KeyDeleted", "lock.lease_gone": false })
        assert.strictEqual(hold!.status._tag, "Ended")
      })))
  }

  it.effect("is told although its lease is retired, and ends with this lock", () =>
    provide(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.andThen(Effect.sleep(8000), deleteKeys), "job")))
      yield* pass(100)
      // The outcome of a join stays unknown.
      yield* faults.drop("Reply", { method: "txn" })
      yield* fork(run(Lock.withLock(Effect.void, "other", { timeout: 10 })))
      yield* pass(100)
      yield* faults.delayWatches("1 hour")
      yield* Effect.repeat(pass(100), { times: 90 })
      assert.deepStrictEqual(told(fiber.pollUnsafe()!).losses, ["KeyDeleted"])
      assert.deepStrictEqual(yield* losses(), { LeaseExpired: 0, KeyDeleted: 1 })
    })))

  it.effect("costs no request: etcd's answer to the release says it", () =>
    provide(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      yield* ran(run(Lock.withLock(Effect.void, "warm")))
      const { range, txn } = { ...counts }
      yield* ran(run(Lock.withLock(deleteKeys, "job")))
      assert.deepStrictEqual(counts, { ...counts, range, txn: txn + 2 })
    })))
})
