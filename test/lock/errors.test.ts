import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Duration, Effect, Exit, Fiber, Logger, Schema, Tracer } from "effect"
import { Etcd, Lease, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, freezable, pass, type Process, provideMemory, session } from "../support/inMemory.ts"

const holder = new Lock.Holder({
  key: "orders/1f-1",
  leaseId: 2n ** 62n + 1n,
  createRevision: 2n ** 60n,
  host: "box",
  pid: 7,
  askedAt: DateTime.makeUnsafe("2026-11-22T17:55:02.928Z"),
  metadata: { team: "blue", tags: [1, null, { deep: true }] },
  remaining: Duration.seconds(3)
})

const etcdError = new Etcd.EtcdError({
  reason: "Unavailable",
  method: "leaseKeepAlive",
  outcome: "Refused",
  description: "cannot connect",
  cause: new Error("ECONNREFUSED")
})

const expired = new Lease.LeaseExpired({
  leaseId: 0x1fn,
  reason: "Expired",
  unacknowledgedFor: Duration.millis(13_500),
  stoodStillFor: Duration.seconds(4),
  cause: etcdError
})

const lockErrors = [
  new Lock.LockHeld({ lock: "orders", holder }),
  new Lock.LockHeld({ lock: "orders", holder: undefined }),
  new Lock.LockTimeout({ lock: "orders", waited: Duration.seconds(30), holder }),
  new Lock.LockTimeout({ lock: "orders", waited: Duration.zero, holder: undefined }),
  new Lock.LockLost({
    lock: "orders",
    fencingToken: 2n ** 60n,
    reason: "LeaseExpired",
    heldFor: Duration.minutes(2),
    cause: expired
  }),
  new Lock.LockLost({ lock: "orders", fencingToken: undefined, reason: "KeyDeleted", heldFor: undefined }),
  new Lock.LockLost({ lock: "orders", fencingToken: 8n, reason: "Released", heldFor: Duration.zero }),
  new Lock.LockNameConflict({ lock: "orders", key: "orders/new/1f-1", kind: "NestedLock" }),
  new Lock.LockNameConflict({ lock: "orders", key: "orders/config", kind: "PlainKey" })
]

const errors = [
  ...lockErrors,
  etcdError,
  expired,
  new Lease.LeaseExpired({ leaseId: 5n, reason: "Revoked" }),
  new Lease.LeaseExpired({ leaseId: 5n, reason: "Released" })
]

const cases = errors.map((error): [string, (typeof errors)[number]] => [error.message, error])

/** Through JSON and back, with the codec of its class. */
const sentElsewhere = <E extends Error>(error: E): E => {
  const codec = Schema.toCodecJson(error.constructor as unknown as Schema.Codec<E>)
  return Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
}

