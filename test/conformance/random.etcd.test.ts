import { assert, layer } from "@effect/vitest"
import { Arbitrary, Context, Effect, Layer, Result, Schema, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdServer from "../support/EtcdServer.ts"

// Random commands over a few keys and leases, run on the etcd in memory and on a real one, must get the same answers.
// A difference prints the shortest commands that show it, and a token: `{ arbitrary: { replay: token } }` runs them again.

// -----------------------------------------------------------------------------
// commands
// -----------------------------------------------------------------------------

const optional = Schema.optionalKey
const few = <S extends Schema.Constraint>(schema: S, most: number) =>
  Schema.Array(schema).check(Schema.isMaxLength(most))

const Key = Schema.Literals(["a", "aa", "b", "c"])
const Value = Schema.Literals(["", "1", "2"])
// the last one is never granted
const Lease = Schema.Literals([1, 2, 3, 4])
// counted from the revision before the first command
const Revision = Schema.Literals([1, 2, 3, 4, 5])

const bounds = { key: Key, end: optional(Schema.Literals(["a", "b", "z", "z"])) }

const Put = Schema.TaggedStruct("Put", { key: Key, value: Value, lease: optional(Lease) })
const Range = Schema.TaggedStruct("Range", {
  ...bounds,
  limit: optional(Schema.Literals([0, 1, 2])),
  sort: optional(Schema.Literals(["CreateAscending", "CreateDescending"])),
  maxCreateRevision: optional(Revision),
  keysOnly: optional(Schema.Boolean),
  serializable: optional(Schema.Boolean)
})
const Delete = Schema.TaggedStruct("Delete", bounds)

const operator = Schema.Literals(["=", "!=", "<", ">"])
const Compare = Schema.Union([
  Schema.Struct({
    ...bounds,
    operator,
    target: Schema.Literals(["CreateRevision", "ModRevision", "Version", "Lease"]),
    value: Schema.Literals([0, 1, 2, 3, 4])
  }),
  Schema.Struct({ ...bounds, operator, target: Schema.Literal("Value"), value: Value })
])

const txnOf = <S extends Schema.Constraint>(op: S) =>
  Schema.TaggedStruct("Txn", { compare: few(Compare, 2), then: few(op, 4), else: few(op, 3) })
const Innermost = txnOf(Schema.Union([Put, Range, Delete]))
const Inner = txnOf(Schema.Union([Put, Range, Delete, Innermost]))
const Txn = txnOf(Schema.Union([Put, Put, Range, Delete, Inner]))

const Grant = Schema.TaggedStruct("Grant", { lease: Schema.Literals([1, 2, 3]), seconds: Schema.Literals([600, 900]) })
const Revoke = Schema.TaggedStruct("Revoke", { lease: Lease })
const KeepAlive = Schema.TaggedStruct("KeepAlive", { lease: Lease })
const TimeToLive = Schema.TaggedStruct("TimeToLive", { lease: Lease })
const Watch = Schema.TaggedStruct("Watch", { ...bounds, only: optional(Schema.Literals(["Put", "Delete"])) })

const Command = Schema.Union([Put, Txn, Txn, Txn, Range, Delete, Grant, Grant, Revoke, KeepAlive, TimeToLive, Watch])

/** What is there before the first of them: few commands would do much to nothing. */
const prologue: ReadonlyArray<Command> = [
  { _tag: "Grant", lease: 1, seconds: 600 },
  { _tag: "Grant", lease: 2, seconds: 600 },
  { _tag: "Put", key: "c", value: "1", lease: 1 },
  {
    _tag: "Txn",
    compare: [],
    then: [{ _tag: "Put", key: "a", value: "1", lease: 1 }, { _tag: "Put", key: "aa", value: "2", lease: 2 }],
    else: []
  }
]

type Op =
  | typeof Put.Type
  | typeof Range.Type
  | typeof Delete.Type
  | { readonly _tag: "Txn" } & { readonly [K in "compare" | "then" | "else"]: ReadonlyArray<any> }
type Command = typeof Command.Type

// -----------------------------------------------------------------------------
// running them
// -----------------------------------------------------------------------------

/** Runs the commands, and answers what can be seen of them, in terms that are the same for both. */
const run = Effect.fnUntraced(function*(etcd: Etcd.Etcd["Service"], commands: ReadonlyArray<Command>) {
  const { revision: start } = yield* etcd.txn({ then: [] })
  const prefix = `${crypto.randomUUID()}/`
  const firstLease = crypto.getRandomValues(new BigUint64Array(1))[0]! >> 2n
  const watches: Array<{ readonly key: Uint8Array; readonly next: Etcd.Watch["next"]; only: string | undefined }> = []

  // --- to etcd ---

  const key = (name: string): Uint8Array => Buffer.from(prefix + name)
  const leaseId = (lease: number): bigint => lease === 0 ? 0n : firstLease + BigInt(lease)
  const bounds = (of: { readonly key: string; readonly end?: string }) => ({
    key: key(of.key),
    rangeEnd: of.end === undefined ? undefined : key(of.end)
  })

  const compare = (condition: typeof Compare.Type): Etcd.Compare => {
    const { operator, target } = condition
    if (target === "Value") return { ...bounds(condition), operator, target, value: Buffer.from(condition.value) }
    const { value } = condition
    if (target === "Lease") return { ...bounds(condition), operator, target, value: leaseId(value) }
    const isRevision = target !== "Version" && value > 0
    return { ...bounds(condition), operator, target, value: BigInt(value) + (isRevision ? start : 0n) }
  }

  const encode = (op: Op): Etcd.Op => {
    switch (op._tag) {
      case "Put": {
        return {
          _tag: "Put",
          key: key(op.key),
          value: Buffer.from(op.value),
          lease: op.lease === undefined ? undefined : leaseId(op.lease)
        }
      }
      case "Range": {
        const { keysOnly, limit, maxCreateRevision, serializable, sort } = op
        return {
          _tag: "Range",
          ...bounds(op),
          keysOnly,
          limit,
          serializable,
          sort,
          maxCreateRevision: maxCreateRevision === undefined ? undefined : start + BigInt(maxCreateRevision)
        }
      }
      case "Delete": {
        return { _tag: "Delete", ...bounds(op) }
      }
      case "Txn": {
        return {
          _tag: "Txn",
          compare: op.compare.map(compare),
          then: op.then.map(encode),
          else: op.else.map(encode)
        }
      }
    }
  }

  // --- from etcd ---

  const revision = (of: bigint): number => of === 0n ? 0 : Number(of - start)
  const keyText = (key: Uint8Array) => String(key).slice(prefix.length)
  const keyValue = (kv: Etcd.KeyValue, tellsLease = true) => ({
    key: keyText(kv.key),
    value: String(kv.value),
    created: revision(kv.createRevision),
    written: revision(kv.modRevision),
    version: Number(kv.version),
    lease: !tellsLease ? undefined : kv.lease === 0n ? 0 : Number(kv.lease - firstLease)
  })
  // Without values, only some versions of etcd tell the leases.
  const found = ({ kvs }: Etcd.RangeResult, { keysOnly = false }: typeof Range.Type) =>
    kvs.map((kv) => keyValue(kv, !keysOnly))
  const decode = (op: Op, result: Etcd.OpResult<Etcd.Op>): unknown => {
    if (op._tag === "Range" && result._tag === "Range") return { kvs: found(result, op), count: result.count }
    if (op._tag !== "Txn" || result._tag !== "Txn") return result
    const ops = result.succeeded ? op.then : op.else
    return { ...result, responses: result.responses.map((response, i) => decode(ops[i], response)) }
  }

  const answer = (command: Command): Effect.Effect<unknown, Etcd.EtcdError, Scope.Scope> => {
    switch (command._tag) {
      case "Put":
      case "Delete":
      case "Txn": {
        const txn: Op = command._tag === "Txn" ? command : { _tag: "Txn", compare: [], then: [command], else: [] }
        return Effect.map(etcd.txn(encode(txn) as Etcd.Txn), ({ responses, revision: at, succeeded }) => [
          decode(txn, { _tag: "Txn", succeeded, responses }),
          revision(at)
        ])
      }
      case "Range": {
        return Effect.map(
          etcd.range(encode(command) as Etcd.Range),
          (result) => [found(result, command), result.count, revision(result.revision)]
        )
      }
      case "Grant": {
        return etcd.leaseGrant(leaseId(command.lease), command.seconds)
      }
      case "Revoke": {
        return etcd.leaseRevoke(leaseId(command.lease))
      }
      case "KeepAlive": {
        return Effect.map(etcd.leaseKeepAlive(leaseId(command.lease), 5000), ({ ttl }) => ttl)
      }
      case "TimeToLive": {
        // what remains depends on how fast the commands ran
        return Effect.map(
          etcd.leaseTimeToLive(leaseId(command.lease), { keys: true }),
          ({ granted, keys, remaining }) => [granted, remaining >= granted - 60, keys.map(keyText).sort()]
        )
      }
      case "Watch": {
        const { key, rangeEnd } = bounds(command)
        return Effect.map(etcd.watch({ key, rangeEnd, only: command.only }), ({ next, revision: from }) => {
          watches.push({ key, next, only: command.only })
          return revision(from)
        })
      }
    }
  }

  // --- the events of a watch, up to one that is known to come ---

  const eventsOf = Effect.fnUntraced(function*({ key, next, only }: typeof watches[number]) {
    const put = yield* etcd.txn({ then: [{ _tag: "Put", key, value: Buffer.from("last") }] })
    const removed = yield* etcd.txn({ then: [{ _tag: "Delete", key }] })
    const last = only === "Put" ? put.revision : removed.revision
    const batches: Array<unknown> = []
    while (true) {
      const events = yield* next
      batches.push(events.map(({ _tag, kv }) => [_tag, keyValue(kv)]))
      if (events.some(({ kv }) => kv.modRevision >= last)) return batches
    }
  })

  const answers: Array<unknown> = []
  for (const command of [...prologue, ...commands]) {
    answers.push(Result.match(yield* Effect.result(answer(command)), {
      onSuccess: (answer) => answer,
      onFailure: ({ method, outcome, reason }) => ({ method, outcome, reason })
    }))
  }
  for (const watch of watches) answers.push(yield* eventsOf(watch))
  // what they would delete when they expire would move somebody else's revisions
  for (const lease of [1, 2, 3]) yield* Effect.ignore(etcd.leaseRevoke(leaseId(lease)))
  return answers
}, Effect.scoped)

// -----------------------------------------------------------------------------
// comparing the answers
// -----------------------------------------------------------------------------

class Both extends Context.Service<Both, {
  readonly memory: Etcd.Etcd["Service"]
  readonly real: Etcd.Etcd["Service"]
}>()("test/Both") {}

const both = Layer.effect(
  Both,
  Effect.gen(function*() {
    const { endpoint } = yield* EtcdServer.start()
    const memory = yield* Layer.build(Etcd.layerMemory())
    const real = yield* Layer.build(Etcd.layer({ hosts: endpoint, requestTimeout: "30 seconds" }))
    return { memory: Context.get(memory, Etcd.Etcd), real: Context.get(real, Etcd.Etcd) }
  })
)

layer(both, { excludeTestServices: true, timeout: "1 minute" })("The etcd in memory and a real one", (it) => {
  it.effect.prop(
    "answer the same",
    [Arbitrary.array(Arbitrary.schema(Command), { minLength: 1, maxLength: 12 })],
    ([commands]) =>
      Effect.gen(function*() {
        const { memory, real } = yield* Both
        const [expected, actual] = yield* Effect.all([run(real, commands), run(memory, commands)], { concurrency: 2 })
        for (const [index, answer] of expected.entries()) {
          const texts = [answer, actual[index]].map((answer) => JSON.stringify(answer))
          if (texts[0] === texts[1]) continue
          const what = [...prologue, ...commands][index]?._tag ?? "watch"
          assert.fail(`answer ${index}, to a ${what}\n  etcd:   ${texts[0]}\n  memory: ${texts[1]}`)
        }
      }),
    { timeout: 600_000, arbitrary: { runs: 2000 } }
  )
})
