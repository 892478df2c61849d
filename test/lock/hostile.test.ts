import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Stream } from "effect"
import { Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { counted, fork, pass, provideMemory, session } from "../support/inMemory.ts"

/** An entry of another client in the lock `job`. */
const enter = Effect.fnUntraced(function*(value: string) {
  const etcd = yield* Etcd.Etcd
  yield* etcd.leaseGrant(7n, 600)
  yield* etcd.txn({ then: [Etcd.put("job/7", value, { lease: 7n })] })
})

/** A line of a log, and what a terminal would act on. */
const hostile = "\nERROR all is lost\u001b[2J\u202e"

describe("an entry whose description is hostile", () => {
  it.effect.each<[string, string]>([
    ["nested without end", `{"metadata":{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}}`],
    ["text without end", "{\"host\":\"" + "\\\"".repeat(150_000)],
    ["no JSON", "\u0000{"],
    ["JSON of another kind", "[{}]"],
    ["of wrong types", "{\"host\":{},\"pid\":\"x\",\"since\":\"yesterday\"}"],
    [
      "another program's, with words that this library has as well",
      JSON.stringify({ host: "db-7", metadata: { port: 1 }, behind: 40, heldSince: "2020-01-01T00:00:00Z" })
    ],
    ["of fewer than none behind", JSON.stringify({ host: "box", pid: 1, since: "2020-01-01T00:00:00Z", behind: -5 })]
  ])("that is %s counts as one without a description", ([, value]) =>
    Effect.gen(function*() {
      yield* enter(value)
      const { run } = yield* session()
      const held = yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "job")))
      assert.instanceOf(held, Lock.LockHeld)
      const { holder } = yield* Lock.inspect("job")
      const [{ holder: listed } = {}] = yield* Lock.list()
      const changed = yield* Stream.runHead(Lock.listChanges("j"))
      const [{ holder: streamed } = {}] = Option.getOrThrow(changed)
      const read = yield* ReadWriteLock.inspect("job")
      const permits = yield* Semaphore.inspect("job")
      for (
        const client of [
          held.holder,
          holder,
          listed,
          streamed,
          read.holders[0]?.client,
          permits.holders[0]?.client
        ]
      ) {
        assert.deepInclude({ ...client }, { key: "job/7", leaseId: 7n, value })
        for (const said of ["host", "pid", "askedAt", "heldSince", "metadata", "trace", "behind"] as const) {
          assert.isUndefined(client![said])
        }
      }
    }).pipe(provideMemory))
})

describe("the message of an error", () => {
  const escaped = "\\u{a}ERROR all is lost\\u{1b}[2J\\u{202e}"

  it.effect("shows what a foreign host would do to a log or a terminal, and does it not", () =>
    Effect.gen(function*() {
      yield* enter(JSON.stringify({ host: `${hostile}${"x".repeat(100_000)}`, pid: 1, since: "2020-01-01T00:00:00Z" }))
      const { run } = yield* session()
      const { message } = yield* Effect.flip(run(Lock.tryWithLock(Effect.void, "job")))
      assert.include(message, `is held by ${escaped}xxx`)
      assert.isBelow(message.length, 2100)
    }).pipe(provideMemory))

  it.effect("does the same with a foreign key", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* etcd.txn({ then: [Etcd.put(`job/${hostile}`, "")] })
      const { run } = yield* session()
      const conflict = yield* Effect.flip(run(Lock.withLock(Effect.void, "job")))
      assert.include(conflict.message, `'job/${escaped}'`)
      assert.propertyVal(conflict, "key", `job/${hostile}`)
    }).pipe(provideMemory))
})

describe("entries whose keys claim permits that no semaphore has", () => {
  it.effect.each<[string, string]>([
    ["none", "0of3"],
    ["more than a number can say", `${"9".repeat(400)}of3`],
    ["one of none", "1of0"],
    ["one of more than a number can say", `1of${"9".repeat(400)}`],
    ["more than there are", "4of3"]
  ])(
    "%s: they claim all, and keep a waiter neither busy nor waiting for ever",
    ([, claim]) =>
      Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const faults = yield* Etcd.Faults
        yield* etcd.leaseGrant(7n, 600)
        // So many that the waiter watches its guards.
        for (let i = 1; i <= 20; i++) yield* etcd.txn({ then: [Etcd.put(`job/7-${i}-${claim}`, "", { lease: 7n })] })
        const { holders, queue } = yield* Semaphore.inspect("job")
        assert.deepStrictEqual([holders.length, queue.length], [1, 19])
        const { counts, run } = yield* counted()
        const waiter = yield* fork(run(Semaphore.withPermits(Effect.succeed("had its turn"), "job", { of: 3 })))
        yield* pass(2000)
        for (const count of Object.values(counts)) assert.isBelow(count, 20)
        yield* faults.revokeLease(7n)
        yield* pass(2000)
        assert.deepStrictEqual(waiter.pollUnsafe(), Exit.succeed("had its turn"))
      }).pipe(provideMemory)
  )
})
