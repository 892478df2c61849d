/**
 * A test of what a job does when it loses its lock, without a server and without waiting.
 *
 *   npm run example -- examples/testing.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Layer, Logger } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import assert from "node:assert/strict"

// The job has to put its work back if it may not go on.
const putBack: Array<string> = []
const job = Effect.sleep("1 hour").pipe(
  Effect.onInterrupt(() => Effect.sync(() => putBack.push("invoice 7"))),
  Lock.withLock("invoices"),
  Effect.catchTag("LockLost", ({ reason }) => Effect.succeed(`stopped: ${reason}`))
)

// In the test, etcd cannot be reached any more, and the lease runs out.
const test = Effect.gen(function*() {
  const faults = yield* Etcd.Faults
  const running = yield* Effect.forkChild(job)
  yield* TestClock.adjust("1 minute")
  yield* faults.unreachable
  yield* TestClock.adjust("15 seconds")
  assert.equal(yield* Fiber.join(running), "stopped: LeaseExpired")
  assert.deepEqual(putBack, ["invoice 7"])
  // The session revokes its lease when it ends, and would wait for the clock to try that again.
  yield* faults.heal
  yield* TestClock.adjust("1 second")
  yield* Console.log("The job stopped when its lease ran out, and put its work back")
})

const etcd = Session.layer({ ttl: "15 seconds" }).pipe(Layer.provideMerge(Etcd.layerMemory()))

test.pipe(
  Effect.provide(etcd.pipe(Layer.provideMerge(TestClock.layer()))),
  // That the lock was lost is logged, too.
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
