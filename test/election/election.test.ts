/** One of many candidates leads, and everybody sees which one. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Stream } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { hostname } from "node:os"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import { fork, freezable, keys, pass, provideMemory, session, stop } from "../support/inMemory.ts"
import { noted } from "../support/noted.ts"
import { first, history } from "./line.ts"
import { stand } from "./stand.ts"

/** What an observer was told, from the beginning. */
const told = Effect.gen(function*() {
  const seen: Array<string | undefined> = []
  yield* fork(
    Stream.runForEach(
      Election.observe("job"),
      (leader) => Effect.sync(() => seen.push(Option.getOrUndefined(Option.map(leader, ({ value }) => value))))
    )
  )
  yield* pass(1)
  return seen
})

describe(`a candidate (${cite("P1")})`, () => {
  it.effect("leads alone, and is a key whose value is what it proclaims and nothing else", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const one = yield* stand(a, "10.0.0.7:8080 ✓")
      yield* pass(1)
      const { createRevision, fencingToken, key, leaseId, lock } = yield* one.won
      assert.strictEqual(lock, "job")
      assert.strictEqual(key, `job/${leaseId.toString(16)}-1`)
      assert.strictEqual(fencingToken, createRevision)
      const [kv] = yield* faults.keys
      assert.strictEqual(Buffer.from(kv!.value).toString("hex"), Buffer.from("10.0.0.7:8080 ✓").toString("hex"))
      assert.strictEqual(kv!.lease, leaseId)
      const two = yield* stand(b, "")
      yield* pass("2 seconds")
      assert.isFalse(yield* two.leads)
      yield* (yield* one.won).resign
      yield* pass(1)
      assert.isTrue((yield* two.won).fencingToken > fencingToken)
      assert.strictEqual(yield* first("job"), "")
      assert.include(failureOf(one.fiber.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      yield* two.giveUp
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("proclaims the name of its host if it says nothing else", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      assert.strictEqual(yield* run(Election.withLeadership(first("job"), "job")), hostname())
    })))

  it.effect("that has lost its lease or its key while it waited never leads, also when watches are late", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      for (const take of [faults.revokeLease, () => faults.deletePrefix("job/")]) {
        const one = yield* stand(a, "a")
        yield* pass(1)
        const two = yield* stand(b, "b")
        yield* pass(1)
        const bLease = (yield* faults.keys)
          .filter(({ value }) => Buffer.from(value).toString() === "b")
          .map(({ lease }) => lease)
        assert.lengthOf(bLease, 1)
        yield* faults.delayWatches("1 second")
        yield* take(bLease[0]!)
        yield* (yield* one.won).resign
        yield* pass("10 seconds")
        assert.isFalse(yield* two.leads)
        assert.include(failureOf(two.fiber.pollUnsafe()) as Lock.LockLost, {
          _tag: "LockLost",
          fencingToken: undefined
        })
        yield* faults.heal
        yield* pass("1 second")
        assert.deepStrictEqual(yield* keys, [])
      }
    })))

  it.effect("is interrupted and awaited before the next one leads", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const body = (who: string) =>
        Effect.sync(() => events.push(`${who} in`)).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Effect.delay(Effect.sync(() => events.push(`${who} out`)), 500))
        )
      const one = yield* fork(a.run(Election.withLeadership(body("a"), "job")))
      yield* pass(1)
      const two = yield* fork(b.run(Election.withLeadership(body("b"), "job")))
      yield* pass("1 second")
      yield* stop(one)
      yield* pass(499)
      assert.lengthOf(yield* keys, 2)
      yield* pass(10)
      assert.lengthOf(yield* keys, 1)
      assert.deepStrictEqual(events, ["a in", "a out", "b in"])
      // A loss fails the whole.
      yield* pass("1 second")
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      assert.deepStrictEqual(events, ["a in", "a out", "b in", "b out"])
      assert.include(failureOf(two.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))

  it.effect("whose session closes resigns, once what it runs has ended", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      let isOver = false
      const body = Effect.onInterrupt(
        Effect.never,
        () => Effect.delay(Effect.sync(() => (isOver = true)), 500)
      )
      const one = yield* fork(a.run(Election.withLeadership(body, "job")))
      yield* pass(1)
      const two = yield* fork(b.run(Election.withLeadership(Effect.sync(() => isOver), "job")))
      yield* pass(1)
      const closing = yield* fork(a.close)
      yield* pass(100)
      assert.isUndefined(two.pollUnsafe())
      yield* pass("1 second")
      assert.deepStrictEqual(two.pollUnsafe(), Exit.succeed(true))
      assert.include(failureOf(one.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
      yield* Fiber.join(closing)
    })))

  it.effect("cannot stand again where it leads, and a lock of the name is in its way like another candidate", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      for (const inner of [Election.withLeadership(Effect.void, "job"), Lock.withLock(Effect.void, "job")]) {
        const exit = yield* Effect.exit(a.run(Election.withLeadership(inner, "job")))
        assert.match(String(defectOf(exit)), /'job' is (led|already held) by this fiber/)
      }
      const locked = yield* fork(a.run(Lock.withLock(Effect.sleep(100), "job")))
      yield* pass(1)
      for (const { run } of [a, b]) {
        const late = yield* Effect.exit(run(Election.withLeadership(Effect.void, "job", { timeout: 0 })))
        assert.strictEqual((failureOf(late) as Lock.LockTimeout)._tag, "LockTimeout")
      }
      const one = yield* stand(b, "b")
      yield* pass(50)
      assert.isFalse(yield* one.leads)
      yield* pass(100)
      assert.isTrue(yield* one.leads)
      yield* Fiber.join(locked)
      const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, "job")))
      assert.strictEqual((refused as Lock.LockHeld).holder?.key, (yield* one.won).key)
      yield* one.giveUp
    })))
})

