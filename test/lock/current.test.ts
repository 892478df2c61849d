import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, type Exit, Fiber, Option } from "effect"
import { Etcd, Lock, type Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { defectOf, failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, session } from "../support/inMemory.ts"
import * as Recipes from "../support/recipes.ts"

const keyOfCurrent = Effect.map(Lock.Current, ({ key }) => key)

/** Code deep in a program, which has no handle. */
const save = (value: string) => Effect.flatMap(Lock.Current, ({ txn }) => txn({ then: [Etcd.put("edition", value)] }))

const ownLock =
  /^Lock 'job' is already held by this fiber: it would wait for itself\. .*Lock\.Current.* another name\.$/

describe("Lock.Current", () => {
  it.effect("is the handle of the section that it is in, whichever way that was entered", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const etcd = yield* Etcd.Etcd
      const current = Effect.gen(function*() {
        const { createRevision, fencingToken, key, leaseId } = yield* Lock.Current
        const { kvs: [kv] } = yield* etcd.range(Etcd.get(key))
        return kv !== undefined && kv.createRevision === createRevision && kv.lease === leaseId &&
          fencingToken === createRevision
      })
      assert.isTrue(yield* run(Lock.withLock(current, "job")))
      assert.isTrue(yield* run(Lock.tryWithLock(current, "job")))
      assert.deepStrictEqual(yield* run(Lock.withLockIfAvailable(current, "job")), Option.some(true))
      yield* run(Effect.scoped(Effect.gen(function*() {
        const handle = yield* Lock.acquire("job")
        assert.strictEqual(yield* handle.whileHeld(Lock.Current), handle)
      })))
    })))

  it.effect("is that of the innermost section, and of the outer one again when that has ended", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const keys = yield* run(Lock.withLock(
        Effect.all([keyOfCurrent, Lock.withLock(keyOfCurrent, "inner"), keyOfCurrent]),
        "outer"
      ))
      assert.deepStrictEqual(keys.map((key) => key.split("/", 1)[0]), ["outer", "inner", "outer"])
    })))

  it.effect("is seen by the fibers that a body forks", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const [own, forked] = yield* run(Lock.withLock(
        Effect.all([keyOfCurrent, Effect.flatMap(Effect.forkChild(keyOfCurrent), Fiber.join)]),
        "job"
      ))
      assert.strictEqual(own, forked)
    })))

  it.effect("fences a write deep in the program", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const faults = yield* Etcd.Faults
      yield* run(Lock.withLock(save("first"), "job"))
      const late = yield* Effect.gen(function*() {
        yield* faults.deletePrefix("job/")
        return yield* Effect.exit(save("second"))
      }).pipe(Lock.withLock("job"), run, Effect.exit)
      assert.include(failureOf(late) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
      const etcd = yield* Etcd.Etcd
      const { kvs: [edition] } = yield* etcd.range(Etcd.get("edition"))
      assert.strictEqual(Buffer.from(edition!.value).toString(), "first")
    })))
})

