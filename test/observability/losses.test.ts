/**
 * A loss that is made on purpose can be told apart, with its cause and its time, from the metrics alone, from the trace
 * alone and from the log alone. On an etcd in memory.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, Metric, References, Tracer } from "effect"
import { Etcd, Lock, LockMetrics } from "effect-etcd-lock"
import { fork, freezable, pass, provideMemory, session, stop } from "../support/inMemory.ts"

interface Line {
  readonly at: number
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
}

/** Keeps what is logged at debug and above. */
const logging = () => {
  const lines: Array<Line> = []
  const logger = Logger.make<unknown, void>(({ date, fiber, logLevel, message }) => {
    lines.push({
      at: date.getTime(),
      level: logLevel,
      message: String(message),
      annotations: fiber.getRef(References.CurrentLogAnnotations)
    })
  })
  const kept = <A, E, R>(self: Effect.Effect<A, E, R>) =>
    self.pipe(
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "Debug")
    )
  return { kept, lines, warnings: () => lines.filter(({ level }) => level === "Warn") }
}

const tracing = () => {
  const holds: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      if (options.name === "Lock.hold") holds.push(span)
      return span
    }
  })
  return { holds, traced: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.withTracer(self, tracer) }
}

const count = (counter: typeof LockMetrics.losses, attributes: Record<string, string>) =>
  Effect.map(Metric.value(Metric.withAttributes(counter, attributes)), ({ count }) => count)

type Cause = "etcd killed" | "lease revoked" | "key deleted" | "process frozen"

const causes: ReadonlyArray<Cause> = ["etcd killed", "lease revoked", "key deleted", "process frozen"]

/** Holds locks on one lease for two seconds, and loses them. Returns the lease. */
const lose = Effect.fnUntraced(function*(cause: Cause, locks = 1) {
  const faults = yield* Etcd.Faults
  const { freeze, process: { run } } = yield* freezable
  const fibers = yield* Effect.forEach(
    Array.from({ length: locks }, (_, i) => i === 0 ? "job" : `job-${i}`),
    (name) => fork(run(Lock.withLock(Effect.never, name)))
  )
  yield* Effect.repeat(pass(100), { times: 20 })
  const [kv] = yield* faults.keys
  switch (cause) {
    case "etcd killed": {
      yield* faults.drop("Request", { times: 1000 })
      break
    }
    case "lease revoked": {
      yield* faults.revokeLease(kv!.lease)
      break
    }
    case "key deleted": {
      yield* faults.deleteKey(kv!.key)
      break
    }
    case "process frozen": {
      freeze()
    }
  }
  yield* Effect.repeat(pass(100), { times: 40 })
  yield* faults.heal
  yield* Effect.repeat(pass("1 second"), { times: 20 })
  for (const fiber of fibers) assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
  return { lease: kv!.lease.toString(16) }
})

const provide = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(provideMemory(self), Metric.MetricRegistry, new Map())

describe("the cause of a loss", () => {
  for (const cause of causes) {
    it.effect(`is known from the metrics alone (${cause})`, () =>
      provide(Effect.gen(function*() {
        yield* lose(cause)
        const losses = (reason: string) => count(LockMetrics.losses, { recipe: "lock", reason })
        const renewals = (result: string) => count(LockMetrics.renewals, { result })
        const seen = {
          expired: yield* losses("LeaseExpired"),
          deleted: yield* losses("KeyDeleted"),
          failed: (yield* renewals("failed")) > 0,
          revoked: yield* renewals("revoked"),
          late: yield* renewals("too_late")
        }
        assert.strictEqual(seen.expired + seen.deleted, 1)
        const found: Cause = seen.late > 0
          ? "process frozen"
          : seen.failed
          ? "etcd killed"
          : seen.revoked > 0
          ? "lease revoked"
          : "key deleted"
        assert.strictEqual(found, cause)
      })))

    it.effect(`is known from the trace alone (${cause})`, () =>
      provide(Effect.gen(function*() {
        const { holds, traced } = tracing()
        yield* traced(lose(cause))
        assert.lengthOf(holds, 1)
        const [[name, at, attributes] = []] = holds[0]!.events
        assert.strictEqual(name, "lock.lost")
        assert.isAtLeast(Number(at) / 1e6, 2000)
        assert.isAtMost(Number(at) / 1e6, 5500)
        const { "lock.lease_gone": isLeaseGone, "lock.loss": loss, "lock.loss_reason": reason } = attributes!
        const found: Cause = reason === "KeyDeleted"
          ? isLeaseGone === true ? "lease revoked" : "key deleted"
          : String(loss).includes("was revoked")
          ? "lease revoked"
          : /stood still for (9|10)s/.test(String(loss))
          ? "process frozen"
          : "etcd killed"
        assert.strictEqual(found, cause)
      })))

    it.effect(`is known from the log alone (${cause})`, () =>
      provide(Effect.gen(function*() {
        const { kept, lines, warnings } = logging()
        const { lease } = yield* kept(lose(cause))
        const [lost, ...more] = warnings().filter(({ message }) => message.startsWith("Lock 'job' was lost"))
        assert.deepStrictEqual(more, [])
        assert.isAtLeast(lost!.at, 2000)
        assert.isAtMost(lost!.at, 5500)
        assert.include(lost!.annotations, { lock: "job", lease })
        assert.match(String(lost!.annotations.token), /^\d+$/)
        const isSaid = (text: string) => warnings().some(({ message }) => message.includes(text))
        const found: Cause = isSaid("stood still for")
          ? "process frozen"
          : isSaid("acknowledged no renewal")
          ? "etcd killed"
          : isSaid("was revoked")
          ? "lease revoked"
          : "key deleted"
        assert.strictEqual(found, cause)
        assert.strictEqual(isSaid("could not be renewed"), cause === "etcd killed")
        assert.isTrue(lines.every(({ level }) => level !== "Error"))
      })))
  }
})

