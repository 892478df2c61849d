/** The watches of a short line: none is left that nothing needs. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { fork, pass, provideMemory, session, sessionThrough, stop } from "../support/inMemory.ts"
import * as Watches from "../support/watches.ts"

describe("the watch of a line", () => {
  it.effect("is closed when the read that follows its opening fails, and another one is opened", () =>
    provideMemory(Effect.gen(function*() {
      const watches = Watches.observe(yield* Etcd.Etcd)
      let failures = 3
      const failed = new Etcd.EtcdError({
        reason: "Unavailable",
        method: "range",
        outcome: "Unknown",
        description: "no answer"
      })
      const a = yield* session()
      const b = yield* sessionThrough((etcd) => ({
        subscribe: watches.subscribe,
        range: (range) => Effect.suspend(() => failures-- > 0 ? Effect.fail(failed) : etcd.range(range))
      }))
      const holder = yield* fork(a.run(Lock.withLock(Effect.never, "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Lock.withLock(Effect.never, "job")))
      yield* Effect.repeat(pass(200), { times: 4 })
      assert.deepStrictEqual(watches.asked, ["job/", "job/", "job/", "job/"])
      assert.deepStrictEqual(watches.open(), ["job/"])
      yield* stop(waiting)
      yield* stop(holder)
    })))

  it.effect("is no longer opened when the line is given up meanwhile", () =>
    provideMemory(Effect.gen(function*() {
      const watches = Watches.observe(yield* Etcd.Etcd)
      const { run } = yield* sessionThrough(() => ({
        subscribe: (options, listener) => Effect.delay(watches.subscribe(options, listener), "4 seconds")
      }), { ttl: "60 seconds" })
      yield* fork(run(Lock.withLock(Effect.sleep("1 second"), "job")))
      yield* Effect.repeat(pass(200), { times: 50 })
      assert.deepStrictEqual(watches.asked, [])
      assert.deepStrictEqual(watches.open(), [])
    })))
})
