import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Latch, Metric, Random, Scope, Stream } from "effect"
import { Etcd, Lease } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as EtcdStub from "../support/EtcdStub.ts"
import { defectOf } from "../support/exits.ts"
import { lossOf, observed, reasons } from "../support/leases.ts"
import { logs } from "../support/logs.ts"

const down = EtcdStub.failing("Unavailable")

/** Of the stub's default answer, 15 seconds: the default margin is a tenth of it. */
const validity = 13_500

const on = <A, E, R>(effect: Effect.Effect<A, E, R>, stub: EtcdStub.EtcdStub) =>
  Effect.provideService(effect, Etcd.Etcd, stub.etcd)

const make = (stub: EtcdStub.EtcdStub, options?: Lease.Options) => on(observed(Lease.make(options)), stub)

/** Renewals pause by no measure of their own. */
const steadily = Effect.provideService(Random.Random, {
  nextDoubleUnsafe: () => 0.5,
  nextIntUnsafe: () => assert.fail("it is not used")
})

const elapse = (millis: number) => TestClock.adjust(Duration.millis(millis))

const remaining = (lease: Lease.Lease) => Effect.map(lease.remaining, Duration.toMillis)

const assertLostAt = Effect.fnUntraced(function*(lease: Lease.Lease, at: number, reason = "Expired") {
  const now = Number(yield* Clock.monotonicTimeNanos) / 1e6
  yield* elapse(at - 1 - now)
  assert.isUndefined(yield* lossOf(lease), `at ${at - 1} ms`)
  yield* elapse(1)
  assert.strictEqual(yield* lossOf(lease), reason, `at ${at} ms`)
  assert.strictEqual(yield* remaining(lease), 0)
})

const ended = <A, E>(fiber: Fiber.Fiber<A, E>) => fiber.pollUnsafe() ?? assert.fail("it has not ended")

describe("the TTL", () => {
  it.effect("is the one that etcd granted, whatever was asked for", () =>
    Effect.gen(function*() {
      const asked: Array<number> = []
      const stub = EtcdStub.make({
        grant: (seconds) => Effect.sync(() => (asked.push(seconds), 3)),
        renew: () => down
      })
      const lease = yield* make(stub, { ttl: "1 second" })
      assert.deepStrictEqual(asked, [1])
      assert.strictEqual(Duration.toMillis(lease.ttl), 3000)
      assert.strictEqual(yield* remaining(lease), 2700)
      yield* elapse(999)
      assert.deepStrictEqual(stub.times("renew"), [])
      yield* elapse(1)
      assert.deepStrictEqual(stub.times("renew"), [1000])
      yield* assertLostAt(lease, 2700)
    }))

  it.effect("is rounded up to whole seconds", () =>
    Effect.gen(function*() {
      const asked: Array<number> = []
      const stub = EtcdStub.make({ grant: (seconds) => Effect.sync(() => (asked.push(seconds), seconds)) })
      yield* make(stub, { ttl: "1500 millis" })
      yield* make(stub)
      assert.deepStrictEqual(asked, [2, 15])
    }))

  it.effect("has an ID that is positive, of 63 bits, and new each time", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      for (let i = 0; i < 100; i++) yield* make(stub)
      const ids = stub.calls.map(({ leaseId }) => leaseId)
      assert.strictEqual(new Set(ids).size, 100)
      assert.isTrue(ids.every((id) => id > 0n && id < 1n << 63n))
      assert.isTrue(ids.some((id) => id > 1n << 53n))
    }))

  it.effect.each([
    ["999 millis", "\"999 millis\""],
    [0, "0 ms"],
    [Number.NaN, "NaN"],
    [-5000, "-5000 ms"],
    [Infinity, "Infinity"],
    [Duration.seconds(9_000_000_001), "d"]
  ] as ReadonlyArray<[Duration.Input, string]>)("of %s is a defect", ([ttl, shown]) =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const exit = yield* Effect.exit(make(stub, { ttl }))
      const defect = defectOf(exit)
      assert.instanceOf(defect, RangeError)
      assert.include(defect.message, "Lease: ttl must be from 1 second to 9000000000 seconds, got ")
      assert.include(defect.message, shown)
      assert.deepStrictEqual(stub.calls, [])
    }))
})

