/** Since when a lock is held, as those who look on see it, beside when its holder asked. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Duration, Effect } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore, type Session } from "effect-etcd-lock"
import { fork, pass, provideMemory, seconds, session, sessionThrough, stop } from "../support/inMemory.ts"
import { noted } from "../support/noted.ts"

const hold = fork(Lock.withLock(Effect.never, "job"))

const now = Clock.currentTimeMillis

const millis = (time: DateTime.Utc | undefined) => time && DateTime.toEpochMillis(time)

/** When the holder asked, and since when it holds, as `inspect` and `list` agree. */
const seen = Effect.gen(function*() {
  const { holder } = yield* Lock.inspect("job")
  const [listed] = yield* Lock.list("job")
  assert.deepStrictEqual([millis(listed?.holder.askedAt), millis(listed?.holder.heldSince)], [
    millis(holder?.askedAt),
    millis(holder?.heldSince)
  ])
  return { asked: millis(holder?.askedAt), held: millis(holder?.heldSince) }
})

describe("since when a lock is held", () => {
  it.effect("is told at once of one that was free, and costs no commit", () =>
    provideMemory(Effect.gen(function*() {
      yield* pass("1 minute")
      const requests: Array<string> = []
      const { run } = yield* sessionThrough((etcd) => noted(etcd, requests), { ttl: "5 minutes" })
      const start = yield* now
      yield* run(hold)
      yield* pass(1)
      assert.deepStrictEqual(yield* seen, { asked: start, held: start })
      requests.length = 0
      yield* seconds(20)
      assert.notInclude(requests, "txn")
    })))

  it.effect("is told of one that had to wait when it has held for a second, and is not when it asked", () =>
    provideMemory(Effect.gen(function*() {
      const requests: Array<string> = []
      const [a, b] = yield* Effect.all([
        session({ ttl: "5 minutes" }),
        sessionThrough((etcd) => noted(etcd, requests), { ttl: "5 minutes" })
      ])
      const first = yield* a.run(hold)
      yield* seconds(1)
      const asked = yield* now
      yield* b.run(hold)
      yield* seconds(10)
      yield* stop(first)
      yield* pass(10)
      const held = yield* now
      const early = yield* seen
      assert.deepStrictEqual(early, { asked, held: undefined })
      requests.length = 0
      yield* seconds(20)
      const late = yield* seen
      assert.strictEqual(late.asked, asked)
      assert.closeTo(late.held!, held, 10)
      assert.deepStrictEqual(requests.filter((method) => method === "txn"), ["txn"])
    })))

  it.effect("is told of one that waited for its process's place, in the commit that tells who waits behind it", () =>
    provideMemory(Effect.gen(function*() {
      const requests: Array<string> = []
      const { run } = yield* sessionThrough((etcd) => noted(etcd, requests), { ttl: "5 minutes" })
      const first = yield* run(hold)
      yield* seconds(2)
      const asked = yield* now
      yield* run(hold)
      yield* run(hold)
      yield* seconds(10)
      yield* stop(first)
      yield* pass(10)
      const held = yield* now
      requests.length = 0
      yield* seconds(20)
      const { holder } = yield* Lock.inspect("job")
      assert.strictEqual(holder?.behind, 1)
      assert.strictEqual(millis(holder?.askedAt), asked)
      assert.closeTo(millis(holder?.heldSince)!, held, 10)
      assert.deepStrictEqual(requests, ["txn"])
    })))

  it.effect("is told of permits that had to be waited for, and not of those that were free", () =>
    provideMemory(Effect.gen(function*() {
      const requests: Array<string> = []
      const { run } = yield* sessionThrough((etcd) => noted(etcd, requests), { ttl: "5 minutes" })
      const other = yield* session({ ttl: "5 minutes" })
      const one = fork(Semaphore.withPermits(Effect.never, "job", { of: 1 }))
      const first = yield* run(one)
      yield* seconds(1)
      requests.length = 0
      yield* seconds(20)
      assert.notInclude(requests, "txn")
      assert.isUndefined((yield* seen).held)
      yield* other.run(one)
      yield* seconds(10)
      yield* stop(first)
      yield* pass(10)
      const held = yield* now
      yield* seconds(3)
      assert.closeTo((yield* seen).held!, held, 10)
    })))

  it.effect("is told after an outage in which the first attempt has failed", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session({ ttl: "5 minutes" }), session({ ttl: "5 minutes" })])
      const first = yield* a.run(hold)
      yield* seconds(1)
      yield* b.run(hold)
      yield* seconds(5)
      yield* stop(first)
      yield* pass(10)
      const held = yield* now
      yield* faults.unreachable
      yield* seconds(10)
      yield* faults.reachable
      yield* seconds(10)
      assert.closeTo((yield* seen).held!, held, 10)
    })))

  it.effect("is told of readers, writers, several locks and a single key that were free", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session({ ttl: "5 minutes" })
      const sections = {
        reader: ReadWriteLock.withReadLock(Effect.never, "reader"),
        writer: ReadWriteLock.withWriteLock(Effect.never, "writer"),
        single: Lock.withLock(Effect.never, "single", { layout: "single-key" }),
        several: Lock.tryWithLocks(Effect.never, ["several", "others"])
      }
      yield* pass("1 minute")
      const start = yield* now
      yield* Effect.forEach(
        Object.values(sections),
        (section) => run(fork(Effect.exit<never, unknown, Session.Session>(section)))
      )
      yield* pass(10)
      for (const { holder, lock } of yield* Lock.list()) assert.strictEqual(millis(holder.heldSince), start, lock)
      assert.lengthOf(yield* Lock.list(), 5)
    })))

  it.effect("is not told of a reader that had to wait: its key is put once", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session({ ttl: "5 minutes" }), session({ ttl: "5 minutes" })])
      const writer = yield* a.run(fork(ReadWriteLock.withWriteLock(Effect.never, "job")))
      yield* seconds(1)
      yield* b.run(fork(ReadWriteLock.withReadLock(Effect.never, "job")))
      yield* seconds(3)
      yield* stop(writer)
      yield* seconds(5)
      const { asked, held } = yield* seen
      assert.isDefined(asked)
      assert.isUndefined(held)
    })))
})

