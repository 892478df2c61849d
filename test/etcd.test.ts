import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  type Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Redacted,
  Schedule,
  Scope
} from "effect"
import { Etcd } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { castGrpcError } from "etcd3"
import { execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import * as Service from "../src/internal/etcd/service.ts"
import { toEtcdError } from "../src/internal/etcd3/errors.ts"
import { aboutCertificates, denied } from "../src/internal/etcd3/plainer.ts"
import * as Auth from "./support/Auth.ts"
import * as EtcdServer from "./support/EtcdServer.ts"
import * as Proxy from "./support/Proxy.ts"
import * as Tls from "./support/Tls.ts"

const shared = inject("etcdEndpoint")

const connect = (options?: Partial<Etcd.Options>) =>
  Effect.map(
    Layer.build(Layer.fresh(Etcd.layer({ hosts: shared, ...options }))),
    Context.get(Etcd.Etcd)
  )

type Service = Etcd.Etcd["Service"]

const unique = (name: string) => `etcd-test-${name}-${crypto.randomUUID()}`

const text = (bytes: Uint8Array | undefined) => bytes === undefined ? undefined : Buffer.from(bytes).toString()

const keys = (result: Etcd.RangeResult) => result.kvs.map(({ key }) => text(key))

const lastByte = (key: string, byte: number) => Buffer.concat([Buffer.from(key), Uint8Array.of(byte)])

const versionOf = (etcd: Service, key: string) =>
  Effect.map(etcd.range(Etcd.get(key)), ({ kvs }) => kvs[0]?.version ?? 0n)

const until = <E>(what: string, condition: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  condition.pipe(
    Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: (holds) => holds }),
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error(`waited 20 s for ${what}`)) }),
    Effect.asVoid
  )

/** So many events, in the batches in which they come: etcd may tell of several revisions at once. */
const batchesOf = (watch: Etcd.Watch, count: number) =>
  Effect.gen(function*() {
    const batches: Array<ReadonlyArray<Etcd.WatchEvent>> = []
    while (batches.flat().length < count) batches.push(yield* watch.next)
    return batches
  })

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([duration, value]) => [value, Duration.toMillis(duration)] as const)

const random63 = () => BigInt.asUintN(63, crypto.getRandomValues(new BigUint64Array(1))[0]!) | (1n << 62n)

/** A lease that is gone when the test ends. */
const leased = Effect.fnUntraced(function*(etcd: Service, seconds = 60) {
  const id = random63()
  yield* Effect.acquireRelease(etcd.leaseGrant(id, seconds), () => Effect.ignore(etcd.leaseRevoke(id)))
  return id
})

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
      const open = yield* etcd.range({ _tag: "Range", key: Buffer.from(`${prefix}/b`), rangeEnd: Buffer.from("\0") })
      assert.deepStrictEqual(keys(open).slice(0, 2), [`${prefix}/b`, `${prefix}/c`])
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
        assert.strictEqual(yield* etcd.leaseKeepAlive(id, 5000), 60)
        const { granted, remaining } = yield* etcd.leaseTimeToLive(id)
        assert.strictEqual(granted, 60)
        assert.isTrue(remaining > 50 && remaining <= 60)
        yield* etcd.leaseRevoke(id)
        assert.deepStrictEqual(yield* etcd.leaseTimeToLive(id), { remaining: -1, granted: 0 })
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
      assert.strictEqual(yield* etcd.leaseKeepAlive(id, 5000), 0)
      assert.strictEqual((yield* Effect.flip(etcd.leaseGrant(random63(), 9_000_000_001))).reason, "InvalidArgument")
    }))

  it.live("share one stream for their renewals, however many they are", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const ids = yield* Effect.all(Array.from({ length: 20 }, (_, i) => leased(etcd, 60 + i)), {
        concurrency: "unbounded"
      })
      const answers = yield* Effect.forEach(ids, (id) => etcd.leaseKeepAlive(id, 5000), { concurrency: "unbounded" })
      assert.deepStrictEqual(answers, ids.map((_, i) => 60 + i))
    }))
})

describe.concurrent("watch", () => {
  it.live("sees all that happens once it is there, and nothing from before", () =>
    Effect.gen(function*() {
      const [etcd, other] = yield* Effect.all([connect(), connect()])
      for (let i = 0; i < 20; i++) {
        const key = unique("watch")
        const before = yield* other.txn({ then: [Etcd.put(key, "before")] })
        const watch = yield* etcd.watch({ key: Buffer.from(key) })
        assert.isTrue(watch.revision >= before.revision)
        const { revision } = yield* other.txn({ then: [Etcd.put(key, "after")] })
        const event = (yield* watch.next)[0]!
        assert.strictEqual(event._tag, "Put")
        assert.strictEqual(text(event.kv.value), "after")
        assert.strictEqual(event.kv.createRevision, before.revision)
        assert.strictEqual(event.kv.modRevision, revision)
        assert.isTrue(watch.revision < revision)
      }
    }))

  it.live("tells events in order, those of one revision together, each to its own watch", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const prefix = unique("order")
      const { key, rangeEnd } = Etcd.getPrefix(prefix)
      const [all, puts, deletes, one] = yield* Effect.all([
        etcd.watch({ key, rangeEnd }),
        etcd.watch({ key, rangeEnd, only: "Put" }),
        etcd.watch({ key, rangeEnd, only: "Delete" }),
        etcd.watch({ key: Buffer.from(`${prefix}b`) })
      ], { concurrency: "unbounded" })
      for (const name of ["a", "b", "c"]) yield* etcd.txn({ then: [Etcd.put(`${prefix}${name}`, name)] })
      const { revision } = yield* etcd.txn({ then: [Etcd.removePrefix(prefix)] })
      const told = (watch: Etcd.Watch, count: number) =>
        Effect.map(batchesOf(watch, count), (batches) => {
          const revisions = batches.flatMap((events) => [...new Set(events.map(({ kv }) => kv.modRevision))])
          return revisions.map((revision, i) => {
            assert.isTrue(i === 0 || revision > revisions[i - 1]!, "no revision comes in two batches")
            const events = batches.flat().filter(({ kv }) => kv.modRevision === revision)
            return events.map(({ _tag, kv }) => `${_tag} ${text(kv.key)?.at(-1)}`).join()
          }).join("; ")
        })
      assert.strictEqual(yield* told(all, 6), "Put a; Put b; Put c; Delete a,Delete b,Delete c")
      assert.strictEqual(yield* told(puts, 3), "Put a; Put b; Put c")
      const [deleted] = yield* deletes.next
      assert.strictEqual(deleted?.kv.modRevision, revision)
      assert.strictEqual(yield* told(one, 2), "Put b; Delete b")
    }))

  it.live("ends on the server with its scope, without disturbing the others", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const watchers = Effect.map(
        Effect.promise(() => fetch(`http://${server.endpoint}/metrics`).then((response) => response.text())),
        (metrics) => Number(/^etcd_debugging_mvcc_watcher_total (\d+)/m.exec(metrics)?.[1])
      )
      const outer = yield* etcd.watch({ key: Buffer.from("a") })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* etcd.watch({ key: Buffer.from("b") })
        yield* etcd.watch({ key: Buffer.from("c") })
        assert.strictEqual(yield* watchers, 3)
      }))
      yield* until("the watches to end", Effect.map(watchers, (count) => count === 1))
      // an interrupted one too, whenever that happens
      for (let i = 0; i < 20; i++) {
        const watching = yield* Effect.forkChild(Effect.scoped(etcd.watch({ key: Buffer.from("d") })), {
          startImmediately: true
        })
        if (i % 2 === 1) yield* Effect.sleep("1 millis")
        yield* Fiber.interrupt(watching)
      }
      yield* until("the watches to end", Effect.map(watchers, (count) => count === 1))
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.strictEqual((yield* outer.next).length, 1)
    }))

  it.live("goes on for as long as it is wanted, whichever of them were opened first", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = Buffer.from(unique("watched"))
      const first = yield* Scope.make()
      yield* Scope.provide(etcd.watch({ key }), first)
      const { next } = yield* etcd.watch({ key })
      yield* Scope.close(first, Exit.void)
      // longer than a stream is kept that nobody needs
      yield* Effect.sleep("11 seconds")
      yield* etcd.txn({ then: [Etcd.put(key, "")] })
      assert.strictEqual((yield* next).length, 1)
    }))

  it.live("fails when etcd dies, and can be opened again after its restart", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const watch = yield* etcd.watch({ key: Buffer.from("a") })
      yield* server.kill
      assert.strictEqual((yield* Effect.flip(watch.next)).reason, "Unavailable")
      assert.strictEqual((yield* Effect.flip(watch.next)).reason, "Unavailable")
      yield* server.restart
      const again = yield* etcd.watch({ key: Buffer.from("a") })
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.strictEqual((yield* again.next).length, 1)
    }))
})