describe("the safety margin", () => {
  it.effect.each(
    [
      [{ ttl: "15 seconds" }, 13_500],
      [{ ttl: "60 seconds" }, 54_000],
      [{ ttl: "2 seconds" }, 1700],
      [{ ttl: "15 seconds", safetyMargin: "2 seconds" }, 13_000],
      [{ ttl: "15 seconds", safetyMargin: 0 }, 15_000],
      [{ ttl: "15 seconds", safetyMargin: 7500 }, 7500],
      [{ ttl: "2 seconds", safetyMargin: 0 }, 2000],
      [{ ttl: "7 seconds", safetyMargin: 1 }, 6999]
    ] as ReadonlyArray<[Lease.Options, number]>
  )("%j is lost after %i ms", ([options, millis]) =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: Effect.succeed, renew: () => down })
      yield* assertLostAt(yield* make(stub, options), millis)
    }))

  it.effect.each(
    [
      [-1, "got -1 ms"],
      [7501, "got 7501 ms"],
      ["Infinity", "got \"Infinity\""]
    ] as ReadonlyArray<[Duration.Input, string]>
  )("of %s is a defect", ([safetyMargin, shown]) =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const exit = yield* Effect.exit(make(stub, { safetyMargin }))
      const defect = defectOf(exit)
      assert.instanceOf(defect, RangeError)
      assert.include(
        defect.message,
        "Lease: safetyMargin must be from 0 to half of the ttl of 15000 ms"
      )
      assert.include(defect.message, shown)
      assert.deepStrictEqual(stub.calls, [])
    }))

  it.effect("leaves a renewal as long as it may take, however long it is", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.delay(Effect.succeed(15), 2499) })
      const lease = yield* make(stub, { ttl: "15 seconds", safetyMargin: 7500 })
      for (let i = 0; i < 20; i++) yield* elapse(5000)
      assert.isUndefined(yield* lossOf(lease))
    }))
})

