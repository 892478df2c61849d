import { assert, layer as withLayer } from "@effect/vitest"
import { Effect, Exit, type Layer } from "effect"
import { Etcd } from "effect-etcd-lock"

/**
 * What the recipes take for granted about etcd. `layer` must be an etcd that
 * nobody else writes to meanwhile.
 */
export const suite = <E>(
  name: string,
  layer: Layer.Layer<Etcd.Etcd, E>,
  options?: {
    /** A proxy: it refuses a watch as etcd does, but does not say why, and passes no message on that is larger than 1.5 MiB. */
    readonly isTerse?: boolean
  }
): void =>
  // a real etcd does not wait for the test clock
  withLayer(layer, { excludeTestServices: true, timeout: "1 minute" })(name, (it) => {
    // --- revisions ---

    it.effect("gives all writes of a transaction one revision", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const { responses: [, , read], revision: written } = yield* etcd.txn({
          then: [Etcd.put(key("a"), "1"), Etcd.put(key("b"), "2"), all(key)]
        })
        assert.strictEqual(written, revision + 1n)
        assert.deepStrictEqual(read?.kvs.map(plain), [
          { key: key("a"), value: "1", createRevision: written, modRevision: written, version: 1n, lease: 0n },
          { key: key("b"), value: "2", createRevision: written, modRevision: written, version: 1n, lease: 0n }
        ])
      }))

    it.effect("keeps its revision when nothing is written", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        assert.strictEqual((yield* etcd.txn({ then: [] })).revision, revision)
        assert.strictEqual((yield* etcd.txn({ then: [Etcd.remove(key("a")), all(key)] })).revision, revision)
        assert.strictEqual((yield* etcd.range(all(key))).revision, revision)
      }))

    it.effect("counts versions, and starts again after a delete", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const read = Effect.map(etcd.range(Etcd.get(key("a"))), ({ kvs }) => kvs.map(numbers))
        yield* etcd.txn({ then: [Etcd.put(key("a"), "1")] })
        yield* etcd.txn({ then: [Etcd.put(key("a"), "2")] })
        assert.deepStrictEqual(yield* read, [[revision + 1n, revision + 2n, 2n]])
        const { responses } = yield* etcd.txn({ then: [Etcd.remove(key("a"))] })
        assert.deepStrictEqual(responses, [{ _tag: "Delete", deleted: 1 }])
        assert.deepStrictEqual(yield* read, [])
        yield* etcd.txn({ then: [Etcd.put(key("a"), "3")] })
        assert.deepStrictEqual(yield* read, [[revision + 4n, revision + 4n, 1n]])
      }))

    // --- ranges ---

    it.effect("reads ranges", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        for (const name of ["b", "a", "a/1", "a\xff", "c"]) yield* etcd.txn({ then: [Etcd.put(key(name), "")] })
        const read = (from: string, to?: string) =>
          Effect.map(
            etcd.range({ ...Etcd.get(key(from)), rangeEnd: to === undefined ? undefined : bytes(key(to)) }),
            ({ kvs }) => kvs.map((kv) => plain(kv).key.slice(key("").length))
          )
        assert.deepStrictEqual(yield* read("a"), ["a"])
        assert.deepStrictEqual(yield* read("a", "b"), ["a", "a/1", "a\xff"])
        assert.deepStrictEqual(yield* read("a/", "c"), ["a/1", "a\xff", "b"])
        assert.deepStrictEqual(yield* read("c", "a"), [])
        assert.deepStrictEqual(yield* read("none"), [])
        const last = yield* etcd.range({ ...Etcd.get(key("b")), rangeEnd: Buffer.of(0) })
        assert.include(last.kvs.map((kv) => plain(kv).key), key("c"))
      }))

    it.effect("reads and deletes what begins with a prefix", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        for (const name of ["a", "a/1", "a/2", "a0"]) yield* etcd.txn({ then: [Etcd.put(key(name), "")] })
        const read = Effect.map(etcd.range(Etcd.getPrefix(key(""))), ({ kvs }) => kvs.map((kv) => plain(kv).key))
        assert.deepStrictEqual(yield* read, [key("a"), key("a/1"), key("a/2"), key("a0")])
        yield* etcd.txn({ then: [Etcd.removePrefix(key("a/"))] })
        assert.deepStrictEqual(yield* read, [key("a"), key("a0")])
      }))

    it.effect("sorts, filters and limits, and counts regardless", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        for (const name of ["c", "a", "d", "b"]) yield* etcd.txn({ then: [Etcd.put(key(name), "")] })
        // written again, yet not created again
        yield* etcd.txn({ then: [Etcd.put(key("c"), "")] })
        const read = (options: Partial<Etcd.Range>) =>
          Effect.map(
            etcd.range({ ...all(key), ...options }),
            ({ count, kvs }) => [kvs.map((kv) => plain(kv).key.at(-1)).join(""), count] as const
          )
        assert.deepStrictEqual(yield* read({}), ["abcd", 4])
        assert.deepStrictEqual(yield* read({ limit: 2 }), ["ab", 4])
        assert.deepStrictEqual(yield* read({ limit: 0 }), ["abcd", 4])
        assert.deepStrictEqual(yield* read({ sort: "CreateAscending" }), ["cadb", 4])
        assert.deepStrictEqual(yield* read({ sort: "CreateDescending" }), ["bdac", 4])
        assert.deepStrictEqual(yield* read({ sort: "CreateDescending", limit: 1 }), ["b", 4])
        assert.deepStrictEqual(
          yield* read({ sort: "CreateDescending", limit: 1, maxCreateRevision: revision + 2n }),
          ["a", 4]
        )
        assert.deepStrictEqual(yield* read({ maxCreateRevision: revision }), ["", 4])
      }))

    it.effect("reads keys without values, whose leases only conditions tell then", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const lease = revision + 12_000n
        yield* etcd.leaseGrant(lease, 60)
        yield* etcd.txn({ then: [Etcd.put(key("a"), "1", { lease }), Etcd.put(key("b"), "2")] })
        const { count, kvs } = yield* etcd.range({ ...all(key), keysOnly: true })
        assert.strictEqual(count, 2)
        assert.deepStrictEqual(
          kvs.map((kv) => [plain(kv).key, plain(kv).value, numbers(kv)]),
          [key("a"), key("b")].map((key) => [key, "", [revision + 1n, revision + 1n, 1n]])
        )
        const isOnLease = (name: string) =>
          Effect.map(
            etcd.txn({
              compare: [{ key: bytes(key(name)), target: "Lease", operator: "!=", value: 0n }],
              then: [{ ...Etcd.get(key(name)), keysOnly: true }]
            }),
            ({ succeeded }) => succeeded
          )
        assert.deepStrictEqual([yield* isOnLease("a"), yield* isOnLease("b")], [true, false])
        yield* etcd.leaseRevoke(lease)
      }))

    // --- conditions ---

    it.effect("compares a key", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        yield* etcd.leaseGrant(9n, 60)
        yield* etcd.txn({ then: [Etcd.put(key("a"), "1")] })
        yield* etcd.txn({ then: [Etcd.put(key("a"), "b", { lease: 9n })] })
        const expected = { CreateRevision: revision + 1n, ModRevision: revision + 2n, Version: 2n, Lease: 9n } as const
        for (const [target, value] of Object.entries(expected) as Array<[keyof typeof expected, bigint]>) {
          for (const [operator, below, same, above] of operators) {
            const condition = { target, key: bytes(key("a")), operator } as const
            assert.strictEqual(yield* holds({ ...condition, value: value + 1n }), below)
            assert.strictEqual(yield* holds({ ...condition, value }), same)
            assert.strictEqual(yield* holds({ ...condition, value: value - 1n }), above)
          }
        }
        for (const [operator, below, same, above] of operators) {
          assert.strictEqual(yield* holds(Etcd.compareValue(key("a"), operator, "ba")), below)
          assert.strictEqual(yield* holds(Etcd.compareValue(key("a"), operator, "b")), same)
          assert.strictEqual(yield* holds(Etcd.compareValue(key("a"), operator, "a")), above)
        }
        yield* etcd.leaseRevoke(9n)
      }))

    it.effect("compares a missing key, or an empty range, as all zero, but never its value", () =>
      Effect.gen(function*() {
        const { key } = yield* fresh
        for (const rangeEnd of [undefined, bytes(key("b"))]) {
          for (const target of ["CreateRevision", "ModRevision", "Version", "Lease"] as const) {
            for (const [operator, below, same, above] of operators) {
              const condition = { target, key: bytes(key("a")), rangeEnd, operator } as const
              assert.strictEqual(yield* holds({ ...condition, value: 1n }), below)
              assert.strictEqual(yield* holds({ ...condition, value: 0n }), same)
              assert.strictEqual(yield* holds({ ...condition, value: -1n }), above)
            }
          }
          for (const [operator] of operators) {
            for (const value of ["", "a"]) {
              assert.isFalse(yield* holds({ ...Etcd.compareValue(key("a"), operator, value), rangeEnd }))
            }
          }
        }
      }))

    it.effect("compares every key of a range", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        yield* etcd.txn({ then: [Etcd.put(key("a"), "1")] })
        yield* etcd.txn({ then: [Etcd.put(key("b"), "2")] })
        const every = (operator: "=" | "!=" | "<" | ">", value: bigint) =>
          holds({ target: "CreateRevision", ...range(key), operator, value })
        assert.isTrue(yield* every(">", revision))
        assert.isFalse(yield* every(">", revision + 1n))
        assert.isFalse(yield* every("=", revision + 1n))
        assert.isFalse(yield* every("!=", revision + 1n))
        assert.isTrue(yield* every("<", revision + 3n))
      }))

    it.effect("wants all conditions to hold", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        const missing = Etcd.compareCreateRevision(key("a"), "=", 0n)
        const present = Etcd.compareCreateRevision(key("a"), ">", 0n)
        assert.isTrue(yield* holds(missing, missing))
        assert.isFalse(yield* holds(missing, present))
        const { responses, succeeded } = yield* etcd.txn({
          compare: [present],
          then: [],
          else: [Etcd.put(key("b"), "")]
        })
        assert.isFalse(succeeded)
        assert.deepStrictEqual(responses, [{ _tag: "Put" }])
      }))

    // --- transactions ---

    it.effect("shows a transaction its own earlier writes", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const { responses } = yield* etcd.txn({
          then: [all(key), Etcd.put(key("a"), ""), all(key), Etcd.put(key("b"), ""), all(key)]
        })
        assert.deepStrictEqual(
          [responses[0], responses[2], responses[4]].map((read) => read?.kvs.map((kv) => kv.createRevision - revision)),
          [[], [1n], [1n, 1n]]
        )
      }))

    it.effect("evaluates the conditions of nested transactions before anything is written", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        const missing = Etcd.compareCreateRevision(key("a"), "=", 0n)
        const { responses, succeeded } = yield* etcd.txn({
          then: [
            Etcd.put(key("a"), ""),
            Etcd.nested({
              compare: [missing],
              then: [Etcd.put(key("b"), ""), Etcd.nested({ compare: [missing], then: [all(key)] })],
              else: [Etcd.remove(key("c"))]
            })
          ]
        })
        assert.isTrue(succeeded)
        const [, outer] = responses
        assert(outer.succeeded)
        const [, inner] = outer.responses
        assert(inner.succeeded)
        assert.strictEqual(inner.responses[0]?.count, 2)
      }))

    it.effect("runs the other branch of a nested transaction", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const result = yield* etcd.txn({
          then: [Etcd.nested({
            compare: [Etcd.compareCreateRevision(key("a"), ">", 0n)],
            then: [],
            else: [Etcd.put(key("b"), "")]
          })]
        })
        assert.deepStrictEqual(result.responses, [{ _tag: "Txn", succeeded: false, responses: [{ _tag: "Put" }] }])
        assert.strictEqual(result.revision, revision + 1n)
      }))

    it.effect("refuses a transaction that may write a key twice", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const a = Etcd.put(key("a"), "")
        const within = { _tag: "Delete", ...range(key) } as const
        const refused: ReadonlyArray<ReadonlyArray<Etcd.Op>> = [
          [a, a],
          [a, Etcd.remove(key("a"))],
          [Etcd.remove(key("a")), a],
          [a, within],
          [a, Etcd.nested({ then: [a] })],
          [Etcd.nested({ then: [a] }), Etcd.nested({ then: [], else: [a] })],
          [within, Etcd.nested({ then: [a] })],
          [Etcd.nested({ then: [within] }), a],
          [Etcd.nested({ then: [within] }), Etcd.nested({ then: [a] })]
        ]
        for (const then of refused) {
          const duplicate = { reason: "InvalidArgument", outcome: "Refused", method: "txn" } as const
          assert.deepInclude(yield* Effect.flip(etcd.txn({ then })), duplicate)
          assert.deepInclude(yield* Effect.flip(etcd.txn({ then: [], else: then })), duplicate)
        }
        assert.strictEqual((yield* etcd.range(all(key))).revision, revision)

        const allowed: ReadonlyArray<ReadonlyArray<Etcd.Op>> = [
          [within, within],
          [Etcd.nested({ then: [a], else: [a] })],
          [Etcd.nested({ then: [a] }), Etcd.nested({ then: [within] })]
        ]
        for (const then of allowed) yield* etcd.txn({ then })
        yield* etcd.txn({ then: [a], else: [a] })
      }))

    it.effect("refuses more than 128 operations", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        const gets = (count: number): ReadonlyArray<Etcd.Range> =>
          Array.from({ length: count }, () => Etcd.get(key("a")))
        const compares = Array.from({ length: 129 }, () => Etcd.compareCreateRevision(key("a"), "=", 0n))
        assert.lengthOf((yield* etcd.txn({ then: gets(128), else: gets(128) })).responses, 128)
        yield* etcd.txn({ then: [...gets(99), Etcd.nested({ then: gets(28) })] })
        const refused: ReadonlyArray<Request> = [
          { then: gets(129) },
          { then: [], else: gets(129) },
          { then: [], compare: compares },
          { then: [...gets(99), Etcd.nested({ then: gets(29) })] }
        ]
        for (const request of refused) {
          assert.deepInclude(yield* Effect.flip(etcd.txn(request)), { reason: "InvalidArgument", outcome: "Refused" })
        }
      }))

    it.effect("refuses an empty key", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        const refused: ReadonlyArray<Request> = [
          { then: [Etcd.put("", "")] },
          { then: [], else: [Etcd.remove("")] },
          { then: [Etcd.nested({ then: [Etcd.get("")] })] },
          { then: [Etcd.get(key("a"))], compare: [Etcd.compareCreateRevision("", "=", 0n)] }
        ]
        const invalid = { reason: "InvalidArgument", outcome: "Refused" } as const
        for (const request of refused) assert.deepInclude(yield* Effect.flip(etcd.txn(request)), invalid)
        assert.deepInclude(yield* Effect.flip(etcd.range(Etcd.get(""))), invalid)
      }))

    // The proxy has limits of its own.
    it.effect.skipIf(options?.isTerse === true)("refuses a request of more than 1.5 MiB, unless it only reads", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const put = (megabytes: number) => Etcd.put(key("a"), Buffer.alloc(megabytes * 1024 ** 2))
        const flip = (request: Request) =>
          Effect.map(Effect.flip(etcd.txn(request)), ({ description, outcome, reason }) => {
            return [reason, outcome, /too large|larger than max/.exec(description)?.[0]]
          })
        const isUnlike = (megabytes: number) => Etcd.compareValue(key("a"), "!=", Buffer.alloc(megabytes * 1024 ** 2))
        assert.strictEqual((yield* etcd.txn({ then: [put(1.4)] })).revision, revision + 1n)
        assert.isTrue((yield* etcd.txn({ compare: [isUnlike(1.6)], then: [Etcd.get(key("b"))] })).succeeded)
        const tooLarge = ["InvalidArgument", "Refused", "too large"]
        assert.deepStrictEqual(yield* flip({ then: [put(1.6)] }), tooLarge)
        assert.deepStrictEqual(yield* flip({ then: [Etcd.nested({ then: [put(1.6)] })] }), tooLarge)
        assert.deepStrictEqual(yield* flip({ then: [], else: [put(1.6)] }), tooLarge)
        assert.deepStrictEqual(yield* flip({ compare: [isUnlike(1.6)], then: [Etcd.remove(key("a"))] }), tooLarge)
        const read: Request = { compare: [isUnlike(2.1)], then: [Etcd.get(key("a"))] }
        assert.deepStrictEqual(yield* flip(read), ["InvalidArgument", "Refused", "larger than max"])
        assert.strictEqual((yield* etcd.txn({ then: [Etcd.remove(key("a"))] })).revision, revision + 2n)
      }))

    it.effect("applies what it answers with more than 4 MiB, which cannot be received", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const names = ["a", "b", "c"]
        for (const name of names) {
          yield* etcd.txn({ then: [Etcd.put(key(name), Buffer.alloc(1.4 * 1024 ** 2))] })
        }
        const unknown = { reason: "InvalidArgument", outcome: "Unknown" } as const
        assert.deepInclude(yield* Effect.flip(etcd.range(all(key))), unknown)
        assert.deepInclude(yield* Effect.flip(etcd.txn({ then: [all(key), Etcd.put(key("d"), "")] })), unknown)
        assert.deepInclude(yield* Effect.flip(etcd.txn({ then: [Etcd.nested({ then: [all(key)] })] })), unknown)
        const { kvs, revision: last } = yield* etcd.range({ ...all(key), keysOnly: true })
        assert.deepStrictEqual([kvs.length, last], [4, revision + 4n])
        yield* etcd.txn({ then: [Etcd.removePrefix(key(""))] })
      }))

    it.effect("takes the empty prefix for all keys", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        yield* etcd.txn({ then: [Etcd.put(key("a"), "")] })
        const everything = Etcd.getPrefix("", { keysOnly: true })
        const { kvs } = yield* etcd.range(everything)
        assert.include(
          kvs.map((kv) =>
            plain(kv).key
          ),
          key("a")
        )
        const { responses, succeeded } = yield* etcd.txn({
          compare: [{ ...everything, target: "CreateRevision", operator: ">", value: 0n }],
          then: [everything]
        })
        assert.strictEqual(succeeded, true)
        assert.lengthOf(responses[0]!.kvs, kvs.length)
        const below = yield* etcd.range({ ...Etcd.get(""), rangeEnd: bytes(key("b")) })
        assert.include(below.kvs.map((kv) => plain(kv).key), key("a"))
        yield* etcd.txn({ then: [Etcd.removePrefix("")] })
        assert.strictEqual((yield* etcd.range(everything)).count, 0)
      }))

    // --- leases ---

    it.effect("grants at least two seconds, and each ID once", () =>
      Effect.gen(function*() {
        const { etcd, leaseId } = yield* fresh
        assert.strictEqual(yield* etcd.leaseGrant(leaseId, 1), 2)
        yield* etcd.leaseRevoke(leaseId)
        assert.strictEqual(yield* etcd.leaseGrant(leaseId, 60), 60)
        const exists = { reason: "LeaseExists", outcome: "Refused", method: "leaseGrant" } as const
        assert.deepInclude(yield* Effect.flip(etcd.leaseGrant(leaseId, 60)), exists)
        assert.deepInclude(yield* Effect.flip(etcd.leaseGrant(leaseId, 9_000_000_001)), { reason: "InvalidArgument" })
        assert.strictEqual((yield* etcd.leaseKeepAlive(leaseId, 5000)).ttl, 60)
        const { granted, remaining } = yield* etcd.leaseTimeToLive(leaseId)
        assert.strictEqual(granted, 60)
        assert.isTrue(remaining > 50 && remaining <= 60)
        yield* etcd.leaseRevoke(leaseId)
      }))

    it.effect("knows nothing of a lease that is gone", () =>
      Effect.gen(function*() {
        const { etcd, key, leaseId, revision } = yield* fresh
        const notFound = { reason: "LeaseNotFound", outcome: "Refused" } as const
        assert.strictEqual((yield* etcd.leaseKeepAlive(leaseId, 5000)).ttl, 0)
        assert.deepInclude(yield* etcd.leaseTimeToLive(leaseId), { remaining: -1, granted: 0 })
        assert.deepInclude(yield* Effect.flip(etcd.leaseRevoke(leaseId)), notFound)
        const then = [Etcd.put(key("a"), ""), Etcd.put(key("b"), "", { lease: leaseId })]
        assert.deepInclude(yield* Effect.flip(etcd.txn({ then })), notFound)
        assert.strictEqual((yield* etcd.txn({ then: [all(key)], else: then })).revision, revision)
        assert.strictEqual((yield* etcd.range(all(key))).count, 0)
      }))

    it.effect("deletes the keys of a revoked lease in one revision, in order", () =>
      Effect.gen(function*() {
        const { etcd, key, leaseId, revision } = yield* fresh
        yield* etcd.leaseGrant(leaseId, 60)
        const { next } = yield* etcd.watch(range(key))
        const options = { lease: leaseId }
        yield* etcd.txn({ then: ["c", "a", "b", "d", "e"].map((name) => Etcd.put(key(name), "", options)) })
        // a key belongs to the lease it was last written with
        yield* etcd.txn({ then: [Etcd.put(key("d"), ""), Etcd.remove(key("e"))] })
        yield* next
        yield* next
        yield* etcd.leaseRevoke(leaseId)
        assert.deepStrictEqual((yield* next).map(event), [
          ["Delete", key("a"), revision + 3n],
          ["Delete", key("b"), revision + 3n],
          ["Delete", key("c"), revision + 3n]
        ])
        assert.deepStrictEqual((yield* etcd.range(all(key))).kvs.map((kv) => plain(kv).key), [key("d")])
      }))

    it.effect("writes nothing when a lease without keys is revoked", () =>
      Effect.gen(function*() {
        const { etcd, key, leaseId, revision } = yield* fresh
        yield* etcd.leaseGrant(leaseId, 60)
        yield* etcd.leaseRevoke(leaseId)
        assert.strictEqual((yield* etcd.range(all(key))).revision, revision)
      }))

    it.effect("keeps an empty value, and numbers of all sizes", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        for (const lease of [1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 63n - 1n]) {
          yield* etcd.leaseGrant(lease, 60)
          yield* etcd.txn({ then: [Etcd.put(key("a"), "", { lease })] })
          const [read] = (yield* etcd.range(Etcd.get(key("a")))).kvs
          assert.strictEqual(read?.lease, lease)
          assert.instanceOf(read?.value, Uint8Array)
          assert.strictEqual(read?.value.length, 0)
          yield* etcd.leaseRevoke(lease)
        }
      }))

    it.effect("moves a key from one lease to another", () =>
      Effect.gen(function*() {
        const { etcd, key, leaseId } = yield* fresh
        const [first, second] = [leaseId, leaseId + 1n]
        yield* etcd.leaseGrant(first, 60)
        yield* etcd.leaseGrant(second, 60)
        yield* etcd.txn({ then: [Etcd.put(key("a"), "", { lease: first })] })
        yield* etcd.txn({ then: [Etcd.put(key("a"), "", { lease: second })] })
        yield* etcd.leaseRevoke(first)
        assert.deepStrictEqual((yield* etcd.range(all(key))).kvs.map(({ lease }) => lease), [second])
        yield* etcd.leaseRevoke(second)
        assert.strictEqual((yield* etcd.range(all(key))).count, 0)
      }))

    it.effect("lets a lease expire, with its keys", () =>
      Effect.gen(function*() {
        const { etcd, key, leaseId, revision } = yield* fresh
        yield* etcd.leaseGrant(leaseId, 2)
        const { next } = yield* etcd.watch({ ...range(key), only: "Delete" })
        yield* etcd.txn({
          then: [Etcd.put(key("b"), "", { lease: leaseId }), Etcd.put(key("a"), "", { lease: leaseId })]
        })
        assert.deepStrictEqual((yield* next).map(event), [
          ["Delete", key("a"), revision + 2n],
          ["Delete", key("b"), revision + 2n]
        ])
        assert.strictEqual((yield* etcd.leaseKeepAlive(leaseId, 5000)).ttl, 0)
        assert.deepInclude(yield* etcd.leaseTimeToLive(leaseId), { remaining: -1, granted: 0 })
      }))

    // --- watches ---

    it.effect("tells of what happens after a watch's revision, those of one revision together", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        yield* etcd.txn({ then: [Etcd.put(key("a"), "before")] })
        const watch = yield* etcd.watch(range(key))
        assert.strictEqual(watch.revision, revision + 1n)
        yield* etcd.txn({ then: [Etcd.put(key("a"), "1"), Etcd.put(key("b"), "2")] })
        yield* etcd.txn({ then: [Etcd.remove(key("a"))] })
        const zero = { createRevision: 0n, version: 0n, lease: 0n }
        assert.deepStrictEqual((yield* watch.next).map(({ kv }) => plain(kv)), [
          {
            ...zero,
            key: key("a"),
            value: "1",
            createRevision: revision + 1n,
            modRevision: revision + 2n,
            version: 2n
          },
          { ...zero, key: key("b"), value: "2", createRevision: revision + 2n, modRevision: revision + 2n, version: 1n }
        ])
        assert.deepStrictEqual((yield* watch.next).map(({ _tag, kv }) => [_tag, plain(kv)]), [
          ["Delete", { ...zero, key: key("a"), value: "", modRevision: revision + 3n }]
        ])
      }))

    it.effect("tells only of the keys and the kind of events that were asked for", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const puts = yield* etcd.watch({ ...range(key), only: "Put" })
        const deletes = yield* etcd.watch({ ...range(key), only: "Delete" })
        const one = yield* etcd.watch({ key: bytes(key("b")) })
        yield* etcd.txn({ then: [Etcd.put(key("a"), ""), Etcd.put(key("b"), "")] })
        yield* etcd.txn({ then: [Etcd.remove(key("a"))] })
        yield* etcd.txn({ then: [Etcd.put(key("a"), ""), Etcd.remove(key("b"))] })
        assert.deepStrictEqual((yield* puts.next).map(event), [
          ["Put", key("a"), revision + 1n],
          ["Put", key("b"), revision + 1n]
        ])
        assert.deepStrictEqual((yield* puts.next).map(event), [["Put", key("a"), revision + 3n]])
        assert.deepStrictEqual((yield* deletes.next).map(event), [["Delete", key("a"), revision + 2n]])
        assert.deepStrictEqual((yield* deletes.next).map(event), [["Delete", key("b"), revision + 3n]])
        assert.deepStrictEqual((yield* one.next).map(event), [["Put", key("b"), revision + 1n]])
        assert.deepStrictEqual((yield* one.next).map(event), [["Delete", key("b"), revision + 3n]])
      }))

    it.effect("ends a watch with its scope", () =>
      Effect.gen(function*() {
        const { etcd, key, revision } = yield* fresh
        const closed = yield* Effect.scoped(etcd.watch(range(key)))
        const open = yield* etcd.watch(range(key))
        yield* etcd.txn({ then: [Etcd.put(key("a"), "")] })
        assert.deepStrictEqual((yield* open.next).map(event), [["Put", key("a"), revision + 1n]])
        assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(closed.next)))
      }))

    it.effect.skipIf(options?.isTerse === true)("refuses to watch an empty range", () =>
      Effect.gen(function*() {
        const { etcd, key } = yield* fresh
        const error = yield* Effect.flip(etcd.watch({ key: bytes(key("b")), rangeEnd: bytes(key("a")) }))
        assert.deepInclude(error, { reason: "Internal", outcome: "Unknown", method: "watch" })
      }))
  })