describe("an error", () => {
  it.effect.each(cases)(
    "has its tag as its name wherever it is shown: %s",
    ([message, error]) =>
      Effect.gen(function*() {
        const tag = error._tag
        assert.strictEqual(error.name, tag)
        assert.strictEqual(String(error), `${tag}: ${message}`)
        assert.isTrue(error.stack?.startsWith(`${tag}: ${message}`))
        assert.isTrue(Cause.pretty(Cause.fail(error)).startsWith(`${tag}: ${message}`))

        const lines: Array<string> = []
        const loggers = [Logger.formatJson, Logger.formatLogFmt].map((logger) =>
          Logger.map(logger, (line) => void lines.push(line))
        )
        yield* Effect.logError("failed", error, Cause.fail(error)).pipe(Effect.provide(Logger.layer(loggers)))
        const [json, logfmt] = lines as [string, string]
        const logged = JSON.parse(json)
        assert.include(logged.message[1], { _tag: tag, message })
        assert.isTrue(logged.cause.startsWith(`${tag}: ${message}`))
        assert.include(logfmt, `message="${tag}: ${message}`)

        const events: Array<string> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            const end = span.end.bind(span)
            span.end = (time, exit) => {
              end(time, exit)
              if (Exit.isFailure(exit)) events.push(...Cause.prettyErrors(exit.cause).map((shown) => shown.name))
            }
            return span
          }
        })
        yield* Effect.fail(error).pipe(
          Effect.withSpan("failing"),
          Effect.exit,
          Effect.provideService(Tracer.Tracer, tracer)
        )
        assert.deepStrictEqual(events, [tag])
      })
  )

  it.each(cases)("can be sent elsewhere as JSON, with all that is in it: %s", (message, error) => {
    const received = sentElsewhere<typeof error>(error)
    assert.strictEqual(received.constructor, error.constructor)
    assert.strictEqual(received.message, message)
    // The cause of an `EtcdError` may be anything, of which JSON has the name and the message.
    const text = (value: unknown) => JSON.stringify(value)
    assert.strictEqual(text(received), text(error))
    if (error._tag === "LockLost") assert.deepStrictEqual((received as typeof error).heldFor, error.heldFor)
    if (error._tag === "LockLost") assert.strictEqual((received as typeof error).fencingToken, error.fencingToken)
  })

  it("is written by JSON.stringify in that form, with its message", () => {
    const [, , , , lost] = lockErrors
    const json = JSON.parse(JSON.stringify(lost))
    assert.deepStrictEqual(json, {
      _tag: "LockLost",
      message: lost!.message,
      lock: "orders",
      fencingToken: String(2n ** 60n),
      reason: "LeaseExpired",
      heldFor: 120_000,
      cause: {
        _tag: "LeaseExpired",
        leaseId: "31",
        reason: "Expired",
        unacknowledgedFor: 13_500,
        stoodStillFor: 4000,
        cause: {
          _tag: "EtcdError",
          reason: "Unavailable",
          method: "leaseKeepAlive",
          outcome: "Refused",
          description: "cannot connect",
          cause: { name: "Error", message: "ECONNREFUSED" }
        }
      }
    })
    const received = Schema.decodeUnknownSync(Schema.toCodecJson(Lock.LockLost))(json)
    assert.instanceOf(received.cause, Lease.LeaseExpired)
    assert.instanceOf(received.cause.cause, Etcd.EtcdError)
    assert.strictEqual(received.cause.message, expired.message)
  })

  it("of a lock is recognized among others, also when it comes from elsewhere", () => {
    for (const error of lockErrors) {
      assert.isTrue(Lock.isLockError(error))
      assert.isTrue(Lock.isLockError(sentElsewhere<Error>(error)))
    }
    for (
      const other of [etcdError, expired, new Error("LockLost"), { _tag: "LockLost" }, "LockLost", undefined, null]
    ) {
      assert.isFalse(Lock.isLockError(other))
    }
  })

  it("says since when the holder holds only where that is known, and else when it asked", () => {
    const heldSince = DateTime.makeUnsafe("2026-11-22T18:00:00.000Z")
    const texts = [{}, { heldSince }, { askedAt: undefined }].map((known) =>
      new Lock.LockHeld({ lock: "orders", holder: new Lock.Holder({ ...holder, ...known }) }).message
    )
    assert.deepStrictEqual(texts, [
      "Lock 'orders' is held by box (process 7), which asked at 2026-11-22T17:55:02.928Z",
      "Lock 'orders' is held by box (process 7) since 2026-11-22T18:00:00.000Z",
      "Lock 'orders' is held by box (process 7)"
    ])
  })

  it("says in words what happened", () => {
    assert.deepStrictEqual(errors.map(({ message }) => message), [
      "Lock 'orders' is held by box (process 7), which asked at 2026-11-22T17:55:02.928Z",
      "Lock 'orders' was not free a moment ago, and nobody was seen to hold it",
      "Lock 'orders' was not acquired within 30s; it is held by box (process 7), which asked at 2026-11-22T17:55:02.928Z",
      "Lock 'orders' was not acquired at once",
      "Lock 'orders' was lost after 2m: Lease 1f expired: etcd acknowledged no renewal for 13s 500ms, and this process " +
      "stood still for 4s of that time; the last error was: etcd leaseKeepAlive failed (Unavailable): cannot connect",
      "The place in the line for lock 'orders' was lost: its key was deleted from etcd",
      "Lock 'orders' was released at once: by its handle, or because its session or lease has closed",
      "Lock 'orders' cannot be acquired: 'orders/new/1f-1' lies under its name and belongs to another lock. " +
      "Use a name that is not the beginning of another lock's path.",
      "Lock 'orders' cannot be acquired: 'orders/config' lies in its place and is attached to no lease, so it is not " +
      "a lock's entry. Delete the key, or use another name.",
      "etcd leaseKeepAlive failed (Unavailable): cannot connect",
      "Lease 1f expired: etcd acknowledged no renewal for 13s 500ms, and this process stood still for 4s of that time; " +
      "the last error was: etcd leaseKeepAlive failed (Unavailable): cannot connect",
      "Lease 5 was revoked: etcd has no such lease any more",
      "Lease 5 was released: its scope has closed"
    ])
  })
})

