import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { Etcd, Lease, Lock } from "effect-etcd-lock"
import { eventually } from "../support/eventually.ts"
import { failureOf } from "../support/exits.ts"
import { holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"

const layout = "single-key"

const keyOf = (world: World.World, key: string) =>
  Effect.map(Effect.orDie(world.etcd.range(Etcd.get(key))), ({ kvs }) => kvs[0])

/** Long enough for a contender to have been refused and to watch the key. */
const settled = Effect.sleep(150)

describe("a free single key", () => {
  it.live("is the name itself while it is held, and the token is its create revision", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      yield* a.run(Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("a/b", { layout, metadata: { build: 7 } })
        const kv = yield* keyOf(world, "a/b")
        assert.strictEqual(lock.key, "a/b")
        assert.strictEqual(kv?.lease, lock.leaseId)
        assert.strictEqual(kv?.createRevision, lock.createRevision)
        assert.strictEqual(lock.fencingToken, lock.createRevision)
        assert.deepInclude(JSON.parse(String(kv?.value)), { pid: process.pid, metadata: { build: 7 } })
        yield* lock.verify
        yield* lock.txn({ then: [Etcd.put("written", "1")] })
        yield* lock.txn({ then: [Etcd.remove("written")] })
      })))
      assert.isUndefined(yield* keyOf(world, "a/b"))
    }))

  it.live("excludes neither the queue of the same name nor the keys under it", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const enter = Effect.void.pipe(
        Lock.tryWithLock("job/part", { layout }),
        Lock.tryWithLock("job", { layout })
      )
      yield* a.run(enter)
      yield* a.run(Lock.tryWithLock(enter, "job"))
      // except that a single key under a queue's name looks like an entry of it
      const held = yield* Effect.flip(a.run(Lock.tryWithLock(
        Lock.tryWithLock(Effect.void, "job"),
        "job/part",
        { layout }
      )))
      assert.strictEqual(held._tag, "LockHeld")
    }))
})

describe("a held single key", () => {
  it.live("is handed over to a waiter, and among the fibers of a process in order", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const order: Array<number> = []
      const tokens: Array<bigint> = []
      const holder = yield* holdIn(a, "job", { layout })
      tokens.push((yield* holder.held).fencingToken)
      const interrupted = yield* holdIn(b, "job", { layout })
      const waiting = yield* Effect.forEach([1, 2, 3], (n) =>
        Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job", { layout })
          order.push(n)
          tokens.push(lock.fencingToken)
          yield* lock.verify
        })).pipe(b.run, Effect.forkChild({ startImmediately: true })))
      yield* settled
      yield* Fiber.interrupt(interrupted.fiber)
      yield* settled
      assert.deepStrictEqual(order, [])
      const [waited] = yield* Effect.timed(Effect.andThen(holder.release, Effect.forEach(waiting, Fiber.join)))
      assert.isBelow(Duration.toMillis(waited), 1000)
      assert.deepStrictEqual(order, [1, 2, 3])
      assert.deepStrictEqual(tokens, [...tokens].sort((x, y) => x < y ? -1 : 1))
    }))

  it.live("is held by one at a time, with increasing tokens, until everybody has had a turn", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const processes = yield* Effect.all([world.process(), world.process()])
      const tokens: Array<bigint> = []
      let inside = 0
      const enter = Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job", { layout })
        assert.strictEqual(++inside, 1)
        tokens.push(lock.fencingToken)
        yield* Effect.sleep(1)
        inside--
      }))
      yield* Effect.forEach(
        processes,
        (process) => Effect.forEach(Array.from({ length: 50 }), () => process.run(enter)),
        { concurrency: "unbounded" }
      )
      assert.lengthOf(tokens, 100)
      assert.isTrue(tokens.every((token, i) => i === 0 || tokens[i - 1]! < token))
    }))

  it.live("without a lease is reported as no lock's", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      yield* world.etcd.txn({ then: [Etcd.put("job", "x")] })
      const attempts = [
        a.run(Effect.flip(Lock.withLock(Effect.void, "job", { layout }))),
        a.run(Effect.flip(Lock.tryWithLock(Effect.void, "job", { layout })))
      ]
      for (const attempt of attempts) {
        const error = yield* attempt
        assert.include(error as Lock.LockNameConflict, { _tag: "LockNameConflict", key: "job", kind: "PlainKey" })
        assert.include(error.message, "is attached to no lease")
      }
      const found = yield* a.run(Lock.inspect("job", { layout }))
      assert.deepStrictEqual([found.holder, found.conflicts], [undefined, [{ key: "job", kind: "PlainKey" }]])
      yield* world.etcd.txn({ then: [Etcd.remove("job")] })
      yield* a.run(Lock.withLock(Effect.void, "job", { layout }))
    }))
})

