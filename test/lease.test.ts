import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Logger,
  Metric,
  Scope,
  Stream
} from "effect"
import { Etcd, Lease } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { inject } from "vitest"
import * as EtcdServer from "./support/EtcdServer.ts"
import * as EtcdStub from "./support/EtcdStub.ts"
import * as Proxy from "./support/Proxy.ts"

const down = EtcdStub.failure("Unavailable")

/** Of the stub's default answer, 15 seconds: the default margin is a tenth of it. */
const validity = 13_500

const on = <A, E, R>(effect: Effect.Effect<A, E, R>, stub: EtcdStub.EtcdStub) =>
  Effect.provideService(effect, Etcd.Etcd, stub.etcd)

const make = (stub: EtcdStub.EtcdStub, options?: Lease.Options) => on(observed(Lease.make(options)), stub)

const elapse = (millis: number) => TestClock.adjust(Duration.millis(millis))

const remaining = (lease: Lease.Lease) => Effect.map(lease.remaining, Duration.toMillis)

const losses = new WeakMap<Lease.Lease, Lease.LeaseExpired["reason"]>()

/** Awaits the loss from the beginning on, since asking for it later would bring it about. */
const observed = <E, R>(make: Effect.Effect<Lease.Lease, E, R>): Effect.Effect<Lease.Lease, E, R> =>
  Effect.tap(make, (lease) =>
    Effect.forkDetach(
      Effect.catch(lease.awaitLoss, ({ reason }) => Effect.sync(() => losses.set(lease, reason))),
      { startImmediately: true }
    ))

/** The reason of the loss, if it was told by itself. */
const lossOf = (lease: Lease.Lease) => Effect.map(Effect.yieldNow, () => losses.get(lease))

const assertLostAt = Effect.fnUntraced(function*(lease: Lease.Lease, at: number, reason = "Expired") {
  const now = Number(yield* Clock.monotonicTimeNanos) / 1e6
  yield* elapse(at - 1 - now)
  assert.isUndefined(yield* lossOf(lease), `at ${at - 1} ms`)
  yield* elapse(1)
  assert.strictEqual(yield* lossOf(lease), reason, `at ${at} ms`)
  assert.strictEqual(yield* remaining(lease), 0)
})

const ended = <A, E>(fiber: Fiber.Fiber<A, E>) => fiber.pollUnsafe() ?? assert.fail("it has not ended")

const reasons = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ? ["Success"] : exit.cause.reasons.map((reason) =>
    reason._tag === "Fail"
      ? reason.error instanceof Lease.LeaseExpired ? `LeaseExpired ${reason.error.reason}` : String(reason.error)
      : reason._tag === "Die"
      ? `defect ${reason.defect}`
      : "Interrupt"
  )

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
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
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
      [{ ttl: "15 seconds", safetyMargin: 9999 }, 5001],
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
      [10_000, "got 10000 ms"],
      ["Infinity", "got \"Infinity\""]
    ] as ReadonlyArray<[Duration.Input, string]>
  )("of %s is a defect", ([safetyMargin, shown]) =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const exit = yield* Effect.exit(make(stub, { safetyMargin }))
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, RangeError)
      assert.include(
        defect.message,
        "Lease: safetyMargin must be from 0 to less than two thirds of the ttl of 15000 ms"
      )
      assert.include(defect.message, shown)
      assert.deepStrictEqual(stub.calls, [])
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

  it.effect("that fail are repeated soon", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n <= 3 ? down : Effect.succeed(15) })
      const lease = yield* make(stub)
      yield* elapse(10_300)
      assert.deepStrictEqual(stub.times("renew"), [5000, 5100, 5200, 5300, 10_300])
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.effect("that hang are given up in time for another attempt, up to the end", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.never })
      const lease = yield* make(stub)
      yield* assertLostAt(lease, validity)
      // half a period each
      assert.deepStrictEqual(stub.times("renew"), [5000, 7600, 10_200, 12_800])
    }))

  it.effect("that hang once do no harm", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n === 1 ? Effect.never : Effect.succeed(15) })
      const lease = yield* make(stub)
      yield* elapse(12_600)
      assert.deepStrictEqual(stub.times("renew"), [5000, 7600, 12_600])
      assert.strictEqual(yield* remaining(lease), validity)
    }))

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
    }))
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

  it.effect("tells whoever asks first after a freeze of the process, and starts nothing under it", () =>
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
  it.effect("is told at once when etcd does not know the lease any more, and nothing is left to revoke", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => Effect.succeed(n === 1 ? 15 : 0) })
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(make(stub), scope)
      yield* assertLostAt(lease, 10_000, "Revoked")
      yield* elapse(60_000)
      assert.strictEqual(stub.times("renew").length, 2)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(stub.times("revoke"), [])
    }))

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
      const stub = EtcdStub.make({ revoke: () => EtcdStub.failure("PermissionDenied") })
      yield* Effect.provide(Effect.scoped(make(stub)), logger)
      assert.strictEqual(logged.length, 1)
    }))

  it.effect("takes a lease that is gone for revoked, in silence", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const stub = EtcdStub.make({ revoke: () => EtcdStub.failure("LeaseNotFound") })
      yield* Effect.provide(Effect.scoped(make(stub)), logger)
      assert.deepStrictEqual(logged, [])
    }))
})

