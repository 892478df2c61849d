import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Option, Ref, Scope } from "effect"
import { Etcd, Lease, Lock, type Semaphore, type Session } from "effect-etcd-lock"
import { hostname } from "node:os"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { hold } from "../support/holdIn.ts"
import * as Recipes from "../support/recipes.ts"
import type * as World from "../support/World.ts"

/** A recipe, and what there is to know of it to test what all of them promise. */
interface Row extends Recipes.Recipe {
  /** What is in its way. */
  readonly blocker: Recipes.Recipe
  /** How many hold at a time. */
  readonly fits: number
  /** The error of a try that is refused. */
  readonly refusal: "LockHeld" | "PermitsUnavailable"
  /** Whether those who wait stand in a line that etcd knows. */
  readonly hasLine: boolean
  /** Whether the entry of a holder describes it. */
  readonly hasDescription: boolean
}

const row = (own: Recipes.Recipe, others?: Partial<Row>): Row => ({
  ...own,
  blocker: own,
  fits: 1,
  refusal: "LockHeld",
  hasLine: true,
  hasDescription: true,
  ...others
})

const rows: Record<string, Row> = {
  "a lock": row(Recipes.lock()),
  "a single key": row(Recipes.lock("single-key"), { hasLine: false }),
  "an election": row(Recipes.election, { hasDescription: false }),
  "a write lock": row(Recipes.write),
  "a write lock behind a reader": row(Recipes.write, { blocker: Recipes.read }),
  "a read lock": row(Recipes.read, { blocker: Recipes.write, fits: Infinity }),
  "a semaphore": row(Recipes.permits(2, 5), {
    blocker: Recipes.permits(4, 5),
    fits: 2,
    refusal: "PermitsUnavailable"
  }),
  "a semaphore of one permit": row(Recipes.permits(1, 1), { refusal: "PermitsUnavailable" })
}