describe("renewals", () => {
  it.effect("are a third of the TTL apart, from send to send, however long the answers take", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({
        grant: () => Effect.delay(Effect.succeed(15), 1200),
        renew: (n) => Effect.delay(Effect.succeed(15), n * 700)
      })
      const lease = yield* Effect.forkChild(make(stub))
      yield* elapse(20_000)
      assert.deepStrictEqual(stub.times("renew"), [5000, 10_000, 15_000, 20_000])
      assert.isUndefined(yield* lossOf(yield* Fiber.join(lease)))
    }))

  it.effect("begin at once when the grant took longer than a third of the TTL", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => Effect.delay(Effect.succeed(3), 1500) })
      yield* Effect.forkChild(Effect.andThen(make(stub, { ttl: "3 seconds" }), Effect.never))
      yield* elapse(1500)
      assert.deepStrictEqual(stub.times("renew"), [1500])
    }))

  it.effect("go on for ever", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* make(stub)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(stub.times("renew").length, 720)
      assert.isUndefined(yield* lossOf(lease))
      assert.strictEqual(yield* remaining(lease), validity)
    }))

  it.effect("that fail are repeated soon, and less often the longer it lasts", () =>
    Effect.gen(function*() {
      for (const reason of ["Unavailable", "Timeout", "TooManyRequests", "Tls"] as const) {
        const began = Number(yield* Clock.monotonicTimeNanos) / 1e6
        const stub = EtcdStub.make({ renew: (n) => n <= 6 ? EtcdStub.failing(reason) : Effect.succeed(15) })
        const lease = yield* make(stub)
        yield* elapse(13_500)
        assert.deepStrictEqual(
          stub.times("renew").map((at) => at - began),
          [5000, 5100, 5300, 5700, 6500, 7500, 8500, 13_500],
          reason
        )
        assert.isUndefined(yield* lossOf(lease))
      }
    }).pipe(steadily))

  it.effect("that fail for what waiting does not cure are repeated seldom, up to the end", () =>
    Effect.gen(function*() {
      for (const reason of ["Unauthenticated", "PermissionDenied", "InvalidArgument", "Internal"] as const) {
        const began = Number(yield* Clock.monotonicTimeNanos) / 1e6
        const stub = EtcdStub.make({ renew: () => EtcdStub.failing(reason) })
        const lease = yield* make(stub, { ttl: "30 seconds" })
        yield* assertLostAt(lease, began + validity)
        assert.deepStrictEqual(stub.times("renew").map((at) => at - began), [5000, 6000, 8000, 12_000], reason)
      }
      const stub = EtcdStub.make({ grant: () => Effect.succeed(60), renew: () => EtcdStub.failing("Unauthenticated") })
      yield* make(stub)
      const began = Number(yield* Clock.monotonicTimeNanos) / 1e6
      yield* elapse(35_000)
      assert.deepStrictEqual(
        stub.times("renew").map((at) => at - began),
        [20_000, 21_000, 23_000, 27_000, 31_000, 35_000]
      )
      // With a short TTL they are as seldom as leaves time for some of them.
      const short = EtcdStub.make({ grant: () => Effect.succeed(3), renew: () => EtcdStub.failing("Unauthenticated") })
      yield* make(short, { ttl: "3 seconds" })
      const beganShort = Number(yield* Clock.monotonicTimeNanos) / 1e6
      yield* elapse(2600)
      assert.deepStrictEqual(short.times("renew").map((at) => at - beganShort), [1000, 1500, 2500])
    }).pipe(steadily))

  it.effect("of a short lease that fail are repeated in time for others", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => Effect.succeed(2), renew: () => down })
      yield* make(stub)
      yield* elapse(1700)
      assert.deepStrictEqual(stub.times("renew"), [666, 733, 866, 999, 1132, 1265, 1398, 1531, 1664])
    }).pipe(steadily))

  it.effect("of many clients that fail at the same time are repeated at different times", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => EtcdStub.failing("Unauthenticated") })
      yield* Effect.replicateEffect(make(stub), 20)
      yield* elapse(6500)
      const again = stub.times("renew").slice(20)
      assert.lengthOf(again, 20)
      assert.isAtLeast(Math.min(...again), 5800)
      assert.isAtMost(Math.max(...again), 6200)
      assert.isAtLeast(new Set(again).size, 10)
    }))

  it.effect("that hang are given up in time for another attempt, up to the end", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.never })
      const lease = yield* make(stub)
      yield* assertLostAt(lease, validity)
      // half a period each
      assert.deepStrictEqual(stub.times("renew"), [5000, 7600, 10_300, 13_200])
    }).pipe(steadily))

  it.effect("that hang once do no harm", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n === 1 ? Effect.never : Effect.succeed(15) })
      const lease = yield* make(stub)
      yield* elapse(12_600)
      assert.deepStrictEqual(stub.times("renew"), [5000, 7600, 12_600])
      assert.strictEqual(yield* remaining(lease), validity)
    }).pipe(steadily))

  it.effect("are told, each with what remains", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n === 2 ? down : Effect.delay(Effect.succeed(15), 200) })
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(make(stub), scope)
      const told = yield* Effect.forkChild(Stream.runCollect(lease.renewals), { startImmediately: true })
      yield* elapse(10_300)
      yield* Scope.close(scope, Exit.void)
      const renewals = Array.from(yield* Fiber.join(told))
      assert.deepStrictEqual(renewals.map(({ remaining }) => Duration.toMillis(remaining)), [13_300, 13_300])
      assert.deepStrictEqual(renewals.map(({ leaseId }) => leaseId), [lease.id, lease.id])
    }).pipe(steadily))
})

