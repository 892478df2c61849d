/**
 * Uses locks of all recipes for hours, with faults off and on, and looks at what may grow: the heap, the process's handles,
 * and etcd's watchers, keys and leases. Fails if one of them does, or if something is left at the end.
 *
 *   npm run soak -- --hours 1
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Context, Data, Duration, Effect, Layer, Logger, Random, Schedule } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore, Session } from "effect-etcd-lock"
import { CliConfig, Command, Flag, GlobalFlag } from "effect/cli"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { machine } from "../bench/results.ts"
import { quantile } from "../bench/statistics.ts"
import * as EtcdServer from "../support/EtcdServer.ts"

class Grows extends Data.TaggedError("Grows")<{ readonly message: string }> {}

const sessions = 4
const fibers = 8
const names = ["a", "b", "c"]

// -----------------------------------------------------------------------------
// work
// -----------------------------------------------------------------------------

let operations = 0

const body = Effect.suspend(() => {
  operations++
  return Effect.yieldNow
})

const timeout = "2 seconds"

/** Each of them once, of one recipe, for a name of its own. */
const uses = (name: string, run: string) => [
  Lock.withLock(body, `lock-${name}`, { timeout }),
  Lock.tryWithLock(body, `lock-${name}`),
  Lock.withLockIfAvailable(body, `lock-${name}`),
  Lock.withLockOnce(body, `once-${name}`, { run, keepFor: "1 second", timeout }),
  Lock.withLock(body, `single-${name}`, { layout: "single-key", timeout }),
  Lock.withLocks(body, [`lock-${name}`, "all"], { timeout }),
  Effect.scoped(Effect.flatMap(Lock.acquire(`lock-${name}`, { timeout }), ({ whileHeld }) => whileHeld(body))),
  ReadWriteLock.withReadLock(body, `pages-${name}`, { timeout }),
  ReadWriteLock.withWriteLock(body, `pages-${name}`, { timeout }),
  Semaphore.withPermits(body, `permits-${name}`, { permits: 2, of: 5, timeout }),
  Election.withLeadership(body, `leader-${name}`, { timeout }),
  Effect.timeoutOption(Lock.withLock(Effect.never, `lock-${name}`), "5 millis")
]

const work = Effect.gen(function*() {
  const name = names[yield* Random.nextIntBetween(0, names.length - 1)]!
  const all = uses(name, crypto.randomUUID())
  yield* Effect.exit(
    all[yield* Random.nextIntBetween(0, all.length - 1)]! as Effect.Effect<unknown, unknown, Session.Session>
  )
}).pipe(Effect.forever)

/** What happens to etcd and to locks in the minutes with faults. */
const fault = Effect.fnUntraced(function*(server: EtcdServer.EtcdServer, etcd: Etcd.Etcd["Service"]) {
  const faults = [
    // The phase may be over in the middle of it.
    Effect.acquireUseRelease(server.pause, () => Effect.sleep("1 second"), () => server.resume),
    Effect.uninterruptible(Effect.andThen(server.kill, server.restart)),
    Effect.gen(function*() {
      const locks = yield* Effect.provideService(Lock.list(), Etcd.Etcd, etcd)
      yield* Effect.forEach(locks.slice(0, 3), ({ holder }) => Effect.ignore(etcd.leaseRevoke(holder.leaseId)))
    })
  ]
  yield* Effect.exit(faults[yield* Random.nextIntBetween(0, faults.length - 1)]!)
})

// -----------------------------------------------------------------------------
// measuring
// -----------------------------------------------------------------------------

setFlagsFromString("--expose-gc")
const collect: () => void = runInNewContext("gc")

interface Sample {
  readonly heap: number
  readonly handles: number
  readonly watchers: number
  readonly keys: number
}

const metric = (text: string, name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN)

const sample = (endpoint: string) =>
  Effect.promise(async (): Promise<Sample> => {
    collect()
    const text = await (await fetch(`http://${endpoint}/metrics`, { headers: { connection: "close" } })).text()
    return {
      heap: process.memoryUsage().heapUsed / 2 ** 20,
      handles: process.getActiveResourcesInfo().filter((kind) => kind !== "Timeout" && kind !== "Immediate").length,
      watchers: metric(text, "etcd_debugging_mvcc_watcher_total"),
      keys: metric(text, "etcd_debugging_mvcc_keys_total")
    }
  })

