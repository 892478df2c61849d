/** Several locks at once, on a real etcd. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import * as World from "../support/World.ts"

const names = ["a", "b", "c", "d", "e", "f"]

const seed = process.env.SEVERAL_SEED ?? crypto.randomUUID().slice(0, 8)

describe("several locks at once", () => {
  it.live(
    `are never held twice, and no two callers wait for each other, whatever they ask for (SEVERAL_SEED=${seed})`,
    () =>
      Effect.gen(function*() {
        const world = yield* World.make()
        const processes = yield* Effect.all([world.process(), world.process()])
        const holders = new Map<string, number>()
        const tokens = new Map<string, bigint>()
        const rounds = 20

        const enter = (who: number, wanted: ReadonlyArray<string>) =>
          Effect.gen(function*() {
            const { locks } = (yield* Lock.Current) as Lock.HandleOfAll
            assert.deepStrictEqual(locks.map(({ lock }) => lock), wanted)
            for (const { fencingToken, lock } of locks) {
              assert.isUndefined(holders.get(lock), `${who} takes '${lock}', which another one holds`)
              assert.isTrue(fencingToken > (tokens.get(lock) ?? 0n), `the token of '${lock}'`)
              holders.set(lock, who)
              tokens.set(lock, fencingToken)
            }
            yield* Effect.sleep(yield* Random.nextIntBetween(0, 3))
            for (const { lock } of locks) {
              assert.strictEqual(holders.get(lock), who)
              holders.delete(lock)
            }
          })

        const worker = (who: number) =>
          Effect.gen(function*() {
            for (let round = 0; round < rounds; round++) {
              const shuffled = yield* Random.shuffle(names)
              const wanted = shuffled.slice(0, yield* Random.nextIntBetween(1, names.length + 1))
              yield* Lock.withLocks(enter(who, wanted), wanted, { timeout: "20 seconds" })
            }
            return rounds
          }).pipe(Random.withSeed(`${seed} ${who}`), processes[who % 2]!.run)

        const done = yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], worker, { concurrency: "unbounded" })
        assert.deepStrictEqual(done, Array.from({ length: 8 }, () => rounds))
        for (const name of names) yield* world.untilLine(name, 0)
      }),
    60_000
  )

  it.live("join all lines at one revision, and leave nothing behind where a try is refused", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      yield* Effect.scoped(a.run(Effect.gen(function*() {
        const { createRevision, locks } = yield* Lock.acquireAll(names)
        assert.deepStrictEqual(locks.map((lock) => lock.createRevision), names.map(() => createRevision))
        const refused = yield* Effect.flip(b.run(Lock.tryWithLocks(Effect.void, ["z", "c"])))
        assert.include(refused as Lock.LockHeld, { _tag: "LockHeld", lock: "c" })
        assert.deepStrictEqual(yield* world.line("z"), [])
      })))
      assert.strictEqual(yield* b.run(Lock.tryWithLocks(Effect.succeed(1), ["z", "c"])), 1)
    }))

  it.live("are all lost when one is, and its guard refuses a write that one more of them would allow", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const { run } = yield* world.process()
      yield* Effect.scoped(run(Effect.gen(function*() {
        const handle = yield* Lock.acquireAll(["a", "b", "c"])
        yield* world.etcd.txn({ then: [Etcd.remove(handle.locks[1]!.key)] })
        const write = handle.txn({ then: [Etcd.put("written", "1")] })
        assert.include(yield* Effect.flip(write), { _tag: "LockLost", lock: "b" })
        assert.include(yield* Effect.flip(handle.whileHeld(Effect.never)), { _tag: "LockLost", lock: "b" })
        assert.lengthOf((yield* world.etcd.range(Etcd.get("written"))).kvs, 0)
      })))
    }))
})
