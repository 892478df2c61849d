/**
 * Measures this library beside its peers:
 *
 *   npm run bench -- --help
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, Layer, Option } from "effect"
import { CliConfig, Command, Flag, GlobalFlag } from "effect/cli"
import * as Fs from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import * as Path from "node:path"
import { type Case, cases } from "./cases.ts"
import * as Guard from "./guard.ts"
import * as Chart from "./report/chart.ts"
import * as Markdown from "./report/markdown.ts"
import { commit, type Environment, format, machine, parse, type Results } from "./results.ts"
import * as Roster from "./roster.ts"
import { measure, type Plan } from "./rounds.ts"
import { type Disk, isThere, startEtcd } from "./stores.ts"

class BadUsage extends Data.TaggedError("BadUsage")<{ readonly message: string }> {}

// what is asked is how fast a program is that has been running for a while
const full: Plan = {
  generations: 1,
  rounds: 4,
  millis: 1000,
  warmUpMillis: 2500,
  warmUps: 8,
  heldMillis: 9000,
  repeats: 1
}
const quick: Plan = {
  generations: 1,
  rounds: 3,
  millis: 250,
  warmUpMillis: 500,
  warmUps: 1,
  heldMillis: 6000,
  repeats: 1
}

const committed = Path.join(import.meta.dirname, "results")
const uncommitted = Path.resolve(import.meta.dirname, "../../.cache/bench/results")

// -----------------------------------------------------------------------------
// a run
// -----------------------------------------------------------------------------

interface Choice {
  readonly plan: Plan
  readonly beside: boolean
  readonly names: ReadonlyArray<string>
  readonly disks: ReadonlyArray<Disk>
  readonly contenders: ReadonlyArray<string>
}

const isWhole = ({ contenders, names, plan }: Choice) => plan === full && names.length === 0 && contenders.length === 0

/** Asks a server, since it is only known when one is found. */
const etcdVersion = Effect.scoped(
  Effect.map(startEtcd("disk"), ({ description }) => description.split(" ").slice(0, 2).join(" "))
)

/** `results/etcd-3.5.json` */
const fileOf = (directory: string, etcd: string, extension: string) => {
  const [, version = ""] = etcd.split(" ")
  return Path.join(directory, `etcd-${version.split(".").slice(0, 2).join(".")}.${extension}`)
}

const isWanted = (choice: Choice, disk: Disk) => ({ beside, long, name }: Case) => {
  if (choice.names.length > 0) return choice.names.includes(name)
  if (choice.beside || disk !== "tmpfs") return beside === true
  return choice.plan === full || long !== true
}

const measureOn = (disk: Disk, choice: Choice, roster: Roster.Roster, etcd: string) =>
  Effect.gen(function*() {
    const measured = yield* Effect.forEach(
      cases.filter(isWanted(choice, disk)),
      (one) => Effect.tap(measure(one, roster, disk, choice.plan), (found) => Console.log(Markdown.renderCase(found)))
    )
    const guard = isWhole(choice) && disk === guardedDisk ? yield* Guard.costs(disk) : []
    return { disk, etcd, cases: measured, guard } satisfies Environment
  })

const run = (choice: Choice) =>
  Effect.gen(function*() {
    const etcd = yield* etcdVersion
    const roster = yield* Roster.muster(choice.contenders.length === 0 ? undefined : choice.contenders)
    yield* Console.log(`${etcd} on ${machine()}`)
    const environments: Array<Environment> = []
    const directory = isWhole(choice) ? committed : uncommitted
    // what is written here makes the checkout another than the one that is measured
    const measuredCommit = commit()
    Fs.mkdirSync(directory, { recursive: true })
    for (const disk of choice.disks) {
      if (!isThere(disk)) {
        yield* Console.log(`Without ${disk}: there is none here`)
        continue
      }
      environments.push(yield* measureOn(disk, choice, roster, etcd))
      // after each, so that a long run that is stopped leaves something
      const results: Results = {
        date: new Date().toISOString(),
        commit: measuredCommit,
        machine: machine(),
        contenders: roster.present.map(({ name, what }) => ({ name, what })),
        plan: choice.plan,
        environments
      }
      const written = format(results)
      // rounded, as anybody has them who draws the tables again
      const kept = parse(written)
      Fs.writeFileSync(fileOf(directory, etcd, "json"), written)
      Fs.writeFileSync(fileOf(directory, etcd, "md"), Markdown.render(kept))
      Fs.writeFileSync(fileOf(directory, etcd, "svg"), Chart.render(kept))
    }
    yield* Console.log(`Written to ${fileOf(directory, etcd, "{json,md,svg}")}`)
  })

