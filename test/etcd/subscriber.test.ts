import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Etcd } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as Service from "../../src/internal/etcd/service.ts"
import { Subscriber } from "../../src/internal/etcd/subscriber.ts"

const cut = new Etcd.EtcdError({ reason: "Unavailable", method: "watch", outcome: "Unknown", description: "cut" })

const deleted = (revision: bigint): ReadonlyArray<Etcd.WatchEvent> => [{
  _tag: "Delete",
  kv: {
    key: Buffer.from("a"),
    value: Buffer.from(""),
    createRevision: 0n,
    modRevision: revision,
    version: 0n,
    lease: 0n
  }
}]

/** A listener that takes down what it is called with. */
const listening = () => {
  const calls: Array<unknown> = []
  const listener: Etcd.WatchListener = {
    onEvents: (events) => void calls.push(events[0]?.kv.modRevision),
    onEnd: (error) => void calls.push(error)
  }
  return { calls, listener }
}

const subscriber = () => {
  const { calls, listener } = listening()
  const cancelled: Array<Subscriber> = []
  const subscriber = new Subscriber(listener)
  subscriber.source = { cancel: (subscriber) => cancelled.push(subscriber) }
  return { subscriber, calls, cancelled }
}

describe("a subscriber", () => {
  it("reports nothing after the end, which is not to be cancelled", () => {
    const { calls, cancelled, subscriber: one } = subscriber()
    const opened = one.open(7n)
    one.publish(deleted(8n))
    one.end(cut)
    one.end(cut)
    one.publish(deleted(9n))
    if (Exit.isSuccess(opened)) opened.value.close()
    assert.deepStrictEqual(calls, [8n, cut])
    assert.deepStrictEqual(cancelled, [])
  })

  it("reports nothing once its watch is closed, which is cancelled once", () => {
    const { calls, cancelled, subscriber: one } = subscriber()
    one.open(7n)
    one.close()
    one.close()
    one.publish(deleted(8n))
    one.end(cut)
    assert.deepStrictEqual(calls, [])
    assert.deepStrictEqual(cancelled, [one])
  })

  it("reports what it got early as soon as its watch is open, and nothing of a watch that ended before", () => {
    const early = subscriber()
    early.subscriber.publish(deleted(8n))
    assert.deepStrictEqual(early.calls, [])
    early.subscriber.open(7n)
    early.subscriber.publish(deleted(9n))
    assert.deepStrictEqual(early.calls, [8n, 9n])

    const ended = subscriber()
    ended.subscriber.publish(deleted(8n))
    ended.subscriber.end(cut)
    assert.deepStrictEqual(ended.subscriber.open(7n), Exit.fail(cut))
    assert.deepStrictEqual(ended.calls, [])
  })
})

describe("subscribe", () => {
  const none = () => Effect.die(new Error("watches only"))

  /** An etcd whose watches are opened as `watch` says. */
  const through = (watch: (n: number, subscriber: Subscriber) => Effect.Effect<bigint, Etcd.EtcdError>) => {
    const subscribers: Array<Subscriber> = []
    const etcd = Service.make({
      txn: none,
      range: none,
      leaseGrant: none,
      leaseRevoke: none,
      leaseKeepAlive: none,
      leaseTimeToLive: none,
      watch: (_, __, subscriber) => watch(subscribers.push(subscriber), subscriber)
    }, 5000)
    return { etcd, subscribers }
  }

  it.effect("opens another watch when the first one ends before it is at hand, and reports the second one alone", () =>
    Effect.gen(function*() {
      const { calls, listener } = listening()
      const { etcd, subscribers } = through((n, subscriber) =>
        Effect.sync(() => {
          subscriber.publish(deleted(BigInt(n * 10 + 1)))
          if (n === 1) subscriber.end(cut)
          return BigInt(n * 10)
        })
      )
      const opening = yield* Effect.forkChild(etcd.subscribe(Etcd.get("a"), listener), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      const { close, revision } = yield* Fiber.join(opening)
      assert.strictEqual(revision, 20n)
      assert.deepStrictEqual(calls, [21n])
      assert.lengthOf(subscribers, 2)
      subscribers[0]!.publish(deleted(22n))
      close()
      subscribers[1]!.publish(deleted(23n))
      assert.deepStrictEqual(calls, [21n])
    }))

  it.effect("closes the watch of an attempt that fails or is interrupted", () =>
    Effect.gen(function*() {
      const { listener } = listening()
      const { etcd, subscribers } = through((n) => n === 1 ? Effect.fail(cut) : Effect.never)
      const opening = yield* Effect.forkChild(etcd.subscribe(Etcd.get("a"), listener), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(subscribers.map(({ isClosed }) => isClosed), [true, false])
      yield* Fiber.interrupt(opening)
      assert.deepStrictEqual(subscribers.map(({ isClosed }) => isClosed), [true, true])
    }))
})
