/** A loss frees the place here, too, as soon as no body runs under it. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Scope } from "effect"
import { Etcd, Lock, ReadWriteLock, type Session } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, freezable, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"
import * as Recipes from "../support/recipes.ts"

const recipes = {
  "a lock": Recipes.lock(),
  "a single key": Recipes.lock("single-key"),
  "a write lock": Recipes.write,
  "a write lock that can become a reader": {
    ...Recipes.write,
    acquire: (name: string) => ReadWriteLock.acquireWrite(name, { downgradable: true })
  },
  "a semaphore": Recipes.permits(1, 1),
  "an election": Recipes.election,
  "several locks": { ...Recipes.several("other"), tryWithLock: Recipes.lock().tryWithLock }
}

type Lose = (handle: Lock.Handle) => Effect.Effect<unknown, unknown, Etcd.Faults>

const withFaults =
  (use: (faults: Etcd.Faults["Service"], handle: Lock.Handle) => Effect.Effect<unknown>): Lose => (handle) =>
    Effect.flatMap(Etcd.Faults, (faults) => use(faults, handle))

/** Long enough to be heard of. */
const wait = Effect.repeat(pass(200), { times: 25 })

const losses: Record<string, Lose> = {
  "its key was deleted": withFaults((faults) => Effect.andThen(faults.deletePrefix("job"), wait)),
  "its lease was revoked": withFaults((faults, { leaseId }) => Effect.andThen(faults.revokeLease(leaseId), wait)),
  "its lease expired": withFaults((faults, { leaseId }) => Effect.andThen(faults.expireLease(leaseId), wait)),
  "etcd was out of reach": withFaults((faults) =>
    faults.unreachable.pipe(Effect.andThen(wait), Effect.andThen(faults.reachable))
  )
}

for (const [name, { acquire, tryWithLock, withLock }] of Object.entries(recipes)) {
  describe(`a handle of ${name} that is not released`, () => {
    for (const [how, lose] of Object.entries(losses)) {
      it.effect(`keeps nobody of its process waiting (${how})`, () =>
        provideMemory(Effect.gen(function*() {
          const { run } = yield* session()
          const scope = yield* Scope.make()
          const holding = yield* fork(run(acquire("job")).pipe(Scope.provide(scope)))
          yield* pass(1)
          const waiting = yield* fork(run(withLock(Effect.succeed("waited"), "job")))
          yield* pass("1 second")
          const handle = yield* holding.pollUnsafe()!
          assert.isUndefined(waiting.pollUnsafe())
          yield* lose(handle)
          // A key that nobody has deleted is in the way until the TTL is over.
          yield* wait
          assert.deepStrictEqual(yield* Effect.flip(handle.check), yield* Effect.flip(handle.awaitLoss))
          // It may have been told of the outage.
          if (how !== "etcd was out of reach") assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("waited"))
          const tried = yield* fork(run(tryWithLock(Effect.succeed("tried"), "job")))
          yield* pass(100)
          assert.deepStrictEqual(tried.pollUnsafe(), Exit.succeed("tried"))
          const next = yield* fork(run(withLock(Effect.succeed("ran"), "job")))
          yield* pass(100)
          assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("ran"))
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(yield* keys, [])
        })))
    }
  })
}

describe("a lock of several", () => {
  const acquired: Record<string, Effect.Effect<Lock.Handle, unknown, Session.Session | Scope.Scope>> = {
    "several locks": Lock.acquireAll(["a", "job"]),
    "a write lock that can become a reader": ReadWriteLock.acquireWrite("job", { downgradable: true })
  }

  for (const [name, acquire] of Object.entries(acquired)) {
    for (const lost of [0, 1]) {
      it.effect(`takes the others along when it is lost and the body has ended (${name}, ${lost})`, () =>
        provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const { run } = yield* session()
          yield* run(Effect.scoped(Effect.gen(function*() {
            const handle = yield* acquire
            const under = yield* fork(
              handle.whileHeld(Effect.onInterrupt(Effect.never, () => Effect.sleep("2 seconds")))
            )
            yield* pass("1 second")
            yield* faults.deleteKey((yield* keys)[lost]!)
            yield* pass(500)
            assert.lengthOf(yield* keys, 1)
            const next = yield* fork(acquire)
            yield* pass(500)
            assert.isUndefined(next.pollUnsafe())
            yield* pass("1 second")
            assert.isTrue(Exit.isFailure(under.pollUnsafe()!))
            assert.deepStrictEqual(
              Exit.isFailure(under.pollUnsafe()!) &&
                (under.pollUnsafe() as Exit.Failure<never, Lock.LockLost>).cause.reasons.map((reason) =>
                  Cause.isFailReason(reason) ? reason.error.reason : reason._tag
                ),
              ["KeyDeleted"]
            )
            yield* pass(10)
            assert.isTrue(Exit.isSuccess(next.pollUnsafe()!))
            // It says of all what has become of that one.
            const loss = { _tag: "LockLost", reason: "KeyDeleted" } as const
            assert.include(yield* Effect.flip(handle.check), loss)
            assert.include(yield* Effect.flip(handle.awaitLoss), loss)
            assert.include(handle.signal.reason as Lock.LockLost, loss)
            assert.include((yield* Effect.flip(handle.verify)) as Lock.LockLost, loss)
            assert.include((yield* Effect.flip(handle.txn({ then: [Etcd.put("x", "")] }))) as Lock.LockLost, loss)
          })))
        })))
    }
  }
})

