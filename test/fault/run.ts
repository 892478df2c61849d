/**
 * A run: a cluster, contenders, faults for a while, and then the end of everything, with the history of it all.
 */
import { Effect } from "effect"
import * as Host from "../support/Host.ts"
import * as Cluster from "./cluster.ts"
import * as Contender from "./contender.ts"
import type { Counted, Counter, End, Exited, Fault, History, Kind, Lock, Recorded } from "./history.ts"
import type { Plan, Rounds, World } from "./nemesis.ts"
import { now } from "./now.ts"
import * as Operator from "./operator.ts"
import { keys, type Task, type Work } from "./protocol.ts"
import { dice } from "./random.ts"

export interface Plot {
  readonly seed: number
  /** In seconds. */
  readonly ttl: number
  readonly locks: ReadonlyArray<Lock>
  readonly tasks: ReadonlyArray<{ readonly kind: Kind; readonly workers: ReadonlyArray<Work> }>
  readonly rounds: Rounds
  readonly commands: { readonly [K in Kind]?: ReadonlyArray<string> | undefined }
  readonly cluster?: Cluster.Options | undefined
  /** Whether each contender has a host of its own, where this machine can have them. */
  readonly hosts?: boolean | undefined
  readonly auth?: Task["auth"]
  /** Called after each round of faults; says whether to go on. */
  readonly onRound?: ((history: History) => Effect.Effect<boolean>) | undefined
}

export const run = Effect.fnUntraced(function*(plot: Plot) {
  const cluster = yield* Cluster.start(plot.cluster)
  const reports: Array<Recorded> = []
  const lockOf = new Map<string, string>()
  const lastHeld = new Map<string, number>()
  const onReport = (report: Recorded) => {
    reports.push(report)
    if (report._tag === "Wants") lockOf.set(report.section, report.lock)
    if (report._tag === "Holds") lastHeld.set(lockOf.get(report.section)!, report.at)
    if (report._tag === "Ended") lockOf.delete(report.section)
  }
  const faults: Array<Fault> = []
  const calms: Array<History["calms"][number]> = []
  const began = now()
  const contenders = yield* Effect.forEach(plot.tasks, ({ kind, workers }, i) =>
    Effect.gen(function*() {
      const host = plot.hosts === true ? yield* Host.make : undefined
      const network = yield* cluster.client({ address: host?.gateway, isProxied: i % 2 === 1 })
      const task: Task = {
        name: `${kind}-${i}`,
        seed: plot.seed + i,
        hosts: inOrderOf(i, network).map(({ endpoint }) => endpoint),
        auth: plot.auth,
        ttl: plot.ttl,
        shortLine: shortLines[i % shortLines.length],
        workers
      }
      return yield* Contender.start({
        kind,
        command: plot.commands[kind]!,
        host,
        network,
        task,
        onReport
      })
    }), { concurrency: "unbounded" })
  const world: World = { cluster, contenders, locks: plot.locks.map(({ name }) => name), ttl: plot.ttl * 1000 }

  const history = (end?: End, lines?: History["lines"]): History => ({
    seed: plot.seed,
    etcd: cluster.description(),
    ttl: world.ttl,
    from: began,
    to: now(),
    locks: plot.locks,
    contenders: contenders.map(({ kind, name, pid }) => ({ kind, name, pid })),
    reports,
    faults,
    calms,
    end,
    lines
  })

  const calm = Effect.fnUntraced(function*(millis: number) {
    yield* cluster.healthy
    const from = now()
    const moved = () =>
      plot.locks.every(({ isHeldThroughout, name }) =>
        isHeldThroughout === true ? lastHeld.has(name) : (lastHeld.get(name) ?? 0) > from
      )
    yield* Effect.sleep(millis)
    while (!moved() && now() < from + world.ttl + 5500) yield* Effect.sleep(200)
    yield* tellAll("usage")
    yield* Effect.sleep(100)
    calms.push({ from, to: now() })
  })
  const tellAll = (command: string) => Effect.forEach(contenders, ({ tell }) => tell(command), { discard: true })

  const nemesis = dice(plot.seed)
  yield* calm(1000)
  for (let number = 0;; number++) {
    const plans = yield* plot.rounds(world, nemesis, { number, elapsed: now() - began })
    if (plans === undefined) break
    yield* Effect.forEach(
      plans,
      (plan) => Effect.delay(strike(plan, (fault) => faults.push(fault)), nemesis.between(0, 1500)),
      { concurrency: "unbounded", discard: true }
    )
    yield* calm(1000)
    if (plot.onRound !== undefined && !(yield* plot.onRound(history()))) {
      return history(undefined, yield* Effect.forEach(world.locks, (lock) => Operator.line(cluster, lock)))
    }
  }

  // So long that it shows whether waiters are served at once while all is well.
  yield* calm(world.ttl + 14_000)
  const asked = now()
  yield* tellAll("stop")
  const exits = yield* Effect.forEach(
    contenders,
    ({ exited }): Effect.Effect<ReadonlyArray<Exited>> =>
      Effect.timeoutOrElse(Effect.map(exited, (exit) => [{ ...exit, millis: now() - asked }]), {
        duration: 30_000 + 10 * world.ttl,
        orElse: () => Effect.succeed([])
      }),
    { concurrency: "unbounded" }
  )
  const counted = yield* count(cluster, plot.locks)
  const left = yield* leftIn(cluster, plot)
  return history({ counted, exits: exits.flat(), left })
})

