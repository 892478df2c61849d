/** The spans of waits and holds. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Logger, type Scope, Tracer } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore, type Session } from "effect-etcd-lock"
import { fork, pass, provideMemory, session, stop } from "../support/inMemory.ts"

interface Seen {
  readonly spans: Array<Tracer.NativeSpan>
  readonly named: (name: string) => Tracer.NativeSpan
  readonly traced: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>>
}

/** A tracer of the test's own, and a span of the caller's. */
const tracing = (): Seen => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return {
    spans,
    named: (name) => {
      const found = spans.filter((span) => span.name === name)
      assert.lengthOf(found, 1, `spans named ${name} among ${spans.map(({ name }) => name).join(", ")}`)
      return found[0]!
    },
    traced: (self) => Effect.withTracer(Effect.withSpan(self, "caller"), tracer)
  }
}

const parentOf = ({ parent }: Tracer.NativeSpan) => parent._tag === "Some" ? parent.value.spanId : undefined

const millis = ({ status }: Tracer.NativeSpan): number => {
  assert.strictEqual(status._tag, "Ended")
  const { endTime, startTime } = status as Extract<Tracer.SpanStatus, { readonly _tag: "Ended" }>
  return Number(endTime - startTime) / 1e6
}

const exitOf = ({ status }: Tracer.NativeSpan) =>
  (status as Extract<Tracer.SpanStatus, { readonly _tag: "Ended" }>).exit

type Way = readonly [
  name: string,
  module: string,
  take: (body: Effect.Effect<void>) => Effect.Effect<unknown, unknown, Session.Session>
]

const scoped =
  <E>(acquire: Effect.Effect<Lock.Handle, E, Session.Session | Scope.Scope>) => (body: Effect.Effect<void>) =>
    Effect.scoped(Effect.flatMap(acquire, ({ whileHeld }) => whileHeld(body)))

const of = 8

const ways: ReadonlyArray<Way> = [
  ["withLock", "Lock", Lock.withLock("job")],
  ["tryWithLock", "Lock", Lock.tryWithLock("job")],
  ["withLockIfAvailable", "Lock", Lock.withLockIfAvailable("job")],
  ["withLockOnce", "Lock", Lock.withLockOnce("job", { run: "1" })],
  ["acquire", "Lock", scoped(Lock.acquire("job"))],
  ["tryAcquire", "Lock", scoped(Lock.tryAcquire("job"))],
  ["a single key", "Lock", Lock.withLock("job", { layout: "single-key" })],
  ["withLocks", "Lock", Lock.withLocks(["job", "other"])],
  ["acquireAll", "Lock", scoped(Lock.acquireAll(["job", "other"]))],
  ["withReadLock", "ReadWriteLock", ReadWriteLock.withReadLock("job")],
  ["withReadLockIfAvailable", "ReadWriteLock", ReadWriteLock.withReadLockIfAvailable("job")],
  ["withWriteLock", "ReadWriteLock", ReadWriteLock.withWriteLock("job")],
  ["withWriteLockIfAvailable", "ReadWriteLock", ReadWriteLock.withWriteLockIfAvailable("job")],
  ["acquireWrite, downgradable", "ReadWriteLock", scoped(ReadWriteLock.acquireWrite("job", { downgradable: true }))],
  ["withPermits", "Semaphore", Semaphore.withPermits("job", { of })],
  ["withPermitsIfAvailable", "Semaphore", Semaphore.withPermitsIfAvailable("job", { of })],
  ["withLeadership", "Election", Election.withLeadership("job")],
  ["campaign", "Election", scoped(Election.campaign("job"))]
]

