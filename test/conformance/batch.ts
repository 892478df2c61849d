import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as Background from "../../src/internal/background.ts"
import * as Batch from "../../src/internal/etcd/batch.ts"
import type * as World from "../support/World.ts"

/** A batch that counts the transactions which it sends. */
const counting = Effect.fnUntraced(function*(world: World.World) {
  const sent: Array<number> = []
  const etcd = Etcd.Etcd.of({
    ...world.etcd,
    txn: (request) => {
      sent.push(request.then.filter((op) => op._tag === "Txn").length)
      return world.etcd.txn(request)
    }
  })
  const { send } = Batch.make(etcd, yield* Clock.Clock, yield* Background.make)
  const txn = <const Then extends ReadonlyArray<Etcd.Op>, const Else extends ReadonlyArray<Etcd.Op> = readonly []>(
    line: string | ReadonlyArray<string>,
    request: Etcd.TxnRequest<Then, Else>
  ) => Effect.callback<Batch.Answer<Then, Else>, Etcd.EtcdError>((resume) => send(line, Etcd.nested(request), resume))
  return { sent, batch: { txn } }
})

const free = (line: string): Etcd.Compare => {
  const { key, rangeEnd } = Etcd.getPrefix(line)
  return { key, rangeEnd, target: "CreateRevision", operator: "=", value: 0n }
}

