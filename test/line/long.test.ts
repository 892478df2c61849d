/** A line that is too long to be watched as a whole. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, pass, type Process, provideMemory, session, sessionThrough } from "../support/inMemory.ts"
import { otherClient, ownKey } from "../support/otherClient.ts"
import { observe } from "../support/watches.ts"

const count = 30

const upTo = (length: number) => Array.from({ length }, (_, i) => i)

const other = (i: number) => `job/other-${i}`

/** Another client's entries, in the order of their numbers. */
const entries = (length = count) =>
  Effect.gen(function*() {
    const client = yield* otherClient
    const put = (...numbers: ReadonlyArray<number>) => client.put(numbers.map(other))
    const remove = (...numbers: ReadonlyArray<number>) => client.remove(numbers.map(other))
    yield* put(...upTo(length))
    return { put, remove }
  })

/** A process that counts what it asks for and what its watches report. */
const counted = Effect.gen(function*() {
  const counts = { reads: 0, events: 0, watches: 0 }
  const process = yield* sessionThrough((etcd) => ({
    range: (range) => {
      counts.reads++
      return etcd.range(range)
    },
    subscribe: (options, { onEnd, onEvents }) => {
      counts.watches++
      return etcd.subscribe(options, {
        onEvents: (events) => {
          counts.events++
          onEvents(events)
        },
        onEnd
      })
    }
  }))
  return { ...process, counts }
})

/** A process whose open watches can be looked at, by their keys. */
const watching = Effect.gen(function*() {
  const watches = observe(yield* Etcd.Etcd)
  const process = yield* sessionThrough(() => ({ subscribe: watches.subscribe }))
  return { ...process, opened: watches.asked, open: watches.open }
})

const wait = ({ run }: Pick<Process, "run">, options?: Lock.Options) =>
  Effect.tap(fork(run(Lock.withLock(Effect.succeed("done"), "job", options))), () => pass(5))