describe("a lock that is lost", () => {
  it.effect("goes to the next fiber of its process when its body has ended, and not before", () =>
    provideMemory(Effect.gen(function*() {
      const { freeze, process: { run } } = yield* freezable
      yield* run(Effect.scoped(Effect.gen(function*() {
        const handle = yield* Lock.acquire("job")
        const body = Effect.onInterrupt(Effect.never, () => Effect.sleep("2 seconds"))
        const under = yield* fork(handle.whileHeld(body))
        const next = yield* fork(Lock.withLock(Effect.succeed("ran"), "job"))
        yield* pass(100)
        freeze()
        assert.isFalse(handle.isHeldUnsafe())
        yield* pass("1 second")
        assert.isUndefined(under.pollUnsafe())
        assert.isUndefined(next.pollUnsafe())
        yield* pass("1 second")
        assert.include(failureOf(under.pollUnsafe()) as Lock.LockLost, { reason: "LeaseExpired" })
        yield* pass(10)
        assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("ran"))
      })))
    })))

  it.effect("is not named as its own holder, where etcd has no key of it", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      yield* faults.delayWatches("1 minute")
      yield* faults.deletePrefix("job/")
      const refused = yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "job")))
      assert.include(refused as Lock.LockHeld, { _tag: "LockHeld", holder: undefined })
    })))

  it.effect("leaves no key, although it was said to be deleted", () =>
    provideMemory(Effect.gen(function*() {
      // As where a backup is restored that has the key.
      let isHidden = false
      const { run } = yield* sessionThrough((etcd) => ({
        range: (range) =>
          isHidden ? Effect.map(etcd.range(range), (result) => ({ ...result, kvs: [] })) : etcd.range(range)
      }))
      yield* run(Effect.scoped(Effect.gen(function*() {
        const handle = yield* Lock.acquire("job")
        assert.lengthOf(yield* keys, 1)
        isHidden = true
        assert.include((yield* Effect.flip(handle.verify)) as Lock.LockLost, { reason: "KeyDeleted" })
        yield* pass(1)
        assert.deepStrictEqual(yield* keys, [])
      })))
    })))
})

describe("a waiter whose place in etcd is lost", () => {
  it.effect("does not take those behind it in its process with it", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const first = yield* fork(b.run(Lock.withLock(Effect.void, "job")))
      yield* pass(1)
      const behind = yield* fork(b.run(Lock.withLock(Effect.succeed("ran"), "job")))
      yield* pass(1)
      yield* faults.deleteKey(
        (yield* faults.keys).toSorted((x, y) => Number(y.createRevision - x.createRevision))[0]!.key
      )
      yield* pass(100)
      assert.include(failureOf(first.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      assert.isUndefined(behind.pollUnsafe())
      yield* stop(holder)
      yield* pass(100)
      assert.deepStrictEqual(behind.pollUnsafe(), Exit.succeed("ran"))
    })))
})

describe("a try that is refused in its own process", () => {
  it.effect("names who holds the lock now, and not who held it at an earlier try", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const refused = Effect.map(Effect.flip(run(Lock.tryWithLock(Effect.void, "job"))), (error) => {
        assert.strictEqual(error._tag, "LockHeld")
        return (error as Lock.LockHeld).holder?.metadata?.who
      })
      for (const who of ["first", "second"]) {
        const holder = yield* fork(run(Lock.withLock(Effect.never, "job", { metadata: { who } })))
        yield* pass(1)
        assert.strictEqual(yield* refused, who)
        yield* stop(holder)
        yield* pass(1)
      }
    })))
})
