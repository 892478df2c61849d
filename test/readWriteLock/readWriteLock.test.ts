/** Readers beside readers, and never a writer beside anybody. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { Etcd, Lock, ReadWriteLock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { counted, fork, keys, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"

/** Notes who is inside, and refuses company that is not allowed. */
const room = () => {
  const events: Array<string> = []
  let readers = 0
  let writers = 0
  const inside = (who: string, millis: number, isWriter: boolean) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        if (isWriter) writers++
        else readers++
        assert.isTrue(writers === 0 || writers + readers === 1, `${who} meets others`)
        events.push(`${who} in`)
      }),
      () => Effect.sleep(millis),
      () =>
        Effect.sync(() => {
          if (isWriter) writers--
          else readers--
          events.push(`${who} out`)
        })
    )
  return {
    events,
    read: (who: string, millis: number) => ReadWriteLock.withReadLock(inside(who, millis, false), "job"),
    write: (who: string, millis: number) => ReadWriteLock.withWriteLock(inside(who, millis, true), "job"),
    lock: (who: string, millis: number) => Lock.withLock(inside(who, millis, true), "job")
  }
}

describe(`a read-write lock (${cite("P1")})`, () => {
  for (const processes of [1, 6]) {
    it.effect(`lets readers in together, and a writer alone, in the order in which they came (${processes})`, () =>
      provideMemory(Effect.gen(function*() {
        const sessions = yield* Effect.forEach(Array.from({ length: processes }), () => session())
        const { events, lock, read, write } = room()
        const visits = [read("a", 100), read("b", 300), write("c", 100), read("d", 100), read("e", 100), lock("f", 100)]
        const fibers = yield* Effect.forEach(
          visits,
          (visit, i) => Effect.tap(fork(sessions[i % processes]!.run(visit)), pass(10))
        )
        yield* Effect.repeat(pass(10), { times: 100 })
        for (const fiber of fibers) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
        assert.deepStrictEqual(events.slice(0, 2), ["a in", "b in"])
        assert.deepStrictEqual(events.slice(2, 6), ["a out", "b out", "c in", "c out"])
        assert.deepStrictEqual(events.slice(6, 8).toSorted(), ["d in", "e in"])
        assert.deepStrictEqual(events.slice(8, 10).toSorted(), ["d out", "e out"])
        assert.deepStrictEqual(events.slice(10), ["f in", "f out"])
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect("lets a writer in within one hold of a hundred readers, and before those that come later", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.forEach(Array.from({ length: 100 }), () => session())
      const writer = yield* session()
      const { events, read, write } = room()
      const early = yield* Effect.forEach(sessions, ({ run }, i) => fork(run(read(`r${i}`, 1000))))
      yield* pass(10)
      assert.lengthOf(events, 100)
      const writing = yield* fork(writer.run(write("w", 100)))
      yield* pass(10)
      const late = yield* Effect.forEach(sessions, ({ run }, i) => fork(run(read(`s${i}`, 1000))))
      yield* pass(10)
      assert.lengthOf(events, 100)
      yield* pass(1000)
      assert.include(events, "w in")
      yield* pass(200)
      yield* pass(1000)
      for (const fiber of [...early, writing, ...late]) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
      assert.isBelow(events.indexOf("w out"), events.findIndex((event) => event.startsWith("s")))
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("is not given to a reader while a writer waits in the same process", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const { events, read, write } = room()
      for (const visit of [read("a", 500), write("b", 100), read("c", 100), read("d", 100)]) yield* fork(run(visit))
      yield* pass(100)
      assert.deepStrictEqual(events, ["a in"])
      assert.lengthOf(yield* keys, 1, "those that wait cost etcd nothing")
      yield* pass(450)
      assert.deepStrictEqual(events, ["a in", "a out", "b in"])
      yield* pass(100)
      assert.deepStrictEqual(events.slice(3), ["b out", "c in", "d in"])
      yield* pass("1 second")
    })))
})

describe("a read lock that is free", () => {
  it.effect("costs one commit and one more to release, and opens no watch", () =>
    provideMemory(Effect.gen(function*() {
      const { counts, run } = yield* counted()
      const others = yield* Effect.forEach(Array.from({ length: 20 }), () => session())
      const holding = yield* Effect.forEach(others, ({ run }) =>
        fork(run(ReadWriteLock.withReadLock(Effect.never, "job"))))
      yield* pass(10)
      yield* run(ReadWriteLock.withReadLock(Effect.void, "job"))
      assert.deepInclude(counts, { txn: 2, range: 0, subscribe: 0 })
      yield* Effect.forEach(holding, stop)
      yield* pass(10)
    })))

  it.effect("is taken by the readers of one process in one batch", () =>
    provideMemory(Effect.gen(function*() {
      let txns = 0
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (request) => Effect.suspend(() => (txns++, Effect.delay(etcd.txn(request), 1)))
      }))
      const warm = yield* fork(run(Lock.withLock(Effect.void, "warm")))
      yield* pass(10)
      yield* Fiber.join(warm)
      txns = 0
      let inside = 0
      const readers = yield* Effect.forEach(Array.from({ length: 64 }), () =>
        fork(run(ReadWriteLock.withReadLock(Effect.andThen(Effect.sync(() => inside++), Effect.never), "job"))))
      yield* pass(10)
      assert.strictEqual(inside, 64)
      assert.isAtMost(txns, 2)
      yield* Effect.forEach(readers, stop)
      yield* pass(10)
    })))

  it.effect("has the revision of its key as its token, also when the first answer was lost", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "warm"))
      yield* faults.drop("Reply", { method: "txn" })
      const lock = yield* fork(
        run(Effect.scoped(Effect.flatMap(ReadWriteLock.acquireRead("job"), (lock) => Effect.as(lock.verify, lock))))
      )
      yield* Effect.repeat(pass("1 second"), { times: 5 })
      const { createRevision, fencingToken } = yield* Fiber.join(lock)
      assert.strictEqual(fencingToken, createRevision)
    })))
})

