import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** Starts an effect on a fiber of its own, which ends with the scope it was made in at the latest. */
export interface Background {
  <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E>
}

export const make = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const background: Background = (effect) => Fiber.runIn(fork(effect), scope)
  return background
})
