/** A lease that its user renews, and one that its user revokes. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { Etcd, Lease, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as EtcdStub from "../support/EtcdStub.ts"
import { defectOf } from "../support/exits.ts"
import { lossOf, observed, reasons } from "../support/leases.ts"
import { logs } from "../support/logs.ts"

const down = EtcdStub.failing("Unavailable")

const make = (stub: EtcdStub.EtcdStub, options?: Lease.Options) =>
  Effect.provideService(observed(Lease.make({ renewal: "manual", ...options })), Etcd.Etcd, stub.etcd)

const elapse = (millis: number) => TestClock.adjust(Duration.millis(millis))

const remaining = (lease: Lease.Lease) => Effect.map(lease.remaining, Duration.toMillis)

describe("a lease that is renewed by its user", () => {
  it.effect("is lost when its time is over, as no request of its own was sent", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* make(stub)
      yield* elapse(13_499)
      assert.isUndefined(yield* lossOf(lease))
      yield* elapse(1)
      assert.strictEqual(yield* lossOf(lease), "Expired")
      assert.deepStrictEqual(stub.times("renew"), [])
    }))

  it.effect("can be trusted from when the renewal was sent, which is told to all", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.delay(Effect.succeed(15), 200) })
      const lease = yield* make(stub)
      const told = yield* Effect.forkChild(Stream.runHead(lease.renewals), { startImmediately: true })
      yield* elapse(10_000)
      const renewing = yield* Effect.forkChild(lease.renew, { startImmediately: true })
      yield* elapse(200)
      const renewal = yield* Fiber.join(renewing)
      assert.deepStrictEqual(renewal, { leaseId: lease.id, remaining: Duration.millis(13_300) })
      assert.deepStrictEqual(yield* Fiber.join(told), yield* Effect.succeedSome(renewal))
      yield* elapse(13_299)
      assert.isUndefined(yield* lossOf(lease))
      yield* elapse(1)
      assert.strictEqual(yield* lossOf(lease), "Expired")
    }))

  it.effect("is as it was after a renewal that failed, or that hung for a sixth of the TTL", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: (n) => n === 1 ? down : Effect.never })
      const lease = yield* make(stub)
      yield* elapse(1000)
      const failed = yield* Effect.flip(lease.renew)
      assert.strictEqual(failed._tag === "EtcdError" ? failed.reason : failed._tag, "Unavailable")
      const hanging = yield* Effect.forkChild(Effect.flip(lease.renew), { startImmediately: true })
      yield* elapse(2500)
      const hung = yield* Fiber.join(hanging)
      assert.strictEqual(hung._tag === "EtcdError" ? hung.reason : hung._tag, "Timeout")
      assert.strictEqual(yield* remaining(lease), 13_500 - 3500)
    }))

  it.effect("is renewed once for all who ask at the same time, also when the first of them is interrupted", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.delay(Effect.succeed(15), 2000) })
      const lease = yield* make(stub)
      const first = yield* Effect.forkChild(lease.renew, { startImmediately: true })
      yield* elapse(1000)
      const second = yield* Effect.forkChild(lease.renew, { startImmediately: true })
      yield* Fiber.interrupt(first)
      yield* elapse(1000)
      // It was sent two seconds ago, no matter who asks for it later.
      assert.deepStrictEqual((yield* Fiber.join(second)).remaining, Duration.millis(11_500))
      assert.deepStrictEqual(stub.times("renew"), [0])
    }))

  it.effect("is lost when etcd has it no more, which the renewal fails with and the log has", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const stub = EtcdStub.make({ renew: () => Effect.succeed(0) })
      const lease = yield* make(stub).pipe(Effect.provide(logger))
      const error = yield* Effect.flip(lease.renew)
      assert.strictEqual(error._tag === "LeaseExpired" ? error.reason : error._tag, "Revoked")
      assert.strictEqual(yield* lossOf(lease), "Revoked")
      assert.lengthOf(logged, 1)
      assert.include(logged[0], "was revoked: etcd does not have it any more")
    }))

  it.effect("is not renewed once it is lost", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* make(stub)
      yield* elapse(20_000)
      const error = yield* Effect.flip(lease.renew)
      assert.strictEqual(error._tag === "LeaseExpired" ? error.reason : error._tag, "Expired")
      assert.deepStrictEqual(stub.times("renew"), [])
    }))

  it.effect("tells that its machine slept, or that its clock was set forward", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let slept = 0
      const lease = yield* make(EtcdStub.make()).pipe(Effect.provideService(Clock.Clock, {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + slept
      }))
      const lost = yield* Effect.forkChild(Effect.flip(lease.awaitLoss), { startImmediately: true })
      slept = 10_000
      yield* elapse(13_500)
      const loss = yield* Fiber.join(lost)
      assert.deepStrictEqual([loss.stoodStillFor, loss.leaptBy], [undefined, Duration.seconds(10)])
      assert.include(loss.message, ", and this machine slept for 10s of it, or its clock was set forward")
    }))

  it.effect("is renewed by nobody else, and another renewal is a defect", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const defect = defectOf(yield* Effect.exit(make(stub, { renewal: "never" as "manual" })))
      assert.instanceOf(defect, RangeError)
      assert.include(defect.message, "Lease: renewal must be \"automatic\" or \"manual\", got \"never\"")
      assert.deepStrictEqual(stub.calls, [])
    }))

  it.effect("is none of a session's, whose leases are renewed whatever its options are", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const options: Lease.Options = { renewal: "manual" }
      const session = yield* Effect.provideService(Session.make(options), Etcd.Etcd, stub.etcd)
      yield* session.lease
      yield* elapse(5000)
      assert.deepStrictEqual(stub.times("renew"), [5000])
    }))
})

describe("a revoke", () => {
  for (const renewal of ["automatic", "manual"] as const) {
    it.effect(`of a lease whose renewal is ${renewal} happens once, and then the scope's closing sends nothing`, () =>
      Effect.gen(function*() {
        const stub = EtcdStub.make()
        const scope = yield* Scope.make()
        const lease = yield* Scope.provide(make(stub, { renewal }), scope)
        yield* lease.revoke
        assert.strictEqual(yield* lossOf(lease), "Released")
        assert.strictEqual(yield* remaining(lease), 0)
        yield* lease.revoke
        yield* elapse(60_000)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant", "revoke"])
      }))
  }

  it.effect("interrupts what runs under the lease, and waits for its end", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* make(stub, { renewal: "automatic" })
      const body = yield* lease.whileAlive(Effect.onInterrupt(Effect.never, () => Effect.sleep("6 seconds"))).pipe(
        Effect.forkChild({ startImmediately: true })
      )
      const revoking = yield* Effect.forkChild(lease.revoke, { startImmediately: true })
      yield* elapse(5999)
      // It is renewed as long as its body runs.
      assert.deepStrictEqual(stub.calls.map(({ method }) => method), ["grant", "renew"])
      yield* elapse(1)
      yield* Fiber.join(revoking)
      assert.deepStrictEqual(reasons(yield* Fiber.await(body)), ["LeaseExpired Released"])
      assert.deepStrictEqual(stub.times("revoke"), [6000])
    }))

  it.effect("fails unless etcd confirms it, and is sent again, at last by the scope's closing", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ revoke: (n) => n < 3 ? down : Effect.void })
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(make(stub), scope)
      assert.strictEqual((yield* Effect.flip(lease.revoke)).reason, "Unavailable")
      assert.strictEqual((yield* Effect.flip(lease.revoke)).reason, "Unavailable")
      yield* Scope.close(scope, Exit.void)
      assert.lengthOf(stub.times("revoke"), 3)
    }))

  it.effect("succeeds when etcd does not have the lease", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ revoke: () => EtcdStub.failing("LeaseNotFound") })
      const lease = yield* make(stub)
      yield* lease.revoke
      yield* lease.revoke
      assert.lengthOf(stub.times("revoke"), 1)
    }))

  it.effect("of a lease that etcd has said it does not have sends nothing", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make({ renew: () => Effect.succeed(0) })
      const lease = yield* make(stub)
      yield* Effect.flip(lease.renew)
      yield* lease.revoke
      assert.deepStrictEqual(stub.times("revoke"), [])
    }))

  it.effect("is sent for a lease that was lost here, which etcd may have yet", () =>
    Effect.gen(function*() {
      const stub = EtcdStub.make()
      const lease = yield* make(stub)
      yield* elapse(20_000)
      yield* lease.revoke
      assert.deepStrictEqual(stub.times("revoke"), [20_000])
    }))

  it.effect("gives up a renewal that is under way, which would warn that the lease is gone", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const answer = yield* Deferred.make<number>()
      const stub = EtcdStub.make({ renew: () => Deferred.await(answer) })
      const lease = yield* make(stub, { renewal: "automatic" }).pipe(Effect.provide(logger))
      yield* elapse(5000)
      assert.lengthOf(stub.times("renew"), 1)
      yield* lease.revoke
      yield* Deferred.succeed(answer, 0)
      yield* elapse(1000)
      assert.deepStrictEqual(logged, [])
    }))
})
