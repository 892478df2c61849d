/** Processes of a cluster, each with a storage of its own, on an etcd that they share. */
import { Context, Effect, Exit, Layer, Option, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as Runner from "effect/cluster/Runner"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import { RunnerStorage } from "effect/cluster/RunnerStorage"
import * as ShardId from "effect/cluster/ShardId"
import * as ShardingConfig from "effect/cluster/ShardingConfig"

export type Config = Partial<ShardingConfig.ShardingConfig["Service"]>

export type Machine = Effect.Success<ReturnType<typeof machine>>

/** A storage whose requests are counted, and whose runner has the address. */
export const machine = Effect.fnUntraced(function*(
  etcd: Etcd.Etcd["Service"],
  options?: { readonly config?: Config; readonly port?: number; readonly prefix?: string }
) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const requests: Array<string> = []
  const context = yield* Layer.build(EtcdRunnerStorage.layerWithShards(options)).pipe(
    Scope.provide(scope),
    Effect.provideService(Etcd.Etcd, counting(etcd, requests)),
    Effect.provideService(ShardingConfig.ShardingConfig, { ...ShardingConfig.defaults, ...options?.config })
  )
  const runner = runnerAt(options?.port ?? 1)
  const { address } = runner
  const storage = Context.get(context, RunnerStorage)
  const { fencingToken, isOwner } = Context.get(context, EtcdRunnerStorage.Shards)
  return {
    storage,
    runner,
    address,
    register: storage.register(runner, true),
    acquire: (ids: ReadonlyArray<ShardId.ShardId>) => Effect.map(storage.acquire(address, ids), names),
    refresh: (ids: ReadonlyArray<ShardId.ShardId>) => Effect.map(storage.refresh(address, ids), names),
    release: (id: ShardId.ShardId) => storage.release(address, id),
    releaseAll: storage.releaseAll(address),
    token: (id: ShardId.ShardId) => Option.getOrUndefined(fencingToken(id)),
    isOwner: (id: ShardId.ShardId) => Option.getOrUndefined(isOwner(id)),
    /** The requests that an effect sends. */
    requestsOf: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.suspend(() => {
        requests.length = 0
        return Effect.as(effect, requests)
      }),
    close: Scope.close(scope, Exit.void)
  }
})

export const runnerAt = (port: number) =>
  Runner.make({ address: RunnerAddress.make("10.0.0.7", port), groups: ["default"], weight: 1 })

/** The first so many shards of a group. */
export const shards = (count: number, group = "default") =>
  Array.from({ length: count }, (_, i) => ShardId.make(group, i + 1))

export const shard = (id: number) => ShardId.make("default", id)

export const names = (ids: ReadonlyArray<ShardId.ShardId>) => ids.map(String)

/** The runners that are registered, and whether they are healthy. */
export const runnersOf = ({ storage }: Machine) =>
  Effect.map(storage.getRunners, (runners) => runners.map(([{ address }, healthy]) => [address.port, healthy]))

const counting = (etcd: Etcd.Etcd["Service"], requests: Array<string>): Etcd.Etcd["Service"] => {
  const count = <A, E, R>(method: string, request: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      requests.push(method)
      return request
    })
  return {
    ...etcd,
    txn: (request) => count("txn", etcd.txn(request)),
    range: (range) => count("range", etcd.range(range)),
    leaseGrant: (id, seconds) => count("leaseGrant", etcd.leaseGrant(id, seconds)),
    leaseRevoke: (id) => count("leaseRevoke", etcd.leaseRevoke(id)),
    leaseKeepAlive: (id, timeout) => count("leaseKeepAlive", etcd.leaseKeepAlive(id, timeout))
  }
}
