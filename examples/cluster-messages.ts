/**
 * An Effect Cluster whose messages survive its runners: they are in PostgreSQL, and the runners and shards in etcd. The
 * runner of an order and of a cron job is killed: the next one packs the order, whose client gets its answer, and makes up
 * for the runs that were missed.
 *
 *   npm run example -- test/examples/withPostgres.ts examples/cluster-messages.ts
 */
import { NodeClusterSocket, NodeCrypto, NodeRuntime, NodeServices } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Console, Cron, Data, DateTime, Effect, Fiber, Layer, Option, Queue, References, Schema } from "effect"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as ClusterCron from "effect/cluster/ClusterCron"
import * as ClusterSchema from "effect/cluster/ClusterSchema"
import * as Entity from "effect/cluster/Entity"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as SqlMessageStorage from "effect/cluster/SqlMessageStorage"
import * as Rpc from "effect/rpc/Rpc"
import { SqlClient } from "effect/sql/SqlClient"
import { freePort, start } from "./processes.ts"
import { explained, say, SharedEtcdLive } from "./support.ts"

// -----------------------------------------------------------------------------
// the cluster, as every process has it
// -----------------------------------------------------------------------------

/** A message is stored before it is delivered, once for each primary key, and its reply when it has been handled. */
const Order = Entity.make("Order", [
  Rpc.make("Pack", {
    payload: { article: Schema.String },
    primaryKey: ({ article }) => article,
    success: Schema.String
  }).annotate(ClusterSchema.Persisted, true)
])

/** The storage and the runner have to have the same configuration. */
const shardingConfig = (port: Option.Option<number>) => ({
  runnerAddress: Option.map(port, (port) => RunnerAddress.make("127.0.0.1", port)),
  // One runner has it all, so that it is the one that is killed.
  shardsPerGroup: 1,
  // Short, so that the demonstration is. The default is 35 seconds, and etcd makes 6 to 10 affordable.
  shardLockExpiration: "4 seconds",
  refreshAssignmentsInterval: "500 millis",
  entityMessagePollInterval: "500 millis"
} as const)

class NoDatabase extends Data.TaggedError("NoDatabase")<{ readonly message: string }> {}

const Database = Layer.unwrap(Effect.gen(function*() {
  const url = yield* Config.option(Config.Redacted("DATABASE_URL"))
  if (Option.isSome(url)) return PgClient.layer({ url: url.value })
  return yield* new NoDatabase({
    message: "This example needs a PostgreSQL: set DATABASE_URL, " +
      "or run it through test/examples/withPostgres.ts, which starts one."
  })
}))

const prefix = "cluster_messages"

const storage = (port: Option.Option<number>) => {
  const messages = SqlMessageStorage.layerWith({ prefix }).pipe(Layer.provide([Database, NodeCrypto.layerDigest]))
  const runners = EtcdRunnerStorage.layer({ prefix }).pipe(Layer.provide(SharedEtcdLive))
  return Layer.mergeAll(messages, runners).pipe(
    Layer.provide(ShardingConfig.layerFromEnv(shardingConfig(port)))
  )
}

// -----------------------------------------------------------------------------
// a runner
// -----------------------------------------------------------------------------

const runner = (who: string, port: number) => {
  const orders = Order.toLayer({
    // A runner that is killed in the middle has not replied, so another one begins anew.
    Pack: Effect.fnUntraced(function*({ payload: { article } }) {
      yield* Console.log(`packs a ${article}`)
      yield* Effect.sleep("5 seconds")
      yield* Console.log(`has packed a ${article}`)
      return who
    })
  })
  const invoices = ClusterCron.make({
    name: "invoices",
    cron: Cron.parseUnsafe("*/2 * * * * *"),
    // No run overlaps another one, and none is left out.
    calculateNextRunFromPrevious: true,
    execute: Effect.gen(function*() {
      const time = DateTime.formatIso(yield* ClusterCron.CurrentScheduledTime).slice(11, 19)
      yield* Console.log(`writes the invoices of ${time}`)
    })
  })
  return Layer.mergeAll(orders, invoices).pipe(
    Layer.provide(NodeClusterSocket.layer({ storage: "byo", shardingConfig: shardingConfig(Option.some(port)) })),
    Layer.provide(storage(Option.some(port))),
    Layer.launch
  )
}

// -----------------------------------------------------------------------------
// two runners, and what happens to them
// -----------------------------------------------------------------------------

interface Line {
  readonly who: string
  readonly line: string
}

const startRunner = Effect.fnUntraced(function*(who: string, said: Queue.Queue<Line>) {
  return yield* start(who, [String(yield* freePort)], (line) => Queue.offer(said, { who, line }))
})

/** What an earlier run has left would be delivered now. */
const forgetEarlierRuns = Effect.gen(function*() {
  const sql = yield* SqlClient
  for (const table of ["replies", "messages", "migrations"]) {
    yield* sql`DROP TABLE IF EXISTS ${sql(`${prefix}_${table}`)}`
  }
}).pipe(Effect.provide(Database))

const pack = Effect.gen(function*() {
  yield* say("Client", "has a lamp packed")
  const order = (yield* Order.client)("order-7")
  yield* say("Client", `is answered: ${yield* order.Pack({ article: "lamp" })} has packed it`)
})

const operation = Effect.gen(function*() {
  const said = yield* Queue.unbounded<Line>()
  const runners: Record<string, Effect.Success<ReturnType<typeof startRunner>>> = {}
  for (const who of ["Ada", "Ben"]) runners[who] = yield* startRunner(who, said)
  const next = (what: string) => Queue.take(said).pipe(Effect.repeat({ until: ({ line }) => line.startsWith(what) }))

  yield* next("writes")
  const answer = yield* Effect.forkScoped(pack)
  const first = yield* next("packs")
  yield* runners[first.who]!.signal("SIGKILL")
  // It cannot hand anything over: the other one has its shard when its leases are over.
  yield* Fiber.join(answer)
  // The reply is stored, too: nothing is packed again.
  yield* pack
  const last = yield* next("writes")
  yield* runners[last.who]!.signal("SIGTERM")
  yield* Effect.forEach(Object.values(runners), ({ printing }) => Fiber.await(printing))
})

const operator = Effect.andThen(
  forgetEarlierRuns,
  operation.pipe(
    Effect.scoped,
    Effect.provide([
      NodeClusterSocket.layer({ clientOnly: true, storage: "byo", shardingConfig: shardingConfig(Option.none()) }).pipe(
        Layer.provide(storage(Option.none()))
      ),
      NodeServices.layer
    ])
  )
)

const program = Effect.gen(function*() {
  const [, , who, port] = process.argv
  if (who === undefined) return yield* operator
  return yield* runner(who, Number(port))
})

program.pipe(explained, Effect.provideService(References.MinimumLogLevel, "Warn"), NodeRuntime.runMain)