describe("how a lease is renewed", () => {
  it.effect("is told of each holder, by the list as well, until a dead one's is over", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      yield* etcd.leaseGrant(7n, 15)
      yield* etcd.txn({ then: [Etcd.put("job/7-1", "{}", { lease: 7n })] })
      const times = ({ notRenewedFor, remaining }: Lock.Holder) =>
        [notRenewedFor, remaining].map((time) => time && Duration.toSeconds(time))
      yield* seconds(9)
      const { holder } = yield* Lock.inspect("job")
      const [listed] = yield* Lock.list("job")
      assert.deepStrictEqual([times(holder!), times(listed!.holder)], [[9, 6], [9, 6]])
    })))
})

describe("the value of an election", () => {
  it.effect("is shown of its leader and of its candidates, in their order", () =>
    provideMemory(Effect.gen(function*() {
      for (const value of ["w1", "{\"port\":1}", ""]) {
        const { run } = yield* session({ ttl: "5 minutes" })
        yield* fork(run(Election.withLeadership(Effect.never, "job", { value })))
        yield* pass(10)
      }
      const values = ["w1", "{\"port\":1}", ""]
      const candidates = yield* Election.candidates("job")
      assert.deepStrictEqual(candidates.map(({ value }) => value), values)
      const { holder, queue } = yield* Lock.inspect("job")
      assert.deepStrictEqual([holder, ...queue].map((client) => client?.value ?? ""), values)
      const [listed] = yield* Lock.list("job")
      assert.deepStrictEqual([listed?.holder.value, listed?.next?.value], ["w1", "{\"port\":1}"])
      assert.deepStrictEqual(yield* Election.candidates("nobody"), [])
    })))

  it.effect("is none of a lock, whose holder says who it is", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      yield* run(hold)
      yield* pass(10)
      const { holder } = yield* Lock.inspect("job")
      assert.isDefined(holder?.host)
      assert.isUndefined(holder.value)
    })))
})

describe("who waits", () => {
  it.effect("is told by a list of the one that has waited for the longest", () =>
    provideMemory(Effect.gen(function*() {
      const asked: Array<number> = []
      for (let i = 0; i < 3; i++) {
        const { run } = yield* session({ ttl: "5 minutes" })
        asked.push(yield* now)
        yield* run(hold)
        yield* seconds(2)
      }
      const [listed] = yield* Lock.list("job")
      assert.deepStrictEqual([millis(listed?.next?.askedAt), listed?.waiting], [asked[1], 2])
    })))
})
