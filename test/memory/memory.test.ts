import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Latch, Layer, Metric, Random, Result, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { fork, pass, seconds, session } from "../support/inMemory.ts"

describe("leases in memory", () => {
  it.effect("expire exactly when their time is up, with their keys", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* etcd.leaseGrant(1n, 10)
      yield* etcd.leaseGrant(2n, 11)
      yield* put("b", { lease: 1n })
      yield* put("a", { lease: 1n })
      yield* put("kept", { lease: 2n })
      const { next } = yield* etcd.watch(Etcd.get("a"))

      yield* TestClock.adjust(9999)
      assert.deepStrictEqual(yield* faults.leases, [1n, 2n])
      assert.deepInclude(yield* etcd.leaseTimeToLive(1n), { remaining: 0, granted: 10 })
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* faults.leases, [2n])
      assert.deepStrictEqual(yield* keys, ["kept"])
      assert.deepInclude(yield* etcd.leaseTimeToLive(1n), { remaining: -1, granted: 0 })
      const events = yield* next
      assert.deepStrictEqual(events.map(({ _tag, kv }) => [_tag, String(kv.key)]), [["Delete", "a"]])
    }).pipe(provideMemory))

  it.effect("live for a TTL from each renewal", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* etcd.leaseGrant(1n, 10)
      yield* TestClock.adjust(9999)
      assert.strictEqual((yield* etcd.leaseKeepAlive(1n, 1000)).ttl, 10)
      yield* TestClock.adjust(5000)
      assert.strictEqual((yield* etcd.leaseKeepAlive(1n, 1000)).ttl, 10)
      assert.deepInclude(yield* etcd.leaseTimeToLive(1n), { remaining: 10, granted: 10 })
      yield* TestClock.adjust(9999)
      assert.deepStrictEqual(yield* faults.leases, [1n])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* faults.leases, [])
      assert.strictEqual((yield* etcd.leaseKeepAlive(1n, 1000)).ttl, 0)
    }).pipe(provideMemory))

  it.effect("cannot be renewed any more when their time is up", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      // wakes up first at the very moment of the expiry
      const renewal = yield* Effect.forkChild(Effect.delay(etcd.leaseKeepAlive(1n, 1000), "10 seconds"), {
        startImmediately: true
      })
      yield* etcd.leaseGrant(1n, 10)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(renewal)).ttl, 0)
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))

  it.effect("can be granted again under an ID that was in use", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* etcd.leaseGrant(1n, 10)
      yield* TestClock.adjust(5000)
      yield* etcd.leaseRevoke(1n)
      yield* etcd.leaseGrant(1n, 10)
      yield* TestClock.adjust(9999)
      assert.deepStrictEqual(yield* faults.leases, [1n])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))
})

describe("an etcd in memory leaves no fiber", () => {
  it.effect("when its leases are gone", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      // the test clock itself forks a fiber until it is moved for the first time
      yield* TestClock.adjust(1)
      const before = yield* activeFibers
      for (const id of [1n, 2n, 3n, 4n]) yield* etcd.leaseGrant(id, 10)
      assert.strictEqual(yield* activeFibers, before + 4)
      yield* etcd.leaseRevoke(1n)
      yield* faults.expireLease(2n)
      yield* faults.revokeLease(3n)
      assert.strictEqual(yield* activeFibers, before + 1)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* activeFibers, before)
    }).pipe(provideMemory, countFibers))

  it.effect("when its layer is closed", () =>
    Effect.gen(function*() {
      // the test clock itself forks a fiber until it is moved for the first time
      yield* TestClock.adjust(1)
      const before = yield* activeFibers
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Etcd.layerMemory(), scope)
      yield* Effect.gen(function*() {
        const { etcd, faults } = yield* services
        yield* etcd.leaseGrant(1n, 10)
        yield* faults.delay("1 hour")
        yield* timesOut(etcd.leaseGrant(2n, 10), 5000)
      }).pipe(Effect.provide(context))
      assert.isAbove(yield* activeFibers, before)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* activeFibers, before)
    }).pipe(countFibers))
})

describe("an answer without values", () => {
  it.effect("has no leases, as that of etcd 3.7, also within transactions", () =>
    Effect.gen(function*() {
      const { etcd } = yield* services
      yield* etcd.leaseGrant(5n, 60)
      yield* etcd.txn({ then: [Etcd.put("a", "1", { lease: 5n })] })
      const keysOnly = { ...Etcd.get("a"), keysOnly: true }
      const { responses: [inTransaction] } = yield* etcd.txn({ then: [keysOnly] })
      const answers = [yield* etcd.range(keysOnly), inTransaction, yield* etcd.range(Etcd.get("a"))]
      assert.deepStrictEqual(answers.map((answer) => answer?.kvs[0]?.lease), [0n, 0n, 5n])
    }).pipe(provideMemory))
})

