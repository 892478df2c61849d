/**
 * Measures `EtcdRunnerStorage` beside Effect's `SqlRunnerStorage` on PostgreSQL, call by call, and how long it takes until
 * another runner runs what one runs that can reach its storage no more, or that is killed:
 *
 *   ETCD_ENDPOINTS=127.0.0.1:2379 DATABASE_URL=postgres://postgres@127.0.0.1:5432/postgres npm run bench:cluster -- 20 5
 *
 * The numbers are those of the black holes and of the kills, by default none. `test/examples/withPostgres.ts` starts both:
 *
 *   npm run example -- test/examples/withPostgres.ts test/bench/cluster.ts 20 5
 */
import { NodeClusterSocket } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Console, Context, Effect, Exit, Layer, Option, Redacted, References, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as Runner from "effect/cluster/Runner"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import { RunnerStorage } from "effect/cluster/RunnerStorage"
import * as ShardId from "effect/cluster/ShardId"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Singleton from "effect/cluster/Singleton"
import * as SqlRunnerStorage from "effect/cluster/SqlRunnerStorage"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { freePort } from "../support/internal/ports.ts"
import * as Proxy from "../support/Proxy.ts"
import { quantile } from "./statistics.ts"

interface Contender {
  readonly name: string
  /** `host:port`, where a proxy can be put before it. */
  readonly endpoint: string
  readonly layer: (endpoint: string) => Layer.Layer<RunnerStorage, unknown, ShardingConfig.ShardingConfig>
}

const now = () => Number(process.hrtime.bigint()) / 1e6

/** What a runner that is a process of its own is started with. */
const [, , role, ofContender, ofPort, ofPrefix] = process.argv

const prefix = role === "runner" ? ofPrefix! : `bench_${Date.now()}`

const contenders = Effect.gen(function*() {
  const hosts = yield* Config.String("ETCD_ENDPOINTS")
  const url = new URL(yield* Config.String("DATABASE_URL"))
  const sql = (disableAdvisory: boolean) => (endpoint: string) => {
    const through = new URL(url)
    through.host = endpoint
    return SqlRunnerStorage.layerWith({ prefix: `${prefix}_${disableAdvisory ? "rows" : "advisory"}` }).pipe(
      Layer.provide(PgClient.layer({ url: Redacted.make(through.href) })),
      Layer.provide(Layer.effect(
        ShardingConfig.ShardingConfig,
        Effect.map(
          ShardingConfig.ShardingConfig,
          (config) => ({ ...config, shardLockDisableAdvisory: disableAdvisory })
        )
      ))
    )
  }
  const all: ReadonlyArray<Contender> = [
    {
      name: "etcd",
      endpoint: hosts,
      layer: (hosts) => EtcdRunnerStorage.layer({ prefix }).pipe(Layer.provide(Etcd.layer({ hosts })))
    },
    { name: "PostgreSQL, advisory locks", endpoint: url.host, layer: sql(false) },
    { name: "PostgreSQL, rows", endpoint: url.host, layer: sql(true) }
  ]
  return { all, hosts }
})

/** Builds what is closed by hand, apart from all that was built before. */
const build = <A, E, R>(layer: Layer.Layer<A, E, R>, scope: Scope.Scope) =>
  Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope)

// -----------------------------------------------------------------------------
// call by call
// -----------------------------------------------------------------------------

const groups = ["default", "orders", "mails"]
const shards = groups.flatMap((group) => Array.from({ length: 300 }, (_, i) => ShardId.make(group, i + 1)))
const runner = Runner.make({ address: RunnerAddress.make("127.0.0.1", 1), groups, weight: 1 })

const timed = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const began = now()
    return Effect.map(self, () => now() - began)
  })

const median = (millis: ReadonlyArray<number>) => quantile(millis, 0.5)

const repeated = <A, E, R>(times: number, self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.replicateEffect(timed(self), times), median)

