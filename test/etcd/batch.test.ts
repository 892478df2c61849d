import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit } from "effect"
import { Etcd } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as Background from "../../src/internal/background.ts"
import * as Batch from "../../src/internal/etcd/batch.ts"
import * as EtcdStub from "../support/EtcdStub.ts"

describe("a batch on an etcd that hangs", () => {
  /** Parts that are asked for at given moments; when each batch was sent, and when each part ended. */
  const play = Effect.fnUntraced(function*(asked: ReadonlyArray<readonly [at: number, parts: number]>) {
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const sent: Array<number> = []
    const ended: Array<number> = []
    const timeout = new Etcd.EtcdError({ reason: "Timeout", method: "txn", outcome: "Unknown", description: "hangs" })
    const { etcd } = EtcdStub.make()
    const batch = Batch.make(
      {
        ...etcd,
        txn: () => {
          sent.push(now())
          return Effect.delay(Effect.fail(timeout), EtcdStub.requestTimeout)
        }
      },
      clock,
      yield* Background.make
    )
    let line = 0
    for (const [at, parts] of asked) {
      yield* TestClock.adjust(at - now())
      for (let part = 0; part < parts; part++) {
        batch.send(`${line++}/`, Etcd.nested({ then: [] }), (exit) => {
          assert.isTrue(Exit.isFailure(exit))
          ended.push(now())
        })
      }
      yield* Effect.yieldNow
    }
    yield* TestClock.adjust("1 minute")
    return { sent, ended }
  })

  it.effect("sends the next ones, however many there are, after 50 ms", () =>
    Effect.gen(function*() {
      const { ended, sent } = yield* play([[0, 1000]])
      assert.deepStrictEqual(sent, [0, ...Array.from({ length: 7 }, () => 50)])
      assert.lengthOf(ended, 1000)
      assert.strictEqual(Math.max(...ended), EtcdStub.requestTimeout)
    }))

  it.effect("ends every part within one request timeout from when it was asked for", () =>
    Effect.gen(function*() {
      const { ended, sent } = yield* play([[0, 1], [20, 1], [60, 1], [100, 1]])
      // The second batch has the parts of 20 and 60, and the time of the older one.
      assert.deepStrictEqual(sent, [0, 70, 150])
      assert.deepStrictEqual(ended, [5000, 5020, 5020, 5100])
    }))
})
