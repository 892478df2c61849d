import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Scheduler } from "effect"
import { Etcd } from "effect-etcd-lock"
import { EventEmitter } from "node:events"
import { Subscriber } from "../../src/internal/etcd/subscriber.ts"
import type { Members } from "../../src/internal/etcd3/members.ts"
import { shared } from "../../src/internal/etcd3/stream.ts"
import * as Watch from "../../src/internal/etcd3/watch.ts"

/** One member, to which streams are opened as the test says. */
const onMember = (open: () => Promise<unknown>) =>
  ({
    current: () => ({ open }),
    failed: () => {},
    onMove: () => Effect.void,
    checkCluster: () => undefined,
    isTokenRefused: () => false,
    explain: () => Effect.fail
  }) as unknown as Members

describe("a shared stream", () => {
  it.live("is replaced when it is over, whenever a caller that found it so is interrupted", () =>
    Effect.gen(function*() {
      // Only fibers that yield after very few operations let anything come in between.
      for (let maxOps = 3; maxOps <= 20; maxOps++) {
        for (let ticks = 0; ticks < 40; ticks++) {
          let opened = 0
          let over = 0
          const open = Effect.sync(() => {
            const n = ++opened
            return { n, isOver: () => n <= over }
          })
          const use = yield* shared("watch", open)
          const used = (timeout: number) => Effect.scoped(use(timeout, ({ n }) => Effect.succeed(n)))
          assert.strictEqual(yield* used(1000), 1)
          over = 1
          const interrupted = yield* Effect.forkChild(
            Effect.provideService(used(1000), Scheduler.MaxOpsBeforeYield, maxOps),
            { startImmediately: true }
          )
          yield* Effect.repeat(Effect.yieldNow, { times: ticks })
          yield* Fiber.interrupt(interrupted)
          assert.isAbove(yield* used(100), 1, `after ${ticks} ticks, with ${maxOps} operations at a time`)
        }
      }
    }))
})

describe("a stream of watches", () => {
  it.live("that ends with a message too large to receive may open the watches that it has not opened again", () =>
    Effect.gen(function*() {
      const written: Array<unknown> = []
      const duplex = Object.assign(new EventEmitter(), {
        write: (request: unknown) => written.push(request),
        end: () => {},
        cancel: () => {}
      })
      const watch = yield* Watch.make(onMember(() => Promise.resolve(duplex)))
      const subscriber = new Subscriber({ onEvents: () => {}, onEnd: () => {} })
      const opening = yield* Effect.forkChild(Effect.flip(watch(Etcd.get("a"), 1000, subscriber)), {
        startImmediately: true
      })
      while (written.length === 0) yield* Effect.sleep(1)
      duplex.emit("error", new Error("8 RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs 4194304)"))
      assert.isTrue((yield* Fiber.join(opening)).isTransient)
    }))

  it.live("that opens after its time is closed at once", () =>
    Effect.gen(function*() {
      const closed: Array<string> = []
      const duplex = Object.assign(new EventEmitter(), {
        write: () => {},
        end: () => closed.push("end"),
        cancel: () => closed.push("cancel")
      })
      const opened = Promise.withResolvers<typeof duplex>()
      const watch = yield* Watch.make(onMember(() => opened.promise))
      const subscriber = new Subscriber({ onEvents: () => {}, onEnd: () => {} })
      const error = yield* Effect.flip(watch(Etcd.get("a"), 20, subscriber))
      assert.strictEqual(error.reason, "Timeout")
      opened.resolve(duplex)
      yield* Effect.sleep(1)
      assert.deepStrictEqual(closed, ["end", "cancel"])
    }))
})
