/** Candidates of a test. */
import { Deferred, Effect } from "effect"
import { Election } from "effect-etcd-lock"
import { fork, pass, type Process, stop } from "../support/inMemory.ts"

/** Stands in the election `job`, and leads until the test has it resign. */
export const stand = Effect.fnUntraced(
  function*({ run }: Pick<Process, "run">, value: string, options?: Election.Options) {
    const won = yield* Deferred.make<Election.Leadership>()
    const fiber = yield* fork(run(Effect.scoped(Effect.gen(function*() {
      const leadership = yield* Election.campaign("job", { value, ...options })
      yield* Deferred.succeed(won, leadership)
      return yield* leadership.whileHeld(Effect.never)
    }))))
    return {
      fiber,
      won: Deferred.await(won),
      leads: Deferred.isDone(won),
      giveUp: Effect.andThen(stop(fiber), pass(1))
    }
  }
)
