/**
 * What the locks of one program share: a lease that is granted when the first
 * lock needs one, kept alive while locks hang on it, and replaced when it is
 * lost; and the place where the program's fibers queue for the same lock.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Etcd, type EtcdError } from "./Etcd.ts"
import * as Background from "./internal/background.ts"
import type { LeaseRef } from "./internal/line/entry.ts"
import * as Line from "./internal/line/line.ts"
import * as SingleKey from "./internal/line/singleKey.ts"
import * as Mutex from "./internal/session/contention.ts"
import * as Leases from "./internal/session/sharedLease.ts"
import * as Lease from "./Lease.ts"

/**
 * **Details**
 *
 * With one lease for all locks, a lock costs one commit to take and one to
 * release, and any number of held locks is renewed by one request every third of
 * the TTL.
 *
 * When the lease is lost, all that hangs on it fails, and the next lock gets a
 * new lease. Two fibers that use the same session exclude each other as two
 * processes do.
 *
 * @category services
 * @since 0.1.0
 */
export class Session extends Context.Service<Session, {
  /**
   * Hangs the caller on the session's lease until the scope closes, to tie other
   * keys to it.
   */
  readonly lease: Effect.Effect<Lease.Lease, EtcdError, Scope.Scope>
  /** @internal */
  readonly etcd: Etcd["Service"]
  /** @internal */
  readonly mutex: Mutex.Mutex
  /** @internal */
  readonly singleKey: Mutex.Mutex
}>()("effect-etcd-lock/Session") {}

/**
 * @category models
 * @since 0.1.0
 */
export type Options = Lease.Options

/**
 * Makes a session that ends with the scope. Nobody gets a lock through it any more,
 * and what waits for one fails. What runs under its locks is interrupted and awaited,
 * for one TTL at most; only then its leases are revoked, and with them every key that
 * hangs on them goes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Session["Service"], never, Etcd | Scope.Scope> = Effect
  .fnUntraced(function*(options?: Options) {
    Lease.validate(options)
    const etcd = yield* Etcd
    const clock = yield* Clock.Clock
    const lengths = yield* Line.Lengths
    const scope = yield* Scope.make()
    const background = yield* Scope.provide(Background.make, scope)
    const leases = yield* Leases.make(background, options)
    const acquireRef = Effect.callback<LeaseRef, EtcdError>((resume) => {
      let abandoned = false
      leases.acquireRef((exit) => {
        if (abandoned && Exit.isSuccess(exit)) exit.value.release()
        resume(exit)
      })
      return Effect.sync(() => {
        abandoned = true
      })
    })
    const queues = Line.make(etcd, clock, background, lengths)
    const singleKeys = SingleKey.make(etcd, clock, background, lengths)
    const mutex = Mutex.make(etcd, background, leases, queues)
    const singleKey = Mutex.make(etcd, background, leases, singleKeys)
    yield* Effect.addFinalizer(() =>
      Effect.gen(function*() {
        mutex.close()
        singleKey.close()
        // What runs under the locks ends, then the locks.
        yield* Effect.all([queues.end, singleKeys.end, leases.close], { concurrency: "unbounded", discard: true })
        // Nothing opens a watch any more.
        yield* Scope.close(scope, Exit.void)
        queues.close()
        singleKeys.close()
      })
    )
    return Session.of({
      lease: Effect.map(
        Effect.acquireRelease(acquireRef, ({ release }) => Effect.sync(release), {
          interruptible: true
        }),
        ({ lease }) => lease
      ),
      etcd,
      mutex,
      singleKey
    })
  })

/**
 * **Example** (Providing a session)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Etcd, Session } from "effect-etcd-lock"
 *
 * export const SessionLive = Session.layer({ ttl: "15 seconds" }).pipe(
 *   Layer.provide(Etcd.layer({ hosts: "127.0.0.1:2379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Session, never, Etcd> => Layer.effect(Session, make(options))
