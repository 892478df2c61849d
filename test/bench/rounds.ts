/**
 * Measures a case: all contenders in turn, round by round, so that whatever the
 * machine does beside it meets all of them.
 */
import { Console, Effect, type Scope } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { loadavg } from "node:os"
import type { EtcdNotFound } from "../support/EtcdServer.ts"
import type { Case, Pace, Sample, Team } from "./cases.ts"
import * as Fleet from "./fleet.ts"
import * as Roster from "./roster.ts"
import { type Disk, startEtcd, startRedis, type Store, type StoreFailed } from "./stores.ts"

export interface Plan extends Pace {
  /** How often all processes start anew: what differs between them is noise as well. */
  readonly generations: number
  readonly rounds: number
  /** A contender is used for so long before it is measured, again and again until it gets no faster by that. */
  readonly warmUpMillis: number
  readonly warmUps: number
  /** How often the cases are measured that are measured once per start. */
  readonly repeats: number
}

export interface Measured {
  readonly case: string
  /** The machine's load average at the beginning and at the end. */
  readonly load: readonly [number, number]
  /** The share of the time that was wanted here and that other machines on the same host had; only Linux tells. */
  readonly stolen: number | undefined
  /** The samples of a round are at the same place with all contenders. */
  readonly samples: { readonly [contender: string]: ReadonlyArray<Sample> }
  readonly absent: ReadonlyArray<Roster.Absent>
}

export const measure = (
  one: Case,
  { absent, present }: Roster.Roster,
  disk: Disk,
  plan: Plan
): Effect.Effect<Measured, EtcdNotFound | StoreFailed> =>
  Effect.gen(function*() {
    yield* Console.log(`${one.name} (${disk})`)
    const before = loadavg()[0]!
    const stolen = watchSteal()
    const log = new Log(one, present)
    const generation = one.once ? inTurn(one, disk, plan, log) : interleaved(one, disk, plan, log)
    for (let i = 0; i < (one.once ? plan.repeats : plan.generations); i++) yield* generation
    return {
      case: one.name,
      load: [before, loadavg()[0]!],
      stolen: stolen(),
      samples: Object.fromEntries(log.samples),
      absent: [...absent.filter(takesPart(one)), ...log.absent]
    }
  })

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const takesPart = ({ claim, without }: Case) => (contender: { readonly name: string }): boolean =>
  Roster.has(contender, claim) && !(contender.name in without)

const watchSteal = (): () => number | undefined => {
  const times = () => {
    if (!existsSync("/proc/stat")) return undefined
    const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0, steal = 0] = readFileSync("/proc/stat", "utf8")
      .split("\n", 1)[0]!
      .split(/ +/)
      .slice(1)
      .map(Number)
    return { steal, wanted: user + nice + system + irq + softIrq + steal }
  }
  const before = times()
  return () => {
    const after = times()
    return before && after && (after.steal - before.steal) / (after.wanted - before.wanted)
  }
}

/** What came of each contender so far. One that failed is out. */
class Log {
  readonly samples: Map<string, Array<Sample>>
  readonly absent: Array<Roster.Absent>
  readonly #all: ReadonlyArray<Roster.Contender>

  constructor(one: Case, present: ReadonlyArray<Roster.Contender>) {
    this.#all = present.filter(takesPart(one))
    this.samples = new Map(this.#all.map(({ name }) => [name, []]))
    this.absent = Object.entries(one.without).map(([name, why]) => ({ name, why }))
  }

  get contenders(): ReadonlyArray<Roster.Contender> {
    return this.#all.filter(({ name }) => this.samples.has(name))
  }

  readonly attempt = <A, R>(
    contender: Roster.Contender,
    effect: Effect.Effect<A, Fleet.WorkerFailed, R>
  ): Effect.Effect<A | undefined, never, R> =>
    Effect.catch(effect, ({ message }) => {
      this.samples.delete(contender.name)
      // where in the code it was is of use while it runs, not in the results
      this.absent.push({ name: contender.name, why: `failed: ${message.split("\n", 1)[0]}` })
      return Effect.as(Console.log(`  ${contender.name} failed: ${message}`), undefined)
    })
}

const interleaved = (one: Case, disk: Disk, plan: Plan, log: Log) =>
  Effect.scoped(Effect.gen(function*() {
    const stores = yield* startStores(log.contenders, disk)
    const teams: Array<Team> = []
    for (const contender of log.contenders) {
      const warm = Effect.gen(function*() {
        const team = yield* gather(contender, one.processes, stores[contender.store]!)
        if (one.prepare !== undefined) yield* one.prepare(team)
        if (one.processes > 0) yield* warmUp(one, team, plan)
        return team
      })
      const team = yield* log.attempt(contender, warm)
      if (team !== undefined) teams.push(team)
    }
    for (let round = 0; round < plan.rounds; round++) {
      const first = round % teams.length
      for (const team of [...teams.slice(first), ...teams.slice(0, first)]) {
        if (!log.samples.has(team.contender.name)) continue
        const sample = yield* log.attempt(team.contender, one.measure(team, plan))
        if (sample !== undefined) log.samples.get(team.contender.name)!.push(sample)
      }
    }
  }))

// V8 makes code faster after some thousand calls, which take the longer the more processes share the turns
const warmUp = Effect.fnUntraced(function*(one: Case, team: Team, { warmUpMillis: millis, warmUps, ...pace }: Plan) {
  let least = Infinity
  for (let i = 0; i < warmUps; i++) {
    const { [one.compared]: value = NaN } = yield* one.measure(team, { ...pace, millis })
    const cost = one.compared === "rate" ? 1 / value : value
    if (!(cost < least * 0.97)) return
    least = cost
  }
})

const inTurn = (one: Case, disk: Disk, plan: Plan, log: Log) =>
  // those that are still in
  Effect.suspend(() =>
    Effect.forEach(log.contenders, (contender) =>
      Effect.scoped(Effect.gen(function*() {
        const stores = yield* startStores([contender], disk)
        const sample = yield* log.attempt(
          contender,
          Effect.flatMap(
            gather(contender, one.processes, stores[contender.store]!),
            (team) => one.measure(team, plan)
          )
        )
        if (sample !== undefined) log.samples.get(contender.name)!.push(sample)
      })))
  )

const startStores = (
  contenders: ReadonlyArray<Roster.Contender>,
  disk: Disk
): Effect.Effect<
  { readonly [K in Roster.Contender["store"]]: Store | undefined },
  EtcdNotFound | StoreFailed,
  Scope.Scope
> => {
  const wanted = (store: Roster.Contender["store"]) => contenders.some((contender) => contender.store === store)
  return Effect.all({
    etcd: wanted("etcd") ? startEtcd(disk) : Effect.undefined,
    redis: wanted("redis") ? startRedis(disk) : Effect.undefined
  })
}

const gather = (contender: Roster.Contender, processes: number, store: Store) => {
  const start: Team["start"] = (count) =>
    Effect.forEach(Array.from({ length: count }), () => Fleet.start(contender.command(store.endpoint)), {
      concurrency: 2
    })
  return Effect.map(start(processes), (workers): Team => ({ contender, workers, store, start }))
}
