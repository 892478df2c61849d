import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { prefixed } from "../../src/internal/etcd/namespace.ts"
import type { Transport } from "../../src/internal/etcd/transport.ts"
import { defectOf } from "../support/exits.ts"
import { fork, pass, provideMemory } from "../support/inMemory.ts"

const described = "{\"host\":\"box\",\"pid\":1,\"since\":\"2020-01-01T00:00:00Z\"}"

/** Puts entries of locks that other processes hold, as many as one transaction takes at a time. */
const put = Effect.fnUntraced(function*(keys: ReadonlyArray<string>, lease: bigint) {
  const etcd = yield* Etcd.Etcd
  for (let start = 0; start < keys.length; start += 100) {
    yield* etcd.txn({
      then: keys.slice(start, start + 100).map((key) => Etcd.put(key, described, { lease }))
    })
  }
})

const lease = 0x1fn

/** Lists locks through a connection that counts its requests, and that may not receive more keys than so many at a time. */
const listed = Effect.fnUntraced(function*(prefix: string, most = Infinity) {
  const etcd = yield* Etcd.Etcd
  const requests: Array<string> = []
  const locks = yield* Lock.list(prefix).pipe(Effect.provideService(Etcd.Etcd, {
    ...etcd,
    range: (range) => {
      requests.push("range")
      return Effect.filterOrFail(etcd.range(range), ({ kvs }) => kvs.length <= most, () =>
        new Etcd.EtcdError({
          reason: "InvalidArgument",
          method: "range",
          outcome: "Unknown",
          description: "larger than max"
        }))
    },
    txn: (request) => {
      requests.push("txn")
      return etcd.txn(request)
    }
  }))
  return { locks, requests }
})