describe("watches of one revision", () => {
  /** The orders in which ten revisions are told to five watches. */
  const orders = (seed: string) =>
    Effect.gen(function*() {
      const { etcd } = yield* services
      const orders: Array<Array<number>> = []
      for (let watch = 0; watch < 5; watch++) {
        yield* etcd.subscribe({ key: Buffer.from("a") }, {
          onEvents: () => void orders.at(-1)?.push(watch),
          onEnd: () => {}
        })
      }
      for (let i = 0; i < 10; i++) {
        orders.push([])
        yield* put("a")
      }
      return orders.map((order) => order.join(""))
    }).pipe(provideMemory, Random.withSeed(seed))

  it.effect("are told in any order, which a seed of Effect's Random repeats", () =>
    Effect.gen(function*() {
      const told = yield* orders("one")
      assert.isAtLeast(new Set(told).size, 5)
      assert.deepStrictEqual(new Set(told.map((order) => [...order].sort().join(""))), new Set(["01234"]))
      assert.deepStrictEqual(yield* orders("one"), told)
      assert.notDeepEqual(yield* orders("two"), told)
    }))

  it.effect("are not told of it when another of them has closed or opened them just then", () =>
    Effect.gen(function*() {
      const { etcd } = yield* services
      let told = 0
      const subscriptions: Array<Etcd.Subscription> = []
      for (let watch = 0; watch < 2; watch++) {
        subscriptions.push(
          yield* etcd.subscribe({ key: Buffer.from("a") }, {
            onEvents: () => {
              told++
              for (const { close } of subscriptions) close()
            },
            onEnd: () => {}
          })
        )
      }
      yield* put("a")
      assert.strictEqual(told, 1)
    }).pipe(provideMemory))
})

describe("Faults.drop", () => {
  it.effect("loses a request: it is not applied", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.drop("Request")
      const error = yield* timesOut(put("a"), 5000)
      assert.deepInclude(error, { reason: "Timeout", outcome: "Unknown", method: "txn" })
      assert.deepStrictEqual(yield* keys, [])
      yield* put("a")
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).count, 1)
    }).pipe(provideMemory))

  it.effect("loses a reply: the request is applied", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.drop("Reply")
      const fiber = yield* Effect.forkChild(Effect.flip(put("a")), { startImmediately: true })
      assert.deepStrictEqual(yield* keys, ["a"])
      yield* TestClock.adjust(4999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepInclude(yield* Fiber.join(fiber), { reason: "Timeout", outcome: "Unknown", method: "txn" })
    }).pipe(provideMemory))

  it.effect("counts what is sent, so that a call that is repeated gets through", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.drop("Reply")
      const fiber = yield* Effect.forkChild(Effect.flip(etcd.leaseGrant(1n, 10)))
      yield* TestClock.adjust(3000)
      assert.strictEqual((yield* Fiber.join(fiber)).reason, "LeaseExists")
    }).pipe(provideMemory))

  it.effect("loses so many requests of one method, in order", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.drop("Request", { method: "leaseKeepAlive", times: 2 })
      yield* faults.drop("Reply", { method: "leaseKeepAlive" })
      yield* etcd.leaseGrant(1n, 10)
      for (const remaining of [9, 8, 9]) {
        yield* timesOut(etcd.leaseKeepAlive(1n, 1000), 1000)
        assert.strictEqual((yield* etcd.leaseTimeToLive(1n)).remaining, remaining)
      }
      assert.strictEqual((yield* etcd.leaseKeepAlive(1n, 1000)).ttl, 10)
    }).pipe(provideMemory))

  it.effect("loses a watch's confirmation: it is given up", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.drop("Reply", { method: "watch", times: Infinity })
      const fiber = yield* Effect.forkChild(Effect.flip(Effect.scoped(etcd.watch(Etcd.get("a")))))
      yield* TestClock.adjust(5000)
      assert.deepInclude(yield* Fiber.join(fiber), { reason: "Timeout", outcome: "Refused", method: "watch" })
    }).pipe(provideMemory))
})

