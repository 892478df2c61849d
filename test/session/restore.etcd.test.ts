/** An etcd that is restored from a snapshot in service, sooner than its guide says. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import * as Path from "node:path"
import { connect, keys } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { failureOf } from "../support/exits.ts"
import { temporaryDirectory } from "../support/internal/native.ts"

const processOn = Effect.fnUntraced(function*(hosts: string) {
  const etcd = yield* connect({ hosts })
  const session = yield* Layer.build(Layer.fresh(Session.layer({ ttl: "30 seconds" }))).pipe(
    Effect.provideService(Etcd.Etcd, etcd)
  )
  return { etcd, run: Effect.provide(session) }
})

const bumped = ["--bump-revision=1000000000", "--mark-compacted"]

describe.concurrent("a restored etcd", () => {
  for (const [what, flags, says] of [["a bumped", bumped, "leapt"], ["an earlier", [], "went back"]] as const) {
    it.live(`with ${what} revision has no two bodies of a lock, and nothing in it stands in anybody's way`, (context) =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const { backup } = server
        // Before 3.5, revisions cannot be bumped.
        const version = /etcd (\d+)\.(\d+)/.exec(server.description)!
        if (backup === undefined || (flags.length > 0 && Number(version[2]) < 5)) return context.skip()
        const file = Path.join(yield* temporaryDirectory(), "snapshot.db")
        const [x, a, b] = [
          yield* processOn(server.endpoint),
          yield* processOn(server.endpoint),
          yield* processOn(server.endpoint)
        ]
        let running = 0
        let most = 0
        const held = yield* Deferred.make<void>()
        const body = Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++running)
          }),
          () => Effect.andThen(Deferred.succeed(held, undefined), Effect.never),
          () => Effect.sync(() => running--)
        )
        const holding = yield* Effect.forkChild(x.run(Lock.withLock(body, "job")))
        yield* Deferred.await(held)
        const waiting = yield* Effect.forkChild(a.run(Lock.withLock(Effect.void, "job")))
        yield* Effect.sleep("500 millis")
        yield* backup.save(file)
        yield* Fiber.interrupt(waiting)
        yield* Effect.repeat(b.run(Lock.withLock(Effect.void, "more")), { times: 20 })
        // All of them know a later revision than the snapshot has.
        yield* Effect.forEach([x, a], ({ run }) => run(Lock.withLock(Effect.void, "more")))
        yield* Effect.andThen(backup.prepare(file, ...flags), backup.adopt)
        const again = a.run(Lock.withLock(Effect.sync(() => (most = Math.max(most, running + 1), "ran")), "job"))
        const ran = yield* Effect.retry(again, { times: 3 }).pipe(Effect.timeout("25 seconds"))
        assert.strictEqual(ran, "ran")
        assert.strictEqual(most, 1)
        const loss = failureOf(yield* Fiber.await(holding)) as Lock.LockLost
        assert.strictEqual(loss.cause?.reason, "HistoryChanged")
        assert.include(loss.message, says)
        assert.deepStrictEqual(keys(yield* b.etcd.range(Etcd.getPrefix("job/"))), [])
      }))
  }
})