describe("a lost lock", () => {
  const job = Lock.withLock(Effect.never, "job")

  /** The session revokes its lease when it ends, and that takes time after an outage. */
  const recover = Effect.andThen(Effect.flatMap(Etcd.Faults, (faults) => faults.heal), pass("1 second"))

  const lossOf = (fiber: Fiber.Fiber<never, unknown>) => failureOf(fiber.pollUnsafe()) as Lock.LockLost

  /** Holds the lock for ten seconds of quiet first. */
  const hold = ({ run }: Process) => Effect.tap(fork(run(job)), () => Effect.repeat(pass("1 second"), { times: 9 }))

  it.effect("names the outage that ended its lease, and for how long it had been held", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const fiber = yield* hold(yield* session())
      yield* faults.unreachable
      yield* Effect.repeat(pass("100 millis"), { times: 39 })
      const { cause, heldFor, lock, message, reason } = lossOf(fiber)
      yield* recover
      assert.deepStrictEqual([lock, reason, cause?.reason], ["job", "LeaseExpired", "Expired"])
      // with a TTL of 3 s and a margin of 0.3 s
      assert.strictEqual(Duration.toMillis(cause!.unacknowledgedFor!), 2700)
      assert.isUndefined(cause!.stoodStillFor)
      assert.include(cause!.cause!, { _tag: "EtcdError", reason: "Unavailable", method: "leaseKeepAlive" })
      const held = Duration.toMillis(heldFor!)
      assert.isTrue(held > 11_000 && held < 13_000, `${held} ms`)
      assert.match(
        message,
        /^Lock 'job' was lost after 1\ds.*: Lease [0-9a-f]+ expired: .* for 2s 700ms; the last error/
      )
    })))

  it.effect("names a silent etcd as well", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const fiber = yield* hold(yield* session())
      yield* faults.stall
      yield* Effect.repeat(pass("100 millis"), { times: 39 })
      const { cause } = lossOf(fiber)
      yield* recover
      assert.deepStrictEqual([cause?.reason, cause?.stoodStillFor, cause?.cause?.reason], [
        "Expired",
        undefined,
        "Timeout"
      ])
    })))

  it.effect("says that its lease was revoked, where a renewal meets that before a watch does", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* faults.delayWatches("1 minute")
      const fiber = yield* hold(yield* session())
      for (const lease of yield* faults.leases) yield* faults.revokeLease(lease)
      yield* Effect.repeat(pass("100 millis"), { times: 15 })
      const { cause, message, reason } = lossOf(fiber)
      yield* recover
      assert.deepStrictEqual([reason, cause?.reason, cause?.unacknowledgedFor], ["LeaseExpired", "Revoked", undefined])
      assert.match(message, /: Lease [0-9a-f]+ was revoked: etcd has no such lease any more$/)
    })))

  it.effect("says that this process stood still, whether a timer or a check finds that", () =>
    provideMemory(Effect.gen(function*() {
      for (const finds of ["timer", "check"] as const) {
        const { freeze, process } = yield* freezable
        const scoped = Effect.scoped(Effect.gen(function*() {
          const handle = yield* Lock.acquire(finds)
          yield* Effect.sleep("500 millis")
          freeze()
          return yield* finds === "timer" ? handle.awaitLoss : handle.check
        }))
        const fiber = yield* fork(process.run(scoped))
        yield* pass("500 millis")
        if (finds === "timer") { for (let i = 0; i < 10; i++) yield* pass("100 millis") }
        const { cause, heldFor, message, reason } = failureOf(fiber.pollUnsafe()) as Lock.LockLost
        assert.deepStrictEqual([reason, cause?.reason, cause?.cause], ["LeaseExpired", "Expired", undefined])
        const [still, silent] = [cause!.stoodStillFor!, cause!.unacknowledgedFor!].map(Duration.toMillis) as [
          number,
          number
        ]
        assert.isTrue(still > 9000 && still <= 10_000, `${still} ms`)
        assert.isTrue(silent > still && silent < 12_000, `${silent} ms`)
        assert.isAtLeast(Duration.toMillis(heldFor!), 10_000)
        assert.match(message, /, and this process stood still for \d+s.* of that time$/)
      }
    })))

  it.effect("does not count an outage that it recovered from", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { freeze, process } = yield* freezable
      const fiber = yield* hold(process)
      yield* faults.unreachable
      yield* Effect.repeat(pass("100 millis"), { times: 14 })
      yield* faults.heal
      yield* Effect.repeat(pass("100 millis"), { times: 9 })
      assert.isUndefined(fiber.pollUnsafe())
      freeze()
      yield* Effect.repeat(pass("100 millis"), { times: 9 })
      const { cause } = lossOf(fiber)
      assert.isDefined(cause!.stoodStillFor)
      assert.isUndefined(cause!.cause)
    })))

  it.effect("does not count a pause that it recovered from", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { freeze, process } = yield* freezable
      const fiber = yield* hold(process)
      freeze(1000)
      yield* Effect.repeat(pass("100 millis"), { times: 19 })
      assert.isUndefined(fiber.pollUnsafe())
      yield* faults.unreachable
      yield* Effect.repeat(pass("100 millis"), { times: 39 })
      const { cause } = lossOf(fiber)
      yield* recover
      assert.isDefined(cause!.cause)
      assert.isUndefined(cause!.stoodStillFor)
    })))

  it.effect("has one time for which it was held, whenever it is asked for", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const faults = yield* Etcd.Faults
      const losses = yield* Effect.scoped(Effect.gen(function*() {
        const handle = yield* Lock.acquire("job")
        yield* Effect.sleep("2 seconds")
        yield* faults.deletePrefix("job/")
        const first = yield* Effect.flip(handle.awaitLoss)
        yield* Effect.sleep("10 seconds")
        return [first, yield* Effect.flip(handle.check)] as const
      })).pipe(run, fork, Effect.tap(() => Effect.repeat(pass("1 second"), { times: 14 })), Effect.flatMap(Fiber.join))
      for (const { cause, heldFor, reason } of losses) {
        assert.deepStrictEqual([reason, Duration.toMillis(heldFor!), cause], ["KeyDeleted", 2000, undefined])
      }
    })))
})
