/** What those see who look on at a line, the locks under a prefix or an election. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { failureOf } from "../support/exits.ts"
import { heap, keeping } from "../support/heap.ts"
import { fork, pass, provideMemory, seconds } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"
import { noted } from "../support/noted.ts"

/** The ways to look on, each with what it shows of an entry's key. */
const views: { readonly [name: string]: Stream.Stream<ReadonlyArray<string>, Etcd.EtcdError, Etcd.Etcd> } = {
  "Lock.changes": Stream.map(
    Lock.changes("job"),
    ({ holder, queue }) => [holder, ...queue].flatMap((client) => client === undefined ? [] : [client.key])
  ),
  "ReadWriteLock.changes": Stream.map(
    ReadWriteLock.changes("job"),
    ({ holders, queue }) => [...holders, ...queue].map(({ client }) => client.key)
  ),
  "Semaphore.changes": Stream.map(
    Semaphore.changes("job"),
    ({ holders, queue }) => [...holders, ...queue].map(({ client }) => client.key)
  ),
  "Lock.listChanges": Stream.map(Lock.listChanges("j"), (locks) => locks.map(({ holder }) => holder.key)),
  "Election.observe": Stream.map(Election.observe("job"), (leader) => Option.toArray(leader).map(({ key }) => key))
}

const each = it.effect.each(Object.keys(views))

/** Looks on, by way of another etcd if one is given. */
const lookOn = Effect.fnUntraced(function*(view: string, etcd?: Etcd.Etcd["Service"]) {
  const seen: Array<string> = []
  const looking = Stream.runForEach(views[view]!, (keys) => Effect.sync(() => seen.push(keys.join())))
  const fiber = yield* fork(etcd === undefined ? looking : Effect.provideService(looking, Etcd.Etcd, etcd))
  yield* pass(1)
  return { fiber, seen }
})

/** Puts entries on leases that live as long as the test. */
const put = (...keys: ReadonlyArray<string>) =>
  Effect.flatMap(Etcd.Etcd, (etcd) =>
    Effect.forEach(keys, (key, i) =>
      Effect.andThen(
        Effect.ignore(etcd.leaseGrant(BigInt(i + 1), 1_000_000)),
        etcd.txn({ then: [Etcd.put(key, "{}", { lease: BigInt(i + 1) })] })
      )))

