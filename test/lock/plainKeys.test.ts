/** Keys on no lease in a line, which any client may put at any moment. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Etcd, Lease, Lock, type Session } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { counted, fork, keys, pass, type Process, provideMemory, session, sessionThrough } from "../support/inMemory.ts"
import * as Recipes from "../support/recipes.ts"

const put = (key: string) => Etcd.Etcd.use((etcd) => etcd.txn({ then: [Etcd.put(key, "edited")] }))

/** Holds a lock until the test's end, and returns the key. */
const held = Effect.fnUntraced(function*({ run }: Process, recipe: Recipes.Recipe) {
  const key = yield* Deferred.make<string>()
  yield* Lock.Current.pipe(
    Effect.flatMap((lock) => Deferred.succeed(key, lock.key)),
    Effect.andThen(Effect.never),
    (body) => recipe.withLock(body, "job"),
    run,
    Effect.forkScoped({ startImmediately: true })
  )
  return yield* Deferred.await(key)
})

describe("a key on no lease that has the name of a session's next entry", () => {
  const recipes: ReadonlyArray<readonly [string, Recipes.Recipe]> = [
    ["a lock", Recipes.lock()],
    ["several locks", Recipes.several("other")],
    ["a write lock", Recipes.write],
    ["a semaphore", Recipes.permits(1, 1)],
    ["an election", Recipes.election]
  ]
  for (const way of ["withLock", "tryWithLock"] as const) {
    it.effect.each(recipes)(
      `gives no %s to who takes it by ${way} beside the holder`,
      ([, recipe]) =>
        Effect.gen(function*() {
          const [a, b] = [yield* session(), yield* session()]
          const key = yield* a.run(recipe.withLock(Effect.map(Lock.Current, ({ key }) => key), "job"))
          yield* held(b, recipe)
          yield* put(key)
          let ran = false
          const body = Effect.sync(() => {
            ran = true
          })
          const fiber = yield* fork(a.run(Effect.asVoid<void, unknown, Session.Session>(recipe[way](body, "job"))))
          yield* pass("1 second")
          assert.isFalse(ran)
          yield* Fiber.interrupt(fiber)
        }).pipe(Effect.scoped, provideMemory)
    )
  }

  it.effect("gives no permits to who tries, though another client has joined since the line was read", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(7n, 600)
      const recipe = Recipes.permits(1, 1)
      const other = Etcd.put("job/7-1-1of1", "", { lease: 7n })
      let key = ""
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) =>
          Effect.tap(etcd.txn(request), () => {
            if (key === "") return Effect.void
            const plain = key
            key = ""
            return Effect.forEach([other, Etcd.put(plain, "edited")], (put) => etcd.txn({ then: [put] }))
          })
      }))
      const next = yield* run(recipe.withLock(Effect.map(Lock.Current, ({ key }) => key), "job"))
      // A try that was refused just now reads first.
      yield* etcd.txn({ then: [other] })
      yield* Effect.exit(run(Effect.asVoid<void, unknown, Session.Session>(recipe.tryWithLock(Effect.void, "job"))))
      yield* etcd.txn({ then: [Etcd.remove("job/7-1-1of1")] })
      key = next
      const tried = yield* fork(run(recipe.tryWithLock(Effect.succeed("ran"), "job")))
      yield* pass("1 second")
      assert.include(failureOf(tried.pollUnsafe()) as object, { _tag: "LockLost", reason: "KeyDeleted" })
    }).pipe(provideMemory))
})

describe("a key on no lease", () => {
  for (const [form, key] of [["of any name", "job/config"], ["named like a lease", "job/4d"]] as const) {
    it.effect(`${form} is no holder to one whose time is up`, () =>
      Effect.gen(function*() {
        const { run } = yield* session()
        yield* put(key)
        for (const wait of [Lock.withLock("job", { timeout: 500 }), Lock.withLocks(["job", "b"], { timeout: 500 })]) {
          const fiber = yield* fork(run(wait(Effect.void)))
          yield* pass("1 second")
          assert.include(failureOf(fiber.pollUnsafe()) as Lock.LockNameConflict, {
            _tag: "LockNameConflict",
            key,
            kind: "PlainKey"
          })
        }
      }).pipe(provideMemory))
  }

  it.effect("named like a lease is told to all fibers of a process once it is known", () =>
    Effect.gen(function*() {
      const { run } = yield* session()
      yield* put("job/4d")
      const fibers = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => fork(run(Lock.withLock(Effect.void, "job")))
      )
      yield* pass("3 seconds")
      yield* Effect.repeat(pass(5), { times: 40 })
      for (const fiber of fibers) assert.include(failureOf(fiber.pollUnsafe()) as object, { _tag: "LockNameConflict" })
    }).pipe(provideMemory))

  it.effect("which has lost its lease while it was waited for ends the wait", () =>
    Effect.gen(function*() {
      const { run } = yield* session({ ttl: "60 seconds" })
      for (const layout of ["queue", "single-key"] as const) {
        const key = layout === "queue" ? "job/4d" : "job"
        const { id } = yield* Lease.make({ ttl: "600 seconds" })
        yield* Etcd.Etcd.use((etcd) => etcd.txn({ then: [Etcd.put(key, "", { lease: id })] }))
        const fiber = yield* fork(run(Lock.withLock(Effect.void, "job", { layout })))
        yield* pass("5 seconds")
        assert.isUndefined(fiber.pollUnsafe())
        yield* put(key)
        yield* Effect.repeat(pass("1 second"), { times: 20 })
        assert.include(failureOf(fiber.pollUnsafe()) as Lock.LockNameConflict, { _tag: "LockNameConflict", key })
        yield* Etcd.Etcd.use((etcd) => etcd.txn({ then: [Etcd.remove(key)] }))
      }
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is not asked about for those who have left", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { counts, run } = yield* counted({ ttl: "600 seconds" })
      yield* put("job/4d")
      const hold = yield* fork(run(Lock.withLock(Effect.never, "elsewhere")))
      const waiting = yield* fork(run(Effect.timeoutOption(Lock.withLock(Effect.void, "job"), "5 seconds")))
      yield* pass("1 second")
      yield* faults.unreachable
      yield* pass("2 minutes")
      assert.isDefined(waiting.pollUnsafe())
      const before = counts.txn + counts.range
      yield* Effect.repeat(pass("1 second"), { times: 60 })
      // The removal of what may be left of the wait goes on.
      assert.isAtMost(counts.txn + counts.range - before, 20)
      yield* faults.heal
      yield* Fiber.interrupt(hold)
      yield* pass("1 minute")
      assert.deepStrictEqual(yield* keys, ["job/4d"])
    }).pipe(provideMemory))
})