describe("a grant", () => {
  it.effect("that \"exists already\" is our own, and is counted from the renewal that proves it", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({
        // what the lost answer said stays unknown, whatever the repetition says
        grant: () => Effect.delay(EtcdStub.failure("LeaseExists", "Unknown"), 2000),
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

  it.effect("that \"exists already\" but cannot be confirmed is revoked", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failure("LeaseExists", "Unknown"), renew: () => down })
      assert.strictEqual((yield* Effect.flip(make(stub))).reason, "Unavailable")
      yield* elapse(0)
      assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant", "renew", "revoke"])
    }))

  it.effect("whose outcome is unknown is revoked", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failure("Timeout", "Unknown") })
      assert.strictEqual((yield* Effect.flip(make(stub))).reason, "Timeout")
      yield* elapse(0)
      const [granted, revoked] = stub.calls
      assert.strictEqual(revoked?.method, "revoke")
      assert.strictEqual(revoked?.leaseId, granted?.leaseId)
    }))

  it.effect("that was refused leaves nothing to revoke", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ grant: () => EtcdStub.failure("PermissionDenied") })
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

describe.concurrent("on a real etcd", () => {
  it.live.each(
    [
      ["success", "Success", Effect.void],
      ["failure", "mine", Effect.fail("mine")],
      ["defect", "defect mine", Effect.die("mine")],
      ["interruption", "Interrupt", Effect.interrupt]
    ] as ReadonlyArray<[string, string, Effect.Effect<void, string>]>
  )("is revoked with its keys on %s", ([, reason, end]) =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = `lease-test-${crypto.randomUUID()}`
      const exit = yield* Effect.gen(function*() {
        const lease = yield* Lease.make({ ttl: "5 seconds" })
        yield* etcd.txn({ then: [Etcd.put(key, "", { lease: lease.id })] })
        assert.strictEqual((yield* etcd.leaseTimeToLive(lease.id)).granted, 5)
        assert.strictEqual(Duration.toMillis(lease.ttl), 5000)
        yield* lease.whileAlive(end)
      }).pipe(Effect.scoped, Effect.provideService(Etcd.Etcd, etcd), Effect.exit)
      assert.deepStrictEqual(reasons(exit), [reason])
      assert.strictEqual((yield* etcd.range(Etcd.get(key))).count, 0)
      yield* etcd.leftNothing
    }))

  it.live("has the TTL that etcd raised it to", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const lease = yield* lasting(etcd, "1 second")
      const { granted } = yield* etcd.leaseTimeToLive(lease.id)
      assert.isAtLeast(granted, 2)
      assert.strictEqual(Duration.toSeconds(lease.ttl), granted)
    }))

  it.live("may live as long as etcd allows", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const lease = yield* lasting(etcd, Duration.seconds(9_000_000_000))
      yield* Effect.sleep("50 millis")
      assert.strictEqual(Duration.toSeconds(lease.ttl), 9_000_000_000)
      assert.deepStrictEqual(etcd.renewals(), [])
    }))

  it.live("lives longer than its TTL", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const lease = yield* lasting(etcd, "2 seconds")
      yield* Effect.sleep("5 seconds")
      assert.isAtLeast((yield* etcd.leaseTimeToLive(lease.id)).remaining, 0)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("is lost as soon as a renewal meets that somebody revoked it", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const lease = yield* lasting(etcd, "3 seconds")
      yield* etcd.leaseRevoke(lease.id)
      const exit = yield* Effect.exit(lease.whileAlive(Effect.never))
      assert.deepStrictEqual(reasons(exit), ["LeaseExpired Revoked"])
    }))

  it.live("expires before etcd could let it, when etcd stands still", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const lease = yield* lasting(etcd, "4 seconds")
      yield* nextRenewals(lease, 1)
      yield* server.pause
      const loss = yield* Effect.flip(lease.awaitLoss)
      assert.strictEqual(loss.reason, "Expired")
      // etcd counts from when it received what we count from when we sent it
      assert.isBelow(performance.now() - etcd.renewals().at(-1)!, 4000)
      yield* server.resume
    }))

  it.live("survives a connection that is cut, and one that goes silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(inject("etcdEndpoint"))
      const etcd = yield* connect({ hosts: proxy.endpoint })
      const lease = yield* lasting(etcd, "6 seconds")
      yield* nextRenewals(lease, 1)
      yield* proxy.cut
      yield* nextRenewals(lease, 1)
      yield* proxy.stall
      // until the silence was noticed and an attempt given up
      yield* Effect.sleep("3200 millis")
      yield* proxy.cut
      yield* proxy.resume
      yield* nextRenewals(lease, 1)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("survives a restart of etcd", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const lease = yield* lasting(etcd, "9 seconds")
      yield* nextRenewals(lease, 1)
      yield* server.kill
      yield* server.restart
      yield* nextRenewals(lease, 1)
      assert.isUndefined(yield* lossOf(lease))
    }))

  it.live("does not keep its scope open when etcd is gone", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint, requestTimeout: "1 second" })
      yield* Lease.make().pipe(
        Effect.andThen(server.pause),
        Effect.scoped,
        Effect.provideService(Etcd.Etcd, etcd),
        Effect.provide(logger),
        Effect.timeout("5 seconds")
      )
      assert.strictEqual(logged.length, 1)
      yield* server.resume
    }))
})

