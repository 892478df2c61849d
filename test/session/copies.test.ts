/** Two copies of the package in one process, as an app and a library may bring them. */
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import { Election, Lease, Lock, ReadWriteLock, Semaphore, type Session } from "effect-etcd-lock"
import { defectOf } from "../support/exits.ts"
import { keys, provideMemory, session } from "../support/inMemory.ts"

const another = Effect.promise(() => {
  vi.resetModules()
  return import("effect-etcd-lock")
})

const plain = /^The (session|lease) is of another copy of effect-etcd-lock in this process.*`npm ls effect-etcd-lock`/

describe("two copies of the package in one process", () => {
  it.effect("refuse each other's sessions before anything runs, and say how to find the copies", () =>
    provideMemory(Effect.gen(function*() {
      const theirs = yield* another
      const { run } = yield* session()
      assert.notStrictEqual(theirs.Lock.withLock, Lock.withLock)
      const uses: ReadonlyArray<Effect.Effect<void, unknown, Session.Session>> = [
        theirs.Lock.withLock(Effect.void, "a"),
        theirs.Lock.tryWithLock(Effect.void, "a"),
        theirs.Lock.withLocks(Effect.void, ["a", "b"]),
        theirs.ReadWriteLock.withReadLock(Effect.void, "a"),
        theirs.Semaphore.withPermits(Effect.void, "a", { of: 2 }),
        theirs.Election.withLeadership(Effect.void, "a", { value: "me" })
      ]
      for (const use of uses) assert.match((defectOf(yield* Effect.exit(run(use))) as Error).message, plain)
      assert.deepStrictEqual(yield* keys, [])
      // What is of one copy works.
      yield* run(Lock.withLock(Effect.void, "a"))
    })))

  it.effect("refuse each other's leases", () =>
    provideMemory(Effect.gen(function*() {
      const theirs = yield* another
      const { run } = yield* session()
      const lease = yield* theirs.Lease.make({ ttl: "5 seconds" })
      const uses: ReadonlyArray<Effect.Effect<void, unknown, Session.Session>> = [
        Lock.withLock(Effect.void, "a", { lease }),
        ReadWriteLock.withReadLock(Effect.void, "a", { lease }),
        Semaphore.withPermits(Effect.void, "a", { of: 2, lease }),
        Election.withLeadership(Effect.void, "a", { value: "me", lease })
      ]
      for (const use of uses) assert.match((defectOf(yield* Effect.exit(run(use))) as Error).message, plain)
      assert.deepStrictEqual(yield* keys, [])
      yield* run(Lock.withLock(Effect.void, "a", { lease: yield* Lease.make({ ttl: "5 seconds" }) }))
    })))
})
