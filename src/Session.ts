/**
 * What the locks of one program share: a lease that is granted when the first
 * lock needs one, kept alive while locks are attached to it, and replaced when it is
 * lost; and the place where the program's fibers queue for the same lock.
 *
 * @since 0.1.0
 * @module
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Etcd, EtcdError } from "./Etcd.ts"
import { configured } from "./internal/config.ts"
import * as engine from "./internal/session/engine.ts"
import type * as Lease from "./Lease.ts"

/**
 * Marks a value as a session that `make` returned.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-etcd-lock/Session"

/**
 * The type of the mark of a session.
 *
 * @category type IDs
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * What the locks of one program share: a lease, and the queues in which its fibers
 * wait for the same lock.
 *
 * **Details**
 *
 * With one lease for all locks, a lock costs one commit to acquire and one to
 * release, and any number of held locks is renewed by one request every third of
 * the TTL.
 *
 * When the lease is lost, every lock on it fails, and the next lock gets a
 * new lease. Two fibers that use the same session exclude each other as two
 * processes do.
 *
 * @category services
 * @since 0.1.0
 */
export class Session extends Context.Service<Session, {
  readonly [TypeId]: TypeId
  /** A reference to the session's lease until the scope closes, to attach other keys to it. */
  readonly lease: Effect.Effect<Lease.Lease, EtcdError, Scope.Scope>
}>()("effect-etcd-lock/Session") {}

/**
 * The TTL and the safety margin of the session's leases.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Omit<Lease.Options, "renewal">

/**
 * Makes a session that ends with the scope. From then on no caller acquires a lock
 * through it, and its waiters fail. What runs under its locks is interrupted and awaited,
 * for one TTL at most; only then its leases are revoked, and etcd deletes every key that
 * is attached to them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Session["Service"], never, Etcd | Scope.Scope> = engine.make

/**
 * Provides a session that ends with the layer's scope, as `make` makes it.
 *
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

/**
 * Provides a session as `layer` does, with options from configuration. An option that can
 * never work fails the layer with a `ConfigError` that names the option, as a variable that
 * is missing does.
 *
 * **Example** (Providing a session whose TTL an operator can set)
 *
 * ```ts
 * import { Config, Layer } from "effect"
 * import { Etcd, Session } from "effect-etcd-lock"
 *
 * export const SessionLive = Session.layerConfig({
 *   ttl: Config.Duration("LOCK_TTL").pipe(Config.withDefault("15 seconds"))
 * }).pipe(
 *   Layer.provide(Etcd.layerConfig({ hosts: Config.String("ETCD_HOST").pipe(Config.withDefault("127.0.0.1:2379")) }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Session, Config.ConfigError, Etcd> =>
  Layer.effect(Session, configured("Session.layerConfig", options, make))