describe("the validity", () => {
  it.effect("counts from when the grant was sent, not from when its answer came", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => Effect.delay(Effect.succeed(15), 4000), renew: () => down })
      const making = yield* Effect.forkChild(make(stub))
      yield* elapse(4000)
      const lease = yield* Fiber.join(making)
      assert.strictEqual(yield* remaining(lease), validity - 4000)
      yield* assertLostAt(lease, validity)
    }).pipe(Effect.scoped))

  it.effect("counts from when the last acknowledged renewal was sent", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({
        renew: (n) => n <= 2 ? Effect.delay(Effect.succeed(15), 2400) : n % 2 === 0 ? down : Effect.never
      })
      const lease = yield* make(stub)
      yield* elapse(7399)
      assert.strictEqual(yield* remaining(lease), validity - 7399)
      yield* elapse(1)
      assert.strictEqual(yield* remaining(lease), validity - 2400)
      yield* assertLostAt(lease, 10_000 + validity)
    }))

  it.effect("ends although an answer is under way, and no answer revives it", () =>
    Effect.gen(function*() {
      const answer = yield* Deferred.make<number>()
      const stub = EtcdStub.make({ renew: (n) => n < 4 ? Effect.never : Deferred.await(answer) })
      const lease = yield* make(stub)
      yield* assertLostAt(lease, validity)
      yield* Deferred.succeed(answer, 15)
      yield* elapse(60_000)
      assert.strictEqual(yield* lossOf(lease), "Expired")
      assert.strictEqual(stub.times("renew").length, 4)
    }))

  it.effect("follows the TTL that the last renewal answered", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n === 1 ? Effect.succeed(10) : down })
      yield* assertLostAt(yield* make(stub), 5000 + 9000)
    }))

  for (const how of ["never ends", "cannot be interrupted"]) {
    it.effect(`ends in time although a renewal ${how}`, () =>
      Effect.gen(function*() {
        const stub = EtcdStub.make()
        const stuck = Latch.makeUnsafe()
        const renewal = how === "never ends" ? stuck.await : Effect.uninterruptible(stuck.await)
        const etcd = Etcd.Etcd.of({
          ...stub.etcd,
          leaseKeepAlive: () => Effect.as(renewal, { ttl: 2, ...EtcdStub.header })
        })
        yield* assertLostAt(yield* make({ ...stub, etcd }), validity)
        // Closing the lease waits for it.
        stuck.openUnsafe()
      }))
  }

  it.effect("is over when the grant took too long", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => Effect.delay(Effect.succeed(2), 1700) })
      const making = yield* Effect.forkChild(make(stub, { ttl: "2 seconds" }))
      yield* elapse(1700)
      const lease = yield* Fiber.join(making)
      assert.strictEqual(yield* lossOf(lease), "Expired")
      assert.deepStrictEqual(stub.times("renew"), [])
    }))

  it.effect("ends when the wall clock has run ahead, as after a sleep of the machine", () =>
    Effect.gen(function*() {
      const wall = yield* movableWall
      const stub = EtcdStub.make({ renew: () => Effect.die("a lost lease is not renewed") })
      const lease = yield* wall.provide(make(stub))
      yield* elapse(1000)
      wall.jump(validity - 1001)
      assert.strictEqual(yield* remaining(lease), 1)
      wall.jump(1)
      assert.strictEqual(yield* remaining(lease), 0)
      yield* elapse(4000)
      assert.strictEqual(yield* lossOf(lease), "Expired")
    }))

  it.effect("is over when the answer came too late, as after a freeze of the process", () =>
    Effect.gen(function*() {
      const wall = yield* movableWall
      const stub = EtcdStub.make({
        renew: () =>
          Effect.sync(() => {
            wall.jump(validity - 5000)
            return 15
          })
      })
      const lease = yield* wall.provide(make(stub))
      yield* elapse(5000)
      assert.strictEqual(yield* lossOf(lease), "Expired")
    }))

  it.effect("fails the first that asks after a freeze of the process, and starts nothing under it", () =>
    Effect.gen(function*() {
      for (const ask of ["awaitLoss", "whileAlive"] as const) {
        const wall = yield* movableWall
        const lease = yield* wall.provide(make(EtcdStub.make()))
        wall.jump(validity)
        let started = false
        const asking = yield* Effect.forkChild(
          ask === "awaitLoss" ? lease.awaitLoss : lease.whileAlive(Effect.sync(() => {
            started = true
          })),
          { startImmediately: true }
        )
        yield* elapse(0)
        assert.deepStrictEqual(reasons(ended(asking)), ["LeaseExpired Expired"], ask)
        assert.isFalse(started)
      }
    }))

  it.effect("is renewed after a wall clock ran ahead by less", () =>
    Effect.gen(function*() {
      const wall = yield* movableWall
      const stub = EtcdStub.make()
      const lease = yield* wall.provide(make(stub))
      wall.jump(8000)
      yield* elapse(5000)
      assert.strictEqual(yield* remaining(lease), validity)
    }))

  it.effect("is not stretched by a wall clock that is set back", () =>
    Effect.gen(function*() {
      const wall = yield* movableWall
      const lease = yield* wall.provide(make(EtcdStub.make({ renew: () => down })))
      wall.jump(-3_600_000)
      yield* assertLostAt(lease, validity)
    }))
})