describe("a list of locks", () => {
  it.effect("is read at once, however many there are", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      const names = Array.from({ length: 3000 }, (_, i) => `orders/${1000 + i}`)
      yield* put(names.flatMap((name) => [`${name}/1f-1`, `${name}/1f-2`]), lease)
      const { locks, requests } = yield* listed("orders/")
      assert.deepStrictEqual(requests, ["range"])
      assert.deepStrictEqual(locks.map(({ lock }) => lock), names)
      for (const { holder, layout, waiting } of locks) {
        assert.deepStrictEqual([layout, holder.host, waiting], ["queue", "box", 1])
      }
    })))

  it.effect("is read in parts when a reply would be too large: the leases, and then the holders' values", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      const waiters = Array.from({ length: 10_050 }, (_, i) => `orders/b/1f-${1 + i}`)
      yield* put(["orders/a", ...waiters, "orders/c/1f-7"], lease)
      const { locks, requests } = yield* listed("orders/", 300)
      // all, 1024 and 512 at a time are too many
      assert.deepStrictEqual(requests, [...Array.from({ length: 3 + 40 }, () => "range"), "txn"])
      assert.deepStrictEqual(locks.map(({ holder, lock, waiting }) => [lock, holder.key, holder.host, waiting]), [
        ["orders/a", "orders/a", "box", 0],
        ["orders/b", "orders/b/1f-1", "box", 10_049],
        ["orders/c", "orders/c/1f-7", "box", 0]
      ])
    })))

  it.effect("has the first entry as the holder, whatever the order of the keys", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      for (const n of [7, 3, 9]) yield* put([`orders/1f-${n}`], lease)
      const { locks: [lock] } = yield* listed("")
      assert.strictEqual(lock!.holder.key, "orders/1f-7")
    })))

  it.effect("has no other locks than those whose names begin with the prefix, and no keys that can be none", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      yield* put(
        ["orders/1f-1", "orders/7/1f-1", "orders/1f-1/x", "//done/nightly/run", "a//b", "/1f-1", "1f-1"],
        lease
      )
      const names = (prefix: string) =>
        Effect.map(listed(prefix), ({ locks }) => locks.map(({ layout, lock }) => `${layout} ${lock}`))
      assert.deepStrictEqual(yield* names(""), [
        "single-key 1f-1",
        "queue orders",
        "single-key orders/1f-1/x",
        "queue orders/7"
      ])
      assert.deepStrictEqual(yield* names("orders/1"), ["single-key orders/1f-1/x"])
      assert.deepStrictEqual(yield* names("orders/7"), ["queue orders/7"])
      assert.deepStrictEqual(yield* names("orders/7/"), [])
    })))

  it.effect("knows the entries of a lease whose ID is negative, as Go writes it", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(-0x1fn, 60))
      yield* put(["orders/-1f", "orders/-1f-1", "orders/1f-1"], -0x1fn)
      const { locks } = yield* listed("")
      assert.deepStrictEqual(locks.map(({ layout, lock, waiting }) => [layout, lock, waiting]), [
        ["queue", "orders", 1],
        ["single-key", "orders/1f-1", 0]
      ])
    })))

  it.effect("has the readers and the writers of a lock as one, and no lock that is named as their folders are", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      yield* put(["a/write/1f-1"], lease)
      yield* put(["a/read/1f-2", "a/read/1f-1", "b/read/read/1f-1", "read/1f-1", "write/read/1f-1", "b/read"], lease)
      for (const most of [Infinity, 2]) {
        const { locks } = yield* listed("", most)
        assert.deepStrictEqual(
          locks.map(({ holder, holding, lock, waiting }) => [lock, holder.key, holding, waiting]),
          [
            ["a", "a/write/1f-1", 1, 2]
          ]
        )
      }
      assert.deepStrictEqual((yield* listed("a/read")).locks, [])
    })))

  it.effect("has as many holders as readers, however many they are", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      yield* put(Array.from({ length: 10_000 }, (_, i) => `a/read/1f-${1 + i}`), lease)
      yield* put(["a/write/1f-1"], lease)
      const { locks: [lock] } = yield* listed("")
      assert.deepStrictEqual([lock!.holding, lock!.waiting], [10_000, 1])
    })))

  it.effect("has all locks under the prefix of a connection, and none beside it", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(lease, 60)
      yield* put(
        ["a", "apple", "app.", "app/!", "app/orders", "app/\u{10ffff}", "app0", "b"].map((name) => `${name}/1f-1`),
        lease
      )
      const through: Pick<Transport, "range" | "txn"> = { range: etcd.range, txn: etcd.txn }
      const { range } = prefixed(through as Transport, Buffer.from("app/"))
      const locks = yield* Effect.provideService(Lock.list(), Etcd.Etcd, { ...etcd, range: (all) => range(all, 1000) })
      assert.deepStrictEqual(locks.map(({ lock }) => lock), ["!", "orders", "\u{10ffff}"])
    })))

  it.effect("of a prefix that is no text is a defect", () =>
    provideMemory(Effect.gen(function*() {
      const exit = yield* Effect.exit(Lock.list(7 as unknown as string))
      assert.include((defectOf(exit) as Error).message, "Lock: prefix must be text")
    })))

  it.effect("is emitted now and after every change under the prefix, and of no other", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Etcd.use((etcd) => etcd.leaseGrant(lease, 60))
      yield* put(["orders/1/1f-1"], lease)
      const emitted: Array<ReadonlyArray<readonly [lock: string, waiting: number]>> = []
      yield* fork(Stream.runForEach(Lock.listChanges("orders/"), (locks) =>
        Effect.sync(() => {
          emitted.push(locks.map(({ lock, waiting }) => [lock, waiting]))
        })))
      yield* pass(0)
      yield* put(["orders/1/1f-2"], lease)
      yield* pass(0)
      yield* put(["others/1/1f-1"], lease)
      yield* pass(0)
      yield* Etcd.Etcd.use((etcd) => etcd.leaseRevoke(lease))
      yield* pass(0)
      assert.deepStrictEqual(emitted, [[["orders/1", 0]], [["orders/1", 1]], []])
      const exit = yield* Effect.exit(Stream.runHead(Lock.listChanges(7 as unknown as string)))
      assert.include((defectOf(exit) as Error).message, "Lock: prefix must be text")
    })))
})
