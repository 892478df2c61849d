import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** Starts an effect on a fiber of its own, which ends with the scope it was made in at the latest. */
export interface Background {
  <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E>
  /** The context of these fibers. */
  readonly context: Context.Context<never>
}

export const make = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const background = <A, E>(effect: Effect.Effect<A, E>) => Fiber.runIn(fork(effect), scope)
  return Object.assign(background, { context }) satisfies Background
})