describe("spans", () => {
  for (const [way, module, take] of ways) {
    it.effect(`are one of the wait and one of the hold, beside those of the body (${way})`, () =>
      provideMemory(Effect.gen(function*() {
        const { named, spans, traced } = tracing()
        const { run } = yield* session()
        const body = Effect.withSpan(Effect.sleep(50), "work")
        const fiber = yield* fork(run(traced(take(body))))
        yield* Effect.repeat(pass(10), { times: 10 })
        assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
        assert.deepStrictEqual(spans.map(({ name }) => name), ["caller", `${module}.acquire`, `${module}.hold`, "work"])
        const caller = named("caller").spanId
        const [wait, hold, work] = [named(`${module}.acquire`), named(`${module}.hold`), named("work")]
        assert.deepStrictEqual([wait, hold, work].map(parentOf), [caller, caller, caller])
        assert.isAtMost(millis(wait), 10)
        assert.isAtLeast(millis(hold), 50)
        assert.isAtMost(millis(hold), 60)
        assert.include(wait.attributes.get("lock.name"), "job")
        assert.strictEqual(wait.attributes.get("lock.outcome"), "Acquired")
        for (const { attributes } of [wait, hold]) {
          assert.include(attributes.get("lock.key"), "job")
          assert.match(String(attributes.get("lock.fencing_token")), /^\d+$/)
          assert.match(String(attributes.get("lock.lease_id")), /^[0-9a-f]+$/)
        }
      })))
  }

  it.effect("show the wait, who was waited for, and how many", () =>
    provideMemory(Effect.gen(function*() {
      const { named, spans, traced } = tracing()
      const [a, b] = yield* Effect.all([session(), session()])
      const other = tracing()
      const holding = yield* fork(a.run(other.traced(Lock.withLock(Effect.sleep("1 second"), "job"))))
      yield* pass(1)
      const waiting = yield* fork(b.run(traced(Lock.withLock(Effect.void, "job"))))
      yield* pass(999)
      yield* pass(10)
      for (const fiber of [holding, waiting]) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      const wait = named("Lock.acquire")
      assert.isAtLeast(millis(wait), 998)
      assert.isAtLeast(Number(wait.attributes.get("lock.waited_ms")), 998)
      assert.strictEqual(wait.attributes.get("lock.queue_ahead"), 1)
      const { spanId, traceId } = other.named("Lock.acquire")
      assert.deepInclude(wait.links.map(({ span }) => ({ spanId: span.spanId, traceId: span.traceId })), {
        spanId,
        traceId
      })
      assert.notInclude(spans, other.spans[0])
    })))

  it.effect.each<[string, string]>([
    ["an ID that is none", "{\"traceId\":\"nightly\",\"spanId\":\"00f067aa0ba902b7\"}"],
    ["the ID of no trace", "{\"traceId\":\"00000000000000000000000000000000\",\"spanId\":\"00f067aa0ba902b7\"}"],
    ["no ID of a span", "{\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"spanId\":\"\"}"]
  ])(
    "have no link to %s, for which a collector could refuse them",
    ([, trace]) =>
      provideMemory(Effect.gen(function*() {
        const { named, traced } = tracing()
        const etcd = yield* Etcd.Etcd
        yield* etcd.leaseGrant(7n, 60)
        yield* etcd.txn({ then: [Etcd.put("job/7", `{"trace":${trace}}`, { lease: 7n })] })
        const { run } = yield* session()
        const waiting = yield* fork(
          Effect.exit(run(traced(Lock.withLock(Effect.void, "job", { timeout: "1 second" }))))
        )
        yield* pass(1000)
        yield* pass(10)
        assert.isDefined(waiting.pollUnsafe())
        const wait = named("Lock.acquire")
        assert.strictEqual(wait.attributes.get("lock.queue_ahead"), 1)
        assert.deepStrictEqual(wait.links, [])
      }))
  )

  for (
    const [way, outcome, take] of [
      ["a refused try", "LockHeld", Lock.tryWithLock("job")],
      ["a refused section", "Refused", Lock.withLockIfAvailable("job")],
      ["a timeout", "LockTimeout", Lock.withLock("job", { timeout: "1 second" })]
    ] satisfies ReadonlyArray<Way>
  ) {
    it.effect(`have no hold after ${way}`, () =>
      provideMemory(Effect.gen(function*() {
        const { named, spans, traced } = tracing()
        const [a, b] = yield* Effect.all([session(), session()])
        const holding = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
        yield* pass(1)
        const fiber = yield* fork(
          Effect.exit(b.run(traced(take(Effect.void) as Effect.Effect<unknown, unknown, Session.Session>)))
        )
        yield* pass("1 second")
        yield* pass(10)
        assert.isDefined(fiber.pollUnsafe())
        assert.deepStrictEqual(spans.map(({ name }) => name), ["caller", "Lock.acquire"])
        const wait = named("Lock.acquire")
        assert.strictEqual(wait.attributes.get("lock.outcome"), outcome)
        assert.strictEqual(Exit.isFailure(exitOf(wait)), outcome !== "Refused")
        yield* stop(holding)
        yield* pass(10)
      })))
  }

  it.effect("end with an error and its cause when the lock is lost, while the body still unwinds", () =>
    provideMemory(Effect.gen(function*() {
      const { named, traced } = tracing()
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const body = Effect.onInterrupt(Effect.never, () => Effect.sleep("10 seconds"))
      const fiber = yield* fork(run(traced(Lock.withLock(body, "job"))))
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      const { events, ...hold } = named("Lock.hold")
      assert.isAtMost(millis(named("Lock.hold")), 1500)
      const [[name, , attributes] = []] = events
      assert.strictEqual(name, "lock.lost")
      assert.deepInclude(attributes, { "lock.loss_reason": "KeyDeleted" })
      const exit = exitOf(hold as Tracer.NativeSpan)
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof Lock.LockLost)
      yield* Effect.repeat(pass("1 second"), { times: 11 })
      assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
    })))

  it.effect("of a hold end with the loss that its release has found", () =>
    provideMemory(Effect.gen(function*() {
      const { named, traced } = tracing()
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* Effect.flip(run(traced(Lock.withLock(faults.deletePrefix("job/"), "job"))))
      yield* pass(1)
      const exit = exitOf(named("Lock.hold"))
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof Lock.LockLost)
    })))

  it.effect("of a handle end when it is released, and not with its scope", () =>
    provideMemory(Effect.gen(function*() {
      const { named, traced } = tracing()
      const { run } = yield* session()
      const fiber = yield* fork(run(traced(Effect.scoped(Effect.gen(function*() {
        const { release } = yield* Lock.acquire("job")
        yield* Effect.sleep(100)
        yield* release
        yield* Effect.sleep(1000)
      })))))
      yield* pass(100)
      yield* pass(1000)
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      assert.strictEqual(millis(named("Lock.hold")), 100)
      assert.isTrue(Exit.isSuccess(exitOf(named("Lock.hold"))))
    })))

  it.effect("are of each term of a leader, end with it, and are not in a span of the caller that would not end", () =>
    provideMemory(Effect.gen(function*() {
      const { spans, traced } = tracing()
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const logged: Array<string | undefined> = []
      const logger = Logger.layer([
        Logger.make(({ fiber }) => void logged.push((fiber.cache.span as Tracer.Span | undefined)?.name))
      ])
      const body = Effect.log("leads").pipe(Effect.andThen(Effect.never), Effect.withSpan("work"))
      const fiber = yield* fork(
        Effect.provide(run(traced(Election.whileLeader(Effect.andThen(Effect.log("begins"), body), "job"))), logger)
      )
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass("2 seconds")
      yield* stop(fiber)
      yield* pass(10)
      const [caller, ...terms] = spans
      const term = ["Election.acquire", "Election.hold", "work"]
      assert.deepStrictEqual(terms.map(({ name }) => name), [...term, ...term])
      for (const span of terms) {
        assert.isUndefined(parentOf(span))
        assert.isAtMost(millis(span), 2500)
      }
      assert.isTrue(Exit.isFailure(exitOf(terms[1]!)) && Exit.isSuccess(exitOf(terms[4]!)))
      assert.strictEqual(caller!.name, "caller")
      assert.deepStrictEqual(logged.filter((name) => name !== undefined), ["work", "work"])
    })))

  it.effect("leave nothing in etcd where no program traces", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const [kv] = yield* faults.keys
      assert.notInclude(Buffer.from(kv!.value).toString(), "trace")
      assert.isUndefined((yield* run(Lock.inspect("job"))).holder?.trace)
      yield* stop(fiber)
      yield* pass(10)
    })))
})