describe("Faults.delay", () => {
  it.effect("applies a request half way and answers it at the end", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.delay("100 millis")
      const fiber = yield* Effect.forkChild(Effect.andThen(put("a"), Clock.currentTimeMillis))
      yield* TestClock.adjust(49)
      assert.deepStrictEqual(yield* keys, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* keys, ["a"])
      yield* TestClock.adjust(49)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), 100)
    }).pipe(provideMemory))

  it.effect("applies a request whose caller has given up", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.delay("1 minute")
      yield* timesOut(put("timed-out"), 5000)
      const fiber = yield* Effect.forkChild(put("interrupted"), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      const watching = yield* Effect.forkChild(Effect.scoped(etcd.watch(Etcd.get("a"))), { startImmediately: true })
      yield* Fiber.interrupt(watching)
      assert.deepStrictEqual(yield* keys, [])
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* keys, ["interrupted", "timed-out"])
    }).pipe(provideMemory))

  it.effect("opens no watch for an attempt that was given up for another", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.delay("4 seconds")
      const opening = yield* Effect.forkChild(etcd.watch(Etcd.get("a")))
      yield* TestClock.adjust("1 second")
      yield* faults.delay(0)
      yield* TestClock.adjust("900 millis")
      const { next } = yield* Fiber.join(opening)
      // by now the first attempt has arrived
      yield* TestClock.adjust("1 second")
      yield* put("a")
      yield* put("a")
      const batches = yield* Effect.all([next, next])
      assert.deepStrictEqual(batches.map(([event]) => event?.kv.version), [1n, 2n])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("ends with a delay of zero", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.delay("1 minute")
      yield* faults.delay(0)
      yield* put("a")
    }).pipe(provideMemory))
})

