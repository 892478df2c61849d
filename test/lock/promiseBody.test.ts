/** What a loss and an interruption do to a body that is a promise, as the docs of `withLock` say. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, pass, provideMemory, session } from "../support/inMemory.ts"

/** Work that goes on until the test ends it, and knows whether it was asked to stop. */
const makeWork = Effect.gen(function*() {
  const { promise, resolve } = Promise.withResolvers<void>()
  yield* Effect.addFinalizer(() => Effect.sync(resolve))
  let signal: AbortSignal | undefined
  return {
    start: (given?: AbortSignal) => {
      signal = given
      return promise
    },
    isAskedToStop: () => signal?.aborted === true,
    end: Effect.andThen(Effect.sync(resolve), Effect.promise(() => promise))
  }
})

type Work = Effect.Success<typeof makeWork>

const forms: ReadonlyArray<{
  readonly name: string
  readonly body: (work: Work) => Effect.Effect<void, never, Lock.Current>
  readonly asks: { readonly onLoss: boolean; readonly onInterruption: boolean }
  readonly waits: boolean
}> = [
  {
    name: "a promise",
    body: (work) => Effect.promise(() => work.start()),
    asks: { onLoss: false, onInterruption: false },
    waits: false
  },
  {
    name: "a promise with the effect's signal",
    body: (work) => Effect.promise((signal) => work.start(signal)),
    asks: { onLoss: true, onInterruption: true },
    waits: false
  },
  {
    name: "an uninterruptible promise",
    body: (work) => Effect.uninterruptible(Effect.promise(() => work.start())),
    asks: { onLoss: false, onInterruption: false },
    waits: true
  },
  {
    name: "an uninterruptible promise with the handle's signal",
    body: (work) =>
      Effect.flatMap(Lock.Current, ({ signal }) => Effect.uninterruptible(Effect.promise(() => work.start(signal)))),
    asks: { onLoss: true, onInterruption: false },
    waits: true
  }
]

describe.each(forms)("a body that is $name", ({ asks, body, waits }) => {
  it.effect(`is ${asks.onLoss ? "" : "not "}asked to stop, and ${waits ? "" : "not "}awaited, when its lock is lost`, () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const faults = yield* Etcd.Faults
      const work = yield* makeWork
      const running = yield* fork(run(Lock.withLock(body(work), "job")))
      yield* pass("1 second")
      assert.isFalse(work.isAskedToStop())
      yield* faults.deletePrefix("job/")
      yield* pass("1 second")
      assert.strictEqual(work.isAskedToStop(), asks.onLoss)
      assert.strictEqual(running.pollUnsafe() === undefined, waits)
      yield* work.end
      yield* pass("1 second")
      assert.include(failureOf(running.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))

  it.effect(
    `is ${asks.onInterruption ? "" : "not "}asked to stop when it is interrupted, and the next one ${
      waits ? "waits for its end" : "does not wait for it"
    }`,
    () =>
      provideMemory(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const work = yield* makeWork
        const running = yield* fork(a.run(Lock.withLock(body(work), "job")))
        yield* pass("1 second")
        const next = yield* fork(b.run(Lock.withLock(Effect.succeed("entered"), "job")))
        yield* pass("1 second")
        assert.isUndefined(next.pollUnsafe())
        running.interruptUnsafe()
        // longer than the lease lives, which is renewed meanwhile
        for (let i = 0; i < 5; i++) yield* pass("1 second")
        assert.strictEqual(work.isAskedToStop(), asks.onInterruption)
        assert.strictEqual(next.pollUnsafe() === undefined, waits)
        yield* work.end
        yield* pass("1 second")
        assert.strictEqual(yield* Fiber.join(next), "entered")
      }))
  )
})