describe.concurrent("a connection", () => {
  const everyCall = (etcd: Service): ReadonlyArray<readonly [string, Effect.Effect<unknown, Etcd.EtcdError>]> => [
    ["range", etcd.range(Etcd.get("a"))],
    ["txn", etcd.txn({ then: [Etcd.put(unique("any"), "")] })],
    ["idempotent txn", etcd.txn({ then: [Etcd.get("a")] })],
    ["leaseGrant", etcd.leaseGrant(random63(), 5)],
    ["leaseRevoke", etcd.leaseRevoke(random63())],
    ["leaseTimeToLive", etcd.leaseTimeToLive(random63())],
    ["leaseKeepAlive", etcd.leaseKeepAlive(random63(), 1000)],
    ["watch", Effect.scoped(etcd.watch({ key: Buffer.from("a") }))]
  ]

  const assertBounded = Effect.fnUntraced(function*(etcd: Service) {
    yield* Effect.forEach(
      everyCall(etcd),
      Effect.fnUntraced(function*([name, call]) {
        const [error, millis] = yield* elapsed(Effect.flip(call))
        assert.include(["Timeout", "Unavailable"], error.reason, name)
        // the request timeout of a second, and what a busy machine adds
        assert.isBelow(millis, 1700, name)
      }),
      { concurrency: "unbounded" }
    )
  })

  it.live("passes over a host where there is none", () =>
    Effect.gen(function*() {
      for (const method of ["range", "txn", "leaseGrant", "watch"]) {
        const etcd = yield* connect({ hosts: ["127.0.0.1:1", shared], requestTimeout: "3 seconds" })
        yield* everyCall(etcd).find(([name]) => name === method)![1]
      }
    }))

  it.live("ends every call in time when nothing comes back", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const fresh = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      const used = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      yield* used.range(Etcd.get("a"))
      yield* used.leaseKeepAlive(random63(), 1000)
      yield* used.watch({ key: Buffer.from("a") })
      yield* proxy.stall
      yield* Effect.all([assertBounded(fresh), assertBounded(used)], { concurrency: "unbounded" })
      yield* proxy.cut
      yield* proxy.resume
      yield* Effect.forEach([fresh, used], (etcd) => etcd.range(Etcd.get("a")))
    }))

  it.live("ends every call in time when etcd stands still, and recovers with it", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint, requestTimeout: "1 second" })
      yield* etcd.range(Etcd.get("a"))
      yield* server.pause
      yield* assertBounded(etcd)
      yield* server.resume
      yield* Effect.retry(etcd.range(Etcd.get("a")), { times: 10 })
    }))

  it.live("sends an idempotent transaction again when its answer is lost", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const [etcd, direct] = yield* Effect.all([connect({ hosts: proxy.endpoint }), connect()])
      const key = unique("lost-reply")
      yield* etcd.range(Etcd.get(key))
      yield* proxy.dropReplies
      const sent = yield* etcd.txn({
        compare: [Etcd.compareCreateRevision(key, "=", 0n)],
        then: [Etcd.put(key, "mine")],
        else: [Etcd.get(key)],
        idempotent: true
      }).pipe(Effect.forkChild({ startImmediately: true }))
      yield* until("etcd to apply it", Effect.map(versionOf(direct, key), (version) => version === 1n))
      yield* until("its answer to be lost", proxy.hasDropped)
      yield* proxy.resume
      const answer = yield* Fiber.join(sent)
      const [own] = answer.succeeded ? assert.fail("it was applied before") : answer.responses
      assert.strictEqual(text(own.kvs[0]?.value), "mine")
      assert.strictEqual(own.kvs[0]?.version, 1n)
    }))

  it.live("does not send another transaction again, and says that its outcome is unknown", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const [etcd, direct] = yield* Effect.all([connect({ hosts: proxy.endpoint }), connect()])
      const key = unique("lost-reply")
      yield* etcd.range(Etcd.get(key))
      yield* proxy.dropReplies
      const sent = yield* Effect.forkChild(Effect.flip(etcd.txn({ then: [Etcd.put(key, "")] })), {
        startImmediately: true
      })
      yield* until("etcd to apply it", Effect.map(versionOf(direct, key), (version) => version === 1n))
      yield* until("its answer to be lost", proxy.hasDropped)
      yield* proxy.resume
      const error = yield* Fiber.join(sent)
      assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Unknown"])
      yield* Effect.sleep("300 millis")
      assert.strictEqual(yield* versionOf(direct, key), 1n)
    }))

  it.live("sends such a transaction again as long as it could not be sent at all", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: proxy.endpoint })
      const key = unique("refused")
      yield* proxy.refuse
      const sent = yield* Effect.forkChild(etcd.txn({ then: [Etcd.put(key, "")] }), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* proxy.accept
      assert.isTrue((yield* Fiber.join(sent)).succeeded)
      assert.strictEqual(yield* versionOf(etcd, key), 1n)
    }))

  it.live("sends it to the next host, too, when another call gave up the connection that it waited for", () =>
    Effect.gen(function*() {
      const [mute, other] = yield* Effect.all([Proxy.make(shared), Proxy.make(shared)])
      yield* mute.stall
      const etcd = yield* connect({ hosts: [mute.endpoint, other.endpoint], requestTimeout: "6 seconds" })
      const key = unique("given-up")
      // A read is repeated after a third of the time, and closes the channel in which the other waits for longer.
      yield* Effect.all([etcd.range(Etcd.get(key)), etcd.txn({ then: [Etcd.put(key, "")] })], {
        concurrency: "unbounded"
      })
      assert.strictEqual(yield* versionOf(etcd, key), 1n)
      yield* etcd.txn({ then: [Etcd.remove(key)] })
    }))

  it.live("names the host where the connection was given up, to which nothing was sent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      yield* proxy.stall
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      // The read ends after a second, and with it the connection. A renewal is one attempt.
      yield* Effect.forkChild(Effect.exit(etcd.range(Etcd.get("a"))), { startImmediately: true })
      const error = yield* Effect.flip(etcd.leaseKeepAlive(random63(), 10_000))
      assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Refused"])
      assert.include(
        error.message,
        `the connection was given up before the request was sent (${proxy.endpoint})`
      )
    }))

  it.live("replaces its streams when it was cut", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: proxy.endpoint })
      const id = yield* leased(etcd)
      const key = unique("cut")
      for (let i = 0; i < 3; i++) {
        const watch = yield* etcd.watch({ key: Buffer.from(key) })
        yield* etcd.txn({ then: [Etcd.put(key, "")] })
        assert.strictEqual((yield* watch.next).length, 1)
        assert.strictEqual(yield* etcd.leaseKeepAlive(id, 5000), 60)
        yield* proxy.cut
        const lost = yield* Effect.flip(watch.next)
        assert.deepStrictEqual([lost.reason, lost.method], ["Unavailable", "watch"])
      }
      assert.strictEqual(yield* Effect.retry(etcd.leaseKeepAlive(id, 5000), { times: 1 }), 60)
    }))

  it.live("gives up streams that have fallen silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: [proxy.endpoint, shared], requestTimeout: "4500 millis" })
      const id = yield* leased(etcd)
      yield* etcd.leaseKeepAlive(id, 5000)
      yield* proxy.stall
      assert.strictEqual((yield* Effect.flip(etcd.leaseKeepAlive(id, 300))).reason, "Timeout")
      assert.strictEqual(yield* etcd.leaseKeepAlive(id, 5000), 60)
    }))

  it.live("gives up streams of watches that have fallen silent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: [proxy.endpoint, shared], requestTimeout: "4500 millis" })
      const key = Buffer.from(unique("silent"))
      const first = yield* etcd.watch({ key })
      yield* proxy.stall
      const second = yield* etcd.watch({ key })
      assert.strictEqual((yield* Effect.flip(first.next)).reason, "Timeout")
      yield* etcd.txn({ then: [Etcd.put(key, "")] })
      assert.strictEqual((yield* second.next).length, 1)
    }))
})

