/** Several locks at once. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Random } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { counted, fork, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"

/** Bodies under several locks, and whether any two of them were under the same one at once. */
const bodies = () => {
  const inside = new Map<string, string>()
  const overlaps: Array<string> = []
  let ended = 0
  const hold = (who: string, names: ReadonlyArray<string>, millis: number) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        for (const name of names) {
          if (inside.has(name)) overlaps.push(`${who} and ${inside.get(name)} in ${name}`)
          inside.set(name, who)
        }
      }),
      () => Effect.sleep(millis),
      () =>
        Effect.sync(() => {
          ended++
          for (const name of names) inside.delete(name)
        })
    )
  return { hold, overlaps, ended: () => ended }
}

const accounts = ["a", "b", "c", "d", "e", "f"]

describe(`several locks at once (${cite("P1")})`, () => {
  for (const processes of [1, 2, 8, 24]) {
    it.effect(
      `exclude each other by name, and never wait for each other (${processes} processes)`,
      () =>
        provideMemory(Effect.gen(function*() {
          const sessions = yield* Effect.forEach(Array.from({ length: processes }), () => session())
          const { ended, hold, overlaps } = bodies()
          const rounds = 150
          const fibers = yield* Effect.forEach(Array.from({ length: rounds }), (_, i) =>
            Effect.gen(function*() {
              const names = (yield* Random.shuffle(accounts)).slice(0, 1 + i % 4)
              const { run } = sessions[i % processes]!
              const body = hold(`${i}`, names, 5)
              // Some of them take one lock only, and stand in the same lines.
              return yield* fork(run(
                names.length === 1 ? Lock.withLock(body, names[0]!) : Lock.withLocks(body, names)
              ))
            }))
          yield* Effect.repeat(pass(5), { times: 5 * rounds, until: () => Effect.succeed(ended() === rounds) })
          assert.strictEqual(ended(), rounds)
          for (const fiber of fibers) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
          assert.deepStrictEqual(overlaps, [])
          assert.deepStrictEqual(yield* keys, [])
        })).pipe(Random.withSeed(`several-${processes}`)),
      30_000
    )
  }

  it.effect("are taken and released in one commit each, with no watch where all are free", () =>
    provideMemory(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      yield* run(Lock.withLocks(Effect.void, accounts))
      assert.deepInclude(counts, { txn: 2, range: 0, subscribe: 0 })
      yield* run(Lock.tryWithLocks(Effect.void, accounts))
      assert.deepInclude(counts, { txn: 4, range: 0, subscribe: 0 })
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("do not let a caller of one of them wait longer than for the others before it", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const order: Array<string> = []
      const note = (what: string) => Effect.sync(() => void order.push(what))
      const hold = (who: string) => Effect.andThen(note(who), Effect.sleep(100))
      yield* fork(a.run(Lock.withLock(hold("first of x"), "x")))
      yield* pass(1)
      yield* fork(b.run(Lock.withLocks(hold("x and y"), ["y", "x"])))
      yield* pass(1)
      // Its line is joined after the two, so it comes after them, although y is not in use yet.
      yield* fork(c.run(Lock.withLock(hold("second of y"), "y")))
      yield* Effect.repeat(pass(20), { times: 20 })
      assert.deepStrictEqual(order, ["first of x", "x and y", "second of y"])
    })))

  it.effect("join in one step behind fibers of the same process, and take over no place of theirs", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const { ended, hold, overlaps } = bodies()
      yield* fork(a.run(Lock.withLock(hold("1", ["x"], 50), "x")))
      yield* fork(a.run(Lock.withLocks(hold("2", ["x", "y"], 50), ["x", "y"])))
      yield* fork(b.run(Lock.withLocks(hold("3", ["x", "y"], 50), ["y", "x"])))
      yield* fork(a.run(Lock.withLock(hold("4", ["y"], 50), "y")))
      yield* Effect.repeat(pass(10), { times: 40 })
      assert.strictEqual(ended(), 4)
      assert.deepStrictEqual(overlaps, [])
    })))
})