describe("Faults.delayWatches", () => {
  it.effect("reports an event long after the answers that imply it", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.delayWatches("10 seconds")
      const { next } = yield* etcd.watch(Etcd.get("a"))
      const arrives = yield* Effect.forkChild(next, { startImmediately: true })
      yield* put("a")
      yield* faults.deleteKey("a")
      yield* TestClock.adjust(9999)
      yield* put("a")
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).revision, 4n)
      assert.isUndefined(arrives.pollUnsafe())
      yield* TestClock.adjust(1)
      const batches = [yield* Fiber.join(arrives), yield* next]
      assert.deepStrictEqual(batches.flat().map(revisionOf), [["Put", 2n], ["Delete", 3n]])
      const last = yield* Effect.forkChild(next, { startImmediately: true })
      yield* TestClock.adjust(9998)
      assert.isUndefined(last.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual((yield* Fiber.join(last)).map(revisionOf), [["Put", 4n]])
    }).pipe(provideMemory))

  it.effect("keeps together what happened at one revision", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      for (const key of ["a/1", "a/2"]) yield* put(key)
      const { next } = yield* etcd.watch(Etcd.getPrefix("a/"))
      yield* faults.delayWatches("10 seconds")
      yield* faults.deletePrefix("a/")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* next).map(revisionOf), [["Delete", 4n], ["Delete", 4n]])
    }).pipe(provideMemory))

  it.effect("lets no event overtake another of its watch when the delay gets shorter", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* faults.delayWatches("10 seconds")
      yield* put("a")
      yield* TestClock.adjust("1 second")
      yield* faults.delayWatches("2 seconds")
      yield* put("a")
      yield* faults.delayWatches(0)
      yield* put("a")
      const other = yield* etcd.watch(Etcd.get("a"))
      yield* put("a")
      assert.deepStrictEqual((yield* other.next).map(revisionOf), [["Put", 5n]])
      const arrives = yield* Effect.forkChild(Effect.all([next, next, next, next]), { startImmediately: true })
      yield* TestClock.adjust(8999)
      assert.isUndefined(arrives.pollUnsafe())
      yield* TestClock.adjust(1)
      const revisions = (yield* Fiber.join(arrives)).map(([event]) => event?.kv.modRevision)
      assert.deepStrictEqual(revisions, [2n, 3n, 4n, 5n])
      yield* put("a")
      assert.deepStrictEqual((yield* next).map(revisionOf), [["Put", 6n]])
    }).pipe(provideMemory))

  it.effect("delays neither a watch's confirmation nor its end, with which what is on its way is lost", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.delayWatches("10 seconds")
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* put("a")
      yield* faults.cut
      assert.deepInclude(yield* Effect.flip(next), { reason: "Unavailable", outcome: "Unknown", method: "watch" })
      yield* TestClock.adjust("10 seconds")
      assert.deepInclude(yield* Effect.flip(next), { reason: "Unavailable", outcome: "Unknown", method: "watch" })
    }).pipe(provideMemory))

  it.effect("is of each watch's own measure with `upTo`: watches hear of revisions in any order, and each of them in theirs", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const watches = [yield* etcd.watch(Etcd.get("a")), yield* etcd.watch(Etcd.get("a"))]
      yield* faults.delayWatches("1 second", { upTo: "10 seconds" })
      const heard: Array<readonly [watch: number, revision: number, at: number]> = []
      for (const [index, { next }] of watches.entries()) {
        const hear = Effect.zipWith(next, Clock.currentTimeMillis, ([event], at) => {
          heard.push([index, Number(event!.kv.modRevision), at])
        })
        yield* Effect.forkChild(Effect.forever(hear), { startImmediately: true })
      }
      for (let i = 0; i < 30; i++) {
        yield* put("a")
        yield* TestClock.adjust("100 millis")
      }
      yield* TestClock.adjust("10 seconds")
      const of = (watch: number) => heard.filter(([index]) => index === watch).map(([, revision]) => revision)
      const revisions = Array.from({ length: 30 }, (_, i) => i + 2)
      assert.deepStrictEqual([of(0), of(1)], [revisions, revisions])
      const late = heard.map(([, revision, at]) => at - 100 * (revision - 2))
      assert.isAtLeast(Math.min(...late), 1000)
      assert.isAtMost(Math.max(...late), 10_000)
      const isAhead = (watch: number) =>
        heard.some(([index, revision], at) =>
          index === watch && !heard.slice(0, at).some((other) => other[0] !== watch && other[1] >= revision)
        )
      assert.deepStrictEqual([isAhead(0), isAhead(1)], [true, true])
    }).pipe(provideMemory, Random.withSeed("late")))

  it.effect("goes on while etcd is stalled: what is due by then arrives on resume, and all else in its time", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* faults.delayWatches("10 seconds")
      yield* put("a")
      yield* faults.stall
      yield* TestClock.adjust("6 seconds")
      yield* faults.deleteKey("a")
      yield* TestClock.adjust("6 seconds")
      const first = yield* Effect.forkChild(next, { startImmediately: true })
      assert.isUndefined(first.pollUnsafe())
      yield* faults.resume
      assert.deepStrictEqual((yield* Fiber.join(first)).map(revisionOf), [["Put", 2n]])
      const second = yield* Effect.forkChild(next, { startImmediately: true })
      yield* TestClock.adjust(3999)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual((yield* Fiber.join(second)).map(revisionOf), [["Delete", 3n]])
    }).pipe(provideMemory))

  it.effect("leaves no fiber when a watch ends, is cut off, or has heard of everything", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      // the test clock itself forks a fiber until it is moved for the first time
      yield* TestClock.adjust(1)
      const before = yield* activeFibers
      const lateEvents = Effect.gen(function*() {
        yield* etcd.watch(Etcd.get("a"))
        yield* faults.delayWatches("10 seconds")
        yield* put("a")
        yield* put("a")
        assert.strictEqual(yield* activeFibers, before + 1)
      })
      yield* Effect.scoped(lateEvents)
      assert.strictEqual(yield* activeFibers, before)
      for (const end of [faults.cut, faults.heal, TestClock.adjust("10 seconds")]) {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* lateEvents
          yield* end
          yield* Effect.yieldNow
          assert.strictEqual(yield* activeFibers, before)
        }))
      }
    }).pipe(provideMemory, countFibers))
})

