import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { batchesOf, connect, keys, leased, random63, text, unique, versionOf } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"

const lastByte = (key: string, byte: number) => Buffer.concat([Buffer.from(key), Uint8Array.of(byte)])

describe.concurrent("txn and range", () => {
  it.live("write, read and delete, and tell revisions", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = unique("txn")
      const first = yield* etcd.txn({ then: [Etcd.put(key, "one")] })
      assert.isTrue(first.succeeded)
      assert.deepStrictEqual(first.responses, [{ _tag: "Put" }])
      const second = yield* etcd.txn({ then: [Etcd.put(key, "two"), Etcd.get(key)] })
      const [, read] = second.succeeded ? second.responses : assert.fail("no condition, no else")
      assert.strictEqual(read.count, 1)
      const kv = read.kvs[0]!
      assert.strictEqual(text(kv.key), key)
      assert.strictEqual(text(kv.value), "two")
      assert.strictEqual(kv.createRevision, first.revision)
      assert.strictEqual(kv.modRevision, second.revision)
      assert.strictEqual(kv.version, 2n)
      assert.strictEqual(kv.lease, 0n)
      const alone = yield* etcd.range(Etcd.get(key))
      assert.deepStrictEqual(alone.kvs, read.kvs)
      assert.isTrue(alone.revision >= second.revision)
      const third = yield* etcd.txn({ then: [Etcd.remove(key), Etcd.remove(key), Etcd.get(key)] })
      assert.deepStrictEqual(third.responses, [
        { _tag: "Delete", deleted: 1 },
        { _tag: "Delete", deleted: 0 },
        { _tag: "Range", kvs: [], count: 0 }
      ])
    }))

  it.live("compare every property with every operator", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = Buffer.from(unique("compare"))
      const lease = yield* leased(etcd)
      const { revision: created } = yield* etcd.txn({ then: [Etcd.put(key, "m")] })
      const { revision: modified } = yield* etcd.txn({ then: [Etcd.put(key, "m", { lease })] })
      const holds = (compare: Etcd.Compare) =>
        Effect.map(etcd.txn({ compare: [compare], then: [] }), ({ succeeded }) => succeeded)
      for (
        const [target, value] of [
          ["CreateRevision", created],
          ["ModRevision", modified],
          ["Version", 2n],
          ["Lease", lease]
        ] as const
      ) {
        for (const other of [value - 1n, value, value + 1n]) {
          const told: Array<Etcd.Compare["operator"]> = []
          for (const operator of ["=", "!=", "<", ">"] as const) {
            if (yield* holds({ target, key, operator, value: other })) told.push(operator)
          }
          const expected = value === other ? ["="] : value < other ? ["!=", "<"] : ["!=", ">"]
          assert.deepStrictEqual(told, expected as typeof told, `${target} ${value} and ${other}`)
        }
      }
      for (const other of ["l", "m", "n"]) {
        const told: Array<Etcd.Compare["operator"]> = []
        for (const operator of ["=", "!=", "<", ">"] as const) {
          if (yield* holds(Etcd.compareValue(key, operator, other))) told.push(operator)
        }
        const expected = other === "m" ? ["="] : "m" < other ? ["!=", "<"] : ["!=", ">"]
        assert.deepStrictEqual(told, expected as typeof told, `Value m and ${other}`)
      }
      yield* etcd.txn({ then: [Etcd.remove(key)] })
      assert.isTrue(yield* holds(Etcd.compareCreateRevision(key, "=", 0n)))
      assert.isTrue(yield* holds(Etcd.compareModRevision(key, "=", 0n)))
    }))

  it.live("take the else branch when one condition fails", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = unique("else")
      const run = (value: string) =>
        etcd.txn({
          compare: [Etcd.compareCreateRevision(key, "=", 0n), Etcd.compareModRevision(key, "=", 0n)],
          then: [Etcd.put(key, value)],
          else: [Etcd.get(key), Etcd.get(unique("none"))]
        })
      const first = yield* run("first")
      const second = yield* run("second")
      assert.isTrue(first.succeeded)
      const [own, none] = second.succeeded ? assert.fail("the key existed") : second.responses
      assert.strictEqual(text(own.kvs[0]?.value), "first")
      assert.strictEqual(none.count, 0)
      assert.isTrue(second.revision >= first.revision)
    }))

  it.live("compare all keys of a range", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const prefix = unique("range-compare")
      const { key, rangeEnd } = Etcd.getPrefix(prefix)
      const empty = etcd.txn({
        compare: [{ target: "CreateRevision", key, rangeEnd, operator: "=", value: 0n }],
        then: [],
        else: [Etcd.getPrefix(prefix)]
      })
      assert.isTrue((yield* empty).succeeded)
      yield* etcd.txn({ then: [Etcd.put(`${prefix}/z`, "")] })
      assert.isFalse((yield* empty).succeeded)
      const exactly = etcd.txn({ compare: [Etcd.compareCreateRevision(prefix, "=", 0n)], then: [] })
      assert.isTrue((yield* exactly).succeeded)
    }))

  it.live("nest transactions, each with its own answer", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const [taken, free] = [unique("taken"), unique("free")]
      yield* etcd.txn({ then: [Etcd.put(taken, "before")] })
      const take = (key: string) =>
        Etcd.nested({
          compare: [Etcd.compareCreateRevision(key, "=", 0n)],
          then: [Etcd.put(key, "new"), Etcd.nested({ then: [Etcd.get(key)] })],
          else: [Etcd.get(key)]
        })
      const { responses, revision } = yield* etcd.txn({ then: [take(free), take(taken), Etcd.get(free)] })
      const [won, lost, after] = responses
      if (won?._tag !== "Txn" || !won.succeeded) return assert.fail("the key was free")
      assert.deepStrictEqual(won.responses[0], { _tag: "Put" })
      const inner = won.responses[1]
      assert.strictEqual(text(inner.succeeded ? inner.responses[0].kvs[0]?.value : undefined), "new")
      if (lost?._tag !== "Txn" || lost.succeeded) return assert.fail("the key was taken")
      assert.strictEqual(text(lost.responses[0].kvs[0]?.value), "before")
      assert.strictEqual(after?.kvs[0]?.createRevision, revision)
    }))

  it.live("limit, sort and filter ranges, and count all", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const prefix = unique("sort")
      const revisions: Array<bigint> = []
      for (const name of ["c", "a", "b"]) {
        revisions.push((yield* etcd.txn({ then: [Etcd.put(`${prefix}/${name}`, "")] })).revision)
      }
      const names = (options?: Parameters<typeof Etcd.getPrefix>[1]) =>
        Effect.map(
          etcd.range(Etcd.getPrefix(prefix, options)),
          (result) => [keys(result).map((key) => key?.at(-1)).join(""), result.count]
        )
      assert.deepStrictEqual(yield* names(), ["abc", 3])
      assert.deepStrictEqual(yield* names({ limit: 2 }), ["ab", 3])
      assert.deepStrictEqual(yield* names({ sort: "CreateAscending" }), ["cab", 3])
      assert.deepStrictEqual(yield* names({ sort: "CreateDescending", limit: 1 }), ["b", 3])
      const [before] = yield* names({ sort: "CreateDescending", limit: 1, maxCreateRevision: revisions[1]! })
      assert.strictEqual(before, "a")
      // Without an end it goes on to the keys of other tests.
      const open = yield* etcd.range({ ...Etcd.get(`${prefix}/b`), rangeEnd: Buffer.from("\0"), limit: 2 })
      assert.deepStrictEqual(keys(open), [`${prefix}/b`, `${prefix}/c`])
      const { responses } = yield* etcd.txn({ then: [Etcd.removePrefix(prefix)] })
      assert.deepStrictEqual(responses, [{ _tag: "Delete", deleted: 3 }])
    }))

  it.live("keep bytes that are no text", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const prefix = unique("bytes")
      const all = Uint8Array.from({ length: 256 }, (_, i) => i)
      const key = Buffer.concat([Buffer.from(prefix), all])
      const lastOfAll = lastByte(prefix, 0xff)
      yield* etcd.txn({ then: [Etcd.put(key, all), Etcd.put(lastOfAll, "")] })
      const found = yield* etcd.range(Etcd.get(key))
      assert.deepStrictEqual(Uint8Array.from(found.kvs[0]!.key), Uint8Array.from(key))
      assert.deepStrictEqual(Uint8Array.from(found.kvs[0]!.value), all)
      assert.strictEqual((yield* etcd.range(Etcd.getPrefix(prefix))).count, 2)
      assert.strictEqual((yield* etcd.range(Etcd.getPrefix(lastOfAll))).count, 1)
      assert.isTrue((yield* etcd.txn({ compare: [Etcd.compareValue(key, "=", all)], then: [] })).succeeded)
      // a part of a larger buffer
      const part = new Uint8Array([...Buffer.from("x"), ...key]).subarray(1)
      assert.strictEqual((yield* etcd.range(Etcd.get(part))).count, 1)
    }))

  it.live("refuse what etcd refuses", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = unique("refused")
      const twice = yield* Effect.flip(etcd.txn({ then: [Etcd.put(key, "1"), Etcd.put(key, "2")] }))
      assert.deepStrictEqual([twice.reason, twice.outcome, twice.method], ["InvalidArgument", "Refused", "txn"])
      assert.include(twice.message, "etcd txn failed (InvalidArgument): etcdserver: duplicate key given in txn request")
      const large = yield* Effect.flip(etcd.txn({ then: [Etcd.put(key, Buffer.alloc(3_000_000))] }))
      assert.deepStrictEqual([large.reason, large.outcome], ["InvalidArgument", "Refused"])
      const orphan = yield* Effect.flip(etcd.txn({ then: [Etcd.put(key, "", { lease: random63() })] }))
      assert.strictEqual(orphan.reason, "LeaseNotFound")
      assert.strictEqual(yield* versionOf(etcd, key), 0n)
    }))

  it.live("do not know the outcome where there is no space any more, since etcd may have found that afterwards", () =>
    Effect.gen(function*() {
      const { endpoint: hosts } = yield* EtcdServer.start({ args: ["--quota-backend-bytes=16777216"] })
      const etcd = yield* connect({ hosts })
      let count = 0
      const put = Effect.suspend(() => etcd.txn({ then: [Etcd.put(`fill/${count++}`, Buffer.alloc(20_000))] }))
      // Of those that are under way when the database is full, etcd applies some all the same.
      const errors = yield* Effect.forEach(Array.from({ length: 200 }), () => Effect.flip(Effect.forever(put)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        [...new Set(errors.map(({ outcome, reason }) => `${reason}, ${outcome}`))],
        ["NoSpace, Unknown"]
      )
    }))

  it.live("do not know the outcome where the answer is too large, and apply the request once", () =>
    Effect.gen(function*() {
      // Five megabytes would stay in the history of an etcd that is not the test's own.
      const { endpoint: hosts } = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts })
      for (let i = 0; i < 5; i++) yield* etcd.txn({ then: [Etcd.put(`large/${i}`, Buffer.alloc(1_000_000))] })
      const all = Etcd.getPrefix("large/")
      const requests: ReadonlyArray<readonly [string, Effect.Effect<unknown, Etcd.EtcdError>]> = [
        ["once", etcd.txn({ then: [Etcd.put("once", ""), all] })],
        ["idempotent", etcd.txn({ then: [Etcd.put("idempotent", ""), all], idempotent: true })],
        ["range", etcd.range(all)]
      ]
      for (const [name, request] of requests) {
        const error = yield* Effect.flip(request)
        assert.deepStrictEqual([error.reason, error.outcome], ["InvalidArgument", "Unknown"], name)
        assert.match(
          error.description,
          /^etcd's answer was too large to receive \(5\d{6} bytes, where 4194304 are the most\); read fewer keys, or set a `limit`$/
        )
      }
      assert.strictEqual(yield* versionOf(etcd, "once"), 1n)
      // A second sending would get the same answer.
      assert.strictEqual(yield* versionOf(etcd, "idempotent"), 1n)
      assert.strictEqual((yield* etcd.range({ ...all, limit: 4 })).kvs.length, 4)
    }))
})