describe("a leader", () => {
  it.effect("that does nothing costs one heartbeat for each third of its TTL", () =>
    provideMemory(Effect.gen(function*() {
      const requests: Array<string> = []
      const etcd = noted(yield* Etcd.Etcd, requests)
      const process = yield* Effect.provideService(session({ ttl: "30 seconds" }), Etcd.Etcd, etcd)
      const one = yield* stand(process, "one")
      yield* pass("5 seconds")
      requests.length = 0
      yield* Effect.repeat(pass("5 seconds"), { times: 60 })
      assert.sameMembers([...new Set(requests)], ["leaseKeepAlive", "leaseTimeToLive", "txn"])
      assert.isAtMost(requests.length, 3 * 32)
      assert.isAtLeast(requests.length, 3 * 28)
      yield* one.giveUp
    })))
})

describe("candidates of one process", () => {
  it.effect("are one entry, which is handed over together with the value", () =>
    provideMemory(Effect.gen(function*() {
      const a = yield* session()
      const seen = yield* history("job")
      const observed = yield* told
      const [one, two, three] = [yield* stand(a, "one"), yield* stand(a, "two"), yield* stand(a, "three")]
      yield* pass(1)
      assert.lengthOf(yield* keys, 1)
      for (const candidate of [one, two, three]) {
        const { resign } = yield* candidate.won
        yield* resign
        yield* pass(1)
      }
      assert.deepStrictEqual(seen, [undefined, "one", "two", "three", undefined])
      assert.deepStrictEqual(observed, seen)
    })))

  for (const others of [false, true]) {
    it.effect(
      `never lead under the value of one that gave up, whenever it did (${others ? "behind another" : "alone"})`,
      () =>
        provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const [a, b] = yield* Effect.all([session({ ttl: "60 seconds" }), session({ ttl: "60 seconds" })])
          // The lease is granted beforehand.
          yield* a.run(Lock.withLock(Effect.void, "warm"))
          yield* faults.delay(20)
          for (let at = 0; at < 90; at += 5) {
            const before = others ? yield* stand(b, "before") : undefined
            yield* pass(200)
            const one = yield* stand(a, "one")
            const two = yield* stand(a, "two")
            yield* pass(at)
            // It may hand over while it leads, and before.
            if (before !== undefined) yield* fork(Effect.flatMap(before.won, ({ resign }) => Effect.delay(resign, 40)))
            yield* stop(one.fiber)
            for (let i = 0; i < 60; i++) {
              yield* pass(5)
              if (!(yield* two.leads)) continue
              const [first] = [...yield* faults.keys].sort((a, b) => Number(a.createRevision - b.createRevision))
              assert.strictEqual(Buffer.from(first!.value).toString(), "two", `interrupted after ${at}`)
            }
            assert.isTrue(yield* two.leads, `interrupted after ${at}`)
            const found = yield* fork(first("job"))
            yield* Effect.repeat(pass(10), { times: 3 })
            assert.deepStrictEqual(found.pollUnsafe(), Exit.succeed("two"), `interrupted after ${at}`)
            yield* stop(two.fiber)
            yield* Effect.repeat(pass(10), { times: 10 })
            assert.deepStrictEqual(yield* keys, [])
          }
        })),
      20_000
    )
  }
})

