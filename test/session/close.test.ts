/** What gives a lock away waits for the bodies that the lock protects. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Scope } from "effect"
import { Etcd, Lease, Lock, type Session } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

/** A body that takes three seconds, whatever happens to it, and one that stops as slowly once it is interrupted. */
const slow = {
  "cannot be interrupted": Effect.uninterruptible(Effect.sleep("3 seconds")),
  "cleans up": Effect.onInterrupt(Effect.never, () => Effect.sleep("2800 millis"))
}

const recorder = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const events: Array<string> = []
  const note = (event: string) => events.push(`${event} at ${clock.currentTimeMillisUnsafe()}`)
  const recorded = (who: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.sync(() => note(`${who} starts`)).pipe(
      Effect.andThen(self),
      Effect.ensuring(Effect.sync(() => note(`${who} ends`)))
    )
  return { events, note, recorded }
})

/** The order of what happened, without the times. */
const order = (events: ReadonlyArray<string>) => events.map((event) => event.replace(/ at .*/, ""))

const lost = { _tag: "LockLost", reason: "Released" } as const

describe(`the end of a session (${cite("P1")})`, () => {
  for (const [how, work] of Object.entries(slow)) {
    it.effect(`comes after a body that ${how}, and only then the next holder starts`, () =>
      Effect.gen(function*() {
        const { events, note, recorded } = yield* recorder
        const [a, b] = yield* Effect.all([session({ ttl: "5 seconds" }), session()])
        const first = yield* fork(a.run(Lock.withLock(recorded("first")(work), "job")))
        yield* pass(200)
        const second = yield* fork(b.run(Lock.withLock(recorded("second")(Effect.void), "job")))
        yield* pass(1)
        const closing = yield* fork(Effect.andThen(a.close, Effect.sync(() => note("closed"))))
        yield* pass("4 seconds")
        yield* Fiber.join(closing)
        yield* Fiber.join(second)
        assert.deepStrictEqual(order(events).slice(0, 3), ["first starts", "first ends", "second starts"])
        assert.isBelow(order(events).indexOf("first ends"), order(events).indexOf("closed"))
        assert.include(failureOf(first.pollUnsafe()) as Lock.LockLost, lost)
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("waits for work under a handle, too, on whatever fiber it runs", () =>
    Effect.gen(function*() {
      const { events, note, recorded } = yield* recorder
      const [a, b] = yield* Effect.all([session({ ttl: "5 seconds" }), session()])
      const lock = yield* a.run(Lock.acquire("job"))
      const working = yield* Effect.forkDetach(lock.whileHeld(recorded("work")(slow["cleans up"])))
      const second = yield* fork(b.run(Lock.withLock(recorded("second")(Effect.void), "job")))
      yield* pass(1)
      const closing = yield* fork(Effect.andThen(a.close, Effect.sync(() => note("closed"))))
      yield* pass("4 seconds")
      yield* Fiber.join(closing)
      yield* Fiber.join(second)
      assert.deepStrictEqual(order(events).slice(0, 3), ["work starts", "work ends", "second starts"])
      assert.include(failureOf(working.pollUnsafe()) as Lock.LockLost, lost)
      assert.include(yield* Effect.flip(lock.check), lost)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("goes on renewing the lease until the bodies have ended", () =>
    Effect.gen(function*() {
      const { events, recorded } = yield* recorder
      const [a, b] = yield* Effect.all([session({ ttl: "3 seconds" }), session()])
      yield* fork(a.run(Lock.withLock(recorded("first")(slow["cleans up"]), "job")))
      yield* fork(b.run(Lock.withLock(recorded("second")(Effect.void), "job")))
      // Without another renewal the lease would end 2.1 seconds from here.
      yield* pass(900)
      yield* fork(a.close)
      yield* pass("4 seconds")
      assert.deepStrictEqual(events, [
        "first starts at 0",
        "first ends at 3700",
        "second starts at 3700",
        "second ends at 3700"
      ])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("fails those who wait at once, however long a body takes to end", () =>
    Effect.gen(function*() {
      const a = yield* session({ ttl: "5 seconds" })
      const holder = yield* fork(a.run(Lock.withLock(slow["cleans up"], "job")))
      yield* pass(1)
      const others = yield* session()
      yield* fork(others.run(Lock.withLock(Effect.never, "theirs")))
      yield* pass(1)
      const behind = yield* fork(a.run(Lock.withLock(Effect.void, "job")))
      const inLine = yield* fork(a.run(Lock.withLock(Effect.void, "theirs")))
      yield* pass(1)
      const closing = yield* fork(a.close)
      yield* pass(1)
      const exits = [holder, behind, inLine].map((fiber) => fiber.pollUnsafe())
      yield* pass("4 seconds")
      yield* Fiber.join(closing)
      assert.isUndefined(exits[0])
      for (const exit of exits.slice(1)) assert.include(failureOf(exit) as Lock.LockLost, lost)
    }).pipe(provideMemory))

  it.effect("waits no longer than one TTL, names the lock whose body goes on, and leaves its lease to expire", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const a = yield* session({ ttl: "3 seconds" })
      const body = yield* fork(a.run(Lock.withLock(Effect.uninterruptible(Effect.sleep("1 minute")), "job")))
      yield* pass(1)
      const closing = yield* fork(Effect.provide(a.close, logger))
      yield* pass(2999)
      assert.isUndefined(closing.pollUnsafe())
      yield* pass(1)
      assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
      assert.lengthOf(logged, 1)
      assert.include(logged[0], "job/")
      assert.lengthOf(yield* faults.keys, 1, "the lease was not revoked")
      yield* pass("3 seconds")
      assert.deepStrictEqual(yield* faults.leases, [])
      yield* pass("1 minute")
      assert.isDefined(body.pollUnsafe())
    }).pipe(Effect.scoped, provideMemory))

  it.effect("ends after one TTL when a body brings it about itself", () =>
    Effect.gen(function*() {
      const { logger } = logs()
      const a = yield* session({ ttl: "3 seconds" })
      const body = yield* fork(
        a.run(Lock.withLock(Effect.uninterruptible(a.close), "job")).pipe(Effect.provide(logger))
      )
      yield* pass("3 seconds")
      assert.include(failureOf(body.pollUnsafe()) as Lock.LockLost, lost)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("takes a lock on a lease of the user's with it, after its body", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { events, note, recorded } = yield* recorder
      const a = yield* session()
      const lease = yield* Lease.make({ ttl: "60 seconds" })
      const lock = yield* a.run(Lock.acquire("job", { lease }))
      yield* fork(lock.whileHeld(recorded("work")(slow["cleans up"])))
      yield* pass(1)
      yield* fork(Effect.andThen(a.close, Effect.sync(() => note("closed"))))
      yield* pass("1 second")
      assert.lengthOf(yield* faults.keys, 1)
      yield* pass("2 seconds")
      assert.deepStrictEqual(order(events), ["work starts", "work ends", "closed"])
      assert.deepStrictEqual(yield* faults.keys, [])
      assert.deepStrictEqual(yield* faults.leases, [lease.id])
      assert.include(yield* Effect.flip(lock.check), lost)
    }).pipe(Effect.scoped, provideMemory))

  const ways = {
    withLock: (body: Effect.Effect<void>, lease: Lease.Lease) => Lock.withLock(body, "job", { lease }),
    tryWithLock: (body: Effect.Effect<void>, lease: Lease.Lease) => Lock.tryWithLock(body, "job", { lease }),
    withLocks: (body: Effect.Effect<void>, lease: Lease.Lease) => Lock.withLocks(body, ["job", "other"], { lease })
  }
  for (const [how, hold] of Object.entries(ways)) {
    it.effect(`gives no lock to one whose join on a lease of the user's is under way (${how})`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { events, recorded } = yield* recorder
        const a = yield* session()
        const lease = yield* Lease.make({ ttl: "60 seconds" })
        yield* faults.delay("100 millis")
        const waiting = yield* fork(
          Effect.asVoid(a.run<void, Lock.AcquireError | Lock.LockHeld, Session.Session>(
            hold(recorded("body")(Effect.sleep(500)), lease)
          ))
        )
        yield* pass(10)
        const closing = yield* fork(a.close)
        yield* pass("1 second")
        yield* faults.heal
        assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
        assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, lost)
        assert.deepStrictEqual(events, [])
        assert.deepStrictEqual(yield* faults.keys, [])
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("in an outage leaves no key on a lease of the user's that goes on", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      const lease = yield* Lease.make({ ttl: "60 seconds" })
      yield* a.run(Lock.acquire("job", { lease }))
      yield* faults.unreachable
      const closing = yield* fork(a.close)
      yield* pass("10 seconds")
      assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
      assert.lengthOf(yield* keys, 1)
      yield* faults.heal
      yield* pass("6 seconds")
      assert.deepStrictEqual(yield* keys, [])
      assert.isAbove(Duration.toMillis(yield* lease.remaining), 0)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("takes one request timeout at most when etcd hangs, however many leases it has", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session({ ttl: "5 minutes" })
      for (let i = 0; i < 12; i++) {
        // A lost answer retires the lease, so that the next lock gets another one.
        yield* faults.drop("Reply", { method: "txn" })
        yield* fork(a.run(Lock.acquire(`job-${i}`)))
        yield* pass("3 seconds")
      }
      assert.lengthOf(yield* faults.leases, 12)
      yield* faults.stall
      const closing = yield* fork(a.close)
      yield* pass("5 seconds")
      yield* faults.heal
      assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("fails a waiter on a lease of the user's whose request to join is under way, and leaves nothing of it", () =>
    provideMemory(
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const [a, b] = yield* Effect.all([session(), session()])
        const lease = yield* Lease.make({ ttl: "60 seconds" })
        const holding = yield* fork(b.run(Lock.withLock(Effect.never, "job")))
        yield* pass(1)
        yield* faults.delay("100 millis")
        const waiting = yield* fork(a.run(Lock.withLock(Effect.void, "job", { lease })))
        yield* pass(20)
        const closing = yield* fork(a.close)
        yield* Effect.repeat(pass(100), { times: 20 })
        assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
        assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, lost)
        yield* faults.heal
        assert.lengthOf(yield* keys, 1)
        yield* stop(holding)
        yield* pass(1)
      }).pipe(Effect.scoped)
    ))
})

describe("the end of a lease's scope", () => {
  const closable = Effect.gen(function*() {
    const scope = yield* Scope.make()
    const lease = yield* Lease.make({ ttl: "5 seconds" }).pipe(Scope.provide(scope))
    return { lease, close: Scope.close(scope, Exit.void) }
  })

  it.effect("comes after the body of a lock on it, and only then the next holder starts", () =>
    Effect.gen(function*() {
      const { events, note, recorded } = yield* recorder
      const [a, b] = yield* Effect.all([session(), session()])
      const { close, lease } = yield* closable
      const first = yield* fork(
        a.run(Lock.withLock(recorded("first")(slow["cannot be interrupted"]), "job", { lease }))
      )
      yield* pass(1)
      yield* fork(b.run(Lock.withLock(recorded("second")(Effect.void), "job")))
      yield* pass(1)
      yield* fork(Effect.andThen(close, Effect.sync(() => note("closed"))))
      yield* pass("4 seconds")
      assert.deepStrictEqual(order(events).slice(0, 3), ["first starts", "first ends", "second starts"])
      assert.include(order(events), "closed")
      assert.include(failureOf(first.pollUnsafe()) as Lock.LockLost, lost)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("comes after what runs while it is alive", () =>
    Effect.gen(function*() {
      const { events, note, recorded } = yield* recorder
      const { close, lease } = yield* closable
      const working = yield* fork(lease.whileAlive(recorded("work")(slow["cleans up"])))
      yield* fork(Effect.andThen(close, Effect.sync(() => note("closed"))))
      yield* pass("3 seconds")
      assert.deepStrictEqual(events, ["work starts at 0", "work ends at 2800", "closed at 2800"])
      assert.include(failureOf(working.pollUnsafe()) as Lease.LeaseExpired, {
        _tag: "LeaseExpired",
        reason: "Released"
      })
    }).pipe(Effect.scoped, provideMemory))

  for (const how of ["at once", "when a stream to etcd is open"] as const) {
    it.effect(`comes after the body of a lock on it, with renewals that are sent ${how}`, () =>
      Effect.gen(function*() {
        const { events, note, recorded } = yield* recorder
        const etcd = yield* Etcd.Etcd
        const [a, b] = yield* Effect.all([session(), session()])
        const scope = yield* Scope.make()
        const lease = yield* Lease.make({ ttl: "3 seconds" }).pipe(
          Scope.provide(scope),
          Effect.provideService(Etcd.Etcd, {
            ...etcd,
            leaseKeepAlive: (id, timeout) =>
              Effect.andThen(how === "at once" ? Effect.void : Effect.sleep(1), etcd.leaseKeepAlive(id, timeout))
          })
        )
        yield* fork(a.run(Lock.withLock(recorded("first")(slow["cleans up"]), "job", { lease })))
        yield* fork(b.run(Lock.withLock(recorded("second")(Effect.void), "job")))
        // Without another renewal the lease would end 2.1 seconds from here.
        yield* pass(900)
        yield* fork(Effect.andThen(Scope.close(scope, Exit.void), Effect.sync(() => note("closed"))))
        yield* pass("6 seconds")
        assert.deepStrictEqual(events.slice(0, 3), ["first starts at 0", "first ends at 3700", "second starts at 3700"])
        assert.include(events, "closed at 3700")
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("lets nobody hang a lock on it any more", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      const { close, lease } = yield* closable
      yield* fork(lease.whileAlive(slow["cleans up"]))
      yield* fork(close)
      yield* pass(1)
      assert.include(yield* Effect.flip(a.run(Lock.withLock(Effect.void, "job", { lease }))), lost)
      assert.deepStrictEqual(yield* faults.keys, [])
      yield* pass("3 seconds")
    }).pipe(Effect.scoped, provideMemory))
})

describe("a handle's release", () => {
  const held = Effect.gen(function*() {
    const { events, note, recorded } = yield* recorder
    const a = yield* session({ ttl: "3 seconds" })
    const scope = yield* Scope.make()
    const lock = yield* a.run(Lock.acquire("job")).pipe(Scope.provide(scope))
    const next = fork(a.run(Lock.withLock(recorded("next")(Effect.void), "job")))
    return { events, note, recorded, lock, next, close: Scope.close(scope, Exit.void) }
  })

  for (const how of ["release", "the scope's end"] as const) {
    it.effect(`by ${how} comes after the work under it, and only then the next holder starts`, () =>
      Effect.gen(function*() {
        const { close, events, lock, next, note, recorded } = yield* held
        const working = yield* fork(lock.whileHeld(recorded("work")(slow["cleans up"])))
        yield* next
        yield* pass(1)
        yield* fork(Effect.andThen(how === "release" ? lock.release : close, Effect.sync(() => note("released"))))
        yield* pass("4 seconds")
        assert.deepStrictEqual(order(events).slice(0, 3), ["work starts", "work ends", "next starts"])
        assert.isAbove(order(events).indexOf("released"), order(events).indexOf("work ends"))
        assert.include(failureOf(working.pollUnsafe()) as Lock.LockLost, lost)
      }).pipe(Effect.scoped, provideMemory))
  }

  it.effect("inside of that work interrupts it, and happens when it has ended", () =>
    Effect.gen(function*() {
      const { events, lock, next, recorded } = yield* held
      const working = yield* fork(
        lock.whileHeld(
          lock.release.pipe(Effect.andThen(Effect.never), Effect.onInterrupt(() => Effect.sleep(500)), recorded("work"))
        )
      )
      yield* next
      yield* pass("1 second")
      assert.deepStrictEqual(order(events), ["work starts", "work ends", "next starts", "next ends"])
      assert.include(failureOf(working.pollUnsafe()) as Lock.LockLost, lost)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("waits no longer than one TTL, and the lock goes when the work has ended all the same", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const { events, lock, next, recorded } = yield* held
      yield* fork(lock.whileHeld(recorded("work")(Effect.uninterruptible(Effect.sleep("10 seconds")))))
      yield* next
      const releasing = yield* fork(Effect.provide(lock.release, logger))
      yield* pass("3 seconds")
      assert.deepStrictEqual(releasing.pollUnsafe(), Exit.void)
      assert.lengthOf(logged, 1)
      assert.include(logged[0], "job/")
      yield* pass("6 seconds")
      assert.deepStrictEqual(order(events), ["work starts"])
      yield* pass("1 second")
      assert.deepStrictEqual(order(events), ["work starts", "work ends", "next starts", "next ends"])
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("does not say that the work goes on when only etcd's answer is late", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { logged, logger } = logs()
      const a = yield* session({ ttl: "3 seconds" })
      const section = yield* fork(Effect.provide(a.run(Lock.withLock(Effect.sleep(100), "job")), logger))
      yield* pass(50)
      yield* faults.stall
      yield* pass("6 seconds")
      yield* faults.heal
      yield* pass("1 second")
      assert.deepStrictEqual(section.pollUnsafe(), Exit.void)
      assert.deepStrictEqual(logged, [])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("that is under way is waited for by the end of its scope", () =>
    provideMemory(Effect.gen(function*() {
      let isSlow = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => isSlow ? Effect.delay(etcd.txn(request), "1 second") : etcd.txn(request)
      }), { ttl: "60 seconds" })
      const scope = yield* Scope.make()
      const { release } = yield* run(Lock.acquire("job")).pipe(Scope.provide(scope))
      isSlow = true
      yield* fork(release)
      yield* pass(100)
      const closing = yield* fork(Scope.close(scope, Exit.void))
      yield* pass(500)
      const early = closing.pollUnsafe()
      yield* pass("1 second")
      assert.isUndefined(early)
      assert.isDefined(closing.pollUnsafe())
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("of thousands of locks at once takes one request timeout at most when etcd hangs", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session({ ttl: "5 minutes" })
      const scopes = Array.from({ length: 3000 }, () => Scope.makeUnsafe())
      yield* Effect.forEach(
        scopes,
        (scope, i) => Scope.provide(a.run(Lock.acquire(`job-${i}`)), scope),
        { concurrency: "unbounded", discard: true }
      )
      yield* faults.stall
      const closing = yield* Effect.forEach(scopes, (scope) => fork(Scope.close(scope, Exit.void)))
      yield* pass("5 seconds")
      yield* faults.heal
      assert.isTrue(closing.every((fiber) => fiber.pollUnsafe() !== undefined))
    }).pipe(Effect.scoped, provideMemory))
})

describe("a caller that is interrupted", () => {
  const dies = Effect.onInterrupt(Effect.never, () => Effect.die("boom"))
  const causeOf = (exit: Exit.Exit<unknown, unknown> | undefined) =>
    exit !== undefined && Exit.isFailure(exit)
      ? exit.cause.reasons.map((reason) =>
        Cause.isDieReason(reason)
          // A defect makes defects of the errors beside it.
          ? (reason.defect as Partial<Lock.LockLost>)._tag ?? String(reason.defect)
          : Cause.isFailReason(reason)
          ? (reason.error as Lock.LockLost)._tag
          : "Interrupt"
      )
      : []

  it.effect("hears of what the body dies with while it unwinds", () =>
    Effect.gen(function*() {
      const a = yield* session()
      const section = yield* fork(a.run(Lock.withLock(dies, "job")))
      yield* pass(1)
      yield* stop(section)
      yield* pass(1)
      assert.sameMembers(causeOf(section.pollUnsafe()), ["Interrupt", "boom"])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("hears of the loss that came before, too", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      const section = yield* fork(
        a.run(Lock.withLock(
          Effect.onInterrupt(Effect.never, () => Effect.andThen(Effect.sleep(100), Effect.die("boom"))),
          "job"
        ))
      )
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass(50)
      yield* stop(section)
      yield* pass(50)
      assert.sameMembers(causeOf(section.pollUnsafe()), ["Interrupt", "boom", "LockLost"])
    }).pipe(Effect.scoped, provideMemory))
})
