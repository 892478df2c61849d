import * as Context from "effect/Context"

/**
 * What a body succeeded with that ended by itself when its lock, or its lease, had been lost. The whole fails all the same,
 * since another client may have held the lock by then. The success annotates the loss in the cause of that failure.
 *
 * **Example** (Looking at what was made without the lock)
 *
 * ```ts
 * import { Cause, Context, Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const publish = (make: Effect.Effect<string>) =>
 *   make.pipe(
 *     Lock.withLock("publisher"),
 *     Effect.tapCause((cause) => {
 *       const made = Context.getOption(Cause.annotations(cause), Lock.BodySuccess)
 *       return made._tag === "Some" ? Effect.log("was made, and the lock was lost by then", made.value) : Effect.void
 *     })
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class BodySuccess extends Context.Service<BodySuccess, unknown>()("effect-etcd-lock/Lock/BodySuccess") {}
