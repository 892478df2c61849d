import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Option, Ref, Scope, Stream } from "effect"
import { Etcd, Lease, Lock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { eventually } from "../support/eventually.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { holdIn } from "../support/holdIn.ts"
import type * as World from "../support/World.ts"

/** What a lock promises, on whatever etcd the world has. */
export const suite = (makeWorld: Effect.Effect<World.World, never, Scope.Scope>) => {
  describe("a free lock", () => {
    it.live("runs the body, answers what it answers, and is free again", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const inside = yield* Effect.gen(function*() {
          const line = yield* world.line("job")
          return line.length
        }).pipe(Lock.withLock("job"), a.run)
        assert.strictEqual(inside, 1)
        assert.lengthOf(yield* world.line("job"), 0)
      }))

    it.live("is released when the body fails, dies, or is interrupted", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const failed = yield* Effect.exit(a.run(Lock.withLock(Effect.fail("boom"), "job")))
        assert.strictEqual(failureOf(failed), "boom")
        assert.lengthOf(yield* world.line("job"), 0)
        const died = yield* Effect.exit(a.run(Lock.withLock(Effect.die("bug"), "job")))
        assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
        assert.lengthOf(yield* world.line("job"), 0)
        const cleaned = yield* Ref.make(-1)
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onInterrupt(() => Effect.flatMap(world.line("job"), (line) => Ref.set(cleaned, line.length))),
          Lock.withLock("job"),
          a.run,
          Effect.forkChild({ startImmediately: true })
        )
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* Ref.get(cleaned), 1, "the body's cleanup ran under the lock")
        assert.lengthOf(yield* world.line("job"), 0)
      }))

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

    it.live("rejects names that would be other keys than they seem", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        for (const name of ["", "/", "a/", "/a", "a//b", "\ud800"]) {
          const exit = yield* Effect.exit(a.run(Lock.withLock(Effect.void, name)))
          const defect = defectOf(exit)
          assert.instanceOf(defect, RangeError)
          assert.include((defect as Error).message, JSON.stringify(name))
        }
      }))
  })

  describe("a held lock", () => {
    it.live("refuses a try, naming the holder, and leaves no key", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const holder = yield* holdIn(a, "job", { metadata: { team: "blue" } })
        const handle = yield* holder.held
        for (const process of [a, b]) {
          const error = yield* Effect.flip(process.run(Lock.tryWithLock(Effect.void, "job")))
          assert.instanceOf(error, Lock.LockHeld)
          assert.strictEqual(error.holder?.key, handle.key)
          assert.strictEqual(error.holder?.leaseId, handle.leaseId)
          assert.deepStrictEqual(error.holder?.metadata, { team: "blue" })
          assert.include(error.message, `'job' is held by ${error.holder?.host} (process ${globalThis.process.pid})`)
          assert.isTrue(Option.isNone(yield* process.run(Lock.withLockIfAvailable(Effect.void, "job"))))
        }
        assert.lengthOf(yield* world.line("job"), 1)
        yield* holder.release
        assert.deepStrictEqual(yield* b.run(Lock.withLockIfAvailable(Effect.succeed(1), "job")), Option.some(1))
      }))

    it.live("lets one of many tries through", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const processes = yield* Effect.all([world.process(), world.process(), world.process()])
        for (let round = 0; round < 10; round++) {
          const inside = yield* Ref.make(0)
          const most = yield* Ref.make(0)
          const body = Effect.gen(function*() {
            const now = yield* Ref.updateAndGet(inside, (n) => n + 1)
            yield* Ref.update(most, (n) => Math.max(n, now))
            yield* Effect.sleep(5)
            yield* Ref.update(inside, (n) => n - 1)
          })
          const tries = processes.flatMap((process) => [process, process]).map((process) =>
            process.run(Lock.withLockIfAvailable(body, `round-${round}`))
          )
          const answers = yield* Effect.all(tries, { concurrency: "unbounded" })
          assert.strictEqual(yield* Ref.get(most), 1)
          assert.isAtLeast(answers.filter(Option.isSome).length, 1)
        }
      }))

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

    it.live("times out a waiter with how long and who, and the waiter is gone from the line", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const holder = yield* holdIn(a, "job")
        const handle = yield* holder.held
        for (const process of [a, b]) {
          const error = yield* Effect.flip(process.run(Lock.withLock(Effect.void, "job", { timeout: 300 })))
          assert.instanceOf(error, Lock.LockTimeout)
          assert.isAtLeast(Duration.toMillis(error.waited), 300)
          assert.strictEqual(error.holder?.key, handle.key)
          assert.match(error.message, /'job' was not acquired within .*; it is held by .*process/)
          yield* world.untilLine("job", 1)
        }
        yield* holder.release
      }))

    it.live("is tried once with a timeout of zero, which takes it as soon as it is free", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const once = Lock.withLock(world.line("job"), "job", { timeout: 0 })
        const holder = yield* holdIn(a, "job")
        const handle = yield* holder.held
        for (const process of [a, b]) {
          const error = yield* Effect.flip(process.run(once))
          assert.instanceOf(error, Lock.LockTimeout)
          assert.strictEqual(error.holder?.key, handle.key)
          assert.strictEqual(Duration.toMillis(error.waited), 0)
          assert.lengthOf(yield* world.line("job"), 1)
        }
        yield* holder.release
        for (const process of [a, b]) assert.lengthOf(yield* process.run(once), 1)
      }))

    it.live("is not handed on early when a waiter in the middle leaves, dies or is deleted", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b, c, d, e] = yield* Effect.all(Array.from({ length: 5 }, () => world.process()))
        const holder = yield* holdIn(a!, "job")
        yield* holder.held
        const interrupted = yield* holdIn(b!, "job")
        yield* world.untilLine("job", 2)
        const dying = yield* holdIn(c!, "job")
        yield* world.untilLine("job", 3)
        const deleted = yield* holdIn(d!, "job")
        yield* world.untilLine("job", 4)
        const last = yield* holdIn(e!, "job")
        yield* world.untilLine("job", 5)
        yield* Fiber.interrupt(interrupted.fiber)
        yield* world.untilLine("job", 4)
        const line = yield* world.line("job")
        yield* world.etcd.leaseRevoke(line[1]!.lease)
        const died = yield* Fiber.await(dying.fiber)
        assert.instanceOf(failureOf(died), Lock.LockLost)
        assert.include(failureOf(died) as Lock.LockLost, { reason: "KeyDeleted", fencingToken: undefined })
        yield* world.etcd.txn({ then: [Etcd.remove(line[2]!.key)] })
        assert.include(failureOf(yield* Fiber.await(deleted.fiber)) as Lock.LockLost, { reason: "KeyDeleted" })
        assert.isFalse(yield* last.isHeld)
        yield* holder.release
        yield* last.held
        yield* last.release
      }))

    it.live("is promptly left by an interrupted waiter, at every stage", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const [a, b] = yield* Effect.all([world.process(), world.process()])
        const holder = yield* holdIn(a, "job")
        yield* holder.held
        // from before the grant of b's lease to well into the wait
        for (let delay = 0; delay < 40; delay++) {
          const waiting = yield* holdIn(b, "job")
          const local = yield* holdIn(b, "job")
          yield* Effect.sleep(delay / 4)
          yield* Fiber.interrupt(waiting.fiber)
          yield* Fiber.interrupt(local.fiber)
        }
        yield* world.untilLine("job", 1)
        yield* holder.release
        yield* b.run(Lock.withLock(Effect.void, "job"))
      }))

    it.live("that is interrupted at any moment of its life leaves nothing", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const processes = yield* Effect.all([world.process(), world.process()])
        yield* Effect.forEach(processes, (process, index) =>
          Effect.gen(function*() {
            for (let delay = 0; delay < 60; delay++) {
              const fiber = yield* Effect.forEach([1, 2], () => Lock.withLock(Effect.sleep(1), "job"), {
                concurrency: 2
              }).pipe(process.run, Effect.forkChild({ startImmediately: true }))
              yield* Effect.sleep(delay / 5 + index)
              yield* Fiber.interrupt(fiber)
            }
          }), { concurrency: "unbounded" })
        yield* world.untilLine("job", 0)
      }))
  })

  describe(`a lost lock (${cite("P3")})`, () => {
    it.live("interrupts and awaits the body, and fails with LockLost: the lease was revoked from outside", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process({ ttl: "3 seconds" })
        const steps: Array<string> = []
        const handle = yield* Deferred.make<Lock.Handle>()
        const fiber = yield* Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job")
          yield* Deferred.succeed(handle, lock)
          return yield* lock.whileHeld(Effect.never.pipe(
            Effect.onInterrupt(() => Effect.andThen(Effect.sleep(100), Effect.sync(() => steps.push("cleaned"))))
          ))
        })).pipe(a.run, Effect.ensuring(Effect.sync(() => steps.push("over"))), Effect.forkChild)
        const { fencingToken, leaseId } = yield* Deferred.await(handle)
        yield* world.etcd.leaseRevoke(leaseId)
        const error = failureOf(yield* Fiber.await(fiber))
        assert.instanceOf(error, Lock.LockLost)
        assert.strictEqual((error as Lock.LockLost).fencingToken, fencingToken)
        assert.deepStrictEqual(steps, ["cleaned", "over"])
        // the next lock of the same session gets a new lease
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const next = yield* Lock.acquire("job")
          assert.notStrictEqual(next.leaseId, leaseId)
          assert.isTrue(next.fencingToken > fencingToken)
        })))
      }))

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

    it.live("cannot be written through, and the refusal is a loss", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job")
          const answer = yield* lock.txn({
            compare: [Etcd.compareCreateRevision("counter", "=", 0n)],
            then: [Etcd.put("counter", "1")],
            else: [Etcd.get("counter")]
          })
          assert.isTrue(answer.succeeded)
          const again = yield* lock.txn({
            compare: [Etcd.compareCreateRevision("counter", "=", 0n)],
            then: [Etcd.put("counter", "2")],
            else: [Etcd.get("counter")]
          })
          assert.isTrue(!again.succeeded && Buffer.from(again.responses[0].kvs[0]!.value).toString() === "1")
          yield* lock.verify
          yield* lock.check
          yield* world.etcd.txn({ then: [Etcd.remove(lock.key)] })
          const refused = yield* Effect.flip(lock.txn({ then: [Etcd.put("counter", "3")] }))
          assert.include(refused as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
          assert.include((yield* Effect.flip(lock.check)) as Lock.LockLost, { reason: "KeyDeleted" })
          assert.include((yield* Effect.flip(lock.awaitLoss)) as Lock.LockLost, { reason: "KeyDeleted" })
          assert.strictEqual(Duration.toMillis(yield* lock.remaining), 0)
          const { kvs } = yield* world.etcd.range(Etcd.get("counter"))
          assert.strictEqual(Buffer.from(kvs[0]!.value).toString(), "1")
          yield* world.etcd.txn({ then: [Etcd.remove("counter")] })
        })))
      }))

    it.live("is noticed by verify, even if a new key of the same name stands there", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job")
          yield* world.etcd.txn({ then: [Etcd.remove(lock.key)] })
          yield* world.etcd.txn({ then: [Etcd.put(lock.key, "", { lease: lock.leaseId })] })
          assert.include((yield* Effect.flip(lock.verify)) as Lock.LockLost, { reason: "KeyDeleted" })
        })))
      }))

    it.live("keeps what the body failed with beside the loss", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const started = yield* Deferred.make<void>()
        const fiber = yield* Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.sleep(1200)),
          Effect.andThen(Effect.fail("own failure")),
          Effect.uninterruptible,
          Lock.withLock("job"),
          a.run,
          Effect.forkChild
        )
        yield* Deferred.await(started)
        const [entry] = yield* world.line("job")
        yield* world.etcd.txn({ then: [Etcd.remove(entry!.key)] })
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit))
        const errors = Exit.isFailure(exit)
          ? exit.cause.reasons.map((reason) => "error" in reason ? reason.error : reason)
          : []
        assert.strictEqual((errors[0] as Lock.LockLost)._tag, "LockLost")
        assert.strictEqual(errors[1], "own failure")
      }))

    it.live("with its handle released fails whatever still runs under it", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job")
          const under = yield* Effect.forkChild(lock.whileHeld(Effect.never), { startImmediately: true })
          yield* lock.release
          assert.include(failureOf(yield* Fiber.await(under)) as Lock.LockLost, { reason: "Released" })
          assert.lengthOf(yield* world.line("job"), 0)
          assert.include((yield* Effect.flip(lock.check)) as Lock.LockLost, { reason: "Released" })
          assert.include((yield* Effect.flip(lock.verify)) as Lock.LockLost, { reason: "Released" })
          yield* lock.release
        })))
      }))
  })

  describe("a lease of one's own", () => {
    it.live("takes the lock with it when it goes", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const a = yield* world.process()
        const scope = yield* Scope.make()
        const lease = yield* Lease.make({ ttl: "10 seconds" }).pipe(
          Scope.provide(scope),
          Effect.provideService(Etcd.Etcd, world.etcd)
        )
        const holder = yield* holdIn(a, "job", { lease })
        assert.strictEqual((yield* holder.held).leaseId, lease.id)
        // another fiber, on the session's lease, waits behind it
        const next = yield* holdIn(a, "job")
        yield* Scope.close(scope, Exit.void)
        assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "Released" })
        assert.notStrictEqual((yield* next.held).leaseId, lease.id)
        yield* next.release
        const error = yield* Effect.flip(a.run(Lock.withLock(Effect.void, "job", { lease })))
        assert.include(error as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
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
        const waiting = yield* holdIn(b, "job")
        yield* world.untilLine("job", 2)
        const found = yield* b.run(Lock.inspect("job"))
        assert.include(found.holder, { key: handle.key, leaseId: handle.leaseId, pid: process.pid })
        assert.deepStrictEqual(found.holder?.metadata, { team: "blue" })
        assert.isAbove(Duration.toSeconds(found.holder!.remaining!), 5)
        assert.lengthOf(found.queue, 1)
        assert.deepStrictEqual(found.conflicts, [])
        yield* holder.release
        yield* waiting.release
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen.at(-1), [false, 0])))
        assert.deepInclude(seen, [true, 0])
        assert.deepInclude(seen, [true, 1])
        yield* Fiber.interrupt(watching)
        yield* world.etcd.txn({ then: [Etcd.put("job/config", "x")] })
        assert.deepStrictEqual((yield* b.run(Lock.inspect("job"))).conflicts, [
          { key: "job/config", kind: "PlainKey" }
        ])
        yield* world.etcd.txn({ then: [Etcd.remove("job/config")] })
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