describe("a proclamation", () => {
  it.effect("changes the value and nothing else, and fails with LockLost after the term", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const observed = yield* told
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      const leadership = yield* one.won
      yield* leadership.proclaim("zwei ✓")
      yield* leadership.proclaim("zwei ✓")
      yield* leadership.proclaim("")
      yield* pass(1)
      assert.deepStrictEqual(
        observed,
        [undefined, "one", "zwei ✓", "zwei ✓", ""].slice(0, observed.length - 1).concat("")
      )
      const [kv] = yield* faults.keys
      assert.strictEqual(kv!.value.length, 0)
      assert.strictEqual(kv!.lease, leadership.leaseId)
      assert.strictEqual(kv!.createRevision, leadership.createRevision)
      yield* leadership.verify
      assert.match(
        String(defectOf(yield* Effect.exit(leadership.proclaim("\ud800")))),
        /value must be well-formed text/
      )
      // Lost, and not noticed yet.
      yield* faults.deleteKey(leadership.key)
      const lost = { _tag: "LockLost", reason: "KeyDeleted" } as const
      assert.include(yield* Effect.flip(leadership.proclaim("late")), lost)
      assert.include(yield* Effect.flip(leadership.proclaim("later")), lost)
      assert.deepStrictEqual(yield* keys, [])
      yield* pass(1)
      assert.include(failureOf(one.fiber.pollUnsafe()) as Lock.LockLost, lost)
      assert.isUndefined(observed.at(-1))
    })))

  it.effect("fails with LockLost in a process that stood still, before anything is sent", () =>
    provideMemory(Effect.gen(function*() {
      const { freeze, process } = yield* freezable
      const one = yield* stand(process, "one")
      yield* pass(1)
      const leadership = yield* one.won
      const seen = yield* history("job")
      freeze()
      assert.include(yield* Effect.flip(leadership.proclaim("two")), { _tag: "LockLost", reason: "LeaseExpired" })
      yield* Effect.repeat(pass("1 second"), { times: 5 })
      assert.notInclude(seen, "two")
    })))

  it.effect("whose reply was lost is sent again, and is not proclaimed twice", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const seen = yield* history("job")
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      const { proclaim } = yield* one.won
      yield* faults.drop("Reply", { method: "txn" })
      const proclaiming = yield* fork(proclaim("two"))
      yield* Effect.repeat(pass("1 second"), { times: 8 })
      assert.deepStrictEqual(proclaiming.pollUnsafe(), Exit.void)
      yield* proclaim("three")
      assert.deepStrictEqual(seen, [undefined, "one", "two", "three"])
      yield* one.giveUp
    })))

  it.effect("that comes late replaces no later one", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      const { proclaim } = yield* one.won
      yield* faults.delay("16 seconds")
      const given = yield* fork(proclaim("late"))
      yield* Effect.repeat(pass("1 second"), { times: 7 })
      assert.strictEqual((failureOf(given.pollUnsafe()) as Etcd.EtcdError)._tag, "EtcdError")
      yield* faults.delay(0)
      yield* proclaim("two")
      assert.strictEqual(yield* first("job"), "two")
      yield* Effect.repeat(pass("1 second"), { times: 10 })
      assert.strictEqual(yield* first("job"), "two")
      yield* proclaim("three")
      assert.strictEqual(yield* first("job"), "three")
      yield* one.giveUp
    })))

  it.effect("comes late, and the next one follows it all the same", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      const one = yield* stand({ run }, "one")
      yield* pass(1)
      const { proclaim } = yield* one.won
      yield* faults.delay("16 seconds")
      const given = yield* fork(proclaim("late"))
      yield* Effect.repeat(pass("1 second"), { times: 12 })
      assert.isDefined(failureOf(given.pollUnsafe()))
      assert.strictEqual(yield* Effect.map(faults.keys, ([kv]) => Buffer.from(kv!.value).toString()), "late")
      yield* faults.heal
      yield* proclaim("two")
      assert.strictEqual(yield* first("job"), "two")
      yield* one.giveUp
    })))
})