const calls = (contender: Contender, rounds: number) =>
  Effect.gen(function*() {
    const context = yield* build(contender.layer(contender.endpoint), yield* Effect.scope).pipe(
      Effect.provideService(ShardingConfig.ShardingConfig, {
        ...ShardingConfig.defaults,
        availableShardGroups: groups,
        assignedShardGroups: groups
      })
    )
    const storage = Context.get(context, RunnerStorage)
    const { address } = runner
    yield* storage.register(runner, true)
    const taken: Record<string, Array<number>> = {}
    const note = (name: string, millis: number) => void (taken[name] ??= []).push(millis)
    for (let i = 0; i < rounds; i++) {
      note("acquire 900", yield* timed(storage.acquire(address, shards)))
      note("refresh 900", yield* repeated(20, storage.refresh(address, shards)))
      note("refresh 1", yield* repeated(50, storage.refresh(address, [shards[7]!])))
      note("getRunners", yield* repeated(50, storage.getRunners))
      note(
        "release 900, one by one",
        yield* timed(
          Effect.forEach(shards, (shard) => storage.release(address, shard), { concurrency: "unbounded" })
        )
      )
      yield* storage.acquire(address, shards)
      note("releaseAll 900", yield* timed(storage.releaseAll(address)))
    }
    return Object.entries(taken).map(([name, millis]) => `${name}: ${median(millis).toFixed(1)} ms`)
  }).pipe(Effect.scoped)

/** A refresh, and a range of the keys that it reads by itself, in turn. */
const besideRaw = (hosts: string) =>
  Effect.gen(function*() {
    const layer = EtcdRunnerStorage.layer({ prefix: `${prefix}_raw` }).pipe(Layer.provideMerge(Etcd.layer({ hosts })))
    const context = yield* build(layer, yield* Effect.scope).pipe(
      Effect.provideService(ShardingConfig.ShardingConfig, ShardingConfig.defaults)
    )
    const etcd = Context.get(context, Etcd.Etcd)
    const storage = Context.get(context, RunnerStorage)
    yield* storage.acquire(runner.address, shards)
    const ranges: Array<number> = []
    const refreshes: Array<number> = []
    for (let i = 0; i < 500; i++) {
      ranges.push(yield* timed(etcd.range(Etcd.getPrefix(`${prefix}_raw/shards/`, { keysOnly: true }))))
      refreshes.push(yield* timed(storage.refresh(runner.address, shards)))
    }
    const [range, refresh] = [median(ranges), median(refreshes)]
    return `refresh 900: ${refresh.toFixed(1)} ms, a range of the same keys: ${range.toFixed(1)} ms`
  }).pipe(Effect.scoped)

// -----------------------------------------------------------------------------
// runners
// -----------------------------------------------------------------------------

const config = {
  shardLockExpiration: "6 seconds",
  shardLockRefreshInterval: "1 second",
  refreshAssignmentsInterval: "500 millis",
  entityMessagePollInterval: "1 second",
  shardsPerGroup: 30
} as const

const member = (
  contender: Contender,
  endpoint: string,
  port: number,
  body: (name: string) => Effect.Effect<void, never, Scope.Scope>,
  names: ReadonlyArray<string>
) => {
  const shardingConfig = { ...config, runnerAddress: Option.some(RunnerAddress.make("127.0.0.1", port)) }
  return Layer.mergeAll(Layer.empty, ...names.map((name) => Singleton.make(name, body(name)))).pipe(
    Layer.provide(NodeClusterSocket.layer({ storage: "byo", shardingConfig })),
    Layer.provide([contender.layer(endpoint), MessageStorage.layerNoop]),
    Layer.provide(ShardingConfig.layer(shardingConfig))
  )
}

const until = (holds: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => holds() ? Effect.void : Effect.andThen(Effect.sleep(5), until(holds)))

const seconds = (millis: number) => (millis / 1000).toFixed(1)

const range = (millis: ReadonlyArray<number>) => `${seconds(Math.min(...millis))} to ${seconds(Math.max(...millis))} s`

// -----------------------------------------------------------------------------
// black holes
// -----------------------------------------------------------------------------

const singletons = Array.from({ length: 10 }, (_, i) => `singleton-${i}`)

