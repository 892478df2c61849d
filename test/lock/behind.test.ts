/** What those who look on see of requests that wait inside of a process. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { fork, pass, provideMemory, seconds, session, sessionThrough, stop } from "../support/inMemory.ts"
import { noted } from "../support/noted.ts"

const take = (name: string) => fork(Lock.withLock(Effect.never, name))
const behind = Effect.map(
  Lock.inspect("job"),
  ({ holder, queue }) => [holder, ...queue].map((client) => client?.behind)
)

describe("requests that wait behind another one of their process", () => {
  it.effect("are told of by its first entry, and no longer when they have given up", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "5 minutes" })
      yield* run(take("job"))
      yield* pass("1 second")
      assert.deepStrictEqual(yield* behind, [undefined])
      const waiting = yield* Effect.forEach([1, 2, 3], () => run(take("job")))
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [3])
      yield* stop(waiting.pop()!)
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [2])
      yield* Effect.forEach(waiting, stop)
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [undefined])
    })))

  it.effect("are told of by an entry that waits as well, and by the one that has its place afterwards", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session({ ttl: "5 minutes" }), session({ ttl: "5 minutes" })])
      const held = yield* a.run(take("job"))
      yield* pass("1 second")
      const waiting = yield* Effect.forEach([1, 2, 3], () => b.run(take("job")))
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [undefined, 2])
      yield* stop(held)
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [2])
      yield* stop(waiting[0]!)
      yield* seconds(2)
      assert.deepStrictEqual(yield* behind, [1])
    })))

  it.effect("of a semaphore are told of by the oldest of its process's entries", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "5 minutes" })
      const one = () => run(fork(Semaphore.withPermits(Effect.never, "job", { of: 2 })))
      yield* Effect.forEach([1, 2, 3, 4], one)
      yield* seconds(2)
      const { holders } = yield* Semaphore.inspect("job")
      assert.deepStrictEqual(holders.map(({ client }) => client.behind), [2, undefined])
    })))

  it.effect("cost one commit when their number has changed, and nothing afterwards", () =>
    provideMemory(Effect.gen(function*() {
      const requests: Array<string> = []
      const { run } = yield* sessionThrough((etcd) => noted(etcd, requests), { ttl: "5 minutes" })
      yield* run(take("job"))
      yield* seconds(2)
      yield* Effect.forEach(Array.from({ length: 100 }), () => run(take("job")))
      requests.length = 0
      yield* seconds(20)
      assert.deepStrictEqual(requests, ["txn"])
      assert.deepStrictEqual(yield* behind, [100])
    })))

  it.effect("are told of after an outage in which the first attempt has failed", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "5 minutes" })
      yield* run(take("job"))
      yield* pass("1 second")
      yield* Effect.forEach([1, 2, 3], () => run(take("job")))
      yield* faults.unreachable
      yield* seconds(10)
      yield* faults.reachable
      yield* seconds(10)
      assert.deepStrictEqual(yield* behind, [3])
    })))

  it.effect("change nothing of an entry that has been deleted meanwhile", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "5 minutes" })
      yield* run(take("job"))
      yield* pass("1 second")
      yield* run(take("job"))
      yield* faults.delay("1 second")
      yield* pass("1 second")
      const [before] = yield* faults.keys
      yield* faults.deleteKey(before!.key)
      yield* seconds(10)
      const after = yield* faults.keys
      assert.notInclude(after.map(({ key }) => Buffer.from(key).toString()), Buffer.from(before!.key).toString())
    })))

  it.effect("of a read-write lock are not told of: its entries are put once", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "5 minutes" })
      yield* Effect.forEach([1, 2], () => run(fork(ReadWriteLock.withWriteLock(Effect.never, "job"))))
      yield* seconds(3)
      const { holders } = yield* ReadWriteLock.inspect("job")
      assert.deepStrictEqual(holders.map(({ client }) => client.behind), [undefined])
      const [kv] = yield* Etcd.Faults.use(({ keys }) => keys)
      assert.strictEqual(kv!.version, 1n)
    })))
})