describe("Faults.silenceWatches", () => {
  it.effect("lets watches report nothing while requests are answered, and with `heal` all of it in order", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* faults.silenceWatches
      const beside = yield* etcd.watch(Etcd.get("a"))
      yield* put("a")
      yield* faults.delayWatches("10 seconds")
      yield* faults.deleteKey("a")
      const silent = yield* Effect.forkChild(Effect.all([next, beside.next]), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(silent.pollUnsafe())
      yield* put("a")
      yield* faults.heal
      const [first, second] = yield* Fiber.join(silent)
      const batches = [first, yield* next, yield* next]
      assert.deepStrictEqual(batches.flat().map(revisionOf), [["Put", 2n], ["Delete", 3n], ["Put", 4n]])
      assert.deepStrictEqual(second.map(revisionOf), [["Put", 2n]])
      yield* put("a")
      assert.deepStrictEqual((yield* next).map(revisionOf), [["Put", 5n]])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("ends with a cut: what is opened then reports as ever, and other connections never were silent", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const one = yield* faults.connect
      const [silent, other] = yield* Effect.forEach([one.etcd, etcd], (etcd) => etcd.watch(Etcd.get("a")))
      yield* one.faults.silenceWatches
      yield* put("a")
      assert.deepStrictEqual((yield* other!.next).map(revisionOf), [["Put", 2n]])
      yield* one.faults.cut
      assert.deepInclude(yield* Effect.flip(silent!.next), { reason: "Unavailable", outcome: "Unknown" })
      const again = yield* one.etcd.watch(Etcd.get("a"))
      yield* put("a")
      assert.deepStrictEqual((yield* again.next).map(revisionOf), [["Put", 3n]])
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is found out by a waiter's heartbeat, which watches elsewhere then", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      const { etcd, faults: own } = yield* faults.connect
      const [holder, waiter] = [
        yield* session({ ttl: "9 seconds" }),
        yield* session({ ttl: "9 seconds" }).pipe(
          Effect.provideService(Etcd.Etcd, etcd)
        )
      ]
      const turns = yield* Effect.forEach(["first", "second"], (name) =>
        Effect.gen(function*() {
          const leave = yield* Latch.make()
          yield* fork(holder.run(Lock.withLock(leave.await, name)))
          yield* pass("1 second")
          const turn = yield* fork(waiter.run(Lock.withLock(Clock.currentTimeMillis, name)))
          yield* pass("1 second")
          return { leave: leave.open, turn }
        }))
      yield* own.silenceWatches
      const began = yield* Clock.currentTimeMillis
      yield* turns[0]!.leave
      yield* seconds(9)
      assert.isAbove(yield* Fiber.join(turns[0]!.turn), began)
      yield* turns[1]!.leave
      yield* pass(1)
      assert.isDefined(turns[1]!.turn.pollUnsafe())
    }).pipe(Effect.scoped, provideMemory))
})

describe("Faults.cut", () => {
  it.effect("ends every watch, and no later one", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const { next } = yield* etcd.watch(Etcd.get("a"))
      const waiting = yield* Effect.forkChild(Effect.flip(next), { startImmediately: true })
      yield* faults.cut
      const lost = { reason: "Unavailable", outcome: "Unknown", method: "watch" } as const
      assert.deepInclude(yield* Fiber.join(waiting), lost)
      yield* put("a")
      assert.deepInclude(yield* Effect.flip(next), lost)

      const again = yield* etcd.watch(Etcd.get("a"))
      yield* put("a")
      assert.lengthOf(yield* again.next, 1)
    }).pipe(provideMemory))

  it.effect("fails every request under way: those that had arrived are applied", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.delay("100 millis")
      const arrived = yield* Effect.forkChild(Effect.flip(put("arrived")), { startImmediately: true })
      yield* TestClock.adjust(70)
      const sent = yield* Effect.forkChild(Effect.flip(put("sent")), { startImmediately: true })
      yield* faults.cut
      const lost = { reason: "Unavailable", outcome: "Unknown", method: "txn" } as const
      assert.deepInclude(yield* Fiber.join(arrived), lost)
      assert.deepInclude(yield* Fiber.join(sent), lost)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* keys, ["arrived"])
    }).pipe(provideMemory))
})