describe.concurrent("a cluster", () => {
  it.live("is used by another member when one freezes or dies", () =>
    Effect.gen(function*() {
      const members = yield* EtcdServer.startCluster(3)
      const etcd = yield* connect({
        hosts: members.map(({ endpoint }) => endpoint),
        requestTimeout: "9 seconds"
      })
      const id = yield* leased(etcd)
      const watches = Effect.gen(function*() {
        const watch = yield* etcd.watch({ key: Buffer.from("a") })
        yield* etcd.txn({ then: [Etcd.put("a", "")], idempotent: true })
        assert.isAtLeast((yield* watch.next).length, 1)
      }).pipe(Effect.scoped)
      const works = Effect.gen(function*() {
        // the connection to a member that just woke up may be given up late, and its watches with it
        yield* Effect.retry(watches, { times: 1 })
        // one attempt at a time, since it tries no second
        yield* Effect.retry(etcd.leaseKeepAlive(id, 1000), { times: 8 })
      })
      yield* works
      yield* members[0]!.pause
      yield* works
      yield* members[0]!.resume
      yield* members[1]!.kill
      yield* works
    }))

  it.live("fails its streams when the member that they use has lost the others", () =>
    Effect.gen(function*() {
      const members = yield* EtcdServer.startCluster(3)
      const etcd = yield* connect({ hosts: members[0]!.endpoint })
      const id = yield* leased(etcd)
      const watch = yield* etcd.watch({ key: Buffer.from("a") })
      yield* etcd.leaseKeepAlive(id, 1000)
      yield* Effect.all([members[1]!.kill, members[2]!.kill], { concurrency: "unbounded" })
      const [error, millis] = yield* elapsed(Effect.flip(watch.next))
      assert.strictEqual(error.reason, "Unavailable")
      assert.include(error.message, "no leader")
      assert.isBelow(millis, 8000)
      assert.isTrue((yield* Effect.flip(etcd.leaseKeepAlive(id, 1000))).isTransient)
      const call = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.include(["Unavailable", "Timeout"], call.reason)
      yield* Effect.all([members[1]!.restart, members[2]!.restart], { concurrency: "unbounded" })
      yield* Effect.retry(etcd.watch({ key: Buffer.from("a") }), { times: 5 })
    }))
})

