/**
 * A runner that says when what it runs starts and stops. Run as a program, it is a process of its own, which prints it:
 *
 *   node --conditions=@effect-etcd-lock/source test/cluster/runner.ts <port> <hosts> <prefix>
 */
import { NodeClusterSocket, NodeRuntime } from "@effect/platform-node"
import { Cron, Effect, Layer, Option, References, Schedule } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as Entity from "effect/cluster/Entity"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Singleton from "effect/cluster/Singleton"
import * as Rpc from "effect/rpc/Rpc"

export interface Happened {
  /** In milliseconds of the clock that all processes of the machine share. */
  readonly at: number
  readonly port: number
  readonly what: "starts" | "stops" | "runs"
  readonly name: string
}

export const now = () => Number(process.hrtime.bigint()) / 1e6

export const config = {
  shardLockExpiration: "6 seconds",
  shardLockRefreshInterval: "1 second",
  refreshAssignmentsInterval: "500 millis",
  entityMessagePollInterval: "1 second",
  entityTerminationTimeout: "2 seconds",
  runnerHealthCheckInterval: "2 seconds",
  shardsPerGroup: 30
} as const

export const singletons = Array.from({ length: 5 }, (_, i) => `singleton-${i}`)

export const job = "job"

/** It is spawned by the first request, wherever its shard is, and says so. */
export const Thing = Entity.make("Thing", [Rpc.make("Touch")])

const shardingConfig = (port: Option.Option<number>) => ({
  ...config,
  runnerAddress: Option.map(port, (port) => RunnerAddress.make("127.0.0.1", port))
})

const storage = (port: Option.Option<number>, prefix: string) =>
  Layer.mergeAll(EtcdRunnerStorage.layer({ prefix }), MessageStorage.layerNoop).pipe(
    Layer.provide(ShardingConfig.layerFromEnv(shardingConfig(port)))
  )

export const runner = (port: number, prefix: string, happened: (what: Happened) => void) => {
  const say = (what: Happened["what"], name: string) => Effect.sync(() => happened({ at: now(), port, what, name }))
  const lives = (name: string) => Effect.acquireRelease(say("starts", name), () => say("stops", name))
  const things = Thing.toLayer(Effect.gen(function*() {
    const { entityId } = yield* Entity.CurrentAddress
    yield* lives(entityId)
    return { Touch: () => Effect.void }
  }))
  const everySecond = Cron.parseUnsafe("* * * * * *")
  return Layer.mergeAll(
    things,
    ...singletons.map((name) => Singleton.make(name, lives(name))),
    Singleton.make(
      job,
      Effect.andThen(lives(job), Effect.repeat(say("runs", job), Schedule.cron(everySecond)).pipe(Effect.orDie))
    )
  ).pipe(
    Layer.provide(NodeClusterSocket.layer({ storage: "byo", shardingConfig: shardingConfig(Option.some(port)) })),
    Layer.provide(storage(Option.some(port), prefix))
  )
}

/** A member of the cluster that runs nothing and sends requests. */
export const client = (prefix: string) =>
  NodeClusterSocket.layer({ clientOnly: true, storage: "byo", shardingConfig: shardingConfig(Option.none()) }).pipe(
    Layer.provide(storage(Option.none(), prefix))
  )

if (import.meta.main) {
  const [, , port, hosts, prefix] = process.argv
  runner(Number(port), prefix!, (what) => process.stdout.write(`${JSON.stringify(what)}\n`)).pipe(
    Layer.provide(Etcd.layer({ hosts: hosts!.split(",") })),
    Layer.launch,
    Effect.provideService(References.MinimumLogLevel, "None"),
    NodeRuntime.runMain
  )
}