describe("Faults.stall", () => {
  it.effect("answers nothing; what was sent meanwhile is applied after it, in order", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* faults.stall
      const error = yield* timesOut(put("given-up"), 5000)
      assert.deepInclude(error, { reason: "Timeout", outcome: "Unknown" })
      const fiber = yield* Effect.forkChild(
        etcd.txn({ compare: [Etcd.compareCreateRevision("given-up", ">", 0n)], then: [] }),
        { startImmediately: true }
      )
      assert.deepStrictEqual(yield* keys, [])
      yield* faults.resume
      assert.deepStrictEqual(yield* keys, ["given-up"])
      assert.isTrue((yield* Fiber.join(fiber)).succeeded)
    }).pipe(provideMemory))

  it.effect("lets no lease expire; on resume those that are due do, before anything else", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* etcd.leaseGrant(1n, 10)
      yield* etcd.leaseGrant(2n, 30)
      yield* put("a", { lease: 1n })
      yield* faults.stall
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(yield* keys, ["a"])
      const renewal = yield* Effect.forkChild(etcd.leaseKeepAlive(1n, 1000), { startImmediately: true })
      const late = yield* Effect.forkChild(Effect.flip(put("b", { lease: 1n })), { startImmediately: true })
      yield* faults.resume
      assert.deepStrictEqual(yield* keys, [])
      assert.deepStrictEqual(yield* faults.leases, [2n])
      assert.strictEqual((yield* Fiber.join(renewal)).ttl, 0)
      assert.strictEqual((yield* Fiber.join(late)).reason, "LeaseNotFound")
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(yield* faults.leases, [])
    }).pipe(provideMemory))

  it.effect("keeps watches silent, and tells them in order afterwards", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* put("a")
      yield* put("b")
      yield* put("c")
      const { next } = yield* etcd.watch(Etcd.get("a"))
      const other = yield* etcd.watch({ ...Etcd.get("b"), rangeEnd: Buffer.from("z") })
      yield* faults.stall
      yield* faults.deleteKey("b")
      yield* faults.deleteKey("c")
      const silent = yield* Effect.forkChild(other.next, { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(silent.pollUnsafe())
      yield* faults.resume
      assert.deepStrictEqual((yield* Fiber.join(silent)).map(({ kv }) => String(kv.key)), ["b"])
      assert.deepStrictEqual((yield* other.next).map(({ kv }) => String(kv.key)), ["c"])
      yield* faults.deleteKey("a")
      assert.lengthOf(yield* next, 1)
    }).pipe(provideMemory))

  it.effect("does not prevent a cut, after which what had arrived is applied", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.stall
      const fiber = yield* Effect.forkChild(Effect.flip(put("a")), { startImmediately: true })
      yield* faults.cut
      assert.deepInclude(yield* Fiber.join(fiber), { reason: "Unavailable", outcome: "Unknown" })
      yield* faults.resume
      assert.deepStrictEqual(yield* keys, ["a"])
    }).pipe(provideMemory))
})

describe("Faults.unreachable", () => {
  it.effect("refuses every request at once, while leases expire", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      yield* etcd.leaseGrant(1n, 10)
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* faults.drop("Request", { method: "leaseKeepAlive" })
      yield* faults.unreachable
      assert.deepInclude(yield* Effect.flip(next), { reason: "Unavailable", outcome: "Unknown" })
      assert.deepInclude(yield* Effect.flip(etcd.leaseKeepAlive(1n, 1000)), {
        reason: "Unavailable",
        outcome: "Refused"
      })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* faults.leases, [])
      yield* faults.reachable
      // a request that was never sent uses up no drop
      yield* timesOut(etcd.leaseKeepAlive(1n, 1000), 1000)
      assert.strictEqual((yield* etcd.leaseKeepAlive(1n, 1000)).ttl, 0)
    }).pipe(provideMemory))

  it.effect("is got over by calls that are repeated", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.unreachable
      const fiber = yield* Effect.forkChild(put("a"), { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      yield* faults.reachable
      yield* TestClock.adjust(300)
      assert.strictEqual((yield* Fiber.join(fiber)).revision, 2n)
    }).pipe(provideMemory))
})

