import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Ref, Scope, Stream } from "effect"
import { Etcd, Lease, Lock, type Semaphore } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { eventually } from "../support/eventually.ts"
import { failureOf } from "../support/exits.ts"
import { hold, holdIn } from "../support/holdIn.ts"
import * as Recipes from "../support/recipes.ts"
import type * as World from "../support/World.ts"

/** What a lock promises beside what all recipes do, on whatever etcd the world has. */
export const suite = (makeWorld: Effect.Effect<World.World, never, Scope.Scope>) => {
  describe("a free lock", () => {
    it.live("keeps the keys and values that Go's mutex can live with", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const handle = yield* Lock.acquire("a/b", { metadata: { build: 7 } })
          const [entry] = yield* world.line("a/b")
          assert.strictEqual(Buffer.from(entry!.key).toString(), handle.key)
          assert.match(handle.key, /^a\/b\/[0-9a-f]+-\d+$/)
          assert.isTrue(handle.key.startsWith(`a/b/${handle.leaseId.toString(16)}-`))
          assert.strictEqual(entry!.lease, handle.leaseId)
          assert.strictEqual(entry!.createRevision, handle.createRevision)
          assert.strictEqual(handle.fencingToken, handle.createRevision)
          const told = JSON.parse(Buffer.from(entry!.value).toString())
          assert.strictEqual(told.pid, process.pid)
          assert.deepStrictEqual(told.metadata, { build: 7 })
        })))
      }))

    it.live("uses the same keys again, since etcd walks over all that ever were until it is compacted", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const keys = new Set<string>()
        const hold = Effect.scoped(Effect.map(Lock.acquire("job"), ({ key }) => keys.add(key)))
        yield* a.run(Effect.forEach(Array.from({ length: 10 }), () => hold))
        assert.strictEqual(keys.size, 1)
        // a hand-over needs the next key before the last is gone
        yield* a.run(Effect.all(Array.from({ length: 10 }, () => hold), { concurrency: "unbounded" }))
        assert.strictEqual(keys.size, 2)
      }))

    it.live("does not swallow the body's own scope", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const closed = yield* Ref.make(false)
        const scope = yield* Scope.make()
        yield* Effect.addFinalizer(() => Ref.set(closed, true)).pipe(
          Lock.withLock("job"),
          a.run,
          Scope.provide(scope)
        )
        assert.isFalse(yield* Ref.get(closed))
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(yield* Ref.get(closed))
      }))
  })

  describe("a held lock", () => {
    it.live("is handed over in the order of arrival, across processes and fibers", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b, c] = yield* Effect.all([world.process(), world.process(), world.process()])
        const order: Array<string> = []
        const tokens: Array<bigint> = []
        const enter = (name: string, process: World.Process) =>
          Effect.scoped(Effect.gen(function*() {
            const handle = yield* Lock.acquire("job")
            order.push(name)
            tokens.push(handle.fencingToken)
            yield* handle.verify
          })).pipe(process.run, Effect.forkChild({ startImmediately: true }))
        const holder = yield* holdIn(a, "job")
        tokens.push((yield* holder.held).fencingToken)
        const fibers: Array<Fiber.Fiber<void, unknown>> = []
        for (const [length, name, process] of [[2, "b", b], [3, "c", c]] as const) {
          fibers.push(yield* enter(name, process))
          yield* world.untilLine("job", length)
        }
        // these queue behind b's first, inside b
        fibers.push(yield* enter("b2", b), yield* enter("b3", b))
        assert.lengthOf(yield* world.line("job"), 3)
        yield* holder.release
        yield* Effect.forEach(fibers, Fiber.join)
        assert.deepStrictEqual(order, ["b", "c", "b2", "b3"])
        assert.deepStrictEqual(tokens, [...tokens].sort((x, y) => x < y ? -1 : 1))
        assert.strictEqual(new Set(tokens).size, 5)
      }))
  })

  describe(`a lost lock (${cite("P3")})`, () => {
    it.live("is noticed within a second when its key is deleted, also for a hold that began without a watch", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process({ ttl: "60 seconds" })
        for (const heldFor of [0, 100, 400, 1500]) {
          const holder = yield* holdIn(a, "job")
          const { key } = yield* holder.held
          yield* Effect.sleep(heldFor)
          yield* world.etcd.txn({ then: [Etcd.remove(key)] })
          const [waited, exit] = yield* Effect.timed(Fiber.await(holder.fiber))
          assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
          assert.isBelow(Duration.toMillis(waited), 1000)
        }
      }))
  })

  describe("a key in a lock's place that is no entry of it", () => {
    it.live("under the name is named at once instead of waited for", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        yield* world.etcd.txn({ then: [Etcd.put("job/config", "x")] })
        const attempts = [
          a.run(Effect.flip(Lock.withLock(Effect.void, "job"))),
          a.run(Effect.flip(Lock.tryWithLock(Effect.void, "job")))
        ]
        for (const attempt of attempts) {
          const error = yield* attempt
          assert.include(error as Lock.LockNameConflict, {
            _tag: "LockNameConflict",
            lock: "job",
            key: "job/config",
            kind: "PlainKey"
          })
          assert.include(error.message, "Delete the key, or use another name.")
          yield* world.untilLine("job", 1)
        }
        yield* world.etcd.txn({ then: [Etcd.remove("job/config")] })
        // also behind another contender, and a lock nested under the name
        const holder = yield* holdIn(a, "job")
        yield* holder.held
        const nested = yield* holdIn(b, "job/part")
        yield* nested.held
        const conflict = yield* Effect.flip(b.run(Lock.withLock(Effect.void, "job")))
        assert.include(conflict as Lock.LockNameConflict, {
          _tag: "LockNameConflict",
          lock: "job",
          key: (yield* nested.held).key,
          kind: "NestedLock"
        })
        // its holder would lose it
        assert.notMatch(conflict.message, /delete/i)
        assert.deepStrictEqual((yield* b.run(Lock.inspect("job"))).conflicts, [
          { key: (yield* nested.held).key, kind: "NestedLock" }
        ])
        yield* nested.release
        yield* holder.release
      }))
  })

  describe("a key of another client in the line", () => {
    it.live("is waited for if it is on a lease, whatever its name", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        yield* Effect.scoped(Effect.gen(function*() {
          const { id } = yield* Lease.make({ ttl: "10 seconds" }).pipe(Effect.provideService(Etcd.Etcd, world.etcd))
          const isWaitedFor = Effect.fnUntraced(function*(lock: string, key: string) {
            yield* world.etcd.txn({ then: [Etcd.put(key, "x", { lease: id })] })
            const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, lock)))
            assert.include((refused as Lock.LockHeld).holder, { key, leaseId: id })
            const waiting = yield* holdIn(a, lock)
            yield* world.untilLine(lock, 2)
            // for longer than it takes to be asked about
            yield* Effect.sleep("2500 millis")
            assert.isFalse(yield* waiting.isHeld)
            const seen = yield* b.run(Lock.inspect(lock))
            assert.include(seen.holder, { key, leaseId: id })
            assert.deepStrictEqual([seen.queue.length, seen.conflicts], [1, []])
            yield* world.etcd.txn({ then: [Etcd.remove(key)] })
            yield* waiting.held
            yield* waiting.release
          })
          const cases = [["one", "one/worker"], ["two", "two/cafe"], ["three", "three/write/worker"]] as const
          yield* Effect.forEach(cases, ([lock, key]) => isWaitedFor(lock, key), { concurrency: "unbounded" })
        }))
      }))

    it.live("on no lease is found by those who wait, although it is named as an entry, and by those who try", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const isFound = Effect.fnUntraced(function*(lock: string, key: string) {
          yield* world.etcd.txn({ then: [Etcd.put(key, "x")] })
          const conflict = { _tag: "LockNameConflict", lock, key, kind: "PlainKey" } as const
          const waited = yield* Effect.flip(a.run(Lock.withLock(Effect.void, lock, { timeout: "30 seconds" })))
          assert.include(waited as Lock.LockNameConflict, conflict)
          const tried = yield* Effect.flip(b.run(Lock.tryWithLock(Effect.void, lock)))
          assert.include(tried as Lock.LockNameConflict, conflict)
          assert.deepStrictEqual((yield* b.run(Lock.inspect(lock))).conflicts, [{ key, kind: "PlainKey" }])
          yield* world.untilLine(lock, 1)
          yield* world.etcd.txn({ then: [Etcd.remove(key)] })
        })
        const cases = [["one", "one/cafe"], ["two", "two/694d81b-1"], ["three", "three/read/cafe"]] as const
        yield* Effect.forEach(cases, ([lock, key]) => isFound(lock, key), { concurrency: "unbounded" })
      }))
  })

  describe("an operator", () => {
    it.live("sees who holds and who waits, and every change", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const seen: Array<[boolean, number]> = []
        const watching = yield* Lock.changes("job").pipe(
          Stream.runForEach(({ holder, queue }) =>
            Effect.sync(() => {
              seen.push([holder !== undefined, queue.length])
            })
          ),
          a.run,
          Effect.forkChild
        )
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen, [[false, 0]])))
        const holder = yield* holdIn(a, "job", { metadata: { team: "blue" } })
        const handle = yield* holder.held
        // A slow reader may skip a state that is over.
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen.at(-1), [true, 0])))
        const waiting = yield* holdIn(b, "job")
        yield* world.untilLine("job", 2)
        const found = yield* b.run(Lock.inspect("job"))
        assert.include(found.holder, { key: handle.key, leaseId: handle.leaseId, pid: process.pid })
        assert.deepStrictEqual(found.holder?.metadata, { team: "blue" })
        assert.isAbove(Duration.toSeconds(found.holder!.remaining!), 5)
        assert.lengthOf(found.queue, 1)
        assert.deepStrictEqual(found.conflicts, [])
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen.at(-1), [true, 1])))
        yield* holder.release
        yield* waiting.release
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen.at(-1), [false, 0])))
        yield* Fiber.interrupt(watching)
        yield* world.etcd.txn({ then: [Etcd.put("job/config", "x")] })
        assert.deepStrictEqual((yield* b.run(Lock.inspect("job"))).conflicts, [
          { key: "job/config", kind: "PlainKey" }
        ])
        yield* world.etcd.txn({ then: [Etcd.remove("job/config")] })
      }))

    it.live("lists the locks under a prefix, of both layouts and of other clients, with their holders", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const held = [
          yield* holdIn(a, "jobs/a", { metadata: { team: "blue" } }),
          yield* holdIn(a, "jobs/ab"),
          yield* holdIn(b, "jobs/b", { layout: "single-key" }),
          yield* holdIn(a, "other")
        ]
        const [first, part, single] = yield* Effect.forEach(held, ({ held }) => held)
        const waiting = yield* holdIn(b, "jobs/a")
        yield* world.untilLine("jobs/a", 2)
        yield* Effect.scoped(Effect.gen(function*() {
          const { id } = yield* Lease.make({ ttl: "10 seconds" }).pipe(Effect.provideService(Etcd.Etcd, world.etcd))
          yield* world.etcd.txn({
            then: [
              // as `etcdctl lock`, a plain key, and something else on a lease
              Etcd.put(`jobs/go/${id.toString(16)}`, "", { lease: id }),
              Etcd.put("jobs/config", "x"),
              Etcd.put("jobs/worker", "10.0.0.7:80", { lease: id })
            ]
          })
          const listed = yield* Lock.list("jobs/").pipe(Effect.provideService(Etcd.Etcd, world.etcd))
          assert.deepStrictEqual(
            listed.map(({ holder, holding, layout, lock, waiting }) => [lock, layout, holder.key, holding, waiting]),
            [
              ["jobs/a", "queue", first!.key, 1, 1],
              ["jobs/ab", "queue", part!.key, 1, 0],
              ["jobs/b", "single-key", single!.key, 1, 0],
              ["jobs/go", "queue", `jobs/go/${id.toString(16)}`, 1, 0],
              ["jobs/worker", "single-key", "jobs/worker", 1, 0]
            ]
          )
          assert.include(listed[0]!.holder, { pid: process.pid, createRevision: first!.createRevision })
          assert.deepStrictEqual(listed[0]!.holder.metadata, { team: "blue" })
          assert.deepStrictEqual(listed[3]!.holder.host, undefined)
          const names = Effect.map(Lock.list("jobs/a"), (listed) => listed.map(({ lock }) => lock))
          assert.deepStrictEqual(yield* a.run(names), ["jobs/a", "jobs/ab"])
          yield* world.etcd.txn({ then: [Etcd.remove("jobs/config")] })
        }))
        yield* Effect.forEach(held, ({ release }) => release)
        yield* waiting.release
        assert.deepStrictEqual(yield* a.run(Lock.list()), [])
      }))

    it.live("lists readers and writers as one lock, and how many hold it and hold permits", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b, c, d] = yield* Effect.all(Array.from({ length: 4 }, () => world.process()))
        const held: Array<Effect.Success<ReturnType<typeof hold<Lock.Handle, Semaphore.AcquireError>>>> = []
        const enter = Effect.fnUntraced(function*(process: World.Process, recipe: Recipes.Recipe, name: string) {
          const { length } = yield* world.line(name)
          held.push(yield* hold(process, recipe.acquire(name)))
          yield* world.untilLine(name, length + 1)
        })
        const lines = {
          "jobs/cache": [Recipes.read, Recipes.read, Recipes.write, Recipes.read],
          "jobs/pool": [Recipes.permits(1, 3), Recipes.permits(2, 3), Recipes.permits(1, 3), Recipes.permits(1, 3)],
          "jobs/written": [Recipes.write, Recipes.write, Recipes.read, Recipes.lock()]
        }
        for (const [name, line] of Object.entries(lines)) {
          for (const [i, recipe] of line.entries()) yield* enter([a, b, c, d][i]!, recipe, name)
        }
        const listed = yield* a!.run(Lock.list("jobs/"))
        assert.deepStrictEqual(listed.map(({ holding, layout, lock, waiting }) => [lock, layout, holding, waiting]), [
          ["jobs/cache", "queue", 2, 2],
          ["jobs/pool", "queue", 2, 2],
          ["jobs/written", "queue", 1, 3]
        ])
        assert.deepStrictEqual(
          listed.map(({ holder }) => holder.key),
          yield* Effect.forEach([0, 4, 8], (i) => Effect.map(held[i]!.held, ({ key }) => key))
        )
        yield* Effect.forEach(held, ({ release }) => release, { discard: true, concurrency: "unbounded" })
        assert.deepStrictEqual(yield* a!.run(Lock.list()), [])
      }))

    it.live("can force a release, of the holder that was looked at and no other", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const holder = yield* holdIn(a, "job")
        const { createRevision } = yield* holder.held
        const waiting = yield* holdIn(b, "job")
        yield* world.untilLine("job", 2)
        assert.isTrue(yield* b.run(Lock.forceRelease("job", { createRevision })))
        assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "KeyDeleted" })
        yield* waiting.held
        assert.isFalse(yield* b.run(Lock.forceRelease("job", { createRevision })))
        yield* waiting.release
      }))
  })
}
