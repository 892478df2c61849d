/** Takes a lock on the etcd that the environment names. */
import { Effect, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"

const SessionLive = Session.layer().pipe(Layer.provide(Etcd.layer({ hosts: process.env.ENDPOINT! })))

const program = Effect.gen(function*() {
  const lock = yield* Lock.acquire(process.env.LOCK!)
  yield* lock.verify
  yield* Effect.sync(() => process.stdout.write("held"))
}).pipe(Effect.scoped, Effect.provide(SessionLive))

void Effect.runPromise(program)