/** Some watch every line by its guards, some every line as a whole, and some go from one to the other, beside each other. */
const shortLines = [undefined, 0, 4, 24]

/** The members in an order of the contender's own: another first, and every other one the other way round. */
const inOrderOf = <A>(i: number, network: ReadonlyArray<A>): ReadonlyArray<A> => {
  const way = i % 2 === 0 ? network : network.toReversed()
  return way.map((_, j) => way[(i + j) % way.length]!)
}

/** Injects a fault, mends it after its time, and records it. */
const strike = (plan: Plan, onFault: (fault: Fault) => void): Effect.Effect<void> =>
  Effect.gen(function*() {
    const from = now()
    const done = yield* plan.inject
    yield* Effect.sleep(plan.millis)
    yield* plan.mend
    onFault({ name: plan.name, from, to: now(), ...done })
  })

const count = (cluster: Cluster.Cluster, locks: ReadonlyArray<Lock>) =>
  Effect.forEach(
    locks.flatMap(({ name }) => (["fenced", "shared", "plain"] as const).map((counter) => [name, counter] as const)),
    ([lock, counter]): Effect.Effect<Counted, Cluster.CallFailed> =>
      Effect.gen(function*() {
        const { kvs: [kv] = [] } = yield* cluster.askAny("kv/range", { key: btoa(keys.counter(counter, lock)) })
        const marks = yield* marksOf(cluster, counter, lock)
        return { lock, counter, value: kv === undefined ? 0 : Number(atob(kv.value)), marks }
      })
  )

const marksOf = (cluster: Cluster.Cluster, counter: Counter, lock: string) => {
  const prefix = keys.marks(counter, lock)
  return Effect.map(
    cluster.askAny("kv/range", { key: btoa(prefix), range_end: btoa(`${prefix.slice(0, -1)}0`), keys_only: true }),
    ({ kvs = [] }): ReadonlyArray<string> => kvs.map(({ key }: { readonly key: string }) => atob(key))
  )
}

/** What is left of locks when the last lease that nobody could revoke has had time to expire. */
const leftIn = (cluster: Cluster.Cluster, { locks, ttl }: Plot) =>
  Effect.gen(function*() {
    const until = now() + ttl * 1000 + 5000
    while (true) {
      const lines = yield* Effect.forEach(locks, ({ name }) => Operator.line(cluster, name))
      const { leases = [] } = yield* cluster.askAny("lease/leases", {})
      const left = { keys: lines.flat().map(({ key }) => key), leases: leases.length as number }
      if (left.keys.length + left.leases === 0 || now() > until) return left
      yield* Effect.sleep(500)
    }
  })