describe("a waiter in a long line", () => {
  it.effect("hears of its guard's end alone, and enters by the one read that this causes", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const { counts, ...process } = yield* counted
      const waiting = yield* wait(process)
      const { reads } = counts
      for (let i = 0; i < count - 1; i++) yield* remove(i)
      yield* pass("1 second")
      assert.isUndefined(waiting.pollUnsafe())
      assert.deepStrictEqual(counts, { reads, events: 0, watches: 1 })
      yield* remove(count - 1)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
      assert.deepStrictEqual(counts, { reads: reads + 1, events: 1, watches: 1 })
    }).pipe(Effect.scoped, provideMemory))

  it.effect("gets the revision of the answer that shows its turn as its token, not that of its guard's end", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { put, remove } = yield* entries()
      let answered = 0n
      let isLate = false
      const process = yield* sessionThrough((etcd) => ({
        // What others do meanwhile moves the store on.
        range: (range) =>
          Effect.suspend(() => isLate ? Effect.orDie(put(count, count + 1)) : Effect.void).pipe(
            Effect.andThen(etcd.range(range)),
            Effect.tap(({ revision }) => Effect.sync(() => answered = revision))
          )
      }))
      const holding = yield* fork(Effect.map(process.run(Lock.acquire("job")), ({ fencingToken }) => fencingToken))
      yield* pass(5)
      yield* remove(...upTo(count - 1))
      isLate = true
      const { revision } = yield* etcd.range(Etcd.get("job/"))
      yield* remove(count - 1)
      assert.strictEqual(answered, revision + 3n)
      assert.deepStrictEqual(holding.pollUnsafe(), Exit.succeed(answered))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("asks one member what is ahead, and all of them where that one has not heard of the guard's end yet", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { remove } = yield* entries()
      const asked: Array<"one" | "all"> = []
      let behind: Effect.Success<ReturnType<typeof etcd.range>> | undefined
      const process = yield* sessionThrough(() => ({
        range: (range) => {
          const isOfOne = range.serializable === true
          if (range.rangeEnd !== undefined) asked.push(isOfOne ? "one" : "all")
          return isOfOne && behind !== undefined ? Effect.succeed(behind) : etcd.range(range)
        }
      }))
      const waiting = yield* wait(process)
      asked.length = 0
      yield* remove(count - 1)
      assert.deepStrictEqual(asked, ["one"])
      yield* remove(...upTo(count - 2))
      behind = yield* etcd.range(Etcd.getPrefix("job/", { sort: "CreateDescending" }))
      yield* remove(count - 2)
      assert.deepStrictEqual(asked, ["one", "one", "all"])
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("takes the next guard when its own leaves from the middle, and does not enter early", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const waiting = yield* wait(yield* session())
      for (let i = count - 1; i > 0; i--) {
        yield* remove(i)
        assert.isUndefined(waiting.pollUnsafe(), `with ${i} ahead`)
      }
      yield* remove(0)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("enters when the guard is the last and the others left before it", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const waiting = yield* wait(yield* session())
      yield* remove(...upTo(count - 1))
      yield* remove(count - 1)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("does not enter when its own key goes in one revision with all that is ahead", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* entries()
      const waiting = yield* wait(yield* session())
      yield* faults.deletePrefix("job/")
      yield* pass(5)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    }).pipe(Effect.scoped, provideMemory))

  for (const order of ["right before its guard", "in one revision with its guard"]) {
    for (const report of ["late", "silent"]) {
      it.effect(`does not enter when its own key goes ${order}, and the watch of its own key is ${report}`, () =>
        Effect.gen(function*() {
          const etcd = yield* Etcd.Etcd
          const { remove } = yield* entries()
          const held: Array<() => void> = []
          const process = yield* sessionThrough(({ subscribe }) => ({
            subscribe: (options, { onEnd, onEvents }) =>
              subscribe(options, {
                onEvents: (events) =>
                  String(options.key).includes("other") ? onEvents(events) : void held.push(() => onEvents(events)),
                onEnd
              })
          }))
          let bodies = 0
          const waiting = yield* fork(process.run(Lock.withLock(Effect.sync(() => bodies++), "job")))
          // By then it watches its own key, and has only its guard ahead.
          yield* pass("3 seconds")
          yield* remove(...upTo(count - 1))
          const own = Etcd.remove(yield* ownKey)
          const guard = Etcd.remove(other(count - 1))
          const txns = order === "right before its guard" ? [[own], [guard]] : [[own, guard]]
          for (const then of txns) yield* etcd.txn({ then })
          yield* pass(5)
          assert.isAbove(held.length, 0, "the end of its own key was reported")
          if (report === "late") { for (const deliver of held) deliver() }
          yield* pass(5)
          assert.strictEqual(bodies, 0)
          assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
        }).pipe(Effect.scoped, provideMemory))
    }
  }

  it.effect("hears of its own key's end after two seconds at the latest, whatever its guard does", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* entries()
      const waiting = yield* wait(yield* session())
      yield* faults.deleteKey(yield* ownKey)
      yield* pass("2500 millis")
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    }).pipe(Effect.scoped, provideMemory))

  it.effect("goes on when its watch is cut, and when its guard went meanwhile", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { remove } = yield* entries()
      const waiting = yield* wait(yield* session())
      yield* faults.cut
      yield* remove(...upTo(count))
      assert.isUndefined(waiting.pollUnsafe())
      yield* pass("1 second")
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("notices a guard that went while the watch of it was opened", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const process = yield* sessionThrough((etcd) => ({
        subscribe: (options, listener) => Effect.delay(etcd.subscribe(options, listener), 100)
      }))
      const waiting = yield* wait(process)
      yield* remove(...upTo(count))
      assert.isUndefined(waiting.pollUnsafe())
      yield* pass(200)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("believes no late report of a guard's end that is older than the guard", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { put, remove } = yield* entries()
      const process = yield* session()
      const early = yield* wait(process, { timeout: 100 })
      yield* faults.delayWatches("1 second")
      // The guard leaves, and another entry takes its key and its place.
      yield* remove(count - 1)
      yield* put(count - 1)
      yield* pass(100)
      assert.isDefined(early.pollUnsafe())
      const late = yield* wait(process)
      yield* pass("3 seconds")
      assert.isUndefined(late.pollUnsafe())
      yield* faults.heal
      yield* faults.deletePrefix("job/other")
      yield* pass(5)
      assert.deepStrictEqual(late.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("fails at once on a key in its way that is no entry", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* entries()
      yield* etcd.txn({ then: [Etcd.put("job/plain", "")] })
      const waiting = yield* wait(yield* session())
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockNameConflict, {
        _tag: "LockNameConflict",
        key: "job/plain",
        kind: "PlainKey"
      })
    }).pipe(Effect.scoped, provideMemory))

  it.effect("whose own key has gone hears of it with its guard's end at the latest, though others are ahead", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { remove } = yield* entries()
      const waiting = yield* wait(yield* session())
      yield* faults.deleteKey(yield* ownKey)
      yield* remove(count - 1)
      assert.include(failureOf(waiting.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    }).pipe(Effect.scoped, provideMemory))

  it.effect("watches one guard at a time", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const { open, opened, ...process } = yield* watching
      yield* wait(process)
      for (let i = count - 1; i > 20; i--) {
        yield* remove(i)
        assert.deepStrictEqual(open(), [other(i - 1)])
      }
      assert.lengthOf(opened, count - 20)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("keeps its watch for the next entry of its process, which often has the same guard", () =>
    Effect.gen(function*() {
      const { put, remove } = yield* entries()
      const { open, opened, ...process } = yield* watching
      for (let round = 0; round < 3; round++) {
        const waiting = yield* wait(process)
        yield* remove(...upTo(count))
        assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
        yield* put(...upTo(count))
      }
      assert.deepStrictEqual(opened, [other(count - 1)])
      assert.deepStrictEqual(open(), opened)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("watches the whole line no more, if it did while that was short", () =>
    Effect.gen(function*() {
      const { open, ...process } = yield* watching
      const { put } = yield* entries(5)
      const early = yield* wait(process)
      assert.deepStrictEqual(open(), ["job/"])
      yield* fork(Fiber.interrupt(early))
      yield* pass(5)
      yield* put(...upTo(count).slice(5))
      yield* wait(process)
      assert.deepStrictEqual(open(), [other(count - 1)])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("that holds the lock watches its own key, until it releases it", () =>
    Effect.gen(function*() {
      const { remove } = yield* entries()
      const { open, run } = yield* watching
      const holding = yield* fork(run(Lock.withLock(Effect.sleep("2 seconds"), "job")))
      const waiting = yield* wait({ run })
      yield* remove(...upTo(count))
      yield* pass("1 second")
      assert.lengthOf(open().filter((key) => !key.includes("other")), 1)
      yield* pass("1100 millis")
      assert.isDefined(holding.pollUnsafe())
      assert.isDefined(waiting.pollUnsafe())
      assert.lengthOf(open().filter((key) => !key.includes("other")), 0)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("leaves nothing behind, neither in etcd nor of its watches", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* entries()
      const { open, opened, ...process } = yield* watching
      const waiting = yield* wait(process)
      yield* pass("3 seconds")
      yield* fork(Fiber.interrupt(waiting))
      yield* pass("3 seconds")
      assert.lengthOf(yield* faults.keys, count)
      assert.isAbove(opened.length, 1)
      assert.deepStrictEqual(open(), [])
    }).pipe(Effect.scoped, provideMemory))
})

describe("the watch of one key", () => {
  it.effect("is closed when none of several entries of its process needs it any more", () =>
    Effect.gen(function*() {
      const client = yield* otherClient
      const keys = upTo(40).map((i) => `${other(i)}-1of4`)
      yield* client.put(keys)
      const remove = (at: number) => client.remove(keys.splice(at, 1))
      const { open, run } = yield* watching
      for (let i = 0; i < 2; i++) {
        yield* fork(run(Semaphore.withPermits(Effect.never, "job", { of: 4 })))
        yield* pass(5)
      }
      for (let i = 0; i < 8; i++) {
        // Only the first of the two waits for this one, and both wait for the next.
        yield* remove(-4)
        yield* remove(-2)
      }
      const others = open().filter((key) => key.includes("other"))
      assert.sameMembers(others, keys.slice(-4))
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is not relied on for what happened before it was opened again", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const client = yield* otherClient
      const keys = upTo(count).map((i) => `${other(i)}-1of2`)
      yield* client.put(keys)
      let isSlow = false
      const { run } = yield* sessionThrough((etcd) => ({
        txn: (txn) => Effect.tap(etcd.txn(txn), () => isSlow ? Effect.sleep("1 second") : Effect.void)
      }))
      let holders = 0
      const body = Effect.andThen(Effect.sync(() => holders++), Effect.never)
      const claim = fork(run(Semaphore.withPermits(body, "job", { of: 2 })))
      yield* claim
      yield* pass(5)
      isSlow = true
      yield* claim
      yield* pass(5)
      // The answer that names the guards is under way.
      isSlow = false
      yield* faults.cut
      yield* client.remove(keys)
      yield* pass("3 seconds")
      assert.strictEqual(holders, 2)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is not opened again for another entry of the same key", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { close, open, run } = yield* watching
      const reading = fork(run(ReadWriteLock.withReadLock(Effect.never, "job")))
      const first = yield* reading
      yield* pass(600)
      const own = open()
      assert.lengthOf(own, 1)
      yield* faults.cut
      yield* Fiber.interrupt(first)
      const second = yield* reading
      yield* pass("1 second")
      assert.deepStrictEqual(open(), own, "keys are used again")
      yield* Fiber.interrupt(second)
      yield* pass("3 seconds")
      assert.deepStrictEqual(open(), [])
      yield* close
    }).pipe(Effect.scoped, provideMemory))
})

describe("a line of many processes", () => {
  it.effect("grows long and short again, and serves all in order", () =>
    Effect.gen(function*() {
      const served: Array<number> = []
      const processes = yield* Effect.forEach(upTo(40), (i) =>
        Effect.gen(function*() {
          const process = yield* session()
          yield* fork(process.run(
            Lock.withLock(Effect.andThen(Effect.sync(() => served.push(i)), Effect.sleep(20)), "job")
          ))
          yield* pass(1)
          return process
        }))
      yield* Effect.repeat(pass(20), { times: 60 })
      assert.deepStrictEqual(served, processes.map((_, i) => i))
      yield* Effect.forEach(processes, ({ close }) => fork(close), { discard: true })
      yield* pass("1 second")
    }).pipe(Effect.scoped, provideMemory))

  it.effect("wakes one of them at each hand-over", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const processes = yield* Effect.forEach(upTo(40), () => counted)
      for (const process of processes) {
        yield* fork(process.run(Lock.withLock(Effect.sleep(10), "job")))
        yield* pass(1)
      }
      // Those that came while the line was short watch all of it.
      const late = processes.slice(20)
      yield* Effect.repeat(pass(10), { times: 100 })
      assert.deepStrictEqual(yield* faults.keys, [])
      for (const { counts } of late) {
        assert.isAtMost(counts.events, 2)
        assert.isAtMost(counts.reads, 4)
      }
    }).pipe(Effect.scoped, provideMemory))

  for (const length of [40, 120]) {
    it.effect(`wakes no more of them at each hand-over than there are permits (${length})`, () =>
      Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const of = 4
        const processes = yield* Effect.forEach(upTo(length), () => counted)
        for (const [i, { run }] of processes.entries()) {
          // They do not leave in the order in which they came.
          yield* fork(run(Semaphore.withPermits(Effect.sleep(150 + (i * 37) % 100), "job", { of })))
          yield* pass(1)
        }
        // Those that came while the line was short watch all of it.
        const late = processes.slice(20)
        yield* Effect.repeat(pass(10), { times: 800 })
        assert.deepStrictEqual(yield* faults.keys, [])
        for (const { counts } of late) {
          assert.isAtMost(counts.events, 2 * of)
          assert.isAtMost(counts.watches, 2 * of)
          assert.isAtMost(counts.reads, of + 2)
        }
        const events = late.reduce((sum, { counts }) => sum + counts.events, 0)
        assert.isAtMost(events / late.length, of + 1)
      }).pipe(Effect.scoped, provideMemory))
  }
})
