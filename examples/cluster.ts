/**
 * An Effect Cluster on etcd, without a database: three runners share a singleton, a job that runs by a schedule, and
 * entities. The runner of the singleton is killed, and the next one is asked to end. The processes need an etcd that they
 * share:
 *
 *   npm run example -- test/examples/withEtcd.ts examples/cluster.ts
 */
import { NodeClusterSocket, NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Fiber, Layer, Option, Queue, References, Schedule, Schema } from "effect"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as Entity from "effect/cluster/Entity"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Singleton from "effect/cluster/Singleton"
import * as Rpc from "effect/rpc/Rpc"
import { freePort, start } from "./processes.ts"
import { explained, say, SharedEtcdLive } from "./support.ts"

// -----------------------------------------------------------------------------
// the cluster, as every process has it
// -----------------------------------------------------------------------------

/** Each order is in one runner at a time. */
const Order = Entity.make("Order", [Rpc.make("Pack", { success: Schema.String })])

/** The storage and the runner have to have the same configuration. */
const shardingConfig = (port: Option.Option<number>) => ({
  runnerAddress: Option.map(port, (port) => RunnerAddress.make("127.0.0.1", port)),
  shardsPerGroup: 30,
  // Short, so that the demonstration is. The default is 35 seconds, and etcd makes 6 to 10 affordable.
  shardLockExpiration: "4 seconds",
  refreshAssignmentsInterval: "500 millis"
} as const)

const storage = (port: Option.Option<number>) =>
  Layer.mergeAll(EtcdRunnerStorage.layer(), MessageStorage.layerNoop).pipe(
    Layer.provide([ShardingConfig.layerFromEnv(shardingConfig(port)), SharedEtcdLive])
  )

// -----------------------------------------------------------------------------
// a runner
// -----------------------------------------------------------------------------

const runner = (who: string, port: number) => {
  const orders = Order.toLayer({ Pack: () => Effect.succeed(who) })
  const singleton = Singleton.make(
    "courier",
    Console.log("is the courier").pipe(
      Effect.andThen(Effect.never),
      Effect.onExit(() => Console.log("is the courier no more"))
    )
  )
  // ClusterCron would keep its runs as persisted messages, for which it needs a message storage.
  const job = Singleton.make(
    "invoices",
    Effect.repeat(Console.log("writes invoices"), Schedule.cron("*/2 * * * * *")).pipe(Effect.orDie)
  )
  return Layer.mergeAll(orders, singleton, job).pipe(
    Layer.provide(NodeClusterSocket.layer({ storage: "byo", shardingConfig: shardingConfig(Option.some(port)) })),
    Layer.provide(storage(Option.some(port))),
    Layer.launch
  )
}

// -----------------------------------------------------------------------------
// three runners, and what happens to them
// -----------------------------------------------------------------------------

/** Starts a runner, and reports when it becomes the courier. */
const startRunner = Effect.fnUntraced(function*(who: string, couriers: Queue.Queue<string>) {
  const heard = (line: string) => line === "is the courier" ? Queue.offer(couriers, who) : Effect.void
  return yield* start(who, [String(yield* freePort)], heard)
})

const operator = Effect.gen(function*() {
  const couriers = yield* Queue.unbounded<string>()
  const runners: Record<string, Effect.Success<ReturnType<typeof startRunner>>> = {}
  for (const who of ["Ada", "Ben", "Cleo"]) runners[who] = yield* startRunner(who, couriers)

  // A client of the cluster. It asks each order which runner has it, wherever that is.
  const pack = Effect.gen(function*() {
    const order = yield* Order.client
    const packers = yield* Effect.forEach(
      Array.from({ length: 24 }, (_, i) => `order-${i}`),
      (id) => order(id).Pack(),
      { concurrency: "unbounded" }
    )
    const counts = Object.entries(Object.groupBy(packers, (packer) => packer)).toSorted()
    yield* say("Client", `has 24 orders packed: ${counts.map(([who, own]) => `${own?.length} by ${who}`).join(", ")}`)
  }).pipe(
    // A runner that goes away may answer with a defect, since these messages are not stored.
    Effect.sandbox,
    Effect.retry(Schedule.spaced("500 millis")),
    Effect.catch(Effect.failCause)
  )

  // Runners that join or leave move shards for a moment.
  const courier = Effect.gen(function*() {
    const next = yield* Queue.take(couriers)
    yield* Effect.sleep("3 seconds")
    return (yield* Queue.clear(couriers)).at(-1) ?? next
  })

  const first = yield* courier
  yield* pack
  yield* runners[first]!.signal("SIGKILL")
  // It cannot say anything any more: another one has its shards when its leases are over.
  const second = yield* courier
  yield* pack
  yield* runners[second]!.signal("SIGTERM")
  const third = yield* courier
  yield* pack
  yield* runners[third]!.signal("SIGTERM")
  yield* Effect.forEach(Object.values(runners), ({ printing }) => Fiber.await(printing))
}).pipe(
  Effect.scoped,
  Effect.provide([
    NodeClusterSocket.layer({ clientOnly: true, storage: "byo", shardingConfig: shardingConfig(Option.none()) }).pipe(
      Layer.provide(storage(Option.none()))
    ),
    NodeServices.layer
  ])
)

const program = Effect.gen(function*() {
  const [, , who, port] = process.argv
  if (who === undefined) return yield* operator
  return yield* runner(who, Number(port))
})

program.pipe(explained, Effect.provideService(References.MinimumLogLevel, "Warn"), NodeRuntime.runMain)
