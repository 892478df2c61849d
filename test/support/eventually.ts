import { Effect, Exit } from "effect"

/** Repeats an assertion until it holds; fails with its last failure. */
export const eventually = <A, E, R>(assertion: Effect.Effect<A, E, R>, within = 5000): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const until = performance.now() + within
    while (true) {
      const exit = yield* Effect.exit(assertion)
      if (Exit.isSuccess(exit) || performance.now() > until) return yield* exit
      yield* Effect.sleep(10)
    }
  })

/** Waits until a condition holds, for at most 20 seconds. */
export const until = <E, R>(what: string, condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  eventually(
    Effect.flatMap(condition, (holds) => holds ? Effect.void : Effect.die(new Error(`waited 20 s for ${what}`))),
    20_000
  )
