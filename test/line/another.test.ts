/** A long line on an etcd that is not quite what the one in memory is: behind a cache, or one of a user's own. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { fork, pass, provideMemory, sessionThrough } from "../support/inMemory.ts"
import { otherClient } from "../support/otherClient.ts"

const count = 30

const other = (i: number) => `job/other-${i}`

/** Another client's entries, which it removes by their numbers. */
const entries = Effect.gen(function*() {
  const client = yield* otherClient
  const numbers = Array.from({ length: count }, (_, i) => i)
  yield* client.put(numbers.map(other))
  return (...numbers: ReadonlyArray<number>) => client.remove(numbers.map(other))
})

const wait = Lock.withLock(Effect.succeed("done"), "job")

describe("a waiter in a long line", () => {
  // As etcd's gRPC proxy has one, which only writes through it clear, and those of nested transactions do not.
  it.effect("gets its turn behind a cache that answers the same read of one member for ever", () =>
    Effect.gen(function*() {
      const remove = yield* entries
      let hits = 0
      const cache = new Map<string, Effect.Success<ReturnType<Etcd.Etcd["Service"]["range"]>>>()
      const process = yield* sessionThrough((etcd) => ({
        range: (range) =>
          Effect.suspend(() => {
            const { serializable, ...rest } = range
            const key = JSON.stringify(rest, (_, value) => typeof value === "bigint" ? `${value}n` : value)
            const cached = cache.get(key)
            if (serializable === true && cached !== undefined) {
              hits++
              return Effect.succeed(cached)
            }
            return Effect.tap(etcd.range(range), (result) => Effect.sync(() => cache.set(key, result)))
          })
      }))
      const waiting = yield* fork(process.run(wait))
      yield* pass(5)
      for (let i = count - 1; i > 0; i--) {
        yield* remove(i)
        assert.isUndefined(waiting.pollUnsafe(), `with ${i} ahead`)
      }
      yield* remove(0)
      yield* pass(5)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
      assert.isAtLeast(hits, count / 3)
    }).pipe(Effect.scoped, provideMemory))

  it.effect("does not take an event that names a neighbouring key for the end of its guard", () =>
    Effect.gen(function*() {
      const remove = yield* entries
      const etcd = yield* Etcd.Etcd
      const guards: Array<Etcd.WatchListener> = []
      const process = yield* sessionThrough((etcd) => ({
        subscribe: (options, listener) => {
          if (String(options.key) === other(count - 1)) guards.push(listener)
          return etcd.subscribe(options, listener)
        }
      }))
      const waiting = yield* fork(process.run(wait))
      yield* pass(5)
      const { kvs: [kv], revision } = yield* etcd.range(Etcd.get(other(0)))
      assert.lengthOf(guards, 1)
      guards[0]!.onEvents([{ _tag: "Delete", kv: { ...kv!, modRevision: revision + 1n } }])
      // Once its guard is all that is ahead, the end of that is its turn.
      yield* remove(...Array.from({ length: count - 1 }, (_, i) => i))
      yield* pass(5)
      assert.isUndefined(waiting.pollUnsafe())
      yield* remove(count - 1)
      yield* pass(5)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
    }).pipe(Effect.scoped, provideMemory))
})