describe.concurrent("the prefix", () => {
  it.live("is put before every key and taken off again", () =>
    Effect.gen(function*() {
      const prefix = unique("prefix")
      const [raw, etcd] = yield* Effect.all([connect(), connect({ prefix: `${prefix}/` })])
      yield* raw.txn({ then: [Etcd.put(`${prefix}-other`, ""), Etcd.put(`${prefix}0`, "")] })
      const { responses } = yield* etcd.txn({
        compare: [Etcd.compareCreateRevision("a", "=", 0n)],
        then: [
          Etcd.put("a", "1"),
          Etcd.nested({
            compare: [Etcd.compareCreateRevision("a", "=", 0n)],
            then: [Etcd.put("b", "2"), Etcd.getPrefix("a")]
          })
        ]
      })
      const inner = responses[1]
      assert.deepStrictEqual(inner?.succeeded === true ? keys(inner.responses[1]) : undefined, ["a"])
      assert.deepStrictEqual(keys(yield* raw.range(Etcd.getPrefix(`${prefix}/`))), [`${prefix}/a`, `${prefix}/b`])
      assert.deepStrictEqual(keys(yield* etcd.range(Etcd.get("b"))), ["b"])
      // conditions, too, are about its own keys only
      const isThere = [Etcd.compareCreateRevision("a", ">", 0n)]
      const { responses: [nested], succeeded } = yield* etcd.txn({
        compare: isThere,
        then: [Etcd.nested({ compare: isThere, then: [] })]
      })
      assert.isTrue(succeeded)
      assert.isTrue(nested?.succeeded)
      // the end of all keys is the end of the prefix
      const rest = yield* etcd.range({ _tag: "Range", key: Buffer.from("b"), rangeEnd: Buffer.from("\0") })
      assert.deepStrictEqual(keys(rest), ["b"])
      assert.deepStrictEqual(keys(yield* etcd.range(Etcd.getPrefix(""))), ["a", "b"])
      // and an empty end is none, as it is without a prefix
      for (const [some, key] of [[etcd, "a"], [raw, `${prefix}/a`]] as const) {
        const single = { key: Buffer.from(key), rangeEnd: Buffer.of() }
        assert.deepStrictEqual(keys(yield* some.range({ _tag: "Range", ...single })), [key])
        const compare = [{ ...single, target: "CreateRevision", operator: "=", value: 0n }] as const
        assert.isFalse((yield* some.txn({ compare, then: [] })).succeeded)
      }
      const removed = yield* etcd.txn({ then: [Etcd.removePrefix("")] })
      assert.deepStrictEqual(removed.responses, [{ _tag: "Delete", deleted: 2 }])
      assert.strictEqual((yield* raw.range(Etcd.getPrefix(prefix))).count, 2)
    }))

  it.live("is taken off the keys of events", () =>
    Effect.gen(function*() {
      const prefix = unique("prefix-watch")
      const [raw, etcd] = yield* Effect.all([connect(), connect({ prefix })])
      const watch = yield* etcd.watch({ key: Buffer.from("k"), rangeEnd: Buffer.from("\0") })
      yield* raw.txn({ then: [Etcd.put(`${prefix}j`, ""), Etcd.put(`${prefix}ka`, "1")] })
      yield* etcd.txn({ then: [Etcd.remove("ka")] })
      const events = (yield* batchesOf(watch, 2)).flat()
      assert.deepStrictEqual(events.map(({ _tag, kv }) => [_tag, text(kv.key)]), [["Put", "ka"], ["Delete", "ka"]])
    }))
})