describe.concurrent("authentication", () => {
  const user = (username: string, password: string) => ({ auth: { username, password: Redacted.make(password) } })

  // Ann may do all under `reports/`.
  const startWithAuth = (...args: ReadonlyArray<string>) =>
    Auth.start({ args, users: { ann: { password: "secret", prefix: "reports/" } } })

  const inScope = (etcd: Service) =>
    [
      ["range", Effect.asVoid(etcd.range(Etcd.get("reports/a")))],
      ["txn", Effect.asVoid(etcd.txn({ then: [Etcd.put("reports/a", "")] }))],
      ["leaseGrant", Effect.asVoid(etcd.leaseGrant(random63(), 60))],
      ["watch", Effect.asVoid(Effect.scoped(etcd.watch({ key: Buffer.from("reports/a") })))]
    ] as const

  it.live("is told apart from permission, by every call", () =>
    Effect.gen(function*() {
      const { endpoint: hosts } = yield* startWithAuth()
      const ann = yield* connect({ hosts, ...user("ann", "secret") })
      for (const [, call] of inScope(ann)) yield* call

      const below = yield* connect({ hosts, prefix: "secrets/", ...user("ann", "secret") })
      const roles = "the roles of user \"ann\" do not allow this on"
      const denied = [
        [ann.range(Etcd.get("secrets")), `${roles} key "secrets"`],
        [ann.txn({ then: [Etcd.put("secrets", "")] }), `${roles} key "secrets"`],
        [Effect.scoped(ann.watch({ key: Buffer.from("secrets") })), `${roles} key "secrets"`],
        // The key is named as etcd knows it, since that is what the role has to allow.
        [below.range(Etcd.get("a")), `${roles} key "secrets/a"`],
        [
          ann.txn({
            compare: [Etcd.compareCreateRevision("reports/a", "=", 0n)],
            then: [Etcd.nested({ then: [Etcd.get("reports/a")] }), Etcd.put("secrets", "")]
          }),
          `${roles} all keys of the request, the first of which is "reports/a"`
        ]
      ] as const
      for (const [call, text] of denied) {
        const error = yield* Effect.flip<unknown, Etcd.EtcdError, never>(call)
        assert.deepStrictEqual([error.reason, error.outcome], ["PermissionDenied", "Refused"], error.method)
        assert.strictEqual(error.description, text)
        assert.notInclude(JSON.stringify(error) + String(error), "secret\"")
      }
      // which has not harmed the stream that others use
      yield* inScope(ann)[3][1]

      for (
        const [options, cure] of [
          [user("ann", "wrong"), "wrong user name or password"],
          [user("nobody", "secret"), "wrong user name or password"],
          [{}, "this etcd wants a user name and a password; set `auth`"]
        ] as const
      ) {
        const etcd = yield* connect({ hosts, ...options })
        for (const [name, call] of inScope(etcd)) {
          // etcd grants leases to whom it does not know
          if (name === "leaseGrant" && !("auth" in options)) continue
          const error = yield* Effect.flip(call)
          assert.strictEqual(error.reason, "Unauthenticated", `${name}: ${error.message}`)
          assert.include(error.message, cure, name)
        }
      }
    }))

  it.live("goes on after the token has expired", () =>
    Effect.gen(function*() {
      const { endpoint: hosts } = yield* startWithAuth("--auth-token=simple", "--auth-token-ttl=1")
      const etcd = yield* connect({ hosts, ...user("ann", "secret") })
      const key = Buffer.from("reports/a")
      const id = yield* leased(etcd)
      const running = yield* etcd.watch({ key })
      yield* etcd.leaseKeepAlive(id, 1000)
      const expired = Effect.sleep("2500 millis")

      yield* expired
      yield* etcd.txn({ then: [Etcd.put(key, "1")] })
      yield* expired
      const after = yield* etcd.watch({ key })
      assert.strictEqual(yield* etcd.leaseKeepAlive(id, 1000), 60)
      yield* etcd.txn({ then: [Etcd.put(key, "2")] })
      assert.strictEqual((yield* after.next).length, 1)
      assert.strictEqual(text((yield* running.next)[0]?.kv.value), "1")
      assert.strictEqual(text((yield* running.next)[0]?.kv.value), "2")
    }))

  it.live("ends every call in time when the token cannot be had", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1400 millis", ...user("ann", "secret") })
      yield* proxy.stall
      // a second attempt has less time than the client gives the token
      const calls = [...inScope(etcd), ["leaseKeepAlive", Effect.asVoid(etcd.leaseKeepAlive(1n, 400))] as const]
      for (const [name, call] of calls) {
        const [error, millis] = yield* elapsed(Effect.flip(call))
        assert.strictEqual(error.reason, "Timeout", name)
        assert.isBelow(millis, name === "leaseKeepAlive" ? 900 : 1850, name)
      }
    }))

  it.live("passes over a host where there is none", () =>
    Effect.gen(function*() {
      const { endpoint } = yield* startWithAuth()
      const hosts = ["127.0.0.1:1", endpoint]
      for (const i of [0, 1, 2, 3]) {
        yield* inScope(yield* connect({ hosts, ...user("ann", "secret") }))[i]![1]
      }
    }))

  it.live("that etcd does not ask for says so", () =>
    Effect.gen(function*() {
      const etcd = yield* connect(user("ann", "secret"))
      for (const [, call] of inScope(etcd)) {
        const error = yield* Effect.flip(call)
        assert.strictEqual(error.reason, "Unauthenticated")
        assert.include(error.message, "this etcd has no authentication enabled; leave out `auth`")
      }
    }))
})

const pem = (path: string) => Fs.readFileSync(path, "utf8")

const certificates = (of: { readonly ca: string; readonly cert: string; readonly key: string }) => ({
  ca: pem(of.ca),
  cert: pem(of.cert),
  key: Redacted.make(pem(of.key))
})

describe.concurrent("TLS", () => {
  it.live("is spoken where it is asked for, and its mistakes are told as such", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const https = `https://${server.endpoint}`
      const good = certificates(Tls.client)
      for (const hosts of [https, `${https}/`, server.endpoint]) {
        const etcd = yield* connect({ hosts, tls: good })
        yield* etcd.range(Etcd.get("a"))
        yield* etcd.watch({ key: Buffer.from("a") })
        yield* etcd.leaseKeepAlive(random63(), 1000)
      }
      const mistakes: ReadonlyArray<readonly [string, Partial<Etcd.Options>, string | RegExp]> = [
        [
          "another authority",
          { hosts: https, tls: { ...good, ca: pem(Tls.foreignCa) } },
          "etcd's certificate is not signed by `tls.ca`"
        ],
        [
          "no authority",
          { hosts: https },
          "etcd's certificate is not signed by an authority that Node trusts; set `tls.ca`"
        ],
        [
          "no client certificate",
          { hosts: https, tls: { ca: good.ca } },
          "etcd wants a client certificate; set `tls.cert` and `tls.key`"
        ],
        [
          "an expired client certificate",
          { hosts: https, tls: certificates(Tls.expiredClient) },
          "etcd refused our client certificate: expired (on 2020-02-01T00:00:00.000Z)"
        ],
        [
          "a foreign client certificate",
          { hosts: https, tls: certificates(Tls.foreignClient) },
          // Older versions of etcd do not say what is wrong with it.
          /^etcd refused our client certificate(: not signed by an|; an) authority that etcd trusts/
        ],
        ["http to https", { hosts: server.endpoint }, "etcd speaks TLS here; write the host with https://"],
        [
          "https to http",
          { hosts: `https://${shared}` },
          "etcd does not speak TLS here; write the host with http:// and leave out `tls`"
        ]
      ]
      for (const [name, options, cure] of mistakes) {
        const etcd = yield* connect({ requestTimeout: "2 seconds", ...options })
        const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
          etcd.range(Etcd.get("a")),
          etcd.txn({ then: [Etcd.put("a", "")] }),
          etcd.leaseKeepAlive(1n, 1000),
          Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
        ]
        for (const call of calls) {
          const error = yield* Effect.flip(call)
          assert.deepStrictEqual([error.reason, error.outcome], ["Tls", "Refused"], `${name}: ${error.message}`)
          if (typeof cure === "string") assert.strictEqual(error.description, cure, name)
          else assert.match(error.description, cure, name)
        }
      }
    }))

  it.live("trusts Node's own list of authorities where there is no `ca`, and what the variables say", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: Tls.server })
      const program = `
        import { Effect } from "effect"
        import { Etcd } from "effect-etcd-lock"
        const read = (options) => Effect.flatMap(Etcd.Etcd, (etcd) => etcd.range(Etcd.get("a"))).pipe(
          Effect.match({ onSuccess: () => "trusted", onFailure: ({ reason }) => reason }),
          Effect.provide(Etcd.layer({ hosts: "https://${server.endpoint}", ...options }))
        )
        console.log(...await Effect.runPromise(Effect.all([read({}), read({ tls: {} })])))
      `
      const isAboutAuthorities = (variable: string) => /^(NODE_|SSL_CERT_|GRPC_)/.test(variable)
      const others = Object.fromEntries(Object.entries(process.env).filter(([name]) => !isAboutAuthorities(name)))
      const run = (env: NodeJS.ProcessEnv) =>
        Effect.callback<string>((resume) => {
          const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
          const child = execFile(
            process.execPath,
            args,
            { env: { ...others, ...env } },
            (error, stdout) => resume(error === null ? Effect.succeed(stdout.trim()) : Effect.die(error))
          )
          return Effect.sync(() => child.kill("SIGKILL"))
        })
      assert.deepStrictEqual(
        yield* Effect.all([
          run({}),
          run({ NODE_EXTRA_CA_CERTS: Tls.ca }),
          run({ GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: Tls.ca })
        ], { concurrency: "unbounded" }),
        ["Tls Tls", "trusted trusted", "trusted trusted"]
      )
    }))

  it.live("does not take a connection that is cut for a mistake", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      for (const [target, options] of [[server.endpoint, { tls: certificates(Tls.client) }], [shared, {}]] as const) {
        const proxy = yield* Proxy.make(target)
        const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "4 seconds", ...options })
        const cutting = yield* Effect.forkChild(Effect.forever(Effect.andThen(proxy.cut, Effect.sleep("1 millis"))))
        const call = yield* Effect.forkChild(etcd.range(Etcd.get("a")), { startImmediately: true })
        const watch = yield* Effect.forkChild(Effect.scoped(etcd.watch({ key: Buffer.from("a") })), {
          startImmediately: true
        })
        yield* Effect.sleep("500 millis")
        yield* Fiber.interrupt(cutting)
        yield* Fiber.join(call)
        yield* Fiber.join(watch)
      }
    }))

  it.live("is set up from etcdctl's own variables", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const etcd = yield* fromVariables({
        ETCDCTL_ENDPOINTS: `https://127.0.0.1:1,https://${server.endpoint}`,
        ETCDCTL_CACERT: Tls.client.ca,
        ETCDCTL_CERT: Tls.client.cert,
        ETCDCTL_KEY: Tls.client.key,
        ETCDCTL_COMMAND_TIMEOUT: "3s"
      })
      yield* etcd.txn({ then: [Etcd.put("a", "1")] })
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).count, 1)
    }))
})