describe("Faults.connect", () => {
  it.effect("is another connection to the same etcd, which alone has its faults", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const [one, two] = [yield* faults.connect, yield* faults.connect]
      const put = (connection: Etcd.Connection) => connection.etcd.txn({ then: [Etcd.put("a", "")] })
      yield* put(one)
      assert.strictEqual((yield* put(two)).revision, 3n)

      const watches = yield* Effect.forEach([one.etcd, two.etcd, etcd], (etcd) => etcd.watch(Etcd.get("a")))
      yield* one.faults.unreachable
      assert.deepInclude(yield* Effect.flip(one.etcd.leaseKeepAlive(1n, 1000)), {
        reason: "Unavailable",
        outcome: "Refused"
      })
      yield* put(two)
      const heard = yield* Effect.forEach(watches, ({ next }) => Effect.result(next))
      assert.deepStrictEqual(heard.map(Result.isSuccess), [false, true, true])
      yield* one.faults.reachable
      yield* put(one)

      yield* one.faults.drop("Reply", { method: "leaseGrant" })
      yield* two.etcd.leaseGrant(1n, 10)
      yield* one.faults.delay("1 second")
      yield* two.etcd.leaseGrant(2n, 10)
      const slow = yield* Effect.forkChild(put(one), { startImmediately: true })
      yield* TestClock.adjust(999)
      assert.isUndefined(slow.pollUnsafe())
      yield* TestClock.adjust(1)
      yield* Fiber.join(slow)

      yield* one.faults.heal
      const [first, second] = yield* Effect.forEach([one, two], ({ etcd }) => etcd.watch(Etcd.get("a")))
      yield* one.faults.delayWatches("5 seconds")
      yield* put(two)
      assert.lengthOf(yield* second!.next, 1)
      const event = yield* Effect.forkChild(first!.next, { startImmediately: true })
      yield* TestClock.adjust(4999)
      assert.isUndefined(event.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.lengthOf(yield* Fiber.join(event), 1)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("lets a leader stop before another begins when it cannot reach etcd", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      const seen: Array<string> = []
      const say = (what: string) => Effect.sync(() => seen.push(what))
      const start = (name: string, { etcd }: Etcd.Connection) =>
        Effect.gen(function*() {
          const { run } = yield* session({ ttl: "15 seconds" })
          const body = Effect.acquireUseRelease(say(`${name} up`), () => Effect.never, () => say(`${name} down`))
          yield* fork(run(Lock.withLock(body, "leader")))
          yield* pass("1 second")
        }).pipe(Effect.provideService(Etcd.Etcd, etcd))
      const [a, b] = [yield* faults.connect, yield* faults.connect]
      yield* start("A", a)
      yield* start("B", b)
      yield* a.faults.unreachable
      yield* seconds(20)
      assert.deepStrictEqual(seen, ["A up", "A down", "B up"])
      yield* faults.heal
    }).pipe(Effect.scoped, provideMemory))

  it.effect("is hit by the faults of all as well, which heal it, too", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      const { etcd, faults: own } = yield* faults.connect
      yield* own.delay("1 second")
      yield* faults.delay("2 seconds")
      const put = etcd.txn({ then: [Etcd.put("a", "")] })
      const slow = yield* Effect.forkChild(Effect.andThen(put, Clock.currentTimeMillis))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(slow), 3000)
      yield* faults.heal
      for (const fault of [faults.unreachable, own.unreachable, faults.stall, own.stall]) {
        yield* fault
        const failing = yield* Effect.forkChild(Effect.flip(etcd.leaseKeepAlive(1n, 1000)))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(failing)
        yield* faults.heal
        yield* put
      }
    }).pipe(provideMemory))

  it.effect("stalls alone: etcd lives on, and what was sent meanwhile arrives late", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const stalled = yield* faults.connect
      yield* etcd.leaseGrant(1n, 10)
      const { next } = yield* stalled.etcd.watch(Etcd.get("a"))
      yield* stalled.faults.delay("2 seconds")
      const onItsWayBack = yield* Effect.forkChild(stalled.etcd.leaseKeepAlive(1n, 60_000), { startImmediately: true })
      yield* TestClock.adjust("1500 millis")
      yield* stalled.faults.delay(0)
      yield* stalled.faults.stall
      const sent = yield* Effect.forkChild(
        Effect.flip(stalled.etcd.txn({ then: [Etcd.put("late", "")] })),
        { startImmediately: true }
      )
      yield* put("a")
      const silent = yield* Effect.forkChild(next, { startImmediately: true })
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* faults.leases, [])
      assert.isUndefined(silent.pollUnsafe())
      assert.deepInclude(yield* Fiber.join(sent), { reason: "Timeout", outcome: "Unknown" })
      assert.deepStrictEqual(yield* keys, ["a"])
      assert.isUndefined(onItsWayBack.pollUnsafe())
      yield* stalled.faults.resume
      assert.deepStrictEqual(yield* keys, ["a", "late"])
      assert.strictEqual((yield* Fiber.join(onItsWayBack)).ttl, 10)
      assert.deepStrictEqual((yield* Fiber.join(silent)).map(revisionOf), [["Put", 2n]])
    }).pipe(Effect.scoped, provideMemory))
})