/** What every recipe promises, on whatever etcd the world has. */
export const suite = (makeWorld: Effect.Effect<World.World, never, Scope.Scope>) => {
  for (const [name, recipe] of Object.entries(rows)) {
    describe.concurrent(name, () => {
      const { acquire, blocker, fits, hasDescription, hasLine, refusal, tryAcquire, tryWithLock, withLock } = recipe
      const { withLockIfAvailable } = recipe
      const shown = ({ leaseId }: Lock.Handle) =>
        hasDescription ? `${hostname()} (process ${process.pid})` : `lease ${leaseId.toString(16)}`

      const line = (world: World.World) =>
        hasLine ? world.line("job") : Effect.orDie(Effect.map(world.etcd.range(Etcd.get("job")), ({ kvs }) => kvs))

      /** Waits until so many have joined. */
      const joined = (world: World.World, length: number) =>
        hasLine ? world.untilLine("job", length) : Effect.sleep(200)

      const holdIn = (process: World.Process, options?: Recipes.Options) => hold(process, acquire("job", options))

      const block = Effect.fnUntraced(function*(process: World.Process, options?: Recipes.Options) {
        const holder = yield* hold(process, blocker.acquire("job", options))
        return { ...holder, handle: yield* holder.held }
      })

      const remove = ({ etcd }: World.World, key: string | Uint8Array) => etcd.txn({ then: [Etcd.remove(key)] })

      const revoke = ({ etcd }: World.World) => ({ leaseId }: Lock.Handle) => etcd.leaseRevoke(leaseId)

      describe.concurrent("that is free", () => {
        it.live("runs the body, answers what it answers, and is free again", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            const noted: Array<number> = []
            const body = Effect.map(line(world), ({ length }) => noted.push(length))
            const under = (handle: Lock.Handle) =>
              Effect.gen(function*() {
                const [entry] = yield* line(world)
                assert.strictEqual(Buffer.from(entry!.key).toString(), handle.key)
                assert.strictEqual(entry!.createRevision, handle.createRevision)
                assert.strictEqual(entry!.lease, handle.leaseId)
                assert.strictEqual(handle.fencingToken, handle.createRevision)
                yield* handle.verify
                return yield* body
              })
            assert.strictEqual(yield* run(withLock(body, "job")), 1)
            assert.lengthOf(yield* line(world), 0)
            assert.strictEqual(yield* run(tryWithLock(body, "job")), 2)
            assert.lengthOf(yield* line(world), 0)
            assert.strictEqual(yield* run(Effect.scoped(Effect.flatMap(acquire("job"), under))), 3)
            assert.lengthOf(yield* line(world), 0)
            assert.strictEqual(yield* run(Effect.scoped(Effect.flatMap(tryAcquire("job"), under))), 4)
            assert.lengthOf(yield* line(world), 0)
            assert.deepStrictEqual(yield* run(withLockIfAvailable(body, "job")), Option.some(5))
            assert.deepStrictEqual(noted, [1, 1, 1, 1, 1])
            assert.lengthOf(yield* line(world), 0)
          }))

        it.live("is released when the body fails, dies, or is interrupted", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            const failed = yield* Effect.exit(run(withLock(Effect.fail("boom"), "job")))
            assert.strictEqual(failureOf(failed), "boom")
            assert.lengthOf(yield* line(world), 0)
            const died = yield* Effect.exit(run(withLock(Effect.die("bug"), "job")))
            assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
            assert.lengthOf(yield* line(world), 0)
            const cleaned = yield* Ref.make(-1)
            const started = yield* Deferred.make<void>()
            const body = Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
              Effect.onInterrupt(() => Effect.flatMap(line(world), (line) => Ref.set(cleaned, line.length)))
            )
            const fiber = yield* Effect.forkChild(run(withLock(body, "job")), { startImmediately: true })
            yield* Deferred.await(started)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* Ref.get(cleaned), 1, "the body's cleanup ran under the lock")
            assert.lengthOf(yield* line(world), 0)
          }))

        it.live("rejects names that would be other keys than they seem", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            for (const name of ["", "/", "a/", "/a", "a//b", "\ud800"]) {
              const defect = defectOf(yield* Effect.exit(run(withLock(Effect.void, name))))
              assert.instanceOf(defect, RangeError)
              assert.include((defect as Error).message, JSON.stringify(name))
            }
          }))
      })

      describe.concurrent("that is held", () => {
        it.live("refuses a try, and leaves no key", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const [a, b] = yield* Effect.all([world.process(), world.process()])
            const { handle, release } = yield* block(a, { metadata: { team: "blue" } })
            for (const { run } of [a, b]) {
              const error = yield* Effect.flip(run(tryWithLock(Effect.void, "job")))
              assert.include(error as object, { _tag: refusal, lock: "job" })
              if (error instanceof Lock.LockHeld) {
                assert.include(error.message, `'job' is held by ${shown(handle)}`)
                assert.include(error.holder, { key: handle.key, leaseId: handle.leaseId })
                assert.deepStrictEqual(error.holder?.metadata, hasDescription ? { team: "blue" } : undefined)
              } else {
                assert.isBelow((error as Semaphore.PermitsUnavailable).available, 2)
              }
              assert.strictEqual((yield* Effect.flip(Effect.scoped(run(tryAcquire("job")))))._tag, refusal)
              assert.deepStrictEqual(yield* run(withLockIfAvailable(Effect.void, "job")), Option.none())
            }
            assert.lengthOf(yield* line(world), 1)
            yield* release
            assert.deepStrictEqual(yield* b.run(withLockIfAvailable(Effect.succeed(1), "job")), Option.some(1))
          }))

        it.live("lets no more through than may hold", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const processes = yield* Effect.all([world.process(), world.process(), world.process()])
            const contenders = processes.flatMap((process) => [process, process])
            const fit = Math.min(fits, contenders.length)
            for (let round = 0; round < 10; round++) {
              let inside = 0
              let most = 0
              const body = Effect.acquireUseRelease(
                Effect.sync(() => {
                  most = Math.max(most, ++inside)
                }),
                () => Effect.sleep(5),
                () => Effect.sync(() => inside--)
              )
              const tried = yield* Effect.forEach(contenders, ({ run }) => run(withLockIfAvailable(body, "job")), {
                concurrency: "unbounded"
              })
              assert.isAtLeast(tried.filter(Option.isSome).length, 1)
              yield* Effect.forEach(contenders, ({ run }) => run(withLock(body, "job")), { concurrency: "unbounded" })
              assert.isAtMost(most, fit)
            }
            // As many as may, do.
            const all = yield* Deferred.make<void>()
            let inside = 0
            const meet = Effect.suspend(() => ++inside === fit ? Deferred.succeed(all, undefined) : Deferred.await(all))
            yield* Effect.forEach(contenders, ({ run }) => run(withLock(meet, "job")), { concurrency: "unbounded" })
            assert.strictEqual(inside, contenders.length)
          }))

        it.live("times out a waiter with how long and who, and the waiter is gone from the line", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const [a, b] = yield* Effect.all([world.process(), world.process()])
            const { handle, release } = yield* block(a)
            for (const { run } of [a, b]) {
              const error = yield* Effect.flip(run(withLock(Effect.void, "job", { timeout: 1000 })))
              assert.instanceOf(error, Lock.LockTimeout)
              assert.isAtLeast(Duration.toMillis(error.waited), 1000)
              assert.strictEqual(error.holder?.key, handle.key)
              assert.match(error.message, /'job' was not acquired within .*; it is held by /)
              assert.include(error.message, shown(handle))
              yield* joined(world, 1)
            }
            yield* release
          }))

        it.live("is tried once with a timeout of zero, which takes it as soon as it is free", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const [a, b] = yield* Effect.all([world.process(), world.process()])
            const once = withLock(line(world), "job", { timeout: 0 })
            const { handle, release } = yield* block(a)
            for (const { run } of [a, b]) {
              const error = yield* Effect.flip(run(once))
              assert.instanceOf(error, Lock.LockTimeout)
              assert.strictEqual(error.holder?.key, handle.key)
              assert.strictEqual(Duration.toMillis(error.waited), 0)
              assert.lengthOf(yield* line(world), 1)
            }
            yield* release
            for (const { run } of [a, b]) assert.lengthOf(yield* run(once), 1)
          }))

        it.live("is promptly left by an interrupted waiter, at every stage", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const [a, b] = yield* Effect.all([world.process(), world.process()])
            const { release } = yield* block(a)
            // from before the grant of b's lease to well into the wait
            for (let delay = 0; delay < 40; delay++) {
              const waiting = yield* holdIn(b)
              const local = yield* holdIn(b)
              yield* Effect.sleep(delay / 4)
              yield* Fiber.interrupt(waiting.fiber)
              yield* Fiber.interrupt(local.fiber)
            }
            yield* joined(world, 1)
            yield* release
            yield* b.run(withLock(Effect.void, "job"))
          }))

        it.live("and taken by fibers that are interrupted at any moment is free afterwards", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const processes = yield* Effect.all([world.process(), world.process()])
            yield* Effect.forEach(processes, ({ run }, index) =>
              Effect.gen(function*() {
                for (let delay = 0; delay < 60; delay++) {
                  const fiber = yield* Effect.forEach([1, 2], () => withLock(Effect.sleep(1), "job"), {
                    concurrency: 2
                  }).pipe(run, Effect.forkChild({ startImmediately: true }))
                  yield* Effect.sleep(delay / 5 + index)
                  yield* Fiber.interrupt(fiber)
                }
              }), { concurrency: "unbounded" })
            // A join that was under way is still to be answered, and only then leaves again.
            yield* processes[0]!.run(withLock(Effect.void, "job", { timeout: "5 seconds" }))
            yield* joined(world, 0)
          }))

        it.live("serves all fibers of all processes, and the tokens of those who exclude each other increase", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const processes = yield* Effect.all([world.process(), world.process(), world.process()])
            const tokens: Array<bigint> = []
            const enter = Effect.scoped(Effect.tap(acquire("job"), (handle) => {
              tokens.push(handle.fencingToken)
              return handle.verify
            }))
            yield* Effect.all(
              processes.flatMap(({ run }) => Array.from({ length: 8 }, () => run(enter))),
              { concurrency: "unbounded" }
            )
            assert.lengthOf(tokens, 24)
            if (fits === 1) {
              assert.deepStrictEqual(tokens, tokens.toSorted((x, y) => x < y ? -1 : 1))
              assert.strictEqual(new Set(tokens).size, 24)
            }
          }))
      })

      if (hasLine) {
        describe.concurrent("with a line", () => {
          it.live("is handed over in the order of arrival, across processes and fibers", () =>
            Effect.gen(function*() {
              const world = yield* makeWorld
              const [a, b, c, d] = yield* Effect.all(Array.from({ length: 4 }, () => world.process()))
              const order: Array<string> = []
              const enter = (name: string, { run }: World.Process, acquire: Recipes.Recipe["acquire"]) =>
                Effect.scoped(Effect.gen(function*() {
                  const handle = yield* acquire("job")
                  order.push(name)
                  yield* handle.verify
                  return handle.fencingToken
                })).pipe(run, Effect.forkChild({ startImmediately: true }))
              // Each of these is in the way of the next.
              const { handle, release } = yield* block(a!)
              const fibers = [yield* enter("b", b!, acquire)]
              yield* world.untilLine("job", 2)
              fibers.push(yield* enter("c", c!, blocker.acquire))
              yield* world.untilLine("job", 3)
              fibers.push(yield* enter("d", d!, acquire))
              yield* world.untilLine("job", 4)
              // It queues inside d, or behind it.
              fibers.push(yield* enter("d2", d!, blocker.acquire))
              yield* Effect.sleep(50)
              assert.deepStrictEqual(order, [])
              yield* release
              const tokens = yield* Effect.forEach(fibers, Fiber.join)
              assert.deepStrictEqual(order, ["b", "c", "d", "d2"])
              for (const [i, token] of tokens.entries()) assert.isTrue(token > [handle.fencingToken, ...tokens][i]!)
            }))

          it.live("is not handed on early when a waiter in the middle leaves, dies or is deleted", () =>
            Effect.gen(function*() {
              const world = yield* makeWorld
              const [a, b, c, d, e] = yield* Effect.all(Array.from({ length: 5 }, () => world.process()))
              const { release } = yield* block(a!)
              const interrupted = yield* holdIn(b!)
              yield* world.untilLine("job", 2)
              const dying = yield* holdIn(c!)
              yield* world.untilLine("job", 3)
              const deleted = yield* holdIn(d!)
              yield* world.untilLine("job", 4)
              const last = yield* holdIn(e!)
              yield* world.untilLine("job", 5)
              yield* Fiber.interrupt(interrupted.fiber)
              yield* world.untilLine("job", 4)
              const [, second, third] = yield* line(world)
              yield* world.etcd.leaseRevoke(second!.lease)
              const died = failureOf(yield* Fiber.await(dying.fiber))
              assert.instanceOf(died, Lock.LockLost)
              assert.include(died as Lock.LockLost, { reason: "KeyDeleted", fencingToken: undefined })
              yield* remove(world, third!.key)
              assert.include(failureOf(yield* Fiber.await(deleted.fiber)) as Lock.LockLost, { reason: "KeyDeleted" })
              assert.isFalse(yield* last.isHeld)
              yield* release
              yield* last.held
              yield* last.release
            }))

          // etcd issue 16221: such a waiter of etcd's own recipe entered, and two writers held.
          it.live("lets no waiter in whose lease was revoked while it waited", () =>
            Effect.gen(function*() {
              const world = yield* makeWorld
              const [a, b, c] = yield* Effect.all([world.process(), world.process(), world.process()])
              const { release } = yield* block(a)
              const waiting = yield* holdIn(b)
              yield* world.untilLine("job", 2)
              const [, { lease }] = (yield* line(world)) as [Etcd.KeyValue, Etcd.KeyValue]
              const next = yield* hold(c, blocker.acquire("job"))
              yield* world.untilLine("job", 3)
              // Its key goes together with its lease, and right after that the one before it leaves.
              yield* world.etcd.leaseRevoke(lease)
              yield* release
              yield* next.held
              const lost = { _tag: "LockLost", fencingToken: undefined } as const
              assert.include((yield* Effect.flip(waiting.held)) as Lock.LockLost, lost)
              yield* next.release
            }))
        })
      }

      describe.concurrent(`that is lost (${cite("P3")})`, () => {
        it.live("interrupts and awaits the body, and fails with LockLost: the lease was revoked from outside", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process({ ttl: "3 seconds" })
            const steps: Array<string> = []
            const handle = yield* Deferred.make<Lock.Handle>()
            const fiber = yield* Effect.scoped(Effect.gen(function*() {
              const lock = yield* acquire("job")
              yield* Deferred.succeed(handle, lock)
              return yield* lock.whileHeld(Effect.never.pipe(
                Effect.onInterrupt(() => Effect.andThen(Effect.sleep(100), Effect.sync(() => steps.push("cleaned"))))
              ))
            })).pipe(run, Effect.ensuring(Effect.sync(() => steps.push("over"))), Effect.forkChild)
            const { fencingToken, leaseId } = yield* Deferred.await(handle)
            yield* world.etcd.leaseRevoke(leaseId)
            const error = failureOf(yield* Fiber.await(fiber))
            assert.include(error as Lock.LockLost, { _tag: "LockLost", fencingToken })
            assert.deepStrictEqual(steps, ["cleaned", "over"])
            // the next lock of the same session gets a new lease
            yield* run(Effect.scoped(Effect.gen(function*() {
              const next = yield* acquire("job")
              assert.notStrictEqual(next.leaseId, leaseId)
              assert.isTrue(next.fencingToken > fencingToken)
            })))
          }))

        it.live("is noticed when its key is deleted, also for a hold that began without a watch", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const process = yield* world.process({ ttl: "60 seconds" })
            for (const heldFor of [0, 100, 400]) {
              const holder = yield* holdIn(process)
              const { key } = yield* holder.held
              yield* Effect.sleep(heldFor)
              yield* remove(world, key)
              const exit = yield* Fiber.await(holder.fiber)
              assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
            }
          }))

        it.live("fails a body that ends before it could hear of that", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process({ ttl: "60 seconds" })
            const body = Effect.flatMap(Lock.Current, ({ key }) => Effect.as(remove(world, key), "ended by itself"))
            for (const within of [withLock, tryWithLock, withLockIfAvailable]) {
              const exit = yield* Effect.exit(
                run(within(body, "job") as Effect.Effect<unknown, unknown, Session.Session>)
              )
              assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
            }
            // One after the other, they take it at once.
            yield* run(withLock(Effect.void, "job"))
          }))

        it.live("is free for its own process at once, while its handle is not released", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process({ ttl: "60 seconds" })
            const enter = Effect.scoped(Effect.flatMap(tryAcquire("job"), ({ verify }) => verify))
            yield* run(Effect.scoped(Effect.gen(function*() {
              for (const lose of [(lock: Lock.Handle) => remove(world, lock.key), revoke(world)]) {
                const lock = yield* acquire("job")
                yield* lose(lock)
                yield* Effect.flip(lock.awaitLoss)
                yield* enter
                // Its body keeps the others out for as long as it runs.
                const again = yield* acquire("job")
                const cleaning = yield* Deferred.make<void>()
                const body = Effect.onInterrupt(Effect.never, () => Deferred.await(cleaning))
                const under = yield* Effect.forkChild(again.whileHeld(body), { startImmediately: true })
                yield* lose(again)
                yield* Effect.flip(again.awaitLoss)
                if (fits === 1) {
                  assert.strictEqual((yield* Effect.flip(Effect.exit(enter).pipe(Effect.flatten)))._tag, refusal)
                }
                yield* Deferred.succeed(cleaning, undefined)
                assert.include(failureOf(yield* Fiber.await(under)) as Lock.LockLost, { _tag: "LockLost" })
                yield* enter
              }
            })))
            assert.lengthOf(yield* line(world), 0)
          }))

        it.live("is held again and again by a loop that acquires it in one scope", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process({ ttl: "60 seconds" })
            const tokens: Array<bigint> = []
            const term = Effect.gen(function*() {
              const lock = yield* acquire("job")
              tokens.push(lock.fencingToken)
              yield* Effect.exit(lock.whileHeld(Effect.andThen(remove(world, lock.key), Effect.never)))
            })
            yield* run(Effect.scoped(Effect.repeat(term, { times: 4 })))
            assert.lengthOf(new Set(tokens), 5)
          }))

        it.live("cannot be written through, and the refusal is a loss", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            yield* run(Effect.scoped(Effect.gen(function*() {
              const lock = yield* acquire("job")
              const create = (value: string) =>
                lock.txn({
                  compare: [Etcd.compareCreateRevision("counter", "=", 0n)],
                  then: [Etcd.put("counter", value)],
                  else: [Etcd.get("counter")]
                })
              assert.isTrue((yield* create("1")).succeeded)
              const again = yield* create("2")
              assert.isTrue(!again.succeeded && Buffer.from(again.responses[0].kvs[0]!.value).toString() === "1")
              yield* lock.verify
              yield* lock.check
              yield* remove(world, lock.key)
              const refused = yield* Effect.flip(lock.txn({ then: [Etcd.put("counter", "3")] }))
              assert.include(refused as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
              assert.include((yield* Effect.flip(lock.check)) as Lock.LockLost, { reason: "KeyDeleted" })
              assert.include((yield* Effect.flip(lock.awaitLoss)) as Lock.LockLost, { reason: "KeyDeleted" })
              assert.strictEqual(Duration.toMillis(yield* lock.remaining), 0)
              const { kvs } = yield* world.etcd.range(Etcd.get("counter"))
              assert.strictEqual(Buffer.from(kvs[0]!.value).toString(), "1")
              yield* remove(world, "counter")
            })))
          }))

        it.live("is noticed by verify, even if a new key of the same name stands there", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            yield* run(Effect.scoped(Effect.gen(function*() {
              const lock = yield* acquire("job")
              yield* remove(world, lock.key)
              yield* world.etcd.txn({ then: [Etcd.put(lock.key, "", { lease: lock.leaseId })] })
              assert.include((yield* Effect.flip(lock.verify)) as Lock.LockLost, { reason: "KeyDeleted" })
            })))
          }))

        it.live("keeps what the body failed with beside the loss", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            const started = yield* Deferred.make<void>()
            const body = Effect.gen(function*() {
              const lock = yield* Lock.Current
              yield* Deferred.succeed(started, undefined)
              yield* Effect.exit(lock.awaitLoss)
              // It is interrupted by now, and goes on.
              yield* Effect.sleep(100)
              return yield* Effect.fail("own failure")
            }).pipe(Effect.uninterruptible)
            const fiber = yield* Effect.forkChild(run(withLock(body, "job")))
            yield* Deferred.await(started)
            const [entry] = yield* line(world)
            yield* remove(world, entry!.key)
            const exit = yield* Fiber.await(fiber)
            assert.isTrue(Exit.isFailure(exit))
            const errors = Exit.isFailure(exit)
              ? exit.cause.reasons.map((reason) => "error" in reason ? reason.error : reason)
              : []
            assert.include(errors[0] as Lock.LockLost, { _tag: "LockLost" })
            assert.strictEqual(errors[1], "own failure")
          }))

        it.live("with its handle released fails whatever still runs under it", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const { run } = yield* world.process()
            yield* run(Effect.scoped(Effect.gen(function*() {
              const lock = yield* acquire("job")
              const under = yield* Effect.forkChild(lock.whileHeld(Effect.never), { startImmediately: true })
              yield* lock.release
              assert.include(failureOf(yield* Fiber.await(under)) as Lock.LockLost, { reason: "Released" })
              assert.lengthOf(yield* line(world), 0)
              assert.include((yield* Effect.flip(lock.check)) as Lock.LockLost, { reason: "Released" })
              assert.include((yield* Effect.flip(lock.verify)) as Lock.LockLost, { reason: "Released" })
              yield* lock.release
            })))
          }))

        it.live("goes with a lease of the caller's own", () =>
          Effect.gen(function*() {
            const world = yield* makeWorld
            const process = yield* world.process()
            const scope = yield* Scope.make()
            const lease = yield* Lease.make({ ttl: "10 seconds" }).pipe(
              Scope.provide(scope),
              Effect.provideService(Etcd.Etcd, world.etcd)
            )
            const holder = yield* holdIn(process, { lease })
            assert.strictEqual((yield* holder.held).leaseId, lease.id)
            // another fiber, on the session's lease, waits behind it
            const next = yield* hold(process, blocker.acquire("job"))
            yield* Scope.close(scope, Exit.void)
            assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "Released" })
            assert.notStrictEqual((yield* next.held).leaseId, lease.id)
            yield* next.release
            const error = yield* Effect.flip(process.run(withLock(Effect.void, "job", { lease })))
            assert.include(error as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
          }))
      })
    })
  }
}
