import { Deferred, Effect, Fiber } from "effect"
import { Lock } from "effect-etcd-lock"
import type * as World from "./World.ts"

/** Holds a lock in a fiber until it is told to release it. */
export const holdIn = Effect.fnUntraced(function*(process: World.Process, name: string, options?: Lock.Options) {
  const release = yield* Deferred.make<void>()
  const held = yield* Deferred.make<Lock.Handle, Lock.AcquireError>()
  const fiber = yield* Effect.scoped(Effect.gen(function*() {
    const handle = yield* Effect.onError(Lock.acquire(name, options), (cause) => Deferred.failCause(held, cause))
    yield* Deferred.succeed(held, handle)
    yield* handle.whileHeld(Deferred.await(release))
  })).pipe(process.run, Effect.forkChild({ startImmediately: true }))
  return {
    held: Deferred.await(held),
    isHeld: Deferred.isDone(held),
    release: Effect.andThen(Deferred.succeed(release, undefined), Fiber.await(fiber)),
    fiber
  }
})