describe("a loss", () => {
  // Etcd answers 0, its gRPC proxy -1.
  for (const gone of [0, -1]) {
    it.effect(`is told at once when etcd does not know the lease any more, and nothing is left to revoke: TTL ${gone}`, () =>
      Effect.gen(function*() {
        const stub = EtcdStub.make({ renew: (n) => Effect.succeed(n === 1 ? 15 : gone) })
        const scope = yield* Scope.make()
        const lease = yield* Scope.provide(make(stub), scope)
        yield* assertLostAt(lease, 10_000, "Revoked")
        yield* elapse(60_000)
        assert.strictEqual(stub.times("renew").length, 2)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(stub.times("revoke"), [])
      }))
  }

  it.effect("by expiry is still revoked, since etcd may know it yet", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => down })
      yield* Effect.scoped(Effect.flatMap(make(stub), (lease) => assertLostAt(lease, validity)))
      assert.deepStrictEqual(stub.times("revoke"), [validity])
    }))

  it.effect("comes with the scope's end, as `Released`", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(make(stub), scope)
      const waiting = yield* Effect.forkChild(Effect.flip(lease.awaitLoss), { startImmediately: true })
      const working = yield* Effect.forkChild(lease.whileAlive(Effect.never), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      const loss = yield* Fiber.join(waiting)
      assert.strictEqual(loss.reason, "Released")
      assert.strictEqual(loss.leaseId, lease.id)
      assert.include(loss.message, lease.id.toString(16))
      assert.deepStrictEqual(reasons(yield* Fiber.await(working)), ["LeaseExpired Released"])
      assert.strictEqual(yield* remaining(lease), 0)
    }))
})