describe("the log", () => {
  it.effect("has nothing in the ordinary course", () =>
    provide(Effect.gen(function*() {
      const { kept, lines } = logging()
      yield* kept(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const fibers = [
          yield* fork(a.run(Lock.withLock(Effect.sleep("20 seconds"), "job"))),
          yield* fork(b.run(Lock.withLock(Effect.sleep("20 seconds"), "job"))),
          yield* fork(b.run(Effect.flip(Lock.tryWithLock(Effect.void, "job")))),
          yield* fork(b.run(Effect.flip(Lock.withLock(Effect.void, "job", { timeout: "3 seconds" }))))
        ]
        yield* Effect.repeat(pass("1 second"), { times: 50 })
        for (const fiber of fibers) assert.strictEqual(fiber.pollUnsafe()?._tag, "Success")
        const interrupted = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
        yield* pass(10)
        yield* stop(interrupted)
        yield* pass(10)
        yield* a.close
      }))
      assert.deepStrictEqual(lines, [])
    })))

  const endings = ["etcd killed", "lease revoked", "process frozen"] as const
  const counts = [[10, 10, []], [11, 10, [1]], [1000, 10, [990]]] as const

  for (const cause of endings) {
    for (const [locks, named, more] of counts) {
      it.effect(`names ${named} of ${locks} locks that a lease takes with it, and counts the others (${cause})`, () =>
        provide(Effect.gen(function*() {
          const { kept, lines, warnings } = logging()
          const { lease } = yield* kept(lose(cause, locks))
          const lost = (level: string) =>
            lines.filter((line) => line.level === level && / was lost after /.test(line.message))
              .map(({ annotations, message }) => {
                assert.include(message, `Lock '${String(annotations.lock)}'`)
                assert.include(annotations, { lease })
                assert.match(String(annotations.token), /^\d+$/)
                return annotations.lock
              })
          assert.lengthOf(lost("Warn"), named)
          assert.lengthOf(new Set([...lost("Warn"), ...lost("Debug")]), locks)
          assert.lengthOf(lost("Debug"), locks - named)
          const counted = warnings().flatMap(({ annotations, message }) => {
            const [, count] = /^(\d+) more locks? of lease [0-9a-f]+ w(?:as|ere) lost, /.exec(message) ??
              []
            if (count !== undefined) assert.deepStrictEqual(annotations, { lease })
            return count === undefined ? [] : [Number(count)]
          })
          assert.deepStrictEqual(counted, [...more])
        })))
    }
  }

  it.effect("names a lock that a lease loses after another", () =>
    provide(Effect.gen(function*() {
      const { kept, warnings } = logging()
      yield* kept(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        for (const name of ["first", "second"]) yield* fork(run(Lock.withLock(Effect.never, name)))
        yield* Effect.repeat(pass("1 second"), { times: 5 })
        for (const { key } of yield* faults.keys) {
          yield* faults.deleteKey(key)
          yield* Effect.repeat(pass("1 second"), { times: 5 })
        }
      }))
      assert.deepStrictEqual(warnings().map(({ annotations }) => annotations.lock), ["first", "second"])
    })))

  it.effect("has a failed renewal at debug, one in danger as a warning, and that it recovered", () =>
    provide(Effect.gen(function*() {
      const { kept, lines } = logging()
      yield* kept(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
        yield* pass(10)
        yield* faults.drop("Request", { method: "leaseKeepAlive" })
        yield* Effect.repeat(pass(100), { times: 30 })
        assert.deepStrictEqual(lines.map(({ level }) => level), ["Debug"])
        yield* faults.drop("Request", { method: "leaseKeepAlive", times: 2 })
        yield* Effect.repeat(pass(100), { times: 30 })
        assert.deepStrictEqual(lines.slice(1).map(({ level }) => level), ["Debug", "Warn", "Info"])
        assert.match(lines[2]!.message, /^Lease [0-9a-f]+ could not be renewed, and can be trusted for .* more: etcd /)
        assert.deepStrictEqual(Object.keys(lines[2]!.annotations), ["lease"])
        yield* stop(fiber)
        yield* pass(10)
      }))
    })))

  it.effect("has a lease that is retired", () =>
    provide(Effect.gen(function*() {
      const { kept, warnings } = logging()
      yield* kept(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        yield* run(Lock.withLock(Effect.void, "warm"))
        yield* faults.drop("Reply", { method: "txn" })
        const fiber = yield* fork(run(Lock.withLock(Effect.void, "job")))
        yield* Effect.repeat(pass(100), { times: 50 })
        assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      }))
      const [retired, ...more] = warnings()
      assert.deepStrictEqual(more, [])
      assert.match(retired!.message, /^Lease [0-9a-f]+ gets no more locks/)
      assert.deepStrictEqual(Object.keys(retired!.annotations), ["lease"])
    })))

  it.effect("has that an operator took a lock away", () =>
    provide(Effect.gen(function*() {
      const { kept, warnings } = logging()
      yield* kept(Effect.gen(function*() {
        const { run } = yield* session()
        const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
        yield* pass(10)
        const { holder } = yield* run(Lock.inspect("job"))
        yield* run(Lock.forceRelease("job", { createRevision: holder!.createRevision }))
        assert.match(warnings()[0]!.message, /^Lock 'job' was taken away from 'job\//)
        assert.include(warnings()[0]!.annotations, { lock: "job", lease: holder!.leaseId.toString(16) })
        yield* Effect.repeat(pass("1 second"), { times: 5 })
        assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
      }))
    })))
})