/** A connection that knows which leases were asked for, and when acknowledged renewals were sent. */
const connect = Effect.fnUntraced(function*(options?: Partial<Etcd.Options>) {
  const built = yield* Layer.build(Layer.fresh(Etcd.layer({ hosts: inject("etcdEndpoint"), ...options })))
  const etcd = Context.get(built, Etcd.Etcd)
  const granted: Array<bigint> = []
  const renewals: Array<number> = []
  return {
    ...etcd,
    leaseGrant: (leaseId: bigint, seconds: number) => {
      granted.push(leaseId)
      return etcd.leaseGrant(leaseId, seconds)
    },
    leaseKeepAlive: (leaseId: bigint, timeout: number) => {
      const sent = performance.now()
      return Effect.tap(etcd.leaseKeepAlive(leaseId, timeout), () => Effect.sync(() => renewals.push(sent)))
    },
    renewals: () => renewals,
    leftNothing: Effect.suspend(() =>
      Effect.forEach(
        granted,
        (id) => Effect.map(etcd.leaseTimeToLive(id), ({ remaining }) => assert.strictEqual(remaining, -1))
      )
    ).pipe(Effect.orDie, Effect.asVoid)
  }
})

/** A lease for the rest of the test, after which nothing of it may be left. */
const lasting = (etcd: Effect.Success<ReturnType<typeof connect>>, ttl: Duration.Input) =>
  Effect.andThen(
    Effect.addFinalizer(() => etcd.leftNothing),
    Effect.provideService(observed(Lease.make({ ttl })), Etcd.Etcd, etcd)
  )

const nextRenewals = (lease: Lease.Lease, count: number) =>
  lease.renewals.pipe(
    Stream.take(count),
    Stream.runCount,
    Effect.map((renewed) => assert.strictEqual(renewed, count, "the lease was lost"))
  )

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

const logs = () => {
  const logged: Array<string> = []
  const logger = Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
  return { logged, logger }
}