describe("those who look on", () => {
  each(
    "learn by %s what a silent watch has not reported, and of nothing twice",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { seen } = yield* lookOn(view)
        yield* seconds(20)
        assert.deepStrictEqual(seen, [""], "nothing has changed")
        yield* faults.delayWatches("24 hours")
        yield* put("job/1-1")
        yield* seconds(6)
        assert.deepStrictEqual(seen, ["", "job/1-1"])
        yield* faults.deleteKey("job/1-1")
        yield* seconds(6)
        assert.deepStrictEqual(seen, ["", "job/1-1", ""])
        yield* faults.heal
        yield* seconds(60)
        assert.deepStrictEqual(seen, ["", "job/1-1", ""])
      }))
  )

  each(
    "open by %s a watch anew that has not reported what changed, and leave one that has",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const faults = yield* Etcd.Faults
        const requests: Array<string> = []
        const opened = () => requests.filter((method) => method === "subscribe").length
        const { seen } = yield* lookOn(view, noted(etcd, requests))
        for (const i of [1, 2, 3, 4]) {
          yield* put(`job/1-${i}`)
          yield* seconds(7)
        }
        assert.strictEqual(opened(), 1)
        yield* faults.delayWatches("24 hours")
        yield* faults.deletePrefix("job/")
        yield* seconds(12)
        assert.strictEqual(opened(), 2)
        assert.strictEqual(seen.at(-1), "")
      }))
  )

  each(
    "see by %s that etcd was restored from a backup, whose keys are older than what they saw, and as many",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        yield* put("job/1-1")
        const backup = yield* faults.snapshot
        yield* faults.deleteKey("job/1-1")
        yield* put("job/1-2")
        const { seen } = yield* lookOn(view)
        yield* faults.restore(backup, { bumpRevision: 1_000_000_000n })
        yield* seconds(1)
        assert.deepStrictEqual(seen, ["job/1-2", "job/1-1"])
      }))
  )

  each(
    "see by %s that another cluster answers, though their watch stays open",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const faults = yield* Etcd.Faults
        yield* put("job/1-1")
        const backup = yield* faults.snapshot
        yield* faults.deleteKey("job/1-1")
        yield* put("job/1-2")
        const { seen } = yield* lookOn(view, {
          ...etcd,
          subscribe: (options, listener) => etcd.subscribe(options, { ...listener, onEnd: () => {} })
        })
        yield* faults.restore(backup, { bumpRevision: 1_000_000_000n, anotherCluster: true })
        yield* seconds(6)
        assert.deepStrictEqual(seen, ["job/1-2", "job/1-1"])
      }))
  )

  each(
    "give up by %s the stream of a watch that stays silent, and not of one that is only late",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const faults = yield* Etcd.Faults
        const requests: Array<string> = []
        const opened = () => requests.filter((method) => method === "subscribe").length
        const { seen } = yield* lookOn(view, noted(etcd, requests))
        yield* faults.delayWatches("1 second")
        yield* pass(4500)
        yield* put("job/1-1")
        yield* seconds(10)
        assert.deepStrictEqual([seen, opened()], [["", "job/1-1"], 1])
        yield* faults.silenceWatches
        yield* faults.deleteKey("job/1-1")
        yield* seconds(10)
        assert.deepStrictEqual([seen, opened()], [["", "job/1-1", ""], 2])
        // Where it is opened again, it is told at once.
        yield* put("job/1-2")
        yield* pass("1 second")
        assert.strictEqual(seen.at(-1), "job/1-2")
      }))
  )

  each(
    "ask by %s one thing of etcd every five seconds while nothing changes",
    (view) =>
      provideMemory(Effect.gen(function*() {
        const requests: Array<string> = []
        yield* put("job/1-1", "job/2-1", "job/3-1")
        yield* lookOn(view, noted(yield* Etcd.Etcd, requests))
        requests.length = 0
        yield* seconds(60)
        assert.deepStrictEqual(requests, Array.from({ length: 12 }, () => "txn"))
      }))
  )

  each(
    `cost by %s the same at each hand-over, however many wait (${cite("P7")})`,
    (view) =>
      provideMemory(Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const faults = yield* Etcd.Faults
        for (const length of [3, 300]) {
          const requests: Array<string> = []
          const entries = Array.from({ length }, (_, i) => `job/${(i + 1).toString(16)}-1`)
          yield* put(...entries)
          const { seen } = yield* lookOn(view, noted(etcd, requests))
          requests.length = 0
          yield* faults.deleteKey(entries[0]!)
          yield* pass(1)
          assert.lengthOf(seen, 2)
          assert.isAtMost(requests.length, 2)
          yield* faults.deletePrefix("job/")
        }
      }))
  )

  each("fail by %s when the first look does, as any read", (view) =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* faults.unreachable
      const { fiber } = yield* lookOn(view)
      yield* seconds(6)
      assert.include(failureOf(fiber.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", reason: "Unavailable" })
    })))

  each(
    "say by %s that etcd is out of reach, at once and every minute, and go on afterwards",
    (view) =>
      Effect.suspend(() => {
        const { logged, logger } = logs()
        return provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const { seen } = yield* lookOn(view)
          // It asks after five seconds, and an attempt lasts for up to five.
          yield* faults.unreachable
          yield* seconds(12)
          assert.lengthOf(logged, 1)
          assert.match(
            logged[0]!,
            /'?jo?b?'? cannot be seen: etcd .* failed \(Unavailable\): No connection established/
          )
          yield* seconds(150)
          assert.lengthOf(logged, 3)
          yield* faults.reachable
          yield* put("job/1-1")
          yield* seconds(1)
          assert.deepStrictEqual(seen, ["", "job/1-1"])
          yield* faults.unreachable
          yield* seconds(12)
          assert.lengthOf(logged, 4)
        })).pipe(Effect.provide(logger))
      })
  )

  each("keep by %s nothing of an hour in which etcd was out of reach", (view) =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      let attempts = 0
      yield* lookOn(view, {
        ...etcd,
        subscribe: (options, listener) => {
          if (attempts++ > 0) return Effect.withFiber(({ context }) => Effect.fail(keeping(context)))
          return Effect.tap(etcd.subscribe(options, listener), () =>
            Effect.sync(() => queueMicrotask(() => listener.onEnd(keeping(undefined)))))
        }
      })
      yield* Effect.repeat(pass("1 minute"), { times: 4 })
      const before = heap()
      yield* Effect.repeat(pass("1 minute"), { times: 54 })
      assert.isAbove(attempts, 15_000)
      assert.isBelow(heap() - before, 3)
    })), 60_000)

  it.effect("are shown the remaining time of the first holder by `changes`, and that of all by `inspect`", () =>
    provideMemory(Effect.gen(function*() {
      yield* put("job/read/1-1", "job/read/2-1", "job/3-1")
      const times = ({ holders, queue }: ReadWriteLock.Inspection) =>
        [...holders, ...queue].map(({ client: { remaining } }) => remaining !== undefined)
      const shown = yield* Stream.runHead(ReadWriteLock.changes("job"))
      assert.deepStrictEqual(times(Option.getOrThrow(shown)), [true, false, false])
      assert.deepStrictEqual(times(yield* ReadWriteLock.inspect("job")), [true, true, true])
    })))
})
