/** Takes a lock on an etcd in memory. */
import { Effect, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"

const SessionLive = Session.layer().pipe(Layer.provide(Etcd.layerMemory()))

const program = Effect.sync(() => process.stdout.write("held")).pipe(Lock.withLock("job"), Effect.provide(SessionLive))

void Effect.runPromise(program)