const blackHoles = (contender: Contender, times: number) =>
  Effect.gen(function*() {
    const running = new Map<string, number>()
    const stopped = new Map<string, number>()
    const started = new Map<string, number>()
    let twice = 0

    const start = Effect.gen(function*() {
      const proxy = yield* Proxy.make(contender.endpoint)
      const port = yield* freePort
      const body = (name: string) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            if (running.has(name)) twice++
            running.set(name, port)
            started.set(name, now())
          }),
          () =>
            Effect.sync(() => {
              if (running.get(name) === port) running.delete(name)
              stopped.set(name, now())
            })
        )
      const scope = yield* Scope.fork(yield* Effect.scope)
      yield* build(member(contender, proxy.endpoint, port, body, singletons), scope)
      return { port, proxy, stop: Scope.close(scope, Exit.void) }
    })

    const runs = (ports: ReadonlyArray<number>) =>
      until(() => {
        const on = [...running.values()]
        return on.length === singletons.length && ports.every((port) => on.includes(port)) &&
          on.every((port) => ports.includes(port))
      })

    const runners = [yield* start, yield* start] as const
    const stops: Array<number> = []
    const starts: Array<number> = []
    const gaps: Array<number> = []
    for (let i = 0; i < times; i++) {
      const [cutOff, other] = i % 2 === 0 ? runners : [runners[1], runners[0]]
      yield* runs(runners.map(({ port }) => port))
      yield* Effect.sleep(1000 + 137 * i % 1000)
      const affected = singletons.filter((name) => running.get(name) === cutOff.port)
      const began = now()
      yield* cutOff.proxy.blackHole
      yield* runs([other.port]).pipe(Effect.timeoutOption("90 seconds"))
      for (const name of affected) {
        stops.push(stopped.get(name)! - began)
        starts.push(started.get(name)! - began)
        gaps.push(started.get(name)! - stopped.get(name)!)
      }
      yield* cutOff.proxy.resume
    }
    return [
      `${times} black holes: twice at a time ${twice} times`,
      `the old one stops after ${range(stops)}`,
      `the next one starts after ${range(starts)}`,
      `between them ${range(gaps)}`
    ]
  }).pipe(Effect.scoped)

// -----------------------------------------------------------------------------
// kills
// -----------------------------------------------------------------------------

/** A runner that says when it has joined, and when its singleton starts. */
const runnerProcess = Effect.gen(function*() {
  const { all } = yield* contenders
  const contender = all.find(({ name }) => name === ofContender)!
  const body = () => Effect.andThen(Effect.sync(() => process.stdout.write(`${now()}\n`)), Effect.never)
  yield* build(member(contender, contender.endpoint, Number(ofPort), body, ["singleton"]), yield* Effect.scope)
  yield* Effect.sync(() => process.stdout.write("joined\n"))
  return yield* Effect.never
}).pipe(Effect.scoped)

const kills = (contender: Contender, times: number) =>
  Effect.gen(function*() {
    const starts: Array<{ readonly child: ChildProcess; readonly at: number }> = []

    const start = Effect.gen(function*() {
      const args = [
        ...process.execArgv,
        import.meta.filename,
        "runner",
        contender.name,
        String(yield* freePort),
        `${prefix}_killed`
      ]
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      let joined = false
      createInterface(child.stdout).on("line", (line) => {
        if (line === "joined") joined = true
        else starts.push({ child, at: Number(line) })
      })
      yield* until(() => joined).pipe(Effect.timeout("60 seconds"))
    })

    yield* start
    const taken: Array<number> = []
    for (let i = 0; i < times; i++) {
      // Who joins may get the singleton of the other one.
      yield* start
      yield* until(() => starts.length > 0).pipe(Effect.timeout("60 seconds"))
      yield* Effect.sleep(4000 + 137 * i % 1000)
      const before = starts.length
      const began = now()
      starts.at(-1)!.child.kill("SIGKILL")
      yield* until(() => starts.length > before).pipe(Effect.timeout("120 seconds"))
      taken.push(starts[before]!.at - began)
    }
    return [`${times} kills: the next one starts after a median of ${seconds(median(taken))} s, ${range(taken)}`]
  }).pipe(Effect.scoped)

// -----------------------------------------------------------------------------
// a run
// -----------------------------------------------------------------------------

const program = Effect.gen(function*() {
  const { all, hosts } = yield* contenders
  const [holes = 0, killed = 0] = process.argv.slice(2).map(Number)
  yield* Console.log(yield* besideRaw(hosts))
  for (const contender of all) yield* Console.log([contender.name, ...yield* calls(contender, 5)].join("\n  "))
  for (const [measure, times] of [[blackHoles, holes], [kills, killed]] as const) {
    if (times === 0) continue
    for (const contender of all) yield* Console.log([contender.name, ...yield* measure(contender, times)].join("\n  "))
  }
})

void Effect.runPromise(
  Effect.provideService(role === "runner" ? runnerProcess : program, References.MinimumLogLevel, "None")
).then(() => process.exit())