describe.concurrent("bad input", () => {
  it.live("names a host that cannot be reached", () =>
    Effect.gen(function*() {
      for (
        const [hosts, told] of [
          ["127.0.0.1:1", /cannot connect to etcd \(.*127\.0\.0\.1:1\)$/],
          ["no-such-host.invalid:2379", /cannot find the host; check its name \(.*no-such-host\.invalid:2379\)$/],
          [["127.0.0.1:1", "127.0.0.1:2"], /cannot connect to etcd \(.*127\.0\.0\.1:[12]\)$/]
        ] as const
      ) {
        const etcd = yield* connect({ hosts, requestTimeout: "1 second" })
        const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
          etcd.range(Etcd.get("a")),
          etcd.txn({ then: [Etcd.put("a", "")] }),
          etcd.leaseKeepAlive(1n, 1000),
          Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
        ]
        yield* Effect.forEach(
          calls,
          Effect.fnUntraced(function*(call) {
            const [error, millis] = yield* elapsed(Effect.flip(call))
            assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Refused"], error.method)
            assert.match(error.message, told)
            assert.isBelow(millis, 3000)
          }),
          { concurrency: "unbounded" }
        )
      }
    }))

  it.live("may be a host that never answers, to which nothing was sent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      yield* proxy.stall
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      const error = yield* Effect.flip(etcd.txn({ then: [Etcd.put("a", "")] }))
      assert.deepStrictEqual([error.reason, error.outcome], ["Timeout", "Refused"])
      assert.include(error.message, `no connection in time (${proxy.endpoint})`)
    }))

  it.live("is not what only looks like it", () =>
    Effect.gen(function*() {
      const port = shared.split(":").at(-1)
      for (
        const hosts of [
          `${shared}/`,
          `http://${shared}`,
          `HTTP://${shared}//`,
          ` ${shared} `,
          ...shared.startsWith("127.0.0.1") ? [`localhost:${port}`] : []
        ]
      ) {
        yield* (yield* connect({ hosts })).range(Etcd.get("a"))
      }
    }))

  it.live("is not a bracketed IPv6 address", () =>
    Effect.gen(function*() {
      const etcd = yield* connect({ hosts: "[::1]:1", requestTimeout: "100 millis" })
      const error = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.strictEqual(error.reason, "Unavailable", error.message)
    }))

  const good = certificates(Tls.client)
  const hosts = "https://etcd.invalid:2379"
  it.effect.each(
    [
      [{ hosts: [] }, "Etcd: hosts is empty. Name at least one member, such as \"127.0.0.1:2379\"."],
      [{ hosts: "" }, "Etcd: cannot use host \"\" of hosts: it names no host"],
      [{ hosts: ":2379" }, "it names no host"],
      [
        { hosts: "etcd" },
        "Etcd: cannot use host \"etcd\" of hosts: it has no port (etcd's own is 2379). Write it as \"host:port\""
      ],
      [{ hosts: "http://etcd/" }, "Etcd: cannot use host \"http://etcd/\" of hosts: it has no port"],
      [{ hosts: "etcd:" }, "Etcd: cannot use host \"etcd:\""],
      [{ hosts: "etcd:99999" }, "there is no port 99999"],
      [{ hosts: "::1" }, "an IPv6 address needs brackets, as in \"[::1]:2379\""],
      [{ hosts: "::1:2379" }, "an IPv6 address needs brackets, as in \"[::1]:2379\""],
      [{ hosts: "ftp://etcd:2379" }, "the scheme \"ftp\" is none that etcd speaks"],
      [{ hosts: "http://etcd:2379/v3" }, "it has more than a host and a port"],
      [
        { hosts: ["https://a:2379", "b:2379"] },
        "Etcd: hosts mixes https:// with plain addresses (https://a:2379, b:2379)"
      ],
      [{ hosts: "http://etcd:2379", tls: {} }, "Etcd: tls is set, but host \"http://etcd:2379\" of hosts says http://"],
      [{ hosts, tls: { ca: "/etc/ca.pem" } }, "Etcd: tls.ca is not PEM text"],
      [{ hosts, tls: { ...good, cert: "client.pem" } }, "Pass the file's content, not its path."],
      [{ hosts, tls: { ...good, key: Redacted.make("x") } }, "Etcd: tls.key is not PEM text"],
      [
        { hosts, tls: { cert: good.cert } },
        "Etcd: tls.cert is set without tls.key. A client certificate needs both."
      ],
      [{ hosts, tls: { key: good.key } }, "Etcd: tls.key is set without tls.cert"],
      [
        { hosts, tls: { ca: "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----" } },
        "Etcd: tls.ca cannot be used: "
      ],
      [{ hosts, tls: { ...good, cert: good.cert.slice(0, 200) } }, "Etcd: tls.cert cannot be used: "],
      [{ hosts, tls: { ...good, key: certificates(Tls.foreignClient).key } }, "Etcd: tls.key cannot be used: "],
      [{ hosts, requestTimeout: 0 }, "requestTimeout must be between 1 millisecond and 24 days, got 0 ms"],
      [{ hosts, requestTimeout: -1 }, "requestTimeout must be between 1 millisecond and 24 days, got -1 ms"],
      [
        { hosts, requestTimeout: Infinity },
        "requestTimeout must be between 1 millisecond and 24 days, got Infinity"
      ],
      [
        { hosts, requestTimeout: "30 days" },
        "requestTimeout must be between 1 millisecond and 24 days, got \"30 days\""
      ]
    ].map(([options, told]) => [told, options]) as ReadonlyArray<[string, Etcd.Options]>
  )("is a defect: %s", ([told, options]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(connect(options))
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, RangeError)
      assert.include(defect.message, told)
    }))
})

