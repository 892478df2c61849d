/**
 * Effect Cluster's storage of runners and shards on etcd, with a fencing token for each shard.
 *
 * **When to use**
 *
 * Use it for an Effect Cluster that has an etcd, instead of `SqlRunnerStorage`. It stores no messages: messages that
 * have to survive a runner need a `MessageStorage` as well.
 *
 * This module is a subpath of its own, `effect-etcd-lock/EtcdRunnerStorage`, so that only programs that have a cluster
 * load Effect's cluster modules.
 *
 * **Details**
 *
 * A runner has two leases in etcd, whose TTL is the `shardLockExpiration` of its `ShardingConfig`: its registration is on
 * one, its shards are on the other. Only the runner's own calls renew them, so a runner whose process lives but whose
 * cluster stands still loses its shards. Machine IDs are given in turn, and none again soon: the runner that had one may
 * still run when its lease is over. An etcd that was restored without a leap of its revisions may give one again that it gave
 * after the backup: start it when the runners of that time have ended.
 *
 * A runner that cannot renew its shards stops what runs on them before etcd gives them to another runner. No clock is
 * compared with that of another machine.
 *
 * At rest a runner sends three requests in each refresh interval, which is the smaller of `shardLockRefreshInterval` and a
 * third of `shardLockExpiration`, and one in each `refreshAssignmentsInterval`. None of them writes.
 *
 * @since 0.1.0
 * @module
 */
import type { RunnerStorage as Service } from "effect/cluster/RunnerStorage"
import { RunnerStorage } from "effect/cluster/RunnerStorage"
import type { ShardId } from "effect/cluster/ShardId"
import type { ShardingConfig } from "effect/cluster/ShardingConfig"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Etcd from "./Etcd.ts"
import * as internal from "./internal/cluster/storage.ts"

/**
 * Where the cluster's keys are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * What all keys of the cluster begin with, followed by a slash. Clusters with different prefixes know nothing of each other.
   * Default: `effect-cluster`.
   */
  readonly prefix?: string | undefined
}

/**
 * What fences the writes of entities and singletons.
 *
 * **When to use**
 *
 * A runner that was frozen takes its next step before it notices that another runner has its shards. Use this service
 * where that step must not take effect.
 *
 * **Details**
 *
 * The token of a shard is greater than those of all earlier holders, with no assumption about clocks.
 *
 * **Example** (Refusing what a frozen runner writes)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import * as Entity from "effect/cluster/Entity"
 * import { Etcd } from "effect-etcd-lock"
 * import { Shards } from "effect-etcd-lock/EtcdRunnerStorage"
 *
 * // in a handler of an entity
 * export const write = (balance: string) =>
 *   Effect.gen(function*() {
 *     const { entityId, shardId } = yield* Entity.CurrentAddress
 *     const isOwner = (yield* Shards).isOwner(shardId)
 *     if (Option.isNone(isOwner)) return false
 *     const { succeeded } = yield* (yield* Etcd.Etcd).txn({
 *       compare: [isOwner.value],
 *       then: [Etcd.put(`balance/${entityId}`, balance)]
 *     })
 *     return succeeded
 *   })
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Shards extends Context.Service<Shards, {
  /** The token of a shard, where a runner of this process holds it. It is the create revision of the shard's key. */
  readonly fencingToken: (shardId: ShardId) => Option.Option<bigint>
  /** A condition that holds in a transaction as long as the shard is held under this token. */
  readonly isOwner: (shardId: ShardId) => Option.Option<Etcd.Compare>
}>()("effect-etcd-lock/EtcdRunnerStorage/Shards") {}

/**
 * Makes the storage, whose leases end with the scope.
 *
 * **Gotchas**
 *
 * It has to have the same `ShardingConfig` as the `Sharding` that uses it, since that says how long a runner trusts the
 * last answer of the storage. A duration that can never work is a defect that names the option.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options?: Options
): Effect.Effect<Service["Service"], never, Etcd.Etcd | ShardingConfig | Scope.Scope> =>
  Effect.map(internal.make(options), ({ storage }) => storage)

/**
 * Provides the storage, as `make` makes it.
 *
 * **Example** (A runner without a database)
 *
 * ```ts
 * import { NodeClusterSocket } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import * as MessageStorage from "effect/cluster/MessageStorage"
 * import * as ShardingConfig from "effect/cluster/ShardingConfig"
 * import { Etcd } from "effect-etcd-lock"
 * import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
 *
 * const shardingConfig = { shardLockExpiration: "10 seconds" } as const
 *
 * export const cluster = (etcd: Layer.Layer<Etcd.Etcd>) =>
 *   NodeClusterSocket.layer({ storage: "byo", shardingConfig }).pipe(
 *     Layer.provide([EtcdRunnerStorage.layer(), MessageStorage.layerNoop]),
 *     Layer.provide([ShardingConfig.layerFromEnv(shardingConfig), etcd])
 *   )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<RunnerStorage, never, Etcd.Etcd | ShardingConfig> =>
  Layer.effect(RunnerStorage, make(options))

/**
 * Provides the storage and, with `Shards`, the fencing tokens of the shards that it holds.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWithShards = (
  options?: Options
): Layer.Layer<RunnerStorage | Shards, never, Etcd.Etcd | ShardingConfig> =>
  Layer.effectContext(
    Effect.map(
      internal.make(options),
      ({ shards, storage }) => Context.make(RunnerStorage, storage).pipe(Context.add(Shards, shards))
    )
  )