describe("a reader that waits", () => {
  it.effect("is not woken by other readers that leave", () =>
    provideMemory(Effect.gen(function*() {
      let events = 0
      const watching = sessionThrough((etcd) => ({
        subscribe: (options, listener) =>
          etcd.subscribe(options, {
            ...listener,
            onEvents: (some) => {
              events += some.length
              listener.onEvents(some)
            }
          })
      }))
      const [early, writer] = yield* Effect.all([session(), session()])
      const late = yield* watching
      const reading = yield* Effect.forEach([1, 2, 3], () =>
        fork(early.run(ReadWriteLock.withReadLock(Effect.never, "job"))))
      yield* pass(1)
      const writing = yield* fork(writer.run(ReadWriteLock.withWriteLock(Effect.sleep("1 second"), "job")))
      yield* pass(1)
      const waiting = yield* fork(late.run(ReadWriteLock.withReadLock(Effect.void, "job")))
      yield* pass(100)
      yield* Effect.forEach(reading, stop)
      yield* pass(100)
      assert.strictEqual(events, 0)
      yield* pass("2 seconds")
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.void)
      yield* Fiber.join(writing)
    })))
})

describe("a try", () => {
  it.effect("to read is refused by a writer that holds or waits, and names the first of them", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([session(), session(), session()])
      const reader = yield* fork(a.run(ReadWriteLock.withReadLock(Effect.never, "job")))
      yield* pass(1)
      assert.deepStrictEqual(
        yield* b.run(ReadWriteLock.withReadLockIfAvailable(Effect.void, "job")),
        Option.some(undefined)
      )
      const writer = yield* fork(b.run(ReadWriteLock.withWriteLock(Effect.never, "job", { metadata: { who: "b" } })))
      yield* pass(1)
      for (let i = 0; i < 2; i++) {
        const error = yield* Effect.flip(c.run(ReadWriteLock.tryWithReadLock(Effect.void, "job")))
        assert.strictEqual((error as Lock.LockHeld).holder?.metadata?.who, "b")
      }
      assert.deepStrictEqual(yield* c.run(ReadWriteLock.withReadLockIfAvailable(Effect.void, "job")), Option.none())
      assert.lengthOf(yield* keys, 2, "it leaves nothing")
      yield* stop(writer)
      yield* stop(reader)
      yield* pass(10)
    })))

  it.effect("to write is refused by a reader, and taken when none is there", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const reader = yield* fork(a.run(ReadWriteLock.withReadLock(Effect.never, "job", { metadata: { who: "a" } })))
      yield* pass(1)
      const error = yield* Effect.flip(b.run(ReadWriteLock.tryWithWriteLock(Effect.void, "job")))
      assert.strictEqual((error as Lock.LockHeld).holder?.metadata?.who, "a")
      assert.deepStrictEqual(yield* b.run(ReadWriteLock.withWriteLockIfAvailable(Effect.void, "job")), Option.none())
      yield* stop(reader)
      yield* pass(10)
      yield* b.run(Effect.scoped(ReadWriteLock.tryAcquireWrite("job")))
      yield* b.run(Effect.scoped(ReadWriteLock.tryAcquireRead("job")))
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe(`the tokens (${cite("P2")})`, () => {
  it.effect("of writers increase, and those of readers exceed those of all writers before them", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.all([session(), session(), session(), session()])
      const tokens: Array<readonly [mode: string, token: bigint]> = []
      const visit = (mode: "read" | "write") => {
        const section = mode === "read" ? ReadWriteLock.withReadLock : ReadWriteLock.withWriteLock
        return section(
          Effect.tap(Lock.Current, ({ fencingToken }) => {
            tokens.push([mode, fencingToken])
            return Effect.sleep(10)
          }),
          "job"
        )
      }
      const modes = ["write", "read", "read", "write", "write", "read", "write", "read"] as const
      const fibers = yield* Effect.forEach(
        modes,
        (mode, i) => Effect.tap(fork(sessions[i % 4]!.run(visit(mode))), pass(1))
      )
      yield* pass("1 second")
      for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      assert.lengthOf(tokens, modes.length)
      let last = 0n
      for (const [mode, token] of tokens) {
        assert.isAbove(Number(token), Number(last))
        if (mode === "write") last = token
      }
    })))
})