// -----------------------------------------------------------------------------
// the guard
// -----------------------------------------------------------------------------

const guardedDisk: Disk = isThere("tmpfs") ? "tmpfs" : "disk"

const check = Effect.gen(function*() {
  const etcd = yield* etcdVersion
  const file = fileOf(committed, etcd, "json")
  if (!Fs.existsSync(file)) {
    return yield* new BadUsage({ message: `There is nothing committed for ${etcd} to compare with (${file})` })
  }
  const results = parse(Fs.readFileSync(file, "utf8"))
  yield* Console.log(`${etcd} on ${machine()}; committed was ${results.commit} on ${results.machine}`)
  const load = loadavg()[0]!
  if (load > availableParallelism() / 2) {
    yield* Console.log(`The machine is busy (load average ${load.toFixed(1)}): small losses cannot be told from noise`)
  }
  yield* Guard.check(guardedDisk, results.environments.flatMap(({ guard }) => guard))
})

// -----------------------------------------------------------------------------
// the command
// -----------------------------------------------------------------------------

const list = Effect.forEach(
  cases,
  ({ long, name, title }) => Console.log(`${name.padEnd(20)} ${title}${long === true ? " (not with --quick)" : ""}`)
)

const switchFlag = (name: string) => Flag.Boolean(name).pipe(Flag.withDefault(false))

const bench = Command.make(
  "bench",
  {
    quick: switchFlag("quick").pipe(
      Flag.withDescription("A few short rounds, and nothing of ten thousand: to see that all runs, not how fast")
    ),
    check: switchFlag("check").pipe(
      Flag.withDescription("Only compare the costs over the raw floor with the committed ones, and fail if they rose")
    ),
    beside: switchFlag("beside").pipe(
      Flag.withDescription("Only what is also measured on a real disk: to see what another etcd makes of it")
    ),
    list: switchFlag("list").pipe(Flag.withDescription("Only tell the cases")),
    names: Flag.Literals("case", cases.map(({ name }) => name)).pipe(
      Flag.withDescription("Only this case; may be given several times"),
      Flag.atLeast(0)
    ),
    contenders: Flag.String("with").pipe(
      Flag.withDescription("Only this contender; may be given several times"),
      Flag.atLeast(0)
    ),
    disk: Flag.Literals("disk", ["tmpfs", "disk"]).pipe(
      Flag.withDescription("Only with etcd's data in memory, or on disk"),
      Flag.optional
    )
  },
  (flags) => {
    if (flags.list) return list
    if (flags.check) return check
    return run({
      plan: flags.quick ? quick : full,
      beside: flags.beside,
      names: flags.names,
      contenders: flags.contenders,
      disks: Option.match(flags.disk, { onNone: () => ["tmpfs", "disk"], onSome: (disk) => [disk] })
    })
  }
).pipe(
  Command.withDescription("Measures this library beside its peers, on a private etcd and Redis"),
  Command.withExamples([
    { command: "npm run bench", description: "Everything, into test/bench/results; takes more than an hour" },
    { command: "npm run bench -- --quick", description: "A minute or two, into .cache/bench/results" },
    { command: "npm run bench -- --case uncontended --disk tmpfs", description: "One case" },
    { command: "ETCD_BINARY=/opt/etcd/etcd npm run bench -- --beside", description: "On another etcd" }
  ])
)

const failed = Effect.sync(() => {
  process.exitCode = 1
})

bench.pipe(
  Command.run({ version: commit() }),
  Effect.catchTags({
    FellBehind: ({ message }) => Effect.andThen(Console.error(message), failed),
    BadUsage: ({ message }) => Effect.andThen(Console.error(message), failed),
    EtcdNotFound: ({ message }) => Effect.andThen(Console.error(message), failed)
  }),
  Effect.provide(Layer.merge(
    NodeServices.layer,
    CliConfig.layer({ builtIns: [GlobalFlag.Help] })
  )),
  NodeRuntime.runMain
)