describe("a lost single key", () => {
  it.live("interrupts the body: the lease was revoked, or the key deleted, at any time of the hold", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process({ ttl: "60 seconds" })
      for (const heldFor of [0, 100, 400, 1500]) {
        const holder = yield* holdIn(a, "job", { layout })
        yield* holder.held
        yield* Effect.sleep(heldFor)
        yield* world.etcd.txn({ then: [Etcd.remove("job")] })
        const [waited, exit] = yield* Effect.timed(Fiber.await(holder.fiber))
        assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
        assert.isBelow(Duration.toMillis(waited), 1000)
      }
      const holder = yield* holdIn(a, "job", { layout })
      const { fencingToken, leaseId } = yield* holder.held
      yield* world.etcd.leaseRevoke(leaseId)
      const error = failureOf(yield* Fiber.await(holder.fiber))
      assert.include(error as Lock.LockLost, { _tag: "LockLost", fencingToken })
      yield* a.run(Lock.withLock(Effect.void, "job", { layout }))
    }))

  it.live("stays lost when another client has created the key again, and that client is not disturbed", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      yield* a.run(Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job", { layout })
        const next = yield* holdIn(b, "job", { layout })
        yield* settled
        yield* world.etcd.txn({ then: [Etcd.remove("job")] })
        const { fencingToken } = yield* next.held
        assert.isTrue(fencingToken > lock.fencingToken)
        const refused = yield* Effect.flip(lock.txn({ then: [Etcd.put("written", "1")] }))
        assert.include(refused as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
        assert.include((yield* Effect.flip(lock.verify)) as Lock.LockLost, { reason: "KeyDeleted" })
        yield* lock.release
        assert.strictEqual((yield* keyOf(world, "job"))?.createRevision, fencingToken)
        yield* next.release
      })))
    }))

  it.live("is lost with the lease that the caller gave, and so is a place in the line", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const makeLease = Effect.fnUntraced(function*() {
        const scope = yield* Scope.make()
        const lease = yield* Lease.make({ ttl: "10 seconds" }).pipe(
          Scope.provide(scope),
          Effect.provideService(Etcd.Etcd, world.etcd)
        )
        return { lease, close: Scope.close(scope, Exit.void) }
      })
      const [own, other] = [yield* makeLease(), yield* makeLease()]
      const holder = yield* holdIn(a, "job", { layout, lease: own.lease })
      assert.strictEqual((yield* holder.held).leaseId, own.lease.id)
      const waiting = yield* holdIn(b, "job", { layout, lease: other.lease })
      const next = yield* holdIn(b, "job", { layout })
      yield* settled
      yield* other.close
      assert.include(failureOf(yield* Fiber.await(waiting.fiber)) as Lock.LockLost, {
        _tag: "LockLost",
        reason: "Released",
        fencingToken: undefined
      })
      assert.isFalse(yield* next.isHeld)
      yield* own.close
      assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "Released" })
      yield* next.held
      yield* next.release
    }))
})

describe("an operator of a single key", () => {
  it.live("sees the holder and every change, and can force a release", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const seen: Array<string | undefined> = []
      const watching = yield* Lock.changes("job", { layout }).pipe(
        Stream.runForEach(({ holder }) => Effect.sync(() => void seen.push(holder?.key))),
        b.run,
        Effect.forkChild
      )
      yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen, [undefined])))
      const holder = yield* holdIn(a, "job", { layout })
      const { createRevision } = yield* holder.held
      const found = yield* b.run(Lock.inspect("job", { layout }))
      assert.include(found.holder, { key: "job", createRevision, pid: process.pid })
      assert.isAbove(Duration.toSeconds(found.holder!.remaining!), 5)
      assert.deepStrictEqual(found.queue, [])
      assert.isFalse(yield* b.run(Lock.forceRelease("job", { createRevision })), "of the queue")
      assert.isTrue(yield* b.run(Lock.forceRelease("job", { layout, createRevision })))
      assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "KeyDeleted" })
      assert.isFalse(yield* b.run(Lock.forceRelease("job", { layout, createRevision })))
      yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen, [undefined, "job", undefined])))
      yield* Fiber.interrupt(watching)
    }))
})