describe("whileAlive", () => {
  it.effect("interrupts the body and awaits its cleanup", () =>
    Effect.gen(function*() {
      const lease = yield* make(EtcdStub.make({ renew: () => down }))
      const cleaned = yield* Latch.make()
      const working = yield* Effect.never.pipe(
        Effect.onInterrupt(() => Effect.andThen(Effect.sleep("20 seconds"), cleaned.open)),
        lease.whileAlive,
        // not a child: a test that fails would wait for its cleanup
        Effect.forkDetach({ startImmediately: true })
      )
      yield* elapse(validity + 19_999)
      assert.isUndefined(working.pollUnsafe())
      yield* elapse(1)
      assert.deepStrictEqual(reasons(ended(working)), ["LeaseExpired Expired"])
      yield* cleaned.await
    }))

  it.effect("keeps what the body fails with beside the loss", () =>
    Effect.gen(function*() {
      const lease = yield* make(EtcdStub.make({ renew: () => down }))
      const working = yield* Effect.never.pipe(
        Effect.onExit(() => Effect.fail("own failure")),
        lease.whileAlive,
        Effect.forkChild({ startImmediately: true })
      )
      const dying = yield* Effect.never.pipe(
        Effect.onExit(() => Effect.die("own defect")),
        lease.whileAlive,
        Effect.forkChild({ startImmediately: true })
      )
      yield* elapse(validity)
      assert.deepStrictEqual(reasons(ended(working)), ["LeaseExpired Expired", "own failure"])
      assert.include(reasons(ended(dying)), "defect own defect")
    }))

  it.effect("does not start the body when the lease is lost already", () =>
    Effect.gen(function*() {
      const lease = yield* make(EtcdStub.make({ renew: () => down }))
      yield* elapse(validity)
      let started = false
      const exit = yield* Effect.exit(lease.whileAlive(Effect.sync(() => {
        started = true
      })))
      assert.deepStrictEqual(reasons(exit), ["LeaseExpired Expired"])
      assert.isFalse(started)
    }))

  it.effect("passes the body's success, failure, defect and interruption on unchanged", () =>
    Effect.gen(function*() {
      const lease = yield* make(EtcdStub.make())
      const through = <A, E>(body: Effect.Effect<A, E>) => Effect.exit(lease.whileAlive(body))
      assert.deepStrictEqual(yield* through(Effect.succeed(7)), Exit.succeed(7))
      assert.deepStrictEqual(reasons(yield* through(Effect.fail("mine"))), ["mine"])
      assert.deepStrictEqual(reasons(yield* through(Effect.die("mine"))), ["defect mine"])
      assert.deepStrictEqual(reasons(yield* through(Effect.interrupt)), ["Interrupt"])
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.effect("leaves the body's scope to its owner", () =>
    Effect.gen(function*() {
      const lease = yield* make(EtcdStub.make())
      const own = yield* Scope.make()
      const events: Array<string> = []
      yield* Effect.addFinalizer(() => Effect.sync(() => events.push("own scope closed"))).pipe(
        lease.whileAlive,
        Scope.provide(own)
      )
      events.push("body ended")
      yield* Scope.close(own, Exit.void)
      assert.deepStrictEqual(events, ["body ended", "own scope closed"])
    }))

  it.effect("keeps the lease alive while an interrupted body cleans up, and revokes it after", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const working = yield* make(stub).pipe(
        Effect.flatMap((lease) => lease.whileAlive(Effect.onInterrupt(Effect.never, () => Effect.sleep("20 seconds")))),
        Effect.scoped,
        Effect.forkDetach({ startImmediately: true })
      )
      yield* elapse(1000)
      const interrupting = yield* Effect.forkDetach(Fiber.interrupt(working), { startImmediately: true })
      yield* elapse(20_000)
      ended(interrupting)
      assert.deepStrictEqual(reasons(ended(working)), ["Interrupt"])
      yield* elapse(60_000)
      assert.deepStrictEqual(stub.times("renew"), [5000, 10_000, 15_000, 20_000])
      assert.deepStrictEqual(stub.times("revoke"), [21_000])
    }))
})

describe("the scope's end", () => {
  it.effect("stops the renewals, then revokes, and leaves no fiber", () =>
    Effect.gen(function*() {
      const fibers = Effect.map(
        Metric.value(Metric.gauge("child_fibers_active", { bigint: true })),
        ({ value }) => value
      )
      const before = yield* fibers
      const order: Array<string> = []
      const stub = EtcdStub.make({
        renew: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => order.push("renewal stopped"))),
        revoke: () => Effect.sync(() => order.push("revoked"))
      })
      const scope = yield* Scope.make()
      yield* Scope.provide(make(stub), scope)
      yield* elapse(5500)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(order, ["renewal stopped", "revoked"])
      assert.strictEqual(yield* fibers, before)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant", "renew", "revoke"])
    }))

  it.effect("waits no longer than a call may take when the revoke hangs", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const stub = EtcdStub.make({ revoke: () => Effect.never })
      const closing = yield* Effect.scoped(make(stub)).pipe(
        Effect.provide(logger),
        Effect.forkChild({ startImmediately: true })
      )
      yield* elapse(EtcdStub.requestTimeout)
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(closing)))
      assert.strictEqual(logged.length, 1)
      assert.include(logged[0], "could not be revoked and is left to expire")
    }))

  it.effect("leaves a lease that is lost to expire while what ran under it still cleans up", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => down })
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(make(stub), scope)
      yield* Effect.forkDetach(lease.whileAlive(Effect.onInterrupt(Effect.never, () => Effect.sleep("20 seconds"))), {
        startImmediately: true
      })
      yield* elapse(validity)
      // Nobody knows whether etcd has let it expire, and a revoke would give away what the body still uses.
      yield* Scope.close(scope, Exit.void)
      yield* elapse(60_000)
      assert.deepStrictEqual(stub.times("revoke"), [])
    }))

  it.effect("succeeds when the revoke fails", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const stub = EtcdStub.make({ revoke: () => EtcdStub.failing("PermissionDenied") })
      yield* Effect.provide(Effect.scoped(make(stub)), logger)
      assert.strictEqual(logged.length, 1)
    }))

  it.effect("takes a lease that is gone for revoked, in silence", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const stub = EtcdStub.make({ revoke: () => EtcdStub.failing("LeaseNotFound") })
      yield* Effect.provide(Effect.scoped(make(stub)), logger)
      assert.deepStrictEqual(logged, [])
    }))
})

