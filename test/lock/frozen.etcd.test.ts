import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { Lock } from "effect-etcd-lock"
import { inject } from "vitest"
import * as Peer from "../interop/Peer.ts"

/**
 * Holds a lock, and says so; then prints as JSON how it lost it, and logs elsewhere. It opens no watch, which might
 * report first that etcd has deleted the key meanwhile.
 */
const program = (prefix: string) => `
  import { Console, Effect, Layer, Logger } from "effect"
  import { Etcd, Lock, Session } from "effect-etcd-lock"
  const EtcdLive = Etcd.layer({ hosts: "${inject("etcdEndpoint")}", prefix: "${prefix}" })
  const Unwatched = Layer.effect(Etcd.Etcd, Effect.map(Etcd.Etcd, (etcd) => ({ ...etcd, subscribe: () => Effect.never })))
  await Console.log(process.pid).pipe(
    Effect.andThen(Effect.never),
    Lock.withLock("job"),
    Effect.catch((error) => Console.log(JSON.stringify(error))),
    Effect.provide(Session.layer({ ttl: "6 seconds" }).pipe(Layer.provide(Unwatched), Layer.provide(EtcdLive))),
    Effect.provideService(Logger.LogToStderr, true),
    Effect.runPromise
  )
`

describe("a process that is stopped for longer than its lease lives", () => {
  it.live("says so when it goes on, of itself and not of etcd, and in JSON", () =>
    Effect.gen(function*() {
      const peer = yield* Peer.start(process.execPath, [
        "--conditions=@effect-etcd-lock/source",
        "--input-type=module",
        "--eval",
        program(`test-${crypto.randomUUID()}/`)
      ])
      const pid = Number(yield* peer.heard)
      yield* Effect.sync(() => process.kill(pid, "SIGSTOP"))
      yield* Effect.sleep("8 seconds")
      yield* Effect.sync(() => process.kill(pid, "SIGCONT"))
      const lost = yield* Schema.decodeUnknownEffect(Schema.toCodecJson(Lock.LockLost))(JSON.parse(yield* peer.heard))
      assert.include(lost, { _tag: "LockLost", lock: "job", reason: "LeaseExpired" })
      assert.isAtLeast(Duration.toMillis(lost.heldFor!), 8000)
      assert.strictEqual(lost.cause?.reason, "Expired")
      assert.isAtLeast(Duration.toMillis(lost.cause!.stoodStillFor!), 5000)
      assert.match(lost.message, /this process stood still for/)
    }), 30_000)
})
