/** A run that is to succeed once. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, DateTime, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { hostname } from "node:os"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"

const run = "2026-11-25"

const nightly = Lock.withLockOnce("nightly", { run })

describe("a run that is to succeed once", () => {
  it.effect("is not repeated by a caller that comes late, which does not even join the line", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      assert.deepStrictEqual(yield* a.run(nightly(Effect.succeed("report"))), Option.some("report"))
      yield* pass("1 hour")
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "nightly")))
      yield* pass(1)
      assert.deepStrictEqual(yield* b.run(nightly(Effect.die("twice"))), Option.none())
      yield* stop(holder)
      yield* pass(1)
      assert.deepStrictEqual(yield* keys, [`//done/nightly/${run}`])
    })))

  it.effect("is not repeated when another process has the random number of the mark's lease", () =>
    provideMemory(Effect.gen(function*() {
      let theirs: bigint | undefined
      let isCopied = false
      const { run } = yield* sessionThrough((etcd) => ({
        leaseGrant: (id, seconds) => {
          if (!isCopied) return etcd.leaseGrant(id, seconds)
          isCopied = false
          theirs = id
          return Effect.andThen(etcd.leaseGrant(id, 2), etcd.leaseGrant(id, seconds))
        }
      }))
      const body = Effect.sync(() => {
        isCopied = true
        return "report"
      })
      assert.deepStrictEqual(yield* run(nightly(body)), Option.some("report"))
      assert.isDefined(theirs)
      yield* pass("10 seconds")
      assert.deepStrictEqual(yield* run(nightly(Effect.die("twice"))), Option.none())
    })))

  it.effect("tells its success beside the loss that kept it from being marked", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      // Its key is gone before any watch is open that could tell.
      const exit = yield* Effect.exit(run(nightly(Effect.as(faults.deletePrefix("nightly/"), "report"))))
      const cause = Exit.isFailure(exit) ? exit.cause : assert.fail("it has succeeded")
      assert.strictEqual((failureOf(exit) as Lock.LockLost)._tag, "LockLost")
      assert.strictEqual(Context.getOrUndefined(Cause.annotations(cause), Lock.BodySuccess), "report")
    })))

  it.effect("is done by one of those who come together", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.all([session(), session(), session()])
      let runs = 0
      const work = Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => ++runs))
      const callers = yield* Effect.forEach([...sessions, ...sessions], ({ run }) => fork(run(nightly(work))))
      yield* pass("5 seconds")
      const exits = callers.map((fiber) => fiber.pollUnsafe())
      assert.deepStrictEqual(exits[0], Exit.succeed(Option.some(1)))
      for (const exit of exits.slice(1)) assert.deepStrictEqual(exit, Exit.succeed(Option.none()))
      assert.strictEqual(runs, 1)
    })))

  it.effect("is repeated when it failed, died or was interrupted", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      assert.strictEqual(yield* Effect.flip(run(nightly(Effect.fail("no paper")))), "no paper")
      assert.strictEqual(defectOf(yield* Effect.exit(run(nightly(Effect.die("on fire"))))), "on fire")
      const interrupted = yield* fork(run(nightly(Effect.never)))
      yield* pass(1)
      yield* Fiber.interrupt(interrupted)
      assert.deepStrictEqual(yield* run(nightly(Effect.succeed("report"))), Option.some("report"))
    })))

  it.effect(`is repeated when it lost its lock, even if its body went on to succeed (${cite("P2")})`, () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const body = Effect.uninterruptible(Effect.gen(function*() {
        const { key } = yield* Lock.Current
        yield* Effect.flatMap(Etcd.Etcd, (etcd) => etcd.txn({ then: [Etcd.remove(key)] }))
        return "late"
      }))
      const error = yield* Effect.flip(a.run(nightly(body)))
      assert.include(error as Lock.LockLost, { _tag: "LockLost" })
      assert.deepStrictEqual(yield* keys, [])
      assert.deepStrictEqual(yield* b.run(nightly(Effect.succeed("report"))), Option.some("report"))
    })))

  it.effect("is known to have succeeded for as long as it is to be, by etcd's clock", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "60 seconds" })
      const once = Lock.withLockOnce("nightly", { run: "1", keepFor: "90 seconds" })
      yield* run(once(Effect.void))
      yield* pass("80 seconds")
      assert.deepStrictEqual(yield* run(once(Effect.die("twice"))), Option.none())
      yield* pass("20 seconds")
      assert.deepStrictEqual(yield* run(once(Effect.succeed("again"))), Option.some("again"))
    })))

  it.effect("is known for seven days unless the options say otherwise", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      yield* run(nightly(Effect.void))
      const etcd = yield* Etcd.Etcd
      const { kvs: [mark] } = yield* etcd.range(Etcd.getPrefix("//done/nightly/"))
      assert.deepInclude(yield* etcd.leaseTimeToLive(mark!.lease), { granted: 604_800, remaining: 604_800 })
    })))

  for (const method of ["leaseGrant", "txn"] as const) {
    it.effect(`succeeds once although the answer to the ${method} that marks it was lost`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl: "60 seconds" })
        yield* run(Lock.withLock(Effect.void, "warm"))
        const body = Effect.as(faults.drop("Reply", { method, times: 1 }), "report")
        const first = yield* fork(run(nightly(body)))
        yield* Effect.repeat(pass("1 second"), { times: 10 })
        assert.deepStrictEqual(first.pollUnsafe(), Exit.succeed(Option.some("report")))
        assert.deepStrictEqual(yield* run(nightly(Effect.die("twice"))), Option.none())
      })))
  }

  for (const method of ["leaseGrant", "txn"] as const) {
    it.effect(`fails without the ${method} that marks it, and leaves nothing behind`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session({ ttl: "60 seconds" })
        yield* run(Lock.withLock(Effect.void, "warm"))
        const first = yield* fork(
          run(nightly(Effect.as(faults.drop("Request", { method, times: Infinity }), "report")))
        )
        yield* Effect.repeat(pass("1 second"), { times: 20 })
        assert.include(failureOf(first.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", method })
        yield* faults.heal
        assert.isAtMost((yield* faults.leases).length, 1, "only the session's own lease")
        assert.deepStrictEqual((yield* keys).filter((key) => key.startsWith("//done/")), [])
        yield* Effect.repeat(pass("10 seconds"), { times: 8 })
        assert.deepStrictEqual([yield* keys, yield* faults.leases], [[], []])
        assert.deepStrictEqual(yield* run(nightly(Effect.succeed("again"))), Option.some("again"))
      })))
  }

  it.effect("stands in the way of no lock, and is taken for no entry of one", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      yield* run(Lock.withLockOnce(Effect.void, "reports/nightly", { run: "a/b" }))
      const names = [
        "reports/nightly",
        "reports",
        "reports/nightly.done",
        "done",
        "done/reports",
        "done/reports/nightly"
      ]
      for (const name of names) yield* run(Lock.withLock(Effect.void, name, { timeout: 0 }))
      for (const layout of ["queue", "single-key"] as const) {
        for (const name of names) {
          const { conflicts, holder, queue } = yield* Lock.inspect(name, { layout })
          assert.deepStrictEqual({ conflicts, holder, queue }, { conflicts: [], holder: undefined, queue: [] })
        }
      }
      assert.deepStrictEqual(yield* Lock.list(), [])
    })))

  it.effect(`waits for its mark no longer than one request may take, when etcd hangs (${cite("P6")})`, () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const exits: Array<Exit.Exit<unknown, unknown>> = []
      const hung = yield* fork(
        run(nightly(Effect.uninterruptible(Effect.as(faults.stall, "report")))).pipe(
          Effect.onExit((exit) => Effect.sync(() => exits.push(exit)))
        )
      )
      yield* pass(1)
      yield* stop(hung)
      yield* Effect.repeat(pass(100), { times: 50 })
      assert.lengthOf(exits, 1)
      assert.include(failureOf(exits[0]) as Etcd.EtcdError, { reason: "Timeout", method: "leaseGrant" })
      yield* faults.heal
      yield* Effect.repeat(pass("1 second"), { times: 130 })
      assert.deepStrictEqual([yield* keys, yield* faults.leases], [[], []])
    })))

  it.effect("stays a success when its caller is interrupted while it is marked", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const marking = yield* fork(run(nightly(Effect.as(faults.delay("500 millis"), "report"))))
      yield* pass(600)
      assert.isUndefined(marking.pollUnsafe())
      yield* stop(marking)
      yield* Effect.repeat(pass(500), { times: 6 })
      assert.isDefined(marking.pollUnsafe())
      yield* faults.heal
      assert.deepStrictEqual(yield* keys, ["//done/nightly/2026-11-25"])
      assert.deepStrictEqual(yield* run(nightly(Effect.die("twice"))), Option.none())
    })))

  for (const step of ["14 seconds", "1 minute", "2 hours"] as const) {
    it.effect(`succeeds if its test's clock moves by ${step} at once`, () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Effect.sleep("1 hour").pipe(Effect.as("report"), nightly))
        yield* TestClock.adjust(step)
        yield* TestClock.adjust("4 hours")
        assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.succeed(Option.some("report")))
      }).pipe(Effect.provide(Session.layer().pipe(Layer.provide(Etcd.layerMemory())))))
  }

  it.effect("is known to have succeeded as soon as its body says so, whatever becomes of the rest", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const succeed = Effect.flatMap(Lock.CurrentRun, ({ succeed }) => succeed)
      const rests: ReadonlyArray<[string, Effect.Effect<unknown, unknown>]> = [
        ["fails", Effect.fail("the rest")],
        ["is interrupted", Effect.interrupt],
        ["loses its lock", Effect.andThen(faults.deletePrefix("rest/"), Effect.sleep("1 minute"))],
        ["succeeds", Effect.void]
      ]
      for (const [id, rest] of rests) {
        const once = Lock.withLockOnce("rest", { run: id })
        const fiber = yield* fork(run(once(Effect.andThen(Effect.andThen(succeed, succeed), rest))))
        yield* pass("10 seconds")
        const exit = fiber.pollUnsafe() ?? assert.fail(`${id}: goes on`)
        assert.strictEqual(Exit.isSuccess(exit), id === "succeeds", id)
        assert.deepStrictEqual(yield* run(once(Effect.die("twice"))), Option.none(), id)
      }
      // One mark each, and no lease beside.
      assert.lengthOf(yield* keys, rests.length)
    })))

  for (const method of ["leaseGrant", "txn"] as const) {
    for (const what of ["Request", "Reply"] as const) {
      it.effect(`is marked by a later attempt when the ${what.toLowerCase()} of an earlier one's ${method} was lost`, () =>
        provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const { run } = yield* session({ ttl: "60 seconds" })
          yield* run(Lock.withLock(Effect.void, "warm"))
          const body = Effect.gen(function*() {
            const { succeed } = yield* Lock.CurrentRun
            yield* faults.drop(what, { method, times: Infinity })
            assert.include(yield* Effect.flip(succeed) as Etcd.EtcdError, { reason: "Timeout", method })
            yield* faults.heal
            yield* Effect.all([succeed, succeed], { concurrency: 2 })
            return "report"
          })
          const fiber = yield* fork(run(nightly(body)))
          yield* Effect.repeat(pass("1 second"), { times: 20 })
          assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(Option.some("report")))
          yield* Effect.repeat(pass("10 seconds"), { times: 12 })
          assert.deepStrictEqual(yield* run(nightly(Effect.die("twice"))), Option.none())
          assert.lengthOf(yield* faults.leases, 1, "the mark's own")
        })))
    }
  }

  it.effect("stays marked when what an earlier attempt sent arrives late", () =>
    provideMemory(Effect.gen(function*() {
      let isHeldUp = false
      const late: Array<Effect.Effect<unknown, unknown>> = []
      const heldUp = <A, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E> =>
        Effect.suspend(() => {
          if (!isHeldUp) return request
          late.push(request)
          return Effect.never
        })
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (txn) => heldUp(etcd.txn(txn)),
        leaseRevoke: (id) => heldUp(etcd.leaseRevoke(id))
      }), { ttl: "60 seconds" })
      const body = Effect.gen(function*() {
        const { succeed } = yield* Lock.CurrentRun
        isHeldUp = true
        yield* Effect.flip(succeed)
        yield* Effect.yieldNow
        isHeldUp = false
        yield* succeed
        assert.isAtLeast(late.length, 2)
        for (const request of late) yield* Effect.exit(request)
      })
      const fiber = yield* fork(run(nightly(body)))
      yield* Effect.repeat(pass("1 second"), { times: 20 })
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(Option.some(undefined)))
      assert.deepStrictEqual(yield* run(nightly(Effect.die("twice"))), Option.none())
    })))

  it.effect("is listed where the marks are too large for one reply", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const value = "x".repeat(500_000)
      for (let i = 0; i < 12; i++) yield* etcd.txn({ then: [Etcd.put(`//done/large/${10 + i}`, value)] })
      const runs = yield* Lock.runs("large")
      assert.deepStrictEqual(runs.map(({ run }) => run), Array.from({ length: 12 }, (_, i) => String(10 + i)))
    })))

  it.effect("is forgotten without a lock whose lease its mark was put on by hand", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const holder = yield* fork(run(Lock.withLock(Effect.sleep("1 minute"), "held")))
      yield* pass(1)
      const [lease] = yield* faults.leases
      const etcd = yield* Etcd.Etcd
      yield* etcd.txn({ then: [Etcd.put("//done/nightly/by-hand", "", { lease: lease! })] })
      assert.isTrue(yield* Lock.forgetRun("nightly", "by-hand"))
      yield* Effect.repeat(pass("1 second"), { times: 59 })
      yield* pass("2 seconds")
      assert.deepStrictEqual(holder.pollUnsafe(), Exit.void)
    })))

  it.effect("is listed under its name until its time is over, and forgotten where that is asked for", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const succeed = (name: string, id: string, keepFor: Duration.Input = "7 days") =>
        run(Lock.withLockOnce(Effect.succeed(id), name, { run: id, keepFor }))
      yield* succeed("reports", "2026/11 ü%2F")
      yield* succeed("reports", "a", "1 hour")
      yield* succeed("reports/daily", "of another name")
      const etcd = yield* Etcd.Etcd
      for (let i = 0; i < 15; i++) {
        yield* etcd.txn({
          then: Array.from({ length: 100 }, (_, j) => Etcd.put(`//done/many/${1000 + 100 * i + j}`, "x"))
        })
      }
      yield* pass("10 minutes")
      const [first, second, ...others] = yield* Lock.runs("reports")
      assert.deepStrictEqual([first!.run, second!.run, others.length], ["2026/11 ü%2F", "a", 0])
      assert.deepStrictEqual([first!.host, first!.pid], [hostname(), process.pid])
      assert.strictEqual(DateTime.toEpochMillis(second!.succeededAt!), 0)
      assert.deepStrictEqual(second!.remaining, Duration.minutes(50))
      const many = yield* Lock.runs("many")
      assert.deepStrictEqual(many.map(({ run }) => run), Array.from({ length: 1500 }, (_, i) => String(1000 + i)))
      assert.include(many[0], { host: undefined, remaining: undefined })
      assert.deepStrictEqual(yield* Lock.runs("nobody"), [])

      assert.isTrue(yield* Lock.forgetRun("reports", "2026/11 ü%2F"))
      assert.isFalse(yield* Lock.forgetRun("reports", "2026/11 ü%2F"))
      assert.deepStrictEqual((yield* Lock.runs("reports")).map(({ run }) => run), ["a"])
      assert.deepStrictEqual(yield* succeed("reports", "2026/11 ü%2F"), Option.some("2026/11 ü%2F"))
      yield* pass("50 minutes")
      assert.deepStrictEqual((yield* Lock.runs("reports")).map(({ run }) => run), ["2026/11 ü%2F"])
    })))

  it.effect("has an ID of its own, whatever characters that is made of", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      for (const id of ["a/b", "a%2Fb", "a", "..", "ä €", "\0"]) {
        assert.deepStrictEqual(
          yield* run(Lock.withLockOnce(Effect.succeed(id), "nightly", { run: id })),
          Option.some(id)
        )
      }
    })))

  const wrong: ReadonlyArray<readonly [options: any, message: RegExp]> = [
    [
      undefined,
      /^Lock: run must be well-formed text of 1 to 1024 bytes, got undefined\. Write .* run: "2026-11-25"\.$/
    ],
    [{ run: "" }, /run must be well-formed text/],
    [{ run: 7 }, /got 7/],
    [{ run: "\ud800" }, /run must be well-formed text/],
    [{ run: "x".repeat(1025) }, /1025 characters/],
    [{ run, keepFor: 0 }, /^Lock: keepFor must be from 1 second to 9000000000 seconds, got 0 ms\./],
    [{ run, keepFor: "Infinity" }, /keepFor must be/],
    [{ run, keepFor: Number.NaN }, /keepFor must be/],
    [{ run, timeout: "soon" }, /timeout must be/]
  ]
  it.effect.each(wrong)("is refused with the options %j", ([options, message]) =>
    provideMemory(Effect.gen(function*() {
      const process = yield* session()
      const exit = yield* Effect.exit(process.run(Lock.withLockOnce(Effect.void, "nightly", options)))
      assert.match((defectOf(exit) as Error).message, message)
    })))
})
