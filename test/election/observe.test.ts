/** What observers of an election see. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Stream } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { counted, fork, pass, provideMemory, session, stop } from "../support/inMemory.ts"
import { otherClient } from "../support/otherClient.ts"
import { stand } from "./stand.ts"

/** Collects what an observer sees. */
const seenBy = <E>(observed: Stream.Stream<Option.Option<Election.Leader>, E>) =>
  Effect.gen(function*() {
    const seen: Array<string | undefined> = []
    const fiber = yield* fork(
      Stream.runForEach(observed, (leader) => Effect.sync(() => seen.push(Option.getOrUndefined(leader)?.value)))
    )
    yield* pass(1)
    return { fiber, seen }
  })

const observe = Effect.flatMap(
  Etcd.Etcd,
  (etcd) => seenBy(Stream.provideService(Election.observe("job"), Etcd.Etcd, etcd))
)

/** An observer that reaches etcd through what `change` makes of it. */
const observeThrough = (change: (etcd: Etcd.Etcd["Service"]) => Partial<Etcd.Etcd["Service"]>) =>
  Effect.flatMap(
    Etcd.Etcd,
    (etcd) => seenBy(Stream.provideService(Election.observe("job"), Etcd.Etcd, { ...etcd, ...change(etcd) }))
  )

const trouble = (reason: Etcd.EtcdErrorReason) =>
  new Etcd.EtcdError({ reason, method: "watch", outcome: "Refused", description: "says the test" })