describe("Faults", () => {
  it.effect("heals", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.drop("Request", { times: Infinity })
      yield* faults.delay("1 hour")
      yield* faults.stall
      yield* faults.unreachable
      yield* faults.heal
      yield* put("a")
      assert.deepStrictEqual(yield* keys, ["a"])
    }).pipe(provideMemory))

  it.effect("heals watches: what is on its way arrives at once, in order, and so does all that happens later", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      const { next } = yield* etcd.watch(Etcd.get("a"))
      yield* faults.delayWatches("1 hour")
      yield* put("a")
      yield* faults.stall
      yield* faults.deleteKey("a")
      yield* faults.heal
      yield* put("a")
      const batches = yield* Effect.all([next, next, next])
      assert.deepStrictEqual(batches.flat().map(revisionOf), [["Put", 2n], ["Delete", 3n], ["Put", 4n]])
    }).pipe(provideMemory))

  it.effect("deletes the keys of an expired or revoked lease in one revision, in order", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      for (const end of [faults.expireLease(1n), faults.revokeLease(1n)]) {
        yield* etcd.leaseGrant(1n, 10)
        for (const key of ["c", "a", "b"]) yield* put(key, { lease: 1n })
        const { next, revision } = yield* etcd.watch({ key: Buffer.from("a"), rangeEnd: Buffer.from("z") })
        yield* end
        const events = yield* next
        assert.deepStrictEqual(events.map(({ kv }) => String(kv.key)), ["a", "b", "c"])
        assert.deepStrictEqual(events.map(({ kv }) => kv.modRevision - revision), [1n, 1n, 1n])
        assert.deepStrictEqual(yield* faults.leases, [])
        yield* end
      }
    }).pipe(provideMemory))

  it.effect("deletes keys, and tells what is there, without the prefix of the layer", () =>
    Effect.gen(function*() {
      const { etcd, faults } = yield* services
      for (const key of ["a/1", "a/2", "b", "c"]) yield* put(key)
      yield* faults.deleteKey("b")
      yield* faults.deletePrefix("a/")
      yield* faults.deleteKey("none")
      assert.deepStrictEqual(yield* keys, ["c"])
      assert.strictEqual((yield* etcd.range(Etcd.get("c"))).revision, 7n)
    }).pipe(Effect.provide(Etcd.layerMemory({ prefix: "app/" }))))
})

describe("the example of Faults", () => {
  // the job under test
  const job = Effect.never.pipe(Lock.withLock("nightly-report"))

  it.effect("stops when it loses its lock", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const running = yield* Effect.forkChild(Effect.flip(job))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* faults.keys).length, 1)

      for (const lease of yield* faults.leases) yield* faults.expireLease(lease)
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual((yield* Fiber.join(running))._tag, "LockLost")
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(Effect.provide(Session.layer().pipe(Layer.provideMerge(Etcd.layerMemory())))))
})

describe("layerMemory", () => {
  it.effect("takes the request timeout", () =>
    Effect.gen(function*() {
      const { faults } = yield* services
      yield* faults.stall
      yield* timesOut(put("a"), 700)
    }).pipe(Effect.provide(Etcd.layerMemory({ requestTimeout: "700 millis" }))))

  it.effect("refuses a request timeout that can never work", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Etcd.layerMemory({ requestTimeout: 0 }))))
      assert.include(String(exit), "Etcd.layerMemory: requestTimeout must be between")
    }))

  it.effect("is another etcd each time", () =>
    Effect.gen(function*() {
      yield* Effect.provide(put("a"), Etcd.layerMemory())
      assert.deepStrictEqual(yield* Effect.provide(keys, Etcd.layerMemory()), [])
    }))
})

const provideMemory = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.provide(self, Etcd.layerMemory())

const services = Effect.all({ etcd: Etcd.Etcd, faults: Etcd.Faults })

const put = (key: string, options?: { readonly lease?: bigint }) =>
  Etcd.Etcd.use((etcd) => etcd.txn({ then: [Etcd.put(key, "", options)] }))

const keys = Effect.map(Etcd.Faults.use((faults) => faults.keys), (kvs) => kvs.map(({ key }) => String(key)))

const revisionOf = ({ _tag, kv }: Etcd.WatchEvent) => [_tag, kv.modRevision] as const

/** Expects a failure after exactly so many milliseconds. */
const timesOut = <A, E, R>(self: Effect.Effect<A, E, R>, millis: number) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.result(self), { startImmediately: true })
    yield* TestClock.adjust(Duration.millis(millis - 1))
    assert.isUndefined(fiber.pollUnsafe())
    yield* TestClock.adjust(1)
    const result = fiber.pollUnsafe()
    assert(result !== undefined && Exit.isSuccess(result) && Result.isFailure(result.value))
    return result.value.failure
  })

const countFibers = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  self.pipe(Metric.enableRuntimeMetrics, Effect.provideService(Metric.MetricRegistry, new Map()))

const activeFibers = Effect.map(Metric.snapshot, (metrics) => {
  const active = metrics.find(({ id }) => id === "child_fibers_active")
  return Number(active?.type === "Gauge" ? active.state.value : 0)
})