describe(`the loss of one of several locks (${cite("P3")})`, () => {
  for (const lost of [0, 1, 2]) {
    it.effect(`is the loss of all, and names the lock (${lost})`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const a = yield* session()
        const names = ["x", "y", "z"]
        let isInterrupted = false
        const body = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (isInterrupted = true)))
        const holding = yield* fork(a.run(Lock.withLocks(body, names)))
        yield* pass(1000)
        const key = (yield* keys).find((key) => key.startsWith(`${names[lost]}/`))!
        yield* faults.deleteKey(key)
        yield* pass(100)
        assert.isTrue(isInterrupted)
        const loss = failureOf(holding.pollUnsafe())
        assert.instanceOf(loss, Lock.LockLost)
        assert.include(loss, { lock: names[lost]!, reason: "KeyDeleted" })
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("ends the wait for the others, and leaves nothing in any line", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Lock.withLock(Effect.never, "y")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLocks(Effect.never, ["x", "y"])))
      yield* pass(3000)
      yield* faults.deleteKey((yield* keys).find((key) => key.startsWith("x/"))!)
      yield* pass(1000)
      const loss = failureOf(waiting.pollUnsafe())
      assert.instanceOf(loss, Lock.LockLost)
      assert.include(loss, { lock: "x, y", reason: "KeyDeleted", fencingToken: undefined })
      assert.lengthOf(yield* keys, 1)
      yield* stop(holding)
      yield* pass(10)
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("is found by a transaction, which etcd applies only if all are owned", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      yield* a.run(Effect.scoped(Effect.gen(function*() {
        const all = yield* Lock.acquireAll(["x", "y"])
        assert.deepStrictEqual(all.locks.map(({ lock }) => lock), ["x", "y"])
        assert.strictEqual(all.lock, "x, y")
        assert.lengthOf(all.isOwner, 2)
        yield* all.txn({ then: [Etcd.put("balance", "1")] })
        yield* all.verify
        yield* all.check
        assert.isTrue(all.isHeldUnsafe())
        yield* faults.stall
        yield* faults.deleteKey(all.locks[1]!.key)
        yield* faults.resume
        const loss = yield* Effect.flip(all.txn({ then: [Etcd.put("balance", "2")] }))
        assert.include(loss as Lock.LockLost, { _tag: "LockLost", lock: "y", reason: "KeyDeleted" })
        assert.isFalse(all.isHeldUnsafe())
        assert.isTrue(all.signal.aborted)
        assert.include(yield* Effect.flip(all.check), { lock: "y" })
        const { value } = (yield* faults.keys).find(({ key }) => Buffer.from(key).toString() === "balance")!
        assert.strictEqual(Buffer.from(value).toString(), "1")
      })))
    })))
})

