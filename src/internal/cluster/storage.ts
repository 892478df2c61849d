/** Effect Cluster's storage of runners and shards, made of the registry and of the shards of each runner. */
import * as Clock from "effect/Clock"
import { PersistenceError } from "effect/cluster/ClusterError"
import * as MachineId from "effect/cluster/MachineId"
import type { RunnerAddress } from "effect/cluster/RunnerAddress"
import { RunnerStorage } from "effect/cluster/RunnerStorage"
import type * as ShardId from "effect/cluster/ShardId"
import { ShardingConfig } from "effect/cluster/ShardingConfig"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Etcd from "../../Etcd.ts"
import * as Background from "../background.ts"
import * as Batch from "../etcd/batch.ts"
import * as History from "../etcd/history.ts"
import * as Check from "../options.ts"
import * as Lease from "../session/lease.ts"
import * as CallLease from "./callLease.ts"
import * as Keys from "./keys.ts"
import * as Registry from "./registry.ts"
import * as Shards from "./shards.ts"

const module = "EtcdRunnerStorage"

export interface Options {
  readonly prefix?: string | undefined
}

/** What this process knows of a runner, usually one of its own. */
interface Runner {
  readonly address: string
  /** Its registration is on it. */
  readonly lease: CallLease.CallLease
  readonly shards: Shards.Shards
}

export const make = Effect.fnUntraced(function*(options: Options | undefined) {
  Check.object(module, "options", options, "{ prefix: \"effect-cluster\" }")
  const prefix = prefixOf(options?.prefix)
  const { interval, ttl } = timingOf(yield* ShardingConfig)
  const clock = yield* Clock.Clock
  const etcd = History.watched(yield* Etcd.Etcd, clock)
  const background = yield* Background.make
  // They end side by side, so that all of it takes no longer than one request may.
  const scope = yield* Scope.fork(yield* Effect.scope, "parallel")
  const keys = Keys.make(prefix)
  const batch = Batch.make(etcd, clock, background)
  const registry = Registry.make(etcd, keys)
  const runners = new Map<string, Runner>()

  const makeLease = () =>
    CallLease.make({
      grant: Effect.provideService(Lease.make({ ttl, renewal: "manual" }), Etcd.Etcd, etcd),
      interval,
      scope,
      background
    })

  const runnerAt = ({ host, port }: RunnerAddress): Runner => {
    const address = `${host}:${port}`
    let runner = runners.get(address)
    if (runner === undefined) {
      const lease = makeLease()
      const shards = Shards.make({ etcd, clock, background, batch, keys, address, lease: makeLease(), interval })
      runners.set(address, runner = { address, lease, shards })
    }
    return runner
  }

  /** A call that outlasts the interval would keep the runner from noticing that it has lost its shards. */
  const bounded = <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, PersistenceError> =>
    call.pipe(
      Effect.timeoutOrElse({ duration: interval, orElse: () => notInTime }),
      PersistenceError.refail,
      // The cluster makes several of these calls every second, and no caller asked for them.
      Effect.withTracerEnabled(false)
    )

  /** Calls with a runner, which is looked up when the call runs, and not before. */
  const at = <A, E>(address: RunnerAddress, call: (runner: Runner) => Effect.Effect<A, E>) =>
    bounded(Effect.suspend(() => call(runnerAt(address))))

  const storage = RunnerStorage.of({
    register: (runner, healthy) =>
      at(
        runner.address,
        ({ address, lease }) => Effect.map(registry.register(lease, address, runner, healthy), MachineId.make)
      ),
    unregister: (address) => at(address, ({ address, lease }) => registry.unregister(lease, address)),
    getRunners: bounded(registry.getRunners),
    setRunnerHealth: (address, healthy) => at(address, ({ address }) => registry.setRunnerHealth(address, healthy)),
    acquire: (address, shardIds) =>
      at(address, ({ shards }) => {
        const wanted = byId(shardIds)
        if (wanted.size === 0) return Effect.succeed([])
        return Effect.map(shards.acquire([...wanted.keys()]), (ids) => ids.map((id) => wanted.get(id)!))
      }),
    refresh: (address, shardIds) =>
      at(address, ({ lease, shards }) => {
        const wanted = Array.from(shardIds)
        const ids = wanted.map(String)
        return Effect.map(
          // A runner that leaves registers again. That its registration could not be renewed says nothing of its shards.
          Effect.all([shards.refresh(ids), Effect.ignore(lease.renewIfDue)], { concurrency: "unbounded" }),
          ([kept]) => {
            // As a rule, these are all.
            if (kept.length === ids.length) return wanted
            const left = new Set(kept)
            return wanted.filter((_, i) => left.has(ids[i]!))
          }
        )
      }),
    release: (address, shardId) => at(address, ({ shards }) => shards.release(shardId.toString())),
    releaseAll: (address) => at(address, ({ shards }) => shards.releaseAll)
  })

  const fencingToken = (shardId: ShardId.ShardId): Option.Option<bigint> => {
    const id = shardId.toString()
    for (const { shards } of runners.values()) {
      const token = shards.fencingToken(id)
      if (token !== undefined) return Option.some(token)
    }
    return Option.none()
  }

  const isOwner = (shardId: ShardId.ShardId): Option.Option<Etcd.Compare> =>
    Option.map(
      fencingToken(shardId),
      (token) => Etcd.compareCreateRevision(keys.shard(shardId.toString()), "=", token)
    )

  return { storage, shards: { fencingToken, isOwner } }
})

const byId = (shardIds: Iterable<ShardId.ShardId>): ReadonlyMap<string, ShardId.ShardId> =>
  new Map(Array.from(shardIds, (shardId) => [shardId.toString(), shardId]))

const notInTime = Effect.fail(
  new Etcd.EtcdError({
    reason: "Timeout",
    method: "txn",
    outcome: "Unknown",
    description: "no answer within the interval at which shard locks are refreshed"
  })
)

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

const prefixOf = (prefix: unknown): string => {
  if (prefix === undefined) return "effect-cluster"
  if (Check.isName(prefix)) return prefix
  throw new Check.InvalidOption({
    module,
    option: "prefix",
    problem: (name) => `cannot use the ${name("prefix")} ${Check.show(prefix)}`,
    cure: () =>
      "It is text of 1 to 1024 bytes without \"/\" at its ends, such as \"effect-cluster\" or \"shop/orders\"."
  })
}

/** Returns the leases' TTL, and how many milliseconds apart the runner refreshes its shards, as Effect Cluster reckons it. */
const timingOf = (config: ShardingConfig["Service"]) => {
  const ttl = Check.duration(expirationOption, config.shardLockExpiration)
  const refresh = Check.duration(refreshOption, config.shardLockRefreshInterval)
  return { ttl, interval: Math.min(Duration.toMillis(refresh), Duration.toMillis(ttl) / 3) }
}

// Above 1 second, two refreshes and the quarter of one by which a renewal may be older are shorter than the TTL less
// its margin. So what runs on the shards stops before another runner can have them.
const expirationOption: Check.DurationOption = {
  module,
  option: "shardLockExpiration",
  range: `longer than 1 second, and at most ${Lease.maxSeconds} seconds`,
  accepts: (expiration) =>
    Duration.toSeconds(expiration) > 1 && Math.ceil(Duration.toSeconds(expiration)) <= Lease.maxSeconds,
  example: "10 seconds"
}

const refreshOption: Check.DurationOption = {
  module,
  option: "shardLockRefreshInterval",
  range: "longer than 0",
  accepts: Duration.isPositive,
  example: "3 seconds"
}
