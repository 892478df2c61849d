/**
 * Critical sections, and what is held until a scope closes.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Current } from "../../Current.ts"
import type { Handle, LockLost } from "../../Lock.ts"
import type { Session } from "../../Session.ts"
import { Refused } from "../line/lines.ts"
import { besideLoss } from "../supervise.ts"
import { ownedOf } from "./ownership.ts"
import type { Acquire, Restore } from "./request.ts"
import * as tracing from "./tracing.ts"

/** Runs an effect while holding what `acquire` acquires. */
export const run = <A, E, R, E2>(
  module: string,
  name: string,
  acquire: Acquire<Handle, E2>,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockLost | E2, Exclude<R, Current> | Session> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(tracing.waiting(module, name, acquire(restore)), (handle) => holding(module, handle, self, restore))
  )

/** Runs an effect if `attempt` acquires, and returns `None` otherwise. */
export const runIfAvailable = <A, E, R, E2>(
  module: string,
  name: string,
  attempt: Acquire<Handle | Refused, E2>,
  self: Effect.Effect<A, E, R>
) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      tracing.waiting(module, name, attempt(restore)),
      (tried) => tried instanceof Refused ? Effect.succeedNone : Effect.asSome(holding(module, tried, self, restore))
    )
  )

/** Holds what `acquire` acquires until the scope closes. */
export const scoped = <H extends Handle, E>(
  module: string,
  name: string,
  acquire: Acquire<H, E>
): Effect.Effect<H, E, Session | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) =>
      tracing.waiting(module, name, acquire(restore)).pipe(
        Effect.tap(({ release }) => Scope.addFinalizerExit(scope, () => release)),
        Effect.tap((handle) => tracing.holding(module, handle))
      ))
  )

const holding = <A, E, R>(module: string, handle: Handle, self: Effect.Effect<A, E, R>, restore: Restore) =>
  tracing.holding(module, handle).pipe(
    Effect.andThen(Effect.exit(restore(handle.whileHeld(self)))),
    Effect.flatMap((exit) =>
      Effect.matchCauseEffect(ownedOf(handle).giveBack, {
        onSuccess: () => exit,
        onFailure: (lost) => Effect.failCause(besideLoss(lost, exit))
      })
    )
  )