describe("a wait for the lock that the fiber holds itself", () => {
  it.effect.each(
    [
      ["in the body", (inner: Inner) => inner],
      ["under another lock in between", (inner: Inner) => Lock.withLock(inner, "other")],
      ["in a fiber that the body forks", (inner: Inner) => Effect.flatMap(Effect.forkChild(inner), Fiber.join)],
      ["within a timeout", (inner: Inner) => Effect.timeout(inner, "1 minute")],
      ["in parallel with others", (inner: Inner) => Effect.all([inner, Effect.never], { concurrency: 2 })]
    ] as const
  )("is a defect that says so: %s", ([, around]) =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      for (
        const [inner, outer] of [
          [Lock.withLock(Effect.void, "job"), Lock.withLock("job")],
          [Lock.withLock(Effect.void, "job", { timeout: "1 second" }), Lock.tryWithLock("job")],
          [Effect.scoped(Effect.asVoid(Lock.acquire("job"))), Lock.withLockIfAvailable("job")],
          [Effect.asVoid(Lock.withLockOnce(Effect.void, "job", { run: "1" })), Lock.withLock("job")],
          [Lock.withLock(Effect.void, "job"), Lock.withLockOnce("job", { run: "2" })],
          [
            Lock.withLock(Effect.void, "job", { layout: "single-key" }),
            Lock.withLock("job", { layout: "single-key" })
          ]
        ] as const
      ) {
        const exit = yield* run(Effect.exit(outer(around(inner))))
        assert.match((defectOf(exit) as Error).message, ownLock)
      }
      const held = Effect.scoped(Effect.flatMap(
        Lock.acquire("job"),
        ({ whileHeld }) => whileHeld(around(Lock.withLock(Effect.void, "job")))
      ))
      assert.match((defectOf(yield* run(Effect.exit(held))) as Error).message, ownLock)
      // Nothing is left, and the lock is free.
      yield* run(Lock.tryWithLock(Effect.void, "job"))
    })))

  it.effect("is a defect also in what a body does while it is interrupted, and for as long as it runs", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const faults = yield* Etcd.Faults
      const undo = yield* Deferred.make<Exit.Exit<void, unknown>>()
      const body = Effect.onInterrupt(
        Effect.never,
        () => Effect.flatMap(Effect.exit(Lock.withLock(Effect.void, "job")), (exit) => Deferred.succeed(undo, exit))
      )
      const running = yield* fork(Effect.exit(run(Lock.withLock(body, "job"))))
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      assert.match((defectOf(yield* Deferred.await(undo)) as Error).message, ownLock)
      assert.strictEqual((failureOf(yield* Fiber.join(running)) as Lock.LockLost)._tag, "LockLost")
    })))

  it.effect("is refused like any other where it does not wait", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const inside = yield* Effect.all([
        Effect.flip(Lock.tryWithLock(Effect.void, "job")),
        Effect.flip(Lock.withLock(Effect.void, "job", { timeout: 0 })),
        Lock.withLockIfAvailable(Effect.void, "job")
      ]).pipe(Lock.withLock("job"), run)
      const [held, timeout, none] = inside
      assert.deepStrictEqual([held._tag, timeout._tag, none], ["LockHeld", "LockTimeout", Option.none()])
    })))

  it.effect("is none for another name, another layout or another etcd", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), Effect.provide(session(), Etcd.layerMemory())])
      const inner = Effect.all([
        Lock.withLock(Effect.succeed("name"), "other"),
        Lock.withLock(Effect.succeed("layout"), "job", { layout: "single-key" }),
        b.run(Lock.withLock(Effect.succeed("etcd"), "job"))
      ])
      const running = yield* fork(a.run(Lock.withLock(inner, "job")))
      for (let i = 0; i < 5; i++) yield* pass("1 second")
      assert.deepStrictEqual(yield* Fiber.join(running), ["name", "layout", "etcd"])
    })))

  for (const [name, recipe] of Object.entries(Recipes.exclusive)) {
    it.effect(`is one through another session of the program, too (${name})`, () =>
      provideMemory(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const inner = b.run(recipe.withLock(Effect.void, "job"))
        const running = yield* fork(a.run(recipe.withLock(inner, "job")))
        yield* pass("1 second")
        assert.match(String(defectOf(running.pollUnsafe()!)), /^Error: \w+ 'job' .* this fiber/)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("is none once the body has ended, for what it left running", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const later = yield* Effect.forkDetach(
        Effect.andThen(Effect.sleep("1 second"), Lock.withLock(Effect.succeed("later"), "job"))
      ).pipe(Lock.withLock("job"), run)
      yield* pass("1 second")
      assert.strictEqual(yield* Fiber.join(later), "later")
    })))

  it.effect("is none for a fiber that leaves the section by omitting Lock.Current", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const next = Lock.withLock(keyOfCurrent, "job").pipe(
        // It may hold other locks, and not wait for those.
        Lock.withLock("other"),
        Effect.updateContext(Context.omit(Lock.Current)<any>)
      )
      const running = yield* Effect.forkDetach(next, { startImmediately: true }).pipe(
        Effect.tap(() => Effect.sleep("1 second")),
        Lock.withLock("job"),
        run,
        fork
      )
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(running.pollUnsafe())
      yield* pass("1 second")
      const waited = yield* Fiber.join(running)
      assert.match(yield* Fiber.join(waited), /^job\//)
    })))
})

type Inner = Effect.Effect<void, Lock.AcquireError, Session.Session>