/** What a batch promises, on whatever etcd the world has. */
export const suite = (on: string, makeWorld: Effect.Effect<World.World, never, Scope.Scope>) =>
  describe(`a batch on ${on}`, () => {
    it.live("sends what is ready at the same time as one transaction, and each gets its own answer", () =>
      Effect.gen(function*() {
        const { batch, sent } = yield* counting(yield* makeWorld)
        const answers = yield* Effect.forEach(Array.from({ length: 64 }, (_, i) => i), (i) =>
          batch.txn(`line-${i}/`, {
            compare: [Etcd.compareCreateRevision(`line-${i}/a`, i % 2 === 0 ? "=" : ">", 0n)],
            then: [Etcd.put(`line-${i}/a`, String(i)), Etcd.get(`line-${i}/a`)],
            else: [Etcd.get(`line-${i}/a`)]
          }), { concurrency: "unbounded" })
        assert.deepStrictEqual(sent, [64])
        answers.forEach((answer, i) => {
          assert.strictEqual(answer.succeeded, i % 2 === 0)
          const kvs = answer.succeeded ? answer.responses[1].kvs : answer.responses[0].kvs
          assert.deepStrictEqual(kvs.map((kv) => Buffer.from(kv.value).toString()), i % 2 === 0 ? [String(i)] : [])
        })
        yield* Effect.forEach(answers, (_, i) => batch.txn(`line-${i}/`, { then: [Etcd.remove(`line-${i}/a`)] }), {
          concurrency: "unbounded"
        })
      }))

    it.live("never sends two on one line together, which would both find it free", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const { batch, sent } = yield* counting(world)
        const attempt = (key: string) =>
          batch.txn("job/", { compare: [free("job/")], then: [Etcd.put(key, "")], else: [Etcd.getPrefix("job/")] })
        const answers = yield* Effect.all([attempt("job/1"), attempt("job/2"), attempt("job/3")], {
          concurrency: "unbounded"
        })
        assert.lengthOf(answers.filter(({ succeeded }) => succeeded), 1)
        assert.lengthOf(sent, 3)
        // why: in one transaction all of them would have succeeded
        yield* batch.txn("job/", { then: [Etcd.removePrefix("job/")] })
        const { responses } = yield* world.etcd.txn({
          then: ["job/1", "job/2"].map((key) => Etcd.nested({ compare: [free("job/")], then: [Etcd.put(key, "")] }))
        })
        assert.deepStrictEqual(responses.map(({ succeeded }) => succeeded), [true, true])
        yield* batch.txn("job/", { then: [Etcd.removePrefix("job/")] })
      }))

    it.live("lets only the guilty part fail", () =>
      Effect.gen(function*() {
        const { batch } = yield* counting(yield* makeWorld)
        const join = (line: string, lease?: bigint) =>
          batch.txn(`${line}/`, { then: [Etcd.put(`${line}/a`, "", { lease })] })
        const [a, b, c] = yield* Effect.all([
          Effect.result(join("a")),
          Effect.result(join("b", 12345n)),
          Effect.result(join("c"))
        ], { concurrency: "unbounded" })
        assert.strictEqual(a._tag, "Success")
        assert.strictEqual(c._tag, "Success")
        assert.strictEqual(b._tag === "Failure" ? b.failure.reason : undefined, "LeaseNotFound")
        yield* batch.txn("a/", { then: [Etcd.removePrefix("a/"), Etcd.removePrefix("c/")] })
      }))

    it.live("gives each part its answer where that to all of them would be too large, and says that it was repeated", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const { batch } = yield* counting(world)
        const keys = Array.from({ length: 10 }, (_, i) => `line-${i}/a`)
        for (const key of keys) yield* world.etcd.txn({ then: [Etcd.put(key, Buffer.alloc(500_000))] })
        const answers = yield* Effect.forEach(
          keys,
          (key) => batch.txn(key, { then: [Etcd.put(`${key}/b`, ""), Etcd.get(key)] }),
          { concurrency: "unbounded" }
        )
        for (const { repeated, responses } of answers) {
          assert.strictEqual(responses[1]?.kvs[0]?.value.length, 500_000)
          assert.isTrue(repeated)
        }
        yield* batch.txn("line-0/", { then: [Etcd.removePrefix("line-")] })
      }))

    it.live("does not say that a part was refused which may have been applied with the others", () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const error = (outcome: "Refused" | "Unknown") =>
          Effect.fail(
            new Etcd.EtcdError({ reason: "NoSpace", method: "txn", outcome, description: "as the test says" })
          )
        const { send } = Batch.make(
          Etcd.Etcd.of({
            ...world.etcd,
            txn: ({ then: [first] }) => error(first?._tag === "Txn" ? "Unknown" : "Refused")
          }),
          yield* Clock.Clock,
          yield* Background.make
        )
        const join = (line: string) =>
          Effect.flip(
            Effect.callback<unknown, Etcd.EtcdError>((resume) =>
              send(line, Etcd.nested({ then: [Etcd.put(`${line}/a`, "")] }), resume)
            )
          )
        const errors = yield* Effect.all([join("a"), join("b")], { concurrency: "unbounded" })
        assert.deepStrictEqual(errors.map(({ outcome }) => outcome), ["Unknown", "Unknown"])
        // Alone, a part that was refused was refused.
        assert.strictEqual((yield* join("a")).outcome, "Refused")
      }))

    it.live("keeps to etcd's limits of operations and of size", () =>
      Effect.gen(function*() {
        const { batch, sent } = yield* counting(yield* makeWorld)
        const all = (length: number, value: string) =>
          Effect.forEach(Array.from({ length }, (_, i) => `line-${i}`), (line) =>
            batch.txn(`${line}/`, { then: [Etcd.put(`${line}/a`, value)] }), { concurrency: "unbounded" })
        yield* all(250, "")
        yield* all(12, "x".repeat(200_000))
        assert.isAtMost(Math.max(...sent), 127)
        assert.isBelow(sent.length, 3 + 7)
        yield* batch.txn("line-0/", { then: [Etcd.removePrefix("line-")] })
      }))

    it.live("counts the operations of the largest part along with those of the batch", () =>
      Effect.gen(function*() {
        const { batch, sent } = yield* counting(yield* makeWorld)
        const reads = Array.from({ length: 100 }, (_, i) => Etcd.get(`read-${i}`))
        yield* Effect.forEach(Array.from({ length: 60 }, (_, i) => `line-${i}/`), (line, i) =>
          batch.txn(line, { then: i === 40 ? reads : [Etcd.get(line)] }), { concurrency: "unbounded" })
        // The first one is sent by itself, and those that come meanwhile have room for 28 beside the large one.
        assert.strictEqual(
          sent.reduce((sum, parts) =>
            sum + Math.max(parts, 1), 0),
          60
        )
        assert.isAbove(sent.length, 1)
      }))

    it.live("never lets a part travel with others on any of its lines", () =>
      Effect.gen(function*() {
        const { batch, sent } = yield* counting(yield* makeWorld)
        const get = (line: string | ReadonlyArray<string>) => batch.txn(line, { then: [Etcd.get("a")] })
        yield* Effect.all([get("a/"), get(["b/", "c/"]), get(["d/", "c/"]), get("e/"), get("b/")], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(sent, [2, 3])
      }))
  })
