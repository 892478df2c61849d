import * as Context from "effect/Context"
import type { Handle } from "./Lock.ts"

/**
 * The handle of the innermost critical section. Every section provides it to its body,
 * so that code deep in a program can fence its writes without having the handle
 * passed to it. Code that asks for it outside of a section does not compile.
 *
 * **Example** (A repository that fences its writes)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Etcd, Lock } from "effect-etcd-lock"
 *
 * const save = (body: string) =>
 *   Effect.gen(function*() {
 *     const lock = yield* Lock.Current
 *     yield* lock.txn({ then: [Etcd.put("edition", body)] })
 *   })
 *
 * export const publish = Effect.andThen(Effect.log("writes the edition"), save("Good morning")).pipe(
 *   Lock.withLock("publisher")
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Current extends Context.Service<Current, Handle>()("effect-etcd-lock/Lock/Current") {}