describe("a grant", () => {
  it.effect("that \"exists already\" is our own, and is counted from the renewal that proves it", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({
        // what the lost answer said stays unknown, whatever the repetition says
        grant: () => Effect.delay(EtcdStub.failing("LeaseExists", "Unknown"), 2000),
        renew: (n) => n === 1 ? Effect.delay(Effect.succeed(15), 500) : down
      })
      const making = yield* Effect.forkChild(make(stub))
      yield* elapse(2500)
      const lease = yield* Fiber.join(making)
      assert.strictEqual(yield* remaining(lease), validity - 500)
      yield* elapse(4500)
      assert.deepStrictEqual(stub.times("renew"), [2000, 7000])
      assert.deepStrictEqual(stub.times("revoke"), [])
      yield* assertLostAt(lease, 2000 + validity)
    }))

  it.effect.each(Object.entries({
    "cannot be renewed": { renew: () => down },
    "is renewed by a leader that may have lost its quorum": { read: () => down }
  }))("that \"exists already\" but %s is revoked", ([, answers]) =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failing("LeaseExists", "Unknown"), ...answers })
      assert.strictEqual((yield* Effect.flip(make(stub))).reason, "Unavailable")
      yield* elapse(0)
      assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant", "renew", "revoke"])
    }))

  it.effect("whose outcome is unknown is revoked", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failing("Timeout", "Unknown") })
      assert.strictEqual((yield* Effect.flip(make(stub))).reason, "Timeout")
      yield* elapse(0)
      const [granted, revoked] = stub.calls
      assert.strictEqual(revoked?.method, "revoke")
      assert.strictEqual(revoked?.leaseId, granted?.leaseId)
    }))

  it.effect("that was refused leaves nothing to revoke", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failing("PermissionDenied") })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(make(stub)))).reason, "PermissionDenied")
      yield* elapse(60_000)
      assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant"])
    }))

  it.effect("that is interrupted is revoked once it is answered", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => Effect.delay(Effect.succeed(15), 1000) })
      const making = yield* Effect.forkChild(Effect.scoped(make(stub)), { startImmediately: true })
      yield* elapse(500)
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(making), { startImmediately: true })
      yield* elapse(60_000)
      yield* Fiber.join(interrupting)
      assert.deepStrictEqual(stub.calls.map(({ at, method }) => [method, at]), [["grant", 0], ["revoke", 1000]])
    }))
})

/** The test's clock with a wall time that can be moved by itself. */
const movableWall = Effect.map(Clock.Clock, (clock) => {
  let ahead = 0
  const moved: Clock.Clock = {
    ...clock,
    sleep: (duration) => clock.sleep(duration),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + ahead
  }
  return {
    provide: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Clock.Clock, moved),
    jump: (millis: number) => {
      ahead += millis
    }
  }
})