describe("a lock that is lost", () => {
  it.effect("interrupts its readers", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const reading = yield* fork(run(ReadWriteLock.withReadLock(Effect.never, "job")))
      yield* pass(1)
      yield* faults.deletePrefix("job/read/")
      yield* pass("1 second")
      assert.include(failureOf(reading.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))
})

describe("a body that waits for the lock it reads under", () => {
  for (
    const [what, section] of Object.entries({
      "to write": ReadWriteLock.withWriteLock(Effect.void, "job"),
      "to read again": ReadWriteLock.withReadLock(Effect.void, "job")
    })
  ) {
    it.effect(`${what} fails with a defect that says so`, () =>
      provideMemory(Effect.gen(function*() {
        const { run } = yield* session()
        const exit = yield* Effect.exit(run(ReadWriteLock.withReadLock(section, "job")))
        assert.match((defectOf(exit) as Error).message, /^Lock 'job' is already held by this fiber/)
        assert.deepStrictEqual(yield* keys, [])
      })))
  }
})

describe("forceRelease", () => {
  it.effect("takes away one of the readers that have joined at one revision", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* run(Lock.withLock(Effect.void, "warm"))
      yield* fork(Effect.replicateEffect(run(ReadWriteLock.withReadLock(Effect.never, "job")), 3, { concurrency: 3 }))
      yield* pass(1)
      const [{ createRevision } = assert.fail("nobody reads"), ...others] = yield* faults.keys
      for (const other of others) assert.strictEqual(other.createRevision, createRevision)
      assert.isTrue(yield* ReadWriteLock.forceRelease("job", { createRevision }))
      assert.lengthOf(yield* faults.keys, 2)
    })))
})

describe("inspect", () => {
  it.effect("shows the holders and the queue, each with its mode", () =>
    provideMemory(Effect.gen(function*() {
      const sessions = yield* Effect.all([session(), session(), session(), session()])
      const options = (who: string) => ({ metadata: { who } })
      const fibers = [
        yield* fork(sessions[0].run(ReadWriteLock.withReadLock(Effect.never, "job", options("a")))),
        yield* fork(sessions[1].run(ReadWriteLock.withReadLock(Effect.never, "job", options("b"))))
      ]
      yield* pass(1)
      fibers.push(yield* fork(sessions[2].run(ReadWriteLock.withWriteLock(Effect.never, "job", options("c")))))
      yield* pass(1)
      fibers.push(yield* fork(sessions[3].run(ReadWriteLock.withReadLock(Effect.never, "job", options("d")))))
      yield* pass(1)
      const { conflicts, holders, queue } = yield* sessions[0].run(ReadWriteLock.inspect("job"))
      const shown = ({ client, mode }: ReadWriteLock.Claimant) => `${client.metadata?.who} ${mode}`
      assert.deepStrictEqual(holders.map(shown).toSorted(), ["a read", "b read"])
      assert.deepStrictEqual(queue.map(shown), ["c write", "d read"])
      assert.deepStrictEqual(conflicts, [])
      const { createRevision } = queue[0]!.client
      assert.isTrue(yield* sessions[0].run(ReadWriteLock.forceRelease("job", { createRevision })))
      yield* pass("3 seconds")
      assert.include(failureOf(fibers[2]!.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
      assert.lengthOf((yield* sessions[0].run(ReadWriteLock.inspect("job"))).holders, 3)
      yield* Effect.forEach(fibers, stop)
      yield* pass(10)
    })))
})
