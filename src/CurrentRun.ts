import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { EtcdError } from "./EtcdError.ts"
import type { LockLost } from "./LockError.ts"

/**
 * The run that `withLockOnce` is for, which it provides to its body.
 *
 * `succeed` marks the run as one that has succeeded, as the end of the body would, for a body that goes on under the lock
 * after that. The mark stays, whatever becomes of the lock and of the rest of the body, and is set once at most. While it is
 * set, nothing interrupts it, and it takes no longer than one request may. When it could not be set, `succeed` can be run
 * again, and the end of the body tries again.
 *
 * **Example** (A run that keeps its lock for a while)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const nightly = (report: Effect.Effect<void>, day: string) =>
 *   Effect.gen(function*() {
 *     yield* report
 *     const run = yield* Lock.CurrentRun
 *     yield* run.succeed
 *     yield* Effect.sleep("1 minute")
 *   }).pipe(Lock.withLockOnce("nightly-report", { run: day }))
 * ```
 *
 * @category services
 * @since 0.2.0
 */
export class CurrentRun extends Context.Service<CurrentRun, {
  readonly succeed: Effect.Effect<void, LockLost | EtcdError>
}>()("effect-etcd-lock/Lock/CurrentRun") {}