type Request = Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, ReadonlyArray<Etcd.Op>>

/** Each operator, and whether it holds for a value below, at and above the one it is compared to. */
const operators = [
  ["=", false, true, false],
  ["!=", true, false, true],
  ["<", true, false, false],
  [">", false, false, true]
] as const

/** Keys and leases that no other test uses, and the revision to count from. */
const fresh = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  const { revision } = yield* etcd.txn({ then: [] })
  const prefix = `${crypto.randomUUID()}/`
  const leaseId = crypto.getRandomValues(new BigUint64Array(1))[0]! >> 1n
  return { etcd, revision, leaseId, key: (name: string) => `${prefix}${name}` }
})

const holds = (...compare: ReadonlyArray<Etcd.Compare>) =>
  Effect.map(Etcd.Etcd.use((etcd) => etcd.txn({ compare, then: [] })), ({ succeeded }) => succeeded)

const bytes = (text: string): Uint8Array => Buffer.from(text)

const range = (key: (name: string) => string) => ({ key: bytes(key("")), rangeEnd: bytes(key("~")) })

const all = (key: (name: string) => string) => ({ _tag: "Range", ...range(key) }) as const

const plain = (kv: Etcd.KeyValue) => ({ ...kv, key: String(kv.key), value: String(kv.value) })

const numbers = (kv: Etcd.KeyValue) => [kv.createRevision, kv.modRevision, kv.version]

const event = ({ _tag, kv }: Etcd.WatchEvent) => [_tag, String(kv.key), kv.modRevision] as const