describe(`however a request for several locks ends (${cite("P5")})`, () => {
  it.effect("by a timeout, nothing is left, and the error names the lock that is waited for and its holder", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Lock.withLock(Effect.never, "y", { metadata: { job: "audit" } })))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLocks(Effect.never, ["x", "y"], { timeout: "5 seconds" })))
      yield* pass(5000)
      yield* pass(10)
      const timeout = failureOf(waiting.pollUnsafe())
      assert.instanceOf(timeout, Lock.LockTimeout)
      assert.strictEqual(timeout.lock, "y")
      assert.deepStrictEqual(timeout.holder?.metadata, { job: "audit" })
      assert.lengthOf(yield* keys, 1)
      yield* stop(holding)
      yield* pass(10)
    })))

  it.effect("by a refusal, nothing is left, and the error names the first that is held", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const holding = yield* fork(a.run(Lock.withLock(Effect.never, "y")))
      yield* pass(1)
      for (const { run } of [a, b]) {
        const refused = yield* Effect.flip(run(Lock.tryWithLocks(Effect.void, ["x", "y"])))
        assert.instanceOf(refused, Lock.LockHeld)
        assert.strictEqual(refused.lock, "y")
        const timeout = yield* Effect.flip(run(Lock.withLocks(Effect.void, ["x", "y"], { timeout: 0 })))
        assert.include(timeout as Lock.LockTimeout, { _tag: "LockTimeout", lock: "y" })
        assert.lengthOf(yield* keys, 1)
      }
      yield* stop(holding)
      yield* pass(10)
      yield* b.run(Lock.tryWithLocks(Effect.void, ["x", "y"]))
      assert.deepStrictEqual(yield* keys, [])
    })))

  for (const after of [0, 1, 2, 3, 5, 8, 13, 21, 34, 55]) {
    it.effect(`by an interruption after ${after} ms, nothing is left`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const [a, b] = yield* Effect.all([session(), session()])
        yield* faults.delay("5 millis")
        const holding = yield* fork(a.run(Lock.withLock(Effect.sleep(30), "y")))
        yield* pass(20)
        const waiting = yield* fork(b.run(Lock.withLocks(Effect.sleep(20), ["x", "y", "z"])))
        yield* pass(after)
        yield* stop(waiting)
        yield* Effect.repeat(pass(5), { times: 30 })
        assert.isDefined(waiting.pollUnsafe())
        yield* Fiber.join(holding)
        assert.deepStrictEqual(yield* keys, [])
        // The lines are free again, also for the fibers of the same process.
        const again = yield* fork(b.run(Lock.withLocks(Effect.void, ["z", "y", "x"])))
        yield* Effect.repeat(pass(5), { times: 20 })
        assert.deepStrictEqual(again.pollUnsafe(), Exit.void)
      })))
  }

  it.effect("by a lost reply, they are joined once, and all are left", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      yield* a.run(Lock.withLock(Effect.void, "warm"))
      yield* faults.drop("Reply", { method: "txn" })
      const held = yield* fork(a.run(Lock.withLocks(Effect.void, ["x", "y"])))
      yield* Effect.repeat(pass(100), { times: 80 })
      assert.deepStrictEqual(held.pollUnsafe(), Exit.void)
      yield* Effect.repeat(pass(1000), { times: 20 })
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("by a lost reply and a key that was deleted meanwhile, they fail, and all are left", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const a = yield* session()
      yield* a.run(Lock.withLock(Effect.void, "warm"))
      yield* faults.drop("Reply", { method: "txn" })
      const waiting = yield* fork(a.run(Lock.withLocks(Effect.never, ["x", "y"])))
      yield* pass(0)
      yield* faults.deleteKey((yield* keys).find((key) => key.startsWith("x/"))!)
      yield* Effect.repeat(pass(100), { times: 80 })
      const loss = failureOf(waiting.pollUnsafe())
      assert.instanceOf(loss, Lock.LockLost)
      assert.strictEqual(loss.reason, "KeyDeleted")
      yield* Effect.repeat(pass(1000), { times: 20 })
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("several locks in a body", () => {
  it.effect("have one handle in it, whose token is greater than those before and smaller than those after", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const token = Effect.map(Lock.Current, ({ fencingToken }) => fencingToken)
      const tokens = [
        yield* a.run(Lock.withLock(token, "x")),
        yield* b.run(Lock.withLocks(token, ["x", "y"])),
        yield* a.run(Lock.withLock(token, "y")),
        yield* a.run(Lock.withLocks(token, ["y", "x"]))
      ]
      assert.deepStrictEqual(tokens, [...new Set(tokens)].sort((a, b) => a < b ? -1 : 1))
    })))

  for (
    const [what, inner] of [
      ["one of them", Lock.withLock(Effect.void, "x")],
      ["some of them", Lock.withLocks(Effect.void, ["z", "y"])],
      ["others", Lock.withLocks(Effect.void, ["v", "w"])]
    ] as const
  ) {
    it.effect(`cannot be waited for again: ${what}`, () =>
      provideMemory(Effect.gen(function*() {
        const a = yield* session()
        const exit = yield* Effect.exit(a.run(Lock.withLocks(inner, ["x", "y"])))
        assert.match(
          String(defectOf(exit)),
          /is already held by this fiber|cannot be waited for under several other locks/
        )
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("of a detached fiber can be waited for, and tried", () =>
    provideMemory(Effect.gen(function*() {
      const a = yield* session()
      yield* a.run(Lock.withLocks(Lock.tryWithLocks(Effect.void, ["v", "w"]), ["x", "y"]))
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("names that cannot be taken together", () => {
  for (
    const [names, message] of [
      [[], "names must be an array of 1 to 40 names, got 0"],
      [Array.from({ length: 41 }, (_, i) => `${i}`), "names must be an array of 1 to 40 names, got 41"],
      ["x" as unknown as ReadonlyArray<string>, "names must be an array of 1 to 40 names, got \"x\""],
      [["x", "y", "x"], "names has \"x\" twice"],
      [["x", "x/y"], "names has \"x\" and a name that lies under it"],
      [["x", "/y"], "cannot use the name \"/y\""]
    ] as const
  ) {
    it.effect(`are a defect: ${message}`, () =>
      provideMemory(Effect.gen(function*() {
        const a = yield* session()
        const calls = [
          Effect.exit(a.run(Lock.withLocks(Effect.void, names))),
          Effect.exit(a.run(Lock.tryWithLocks(Effect.void, names))),
          Effect.exit(a.run(Effect.scoped(Lock.acquireAll(names))))
        ]
        for (const call of calls) assert.include(String(defectOf<unknown, unknown>(yield* call)), message)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("may be as many as forty", () =>
    provideMemory(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      yield* run(Lock.withLocks(Effect.void, Array.from({ length: 40 }, (_, i) => `${i}`)))
      assert.strictEqual(counts.txn, 2)
    })))
})

describe("a try that finds no lock taken and has taken none", () => {
  it.effect("is refused, and ends", () =>
    provideMemory(Effect.gen(function*() {
      const none = { _tag: "Range", kvs: [], count: 0, more: false }
      // As if what was in the way had gone between the conditions and the reads.
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) =>
          Effect.map(etcd.txn(request), (answer) => {
            if (request.then.length < 2) return answer
            const responses = request.then.map(() => ({ _tag: "Txn", succeeded: true, responses: [none, none] }))
            return { ...answer, succeeded: false, responses } as never
          })
      }))
      const trying = yield* fork(run(Lock.tryWithLocks(Effect.void, ["a", "b"])))
      yield* pass("1 second")
      assert.include(failureOf(trying.pollUnsafe()), { _tag: "LockHeld", lock: "a", holder: undefined })
    })))
})