const fromVariables = (env: Record<string, string>, options?: Pick<Etcd.Options, "prefix">) =>
  Layer.build(Layer.fresh(Etcd.layerConfig(options))).pipe(
    Effect.map(Context.get(Etcd.Etcd)),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
  )

describe.concurrent("layerConfig", () => {
  it.live("connects to the endpoints, under the prefix", () =>
    Effect.gen(function*() {
      const prefix = unique("config")
      const etcd = yield* fromVariables({ ETCDCTL_ENDPOINTS: ` ${shared} , http://${shared}/,` }, { prefix })
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.deepStrictEqual(keys(yield* (yield* connect()).range(Etcd.getPrefix(prefix))), [`${prefix}a`])
    }))

  it.live("takes any source of configuration", () =>
    Effect.gen(function*() {
      const etcd = yield* Layer.build(Layer.fresh(Etcd.layerConfig())).pipe(
        Effect.map(Context.get(Etcd.Etcd)),
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromUnknown({ ETCDCTL_ENDPOINTS: "127.0.0.1:1", ETCDCTL_COMMAND_TIMEOUT: "0.2s" })
        )
      )
      const [error, millis] = yield* elapsed(Effect.flip(etcd.range(Etcd.get("a"))))
      assert.strictEqual(error.reason, "Unavailable")
      assert.isBelow(millis, 1000)
    }))

  it.live("sends the user's name and password, from one variable or two", () =>
    Effect.gen(function*() {
      for (
        const variables of [
          { ETCDCTL_USER: "ann:se:cret" },
          { ETCDCTL_USER: "ann", ETCDCTL_PASSWORD: "se:cret" }
        ]
      ) {
        const etcd = yield* fromVariables({ ETCDCTL_ENDPOINTS: shared, ...variables })
        // an etcd without authentication says that it got some
        const error = yield* Effect.flip(etcd.range(Etcd.get("a")))
        assert.include(error.message, "no authentication enabled")
      }
    }))

  const file = (name: string, content: string) => {
    const path = Path.join(Fs.mkdtempSync(Path.join(Os.tmpdir(), "etcd-config-")), name)
    Fs.writeFileSync(path, content)
    return path
  }

  it.effect("names the variable that it cannot use", () =>
    Effect.gen(function*() {
      const noPem = yield* Effect.acquireRelease(
        Effect.sync(() => file("no.pem", "hello")),
        (path) => Effect.sync(() => Fs.rmSync(Path.dirname(path), { recursive: true }))
      )
      const cases: ReadonlyArray<readonly [Record<string, string>, string]> = [
        [{ ETCDCTL_ENDPOINTS: "etcd" }, "cannot use host \"etcd\" of ETCDCTL_ENDPOINTS: it has no port"],
        [{ ETCDCTL_ENDPOINTS: " , " }, "ETCDCTL_ENDPOINTS is empty"],
        [{ ETCDCTL_ENDPOINTS: "http://a:1,https://b:1" }, "ETCDCTL_ENDPOINTS mixes https:// with plain addresses"],
        [{ ETCDCTL_CACERT: "/nowhere/ca.pem" }, "ETCDCTL_CACERT: cannot read \"/nowhere/ca.pem\""],
        [{ ETCDCTL_CACERT: noPem }, `ETCDCTL_CACERT: ${JSON.stringify(noPem)} is no PEM file`],
        [
          { ETCDCTL_CERT: "/nowhere/c.pem", ETCDCTL_KEY: Tls.client.key },
          "ETCDCTL_CERT: cannot read \"/nowhere/c.pem\""
        ],
        [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: "/nowhere/k" }, "ETCDCTL_KEY: cannot read \"/nowhere/k\""],
        [{ ETCDCTL_CERT: Tls.client.cert }, "ETCDCTL_CERT is set without ETCDCTL_KEY"],
        [{ ETCDCTL_KEY: Tls.client.key }, "ETCDCTL_KEY is set without ETCDCTL_CERT"],
        [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: Tls.foreignClient.key }, "ETCDCTL_KEY cannot be used: "],
        [
          { ETCDCTL_ENDPOINTS: "http://a:1", ETCDCTL_CACERT: Tls.ca },
          "ETCDCTL_CACERT or ETCDCTL_CERT is set, but host \"http://a:1\" of ETCDCTL_ENDPOINTS says http://"
        ],
        [{ ETCDCTL_USER: "ann" }, "ETCDCTL_USER has no password; write it as name:password, or set ETCDCTL_PASSWORD"],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "5" },
          "ETCDCTL_COMMAND_TIMEOUT: \"5\" is no duration; write it as 5s, 500ms or 1m30s"
        ],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "0s" },
          "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days, got 0"
        ],
        [{ ETCDCTL_COMMAND_TIMEOUT: "1000h" }, "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days"]
      ]
      for (const [variables, told] of cases) {
        const exit = yield* Effect.exit(Effect.scoped(fromVariables(variables)))
        const error: Config.ConfigError | undefined = Exit.isFailure(exit)
          ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error
          : undefined
        assert.strictEqual(error?._tag, "ConfigError", `${JSON.stringify(variables)}: ${exit}`)
        assert.include(error?.message, told)
      }
    }))

  it.effect("keeps the password to itself", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(fromVariables({ ETCDCTL_ENDPOINTS: "etcd", ETCDCTL_USER: "ann:hunter2" }))
      assert.notInclude(String(Exit.isFailure(exit) && Cause.pretty(exit.cause)), "hunter2")
    }))
})

