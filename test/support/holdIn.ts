import { Deferred, Effect, Fiber, type Scope } from "effect"
import { Lock, type Session } from "effect-etcd-lock"
import type * as World from "./World.ts"

/** Holds what is acquired in a fiber until the test releases it. */
export const hold = Effect.fnUntraced(function*<H extends Lock.Handle, E>(
  process: World.Process,
  acquire: Effect.Effect<H, E, Session.Session | Scope.Scope>
) {
  const release = yield* Deferred.make<void>()
  const held = yield* Deferred.make<H, E>()
  const fiber = yield* Effect.scoped(Effect.gen(function*() {
    const handle = yield* Effect.onError(acquire, (cause) => Deferred.failCause(held, cause))
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

/** Holds a lock in a fiber until the test releases it. */
export const holdIn = (process: World.Process, name: string, options?: Lock.Options) =>
  hold(process, Lock.acquire(name, options))