describe("an observer", () => {
  it.effect("sees each leader, what it proclaims, and that there is none", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const { seen } = yield* observe
      assert.isTrue(Option.isNone(yield* Election.leader("job")))
      const one = yield* stand(a, "one")
      yield* pass(1)
      const two = yield* stand(b, "two")
      yield* pass(1)
      const leadership = yield* one.won
      yield* leadership.proclaim("one, ready")
      yield* pass(1)
      const { key, createRevision, leaseId, revision, value } = Option.getOrThrow(yield* Election.leader("job"))
      assert.deepStrictEqual(
        { key, createRevision, leaseId, value },
        {
          key: leadership.key,
          createRevision: leadership.createRevision,
          leaseId: leadership.leaseId,
          value: "one, ready"
        }
      )
      assert.isTrue(revision > createRevision)
      yield* leadership.resign
      yield* pass(1)
      yield* two.giveUp
      assert.deepStrictEqual(seen, [undefined, "one", "one, ready", "two", undefined])
    })))

  it.effect("sees a term of the same value as another one", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const { seen } = yield* observe
      const one = yield* stand(a, "same")
      yield* pass(1)
      yield* stand(b, "same")
      yield* pass(1)
      yield* (yield* one.won).resign
      yield* pass(1)
      assert.deepStrictEqual(seen, [undefined, "same", "same"])
    })))

  it.effect("misses what came in between when it is slow, and gets the last state", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "60 seconds" })
      const seen: Array<string | undefined> = []
      yield* fork(Stream.runForEach(Election.observe("job"), (leader) =>
        Effect.delay(
          Effect.sync(() => seen.push(Option.getOrUndefined(leader)?.value)),
          "10 seconds"
        )))
      yield* pass(1)
      const one = yield* stand({ run }, "0")
      yield* pass(1)
      const { proclaim } = yield* one.won
      for (let i = 1; i <= 100; i++) yield* proclaim(String(i))
      yield* Effect.repeat(pass("10 seconds"), { times: 5 })
      assert.strictEqual(seen.at(-1), "100")
      assert.isBelow(seen.length, 6)
    })))

  it.effect("sees a thousand proclamations in order, and the last one always", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const { seen } = yield* observe
      const one = yield* stand({ run }, "0")
      yield* pass(1)
      const { proclaim } = yield* one.won
      for (let i = 1; i <= 1000; i++) yield* proclaim(String(i))
      yield* pass(1)
      const numbers = seen.slice(1).map(Number)
      assert.strictEqual(numbers.at(-1), 1000)
      assert.isAbove(numbers.length, 1)
      assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b))
      yield* one.giveUp
    })))

  it.effect("asks etcd only when the leader has changed, however many candidates come and go behind it", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      let reads = 0
      const [a, b] = yield* Effect.all([session(), session()])
      const one = yield* stand(a, "one")
      yield* pass(1)
      const { seen } = yield* observeThrough(() => ({
        range: (range) => {
          reads++
          return etcd.range(range)
        }
      }))
      for (let i = 0; i < 20; i++) yield* (yield* stand(b, String(i))).giveUp
      assert.strictEqual(reads, 1)
      yield* one.giveUp
      assert.strictEqual(reads, 2)
      assert.deepStrictEqual(seen, ["one", undefined])
    })))

  it.effect("costs the leader nothing: a thousand of them", () =>
    provideMemory(Effect.gen(function*() {
      const leader = yield* counted({ ttl: "60 seconds" })
      const one = yield* stand(leader, "one")
      yield* pass("2 seconds")
      const before = { ...leader.counts }
      const observers = yield* Effect.forEach(Array.from({ length: 1000 }), () => observe)
      yield* pass("10 seconds")
      assert.deepStrictEqual(leader.counts, before)
      yield* (yield* one.won).proclaim("two")
      yield* pass(1)
      assert.deepStrictEqual(leader.counts, { ...before, txn: before.txn + 1 })
      for (const { seen } of observers) assert.strictEqual(seen.at(-1), "two")
    })))

  it.effect("sees what happened while its watch was lost, and while etcd could not be reached", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const { seen } = yield* observe
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      yield* faults.cut
      yield* (yield* one.won).proclaim("two")
      yield* pass(250)
      assert.strictEqual(seen.at(-1), "two")
      yield* faults.unreachable
      yield* Effect.repeat(pass("1 second"), { times: 10 })
      yield* faults.reachable
      yield* (yield* one.won).proclaim("three")
      yield* pass("1 second")
      assert.strictEqual(seen.at(-1), "three")
    })))

  it.effect("opens a watch again that etcd ended, and fails where it may not read", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "60 seconds" })
      let end: (() => void) | undefined
      const { fiber, seen } = yield* observeThrough((etcd) => ({
        subscribe: (options, listener) => {
          end = () => listener.onEnd(trouble("Internal"))
          return etcd.subscribe(options, listener)
        }
      }))
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      end!()
      yield* pass(250)
      assert.isUndefined(fiber.pollUnsafe())
      yield* (yield* one.won).proclaim("two")
      yield* pass(1)
      assert.deepStrictEqual(seen, [undefined, "one", "two"])
      yield* stop(fiber)

      for (const method of ["range", "subscribe"] as const) {
        const denied = yield* observeThrough(() => ({ [method]: () => Effect.fail(trouble("PermissionDenied")) }))
        assert.include(failureOf(denied.fiber.pollUnsafe()) as Etcd.EtcdError, { reason: "PermissionDenied" })
      }
    })))

  it.effect("sees a lock of that name as the leader, and nobody behind a key that is none", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const { run } = yield* session()
      const held = yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const leader = Option.getOrThrow(yield* Election.leader("job"))
      assert.include(JSON.parse(leader.value), { pid: process.pid })
      yield* stop(held)
      yield* pass(1)
      yield* etcd.txn({ then: [Etcd.put("job/a/b", "none")] })
      assert.isTrue(Option.isNone(yield* Election.leader("job")))
    })))

  it.effect("sees the end of a leader that comes while the read is under way that shows it", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const other = yield* otherClient
      const names = ["job/7-1", "job/7-2", "job/7-3"]
      yield* other.put(names)
      const seen: Array<string> = []
      yield* fork(Stream.runForEach(
        Election.observe("job"),
        (leader) => Effect.sync(() => seen.push(Option.getOrThrow(leader).key))
      ))
      yield* pass(1)
      yield* faults.delay(100)
      yield* faults.deleteKey(names[0]!)
      yield* pass(75)
      // The read has been answered, and the answer has not come yet.
      yield* faults.deleteKey(names[1]!)
      yield* Effect.repeat(pass(50), { times: 8 })
      assert.strictEqual(seen.at(-1), names[2])
    })))

  it.effect("ends its watch when it ends", () =>
    provideMemory(Effect.gen(function*() {
      let open = 0
      const { fiber } = yield* observeThrough((etcd) => ({
        subscribe: (options, listener) =>
          Effect.map(etcd.subscribe(options, listener), (subscription) => {
            open++
            return {
              revision: subscription.revision,
              close: () => {
                open--
                subscription.close()
              }
            }
          })
      }))
      assert.strictEqual(open, 1)
      yield* stop(fiber)
      yield* pass(1)
      assert.isTrue(Exit.hasInterrupts(fiber.pollUnsafe()!))
      assert.strictEqual(open, 0)
    })))
})