describe("retries", () => {
  const refused = new Etcd.EtcdError({ reason: "Unavailable", method: "txn", outcome: "Refused", description: "down" })
  const lost = new Etcd.EtcdError({ reason: "Unavailable", method: "txn", outcome: "Unknown", description: "cut" })
  const full = new Etcd.EtcdError({ reason: "NoSpace", method: "txn", outcome: "Refused", description: "full" })

  type Answer = Etcd.EtcdError | "yes" | undefined

  /** Answers a transaction with these, one after the other; the last for ever. None is no answer. */
  const answering = (...answers: ReadonlyArray<Answer>) =>
    answeringAt((_, n) => answers[Math.min(n, answers.length) - 1])

  const answeringAt = (answerAt: (at: number, n: number) => Answer) => {
    const attempts: Array<{ readonly at: number; readonly timeout: number }> = []
    const none = () => Effect.die(new Error("transactions only"))
    const etcd = Service.make({
      range: none,
      leaseGrant: none,
      leaseRevoke: none,
      leaseKeepAlive: none,
      leaseTimeToLive: none,
      watch: none,
      txn: (_, timeout) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) => {
          attempts.push({ at, timeout })
          const answer = answerAt(at, attempts.length)
          if (answer === "yes") return Effect.succeed({ succeeded: true, revision: 7n, responses: [{ _tag: "Put" }] })
          return answer === undefined
            ? Effect.delay(
              Effect.fail(
                new Etcd.EtcdError({ reason: "Timeout", method: "txn", outcome: "Unknown", description: "" })
              ),
              timeout
            )
            : Effect.fail(answer)
        })
    }, 5000)
    const run = Effect.fnUntraced(function*(options: { readonly idempotent: boolean }) {
      const running = yield* etcd.txn({ then: [Etcd.put("a", "")], ...options }).pipe(
        Effect.exit,
        Effect.flatMap((exit) => Effect.map(Clock.currentTimeMillis, (at) => ({ exit, at }))),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("1 minute")
      const { at, exit } = yield* Fiber.join(running)
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) as Etcd.EtcdError : undefined
      return { at, error, told: error && `${error.reason} ${error.outcome}` }
    })
    return { run, attempts }
  }

  it.effect("leave room for several attempts, and end with the request timeout", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering()
      const { at, told } = yield* run({ idempotent: true })
      assert.strictEqual(told, "Timeout Unknown")
      assert.isAtMost(at, 5000.001)
      assert.isAtLeast(at, 4700)
      assert.strictEqual(attempts.length, 3)
      assert.closeTo(attempts[0]!.timeout, 1667, 1)
      for (const { at, timeout } of attempts) assert.isAtMost(at + timeout, 5000.001)
    }))

  it.effect("are none for what must not be applied twice, which gets the whole time", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering()
      assert.deepInclude(yield* run({ idempotent: false }), { told: "Timeout Unknown", at: 5000 })
      assert.deepStrictEqual(attempts, [{ at: 0, timeout: 5000 }])
    }))

  it.effect("go on while every attempt was refused", () =>
    Effect.gen(function*() {
      for (const idempotent of [true, false]) {
        const { attempts, run } = answering(refused, refused, refused, "yes")
        assert.strictEqual((yield* run({ idempotent })).error, undefined)
        assert.strictEqual(attempts.length, 4)
      }
    }))

  it.effect("stop at the first unknown outcome of what must not be applied twice", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering(refused, lost, "yes")
      assert.strictEqual((yield* run({ idempotent: false })).told, "Unavailable Unknown")
      assert.strictEqual(attempts.length, 2)
    }))

  it.effect("remember that an earlier attempt may have been applied", () =>
    Effect.gen(function*() {
      // the pauses between attempts are of random length
      for (let i = 0; i < 50; i++) {
        const started = yield* Clock.currentTimeMillis
        const { at, told } = yield* answering(lost, refused).run({ idempotent: true })
        assert.strictEqual(told, "Unavailable Unknown")
        assert.isAtMost(at - started, 5000.001)
      }
      const full2 = answering(lost, full)
      assert.strictEqual((yield* full2.run({ idempotent: true })).told, "NoSpace Unknown")
      assert.strictEqual(full2.attempts.length, 2)
      assert.strictEqual((yield* answering(refused).run({ idempotent: true })).told, "Unavailable Refused")
    }))

  it.effect("tell what went wrong rather than that the time was up then", () =>
    Effect.gen(function*() {
      const { attempts, run } = answeringAt((at) => at < 4000 ? refused : undefined)
      assert.strictEqual((yield* run({ idempotent: true })).told, "Unavailable Unknown")
      assert.isAbove(attempts.at(-1)!.at, 4000)
    }))

  it.effect("are none when they cannot help", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering(full)
      assert.deepInclude(yield* run({ idempotent: true }), { told: "NoSpace Refused", at: 0 })
      assert.strictEqual(attempts.length, 1)
    }))
})

describe("what etcd says", () => {
  const rows: ReadonlyArray<readonly [string, Etcd.EtcdErrorReason, "Refused" | "Unknown"]> = [
    ["8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded", "NoSpace", "Refused"],
    ["8 RESOURCE_EXHAUSTED: etcdserver: too many requests", "TooManyRequests", "Refused"],
    [
      "8 RESOURCE_EXHAUSTED: grpc: received message larger than max (3000000 vs. 2097152)",
      "InvalidArgument",
      "Refused"
    ],
    ["8 RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs 4194304)", "InvalidArgument", "Unknown"],
    [
      "8 RESOURCE_EXHAUSTED: grpc: trying to send message larger than max (5000000 vs. 4194304)",
      "InvalidArgument",
      "Unknown"
    ],
    ["8 RESOURCE_EXHAUSTED: Bandwidth exhausted or memory limit exceeded", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: no leader", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: etcdserver: leader changed", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: request timed out, possibly due to connection lost", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: server stopped", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: Channel closed before call started", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: Connection dropped", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: read ECONNRESET", "Unavailable", "Unknown"],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: connect ECONNREFUSED 10.0.0.1:2379. Resolution note: ",
      "Unavailable",
      "Refused"
    ],
    ["14 UNAVAILABLE: No connection established. Last error: null. Resolution note: ", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: Name resolution failed for target dns:etcd:2379", "Unavailable", "Refused"],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: self-signed certificate in certificate chain. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: certificate has expired. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: Hostname/IP does not match certificate's altnames: Host: x. is not in the cert's altnames: DNS:y. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: 40:error:0A00010B:SSL routines:ssl3_get_record:wrong version number. Resolution note: ",
      "Tls",
      "Refused"
    ],
    ["4 DEADLINE_EXCEEDED: Deadline exceeded after 1.0s", "Timeout", "Unknown"],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,name resolution: 0.001s,remote_addr=10.0.0.1:2379",
      "Timeout",
      "Unknown"
    ],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,metadata filters: 0.001s,Waiting for LB pick",
      "Timeout",
      "Refused"
    ],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,previous attempts: 1,Waiting for LB pick",
      "Timeout",
      "Unknown"
    ],
    ["1 CANCELLED: Cancelled on client", "Unavailable", "Unknown"],
    ["2 UNKNOWN: context deadline exceeded", "Unavailable", "Unknown"],
    ["13 INTERNAL: Received RST_STREAM with code 2", "Unavailable", "Unknown"],
    ["3 INVALID_ARGUMENT: etcdserver: revision of auth store is old", "Unavailable", "Refused"],
    ["3 INVALID_ARGUMENT: etcdserver: user name is empty", "Unauthenticated", "Refused"],
    [
      "3 INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password",
      "Unauthenticated",
      "Refused"
    ],
    ["3 INVALID_ARGUMENT: etcdserver: too many operations in txn request", "InvalidArgument", "Refused"],
    ["16 UNAUTHENTICATED: etcdserver: invalid auth token", "Unavailable", "Refused"],
    ["16 UNAUTHENTICATED: who are you", "Unauthenticated", "Refused"],
    ["7 PERMISSION_DENIED: etcdserver: permission denied", "PermissionDenied", "Refused"],
    ["5 NOT_FOUND: etcdserver: requested lease not found", "LeaseNotFound", "Refused"],
    ["9 FAILED_PRECONDITION: etcdserver: lease already exists", "LeaseExists", "Refused"],
    ["9 FAILED_PRECONDITION: etcdserver: authentication is not enabled", "Unauthenticated", "Refused"],
    ["11 OUT_OF_RANGE: etcdserver: too large lease TTL", "InvalidArgument", "Refused"],
    ["12 UNIMPLEMENTED: unknown service etcdserverpb.KV", "InvalidArgument", "Refused"],
    ["15 DATA_LOSS: etcdserver: corrupt cluster", "Internal", "Unknown"],
    ["something else", "Internal", "Unknown"]
  ]
  it.each(rows)("%s is %s, %s", (said, reason, outcome) => {
    // as streams report it, and as calls do
    for (const cause of [new Error(said), castGrpcError(new Error(said))]) {
      const error = toEtcdError("txn", cause)
      assert.deepStrictEqual([error.reason, error.outcome], [reason, outcome])
      assert.include(error.message, `etcd txn failed (${reason}): `)
      assert.strictEqual(error.cause, cause)
    }
  })
})