describe.concurrent("leases", () => {
  it.live("are granted under IDs of 63 bits, renewed, asked about and revoked with their keys", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      for (const id of [random63(), (1n << 63n) - 1n - BigInt(process.pid), (1n << 53n) + random63() % 1_000_000n]) {
        const key = unique("lease")
        assert.strictEqual(yield* etcd.leaseGrant(id, 60), 60)
        yield* etcd.txn({ then: [Etcd.put(key, "", { lease: id })] })
        assert.strictEqual((yield* etcd.range(Etcd.get(key))).kvs[0]?.lease, id)
        assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 60)
        const { granted, remaining } = yield* etcd.leaseTimeToLive(id)
        assert.strictEqual(granted, 60)
        assert.isTrue(remaining > 50 && remaining <= 60)
        yield* etcd.leaseRevoke(id)
        assert.deepInclude(yield* etcd.leaseTimeToLive(id), { remaining: -1, granted: 0 })
        assert.strictEqual((yield* etcd.range(Etcd.get(key))).count, 0)
      }
    }))

  it.live("say when they exist already, and when they are gone", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const id = yield* leased(etcd)
      assert.strictEqual((yield* Effect.flip(etcd.leaseGrant(id, 60))).reason, "LeaseExists")
      yield* etcd.leaseRevoke(id)
      assert.strictEqual((yield* Effect.flip(etcd.leaseRevoke(id))).reason, "LeaseNotFound")
      assert.strictEqual((yield* etcd.leaseKeepAlive(id, 5000)).ttl, 0)
      assert.strictEqual((yield* Effect.flip(etcd.leaseGrant(random63(), 9_000_000_001))).reason, "InvalidArgument")
    }))

  it.live("share one stream for their renewals, however many they are", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const ids = yield* Effect.all(Array.from({ length: 20 }, (_, i) => leased(etcd, 60 + i)), {
        concurrency: "unbounded"
      })
      const answers = yield* Effect.forEach(ids, (id) => etcd.leaseKeepAlive(id, 5000), { concurrency: "unbounded" })
      assert.deepStrictEqual(answers.map(({ ttl }) => ttl), ids.map((_, i) => 60 + i))
    }))
})
