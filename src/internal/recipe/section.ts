/**
 * Critical sections, and what is held until a scope closes.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Current } from "../../Current.ts"
import type { Handle, LockLost } from "../../Lock.ts"
import type { Session } from "../../Session.ts"
import { Refused } from "../line/lines.ts"
import type { Acquire, Restore } from "./request.ts"

/** Runs an effect while holding what `acquire` acquires. */
export const run = <A, E, R, E2>(
  operation: string,
  name: string,
  acquire: Acquire<Handle, E2>,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockLost | E2, Exclude<R, Current> | Session> =>
  spanned(
    operation,
    name,
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(acquire(restore), (handle) => holding(handle, self, restore))
    )
  )

/** Runs an effect if `attempt` acquires, and returns `None` otherwise. */
export const runIfAvailable = <A, E, R, E2>(
  attempt: Acquire<Handle | Refused, E2>,
  self: Effect.Effect<A, E, R>
) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      attempt(restore),
      (tried) => tried instanceof Refused ? Effect.succeedNone : Effect.asSome(holding(tried, self, restore))
    )
  )

/** Holds what `acquire` acquires until the scope closes. */
export const scoped = <H extends Handle, E>(
  operation: string,
  name: string,
  acquire: Acquire<H, E>
): Effect.Effect<H, E, Session | Scope.Scope> =>
  spanned(
    operation,
    name,
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.scope,
        (scope) => Effect.tap(acquire(restore), ({ release }) => Scope.addFinalizerExit(scope, () => release))
      )
    )
  )

const holding = <A, E, R>({ release, whileHeld }: Handle, self: Effect.Effect<A, E, R>, restore: Restore) =>
  Effect.onExit(restore(whileHeld(self)), () => release)

/** Adds a span where there is a tracer or a parent span. Elsewhere it would cost, and no reader would see it. */
const spanned = <A, E, R>(operation: string, name: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ cache }) =>
    cache.tracer === undefined && cache.span === undefined
      ? self
      : Effect.withSpan(
        operation,
        { kind: "client", attributes: { "lock.name": name } },
        { captureStackTrace: false }
      )(self) as Effect.Effect<A, E, R>
  )