const show = ({ handles, heap, keys, watchers }: Sample) =>
  `heap ${heap.toFixed(1)} MB, ${handles} handles, ${watchers} watchers, ${keys} keys`

/** Compares what there is in the last third with what there was in the second one. */
const grows = (samples: ReadonlyArray<Sample>) => {
  const third = Math.floor(samples.length / 3)
  const medianOf = (part: ReadonlyArray<Sample>, read: (sample: Sample) => number) => quantile(part.map(read), 0.5)
  return (["heap", "handles", "watchers", "keys"] as const).filter((what) => {
    const before = medianOf(samples.slice(third, 2 * third), (sample) => sample[what])
    const after = medianOf(samples.slice(2 * third), (sample) => sample[what])
    // How many wait just now differs; what is left behind adds up.
    return after > (what === "heap" ? 1.15 * before : 1.5 * before + 20)
  })
}

// -----------------------------------------------------------------------------
// the run
// -----------------------------------------------------------------------------

const phase = Duration.seconds(20)

const soak = ({ hours }: { readonly hours: number }) =>
  Effect.gen(function*() {
    const server = yield* EtcdServer.start({
      args: ["--auto-compaction-mode=revision", "--auto-compaction-retention=1000"]
    })
    yield* Console.log(`${hours} h on ${server.description}, on ${machine()}`)
    const connection = yield* Layer.build(Etcd.layer({ hosts: server.endpoint }))
    const etcd = Context.get(connection, Etcd.Etcd)
    const samples: Array<Sample> = []
    yield* Effect.scoped(Effect.gen(function*() {
      for (let i = 0; i < sessions; i++) {
        const session = yield* Layer.build(Layer.fresh(Session.layer({ ttl: "3 seconds" }))).pipe(
          Effect.provideContext(connection)
        )
        for (let j = 0; j < fibers; j++) yield* Effect.forkScoped(Effect.provideContext(work, session))
      }
      const phases = Math.max(9, Math.ceil(Duration.toSeconds(Duration.hours(hours)) / Duration.toSeconds(phase)))
      for (let i = 0; i < phases; i++) {
        const withFaults = i % 3 === 2
        const faults = Effect.repeat(fault(server, etcd), Schedule.spaced("4 seconds"))
        yield* Effect.timeoutOption(withFaults ? faults : Effect.never, phase)
        // What a fault has left is gone when its leases are.
        if (withFaults) yield* Effect.sleep("5 seconds")
        const taken = yield* sample(server.endpoint)
        samples.push(taken)
        yield* Console.log(
          `${i + 1} of ${phases}${withFaults ? " with faults" : ""}: ${operations} bodies; ${show(taken)}`
        )
      }
    }))
    yield* Effect.sleep("5 seconds")
    const { keys, watchers } = yield* sample(server.endpoint)
    const left = yield* etcd.range({ ...Etcd.getPrefix(""), key: Buffer.from("\0"), keysOnly: true })
    yield* Console.log(`At the end ${left.count} keys and ${watchers} watchers are left; etcd counts ${keys} keys`)
    const growing = grows(samples)
    if (growing.length > 0) return yield* new Grows({ message: `It grows: ${growing.join(", ")}` })
    if (left.count + watchers > 0) return yield* new Grows({ message: "Something is left" })
  }).pipe(Effect.scoped)

const command = Command.make("soak", {
  hours: Flag.Finite("hours").pipe(
    Flag.withDescription("How long to go on. Default: 1."),
    Flag.filter((hours) => hours > 0, () => "--hours must be more than zero"),
    Flag.withDefault(1)
  )
}, soak)

Command.run(command, { version: "0" }).pipe(
  // Losses are part of it.
  Effect.provide(Layer.mergeAll(
    NodeServices.layer,
    CliConfig.layer({ builtIns: [GlobalFlag.Help] }),
    Logger.layer([])
  )),
  NodeRuntime.runMain
)