describe("what is wrong with a certificate", () => {
  const client = certificates(Tls.client)
  const expired = certificates(Tls.expiredClient)
  const alert = (number: number) =>
    `40AD:error:0A00:SSL routines:ssl3_read_bytes:an alert:a.c:918:SSL alert number ${number}`
  const rows: ReadonlyArray<readonly [string, Etcd.Options["tls"], string]> = [
    [
      "Error: unable to verify the first certificate; if the root CA is installed locally, try running Node.js with --use-system-ca",
      client,
      "etcd's certificate is not signed by `tls.ca`"
    ],
    ["Error: self-signed certificate in certificate chain", client, "etcd's certificate is not signed by `tls.ca`"],
    [
      "Error: self-signed certificate",
      {},
      "etcd's certificate is not signed by an authority that Node trusts; set `tls.ca`"
    ],
    [
      "Error: unable to get local issuer certificate",
      undefined,
      "etcd's certificate is not signed by an authority that Node trusts; set `tls.ca`"
    ],
    ["Error: certificate has expired", client, "etcd's certificate, or that of its authority, has expired"],
    [
      "Error: Hostname/IP does not match certificate's altnames: Host: x. is not in the cert's altnames: DNS:y",
      client,
      "etcd's certificate is for another host (Host: x. is not in the cert's altnames: DNS:y)"
    ],
    [alert(42), { ca: client.ca }, "etcd wants a client certificate; set `tls.cert` and `tls.key`"],
    [alert(116), undefined, "etcd wants a client certificate; set `tls.cert` and `tls.key`"],
    [
      alert(42),
      client,
      "etcd refused our client certificate; an authority that etcd trusts must have signed it, for use by clients"
    ],
    [alert(42), expired, "etcd refused our client certificate: expired (on 2020-02-01T00:00:00.000Z)"],
    [alert(44), client, "etcd refused our client certificate: revoked"],
    [
      alert(45),
      client,
      "etcd refused our client certificate: expired, by etcd's clock (its time is until 2120-01-01T00:00:00.000Z)"
    ],
    [alert(45), expired, "etcd refused our client certificate: expired (on 2020-02-01T00:00:00.000Z)"],
    [alert(48), client, "etcd refused our client certificate: not signed by an authority that etcd trusts"],
    // What is not known is passed on.
    [
      alert(40),
      client,
      `the TLS handshake failed; check the certificate authority and the client certificate (${alert(40)})`
    ],
    [
      alert(80),
      undefined,
      `the TLS handshake failed; check the certificate authority and the client certificate (${alert(80)})`
    ]
  ]
  it.each(rows)("%s", (trouble, tls, said) => {
    const cause = new Error(`14 UNAVAILABLE: No connection established. Last error: ${trouble}. Resolution note: `)
    const error = aboutCertificates(toEtcdError("txn", cause), tls)
    assert.deepStrictEqual(
      [error.description, error.reason, error.outcome, error.method, error.cause],
      [said, "Tls", "Refused", "txn", cause]
    )
  })

  it("is nothing when something else is wrong", () => {
    const error = toEtcdError("txn", new Error("14 UNAVAILABLE: Connection dropped"))
    assert.strictEqual(aboutCertificates(error, client), error)
  })
})

describe("who may not do what", () => {
  const error = toEtcdError("txn", new Error("7 PERMISSION_DENIED: etcdserver: permission denied"))

  it("is said as far as it is known", () => {
    assert.strictEqual(denied(error, undefined, undefined).description, "the user's roles do not allow this")
    assert.strictEqual(denied(error, "ann", undefined).description, "the roles of user \"ann\" do not allow this")
    const twice = Etcd.nested({ then: [Etcd.get("a"), Etcd.nested({ then: [], else: [Etcd.get("a")] })] })
    assert.strictEqual(denied(error, undefined, twice).description, "the user's roles do not allow this on key \"a\"")
    const other = toEtcdError("txn", new Error("3 INVALID_ARGUMENT: etcdserver: duplicate key given in txn request"))
    assert.strictEqual(denied(other, "ann", twice), other)
  })
})

describe.concurrent("the process", () => {
  const run = Effect.fnUntraced(function*(end: string) {
    const id = random63()
    const program = `
      import { Effect, Exit, Context, Layer, Scope } from "effect"
      import { Etcd } from "effect-etcd-lock"
      const scope = Scope.makeUnsafe()
      const program = Effect.gen(function*() {
        const etcd = Context.get(yield* Layer.build(Etcd.layer({ hosts: "${shared}" })), Etcd.Etcd)
        yield* etcd.leaseGrant(${id}n, 30)
        yield* etcd.leaseKeepAlive(${id}n, 1000)
        yield* etcd.leaseRevoke(${id}n)
        yield* Effect.scoped(Effect.gen(function*() {
          const watch = yield* etcd.watch({ key: Buffer.from("${unique("child")}") })
          yield* etcd.txn({ then: [Etcd.get("a")] })
        }))
        ${end}
        console.log("done")
      })
      await Effect.runPromise(Scope.provide(program, scope))
    `
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program], {
          stdio: ["ignore", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const done = Effect.callback<void>((resume) => {
      child.stdout.once("data", () => resume(Effect.void))
    })
    const exited = Effect.callback<number | null>((resume) => {
      child.once("exit", (code) => resume(Effect.succeed(code)))
    })
    const exiting = yield* Effect.forkChild(exited, { startImmediately: true })
    yield* Effect.raceFirst(done, Effect.andThen(Fiber.join(exiting), Effect.die(new Error("it ended early"))))
    return yield* elapsed(Fiber.join(exiting))
  })

  it.live("ends by itself at once when the layer is closed", () =>
    Effect.gen(function*() {
      const [code, millis] = yield* run("yield* Scope.close(scope, Exit.void)")
      assert.strictEqual(code, 0)
      assert.isBelow(millis, 5000)
    }))

  it.live("ends by itself when the layer stays open but is idle", () =>
    Effect.gen(function*() {
      const [code, millis] = yield* run("")
      assert.strictEqual(code, 0)
      assert.isBelow(millis, 20_000)
    }))
})
