/**
 * Lets faults loose on a cluster while this library, and its peers, contend for locks:
 *
 *   npm run test:faults -- --help
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, Layer, Option } from "effect"
import { CliConfig, Command, Flag, GlobalFlag } from "effect/cli"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { commit, machine } from "../bench/results.ts"
import * as Auth from "./auth.ts"
import { check, type Verdict } from "./checks.ts"
import * as Cluster from "./cluster.ts"
import { type History, since } from "./history.ts"
import * as Nemesis from "./nemesis.ts"
import { now } from "./now.ts"
import { beside, held, ours, peer, type Recipe, recipes } from "./plots.ts"
import * as Progress from "./progress.ts"
import * as Releases from "./releases.ts"
import * as Markdown from "./report/markdown.ts"
import * as Timeline from "./report/timeline.ts"
import * as Roster from "./roster.ts"
import { type Plot, run } from "./run.ts"
import * as Table from "./table.ts"

class Violated extends Data.TaggedError("Violated")<{ readonly message: string }> {}

const committed = Path.join(import.meta.dirname, "report")
const uncommitted = Path.resolve(import.meta.dirname, "../../.cache/fault")

const write = (directory: string, name: string, text: string): string => {
  Fs.mkdirSync(directory, { recursive: true })
  const file = Path.join(directory, name)
  Fs.writeFileSync(file, text)
  return file
}

// -----------------------------------------------------------------------------
// a run
// -----------------------------------------------------------------------------

interface Choice {
  readonly minutes: number
  readonly seed: number
  readonly processes: number
  readonly contenders: ReadonlyArray<(typeof Roster.kinds)[number]>
  readonly recipes: ReadonlyArray<Recipe>
  readonly faults: ReadonlyArray<Nemesis.Group>
  /** Which the members become while they serve, instead of other faults. */
  readonly upgrade: ReadonlyArray<Nemesis.Release> | undefined
  /** Whether every other process goes through etcd's gRPC proxies. */
  readonly proxies: boolean
  readonly tokens: Auth.Tokens
  readonly report: boolean
}

const faultGroups = Object.keys(Nemesis.groups) as Array<Nemesis.Group>

/** How far back each check looks while a run goes on; the last one looks at all of it. */
const lately = 90_000

/** How often, in milliseconds. */
const every = 15_000

const plotOf = Effect.fnUntraced(function*(choice: Choice) {
  const { contenders, faults, minutes, processes, recipes, seed, upgrade } = choice
  const entrants = yield* Effect.forEach(contenders, Roster.muster)
  const peers = contenders.filter((kind) => kind !== "ours")
  const { locks, workers } = ours(recipes)
  const millis = minutes * 60_000
  const plot: Plot = {
    seed,
    ttl: 4,
    locks: [
      ...contenders.includes("ours") ? [...locks, ...upgrade ? held.locks : []] : [],
      ...peers.flatMap((kind) => peer(kind).locks)
    ],
    tasks: contenders.flatMap((kind): Plot["tasks"] =>
      kind === "ours"
        ? Array.from({ length: processes - 2 * peers.length }, (_, i) => ({
          kind,
          workers: [...workers(i), ...upgrade ? held.workers(i) : []]
        }))
        : [
          { kind, workers: peer(kind).workers },
          {
            kind,
            workers: [...peer(kind).workers, ...kind === "go" && contenders.includes("ours") ? beside(recipes) : []]
          }
        ]
    ),
    rounds: upgrade
      ? Nemesis.inTurn(Nemesis.rollingUpgrade(upgrade), millis)
      : Nemesis.ofGroups(faults, millis),
    commands: Object.fromEntries(entrants.map(({ command, kind }) => [kind, command]))
  }
  return plot
})

const own = ({ violations }: Verdict) => violations.filter(({ kind }) => kind === "ours")

const random = (choice: Choice) =>
  Effect.scoped(Effect.gen(function*() {
    const progress = Progress.make(30_000)
    const began = now()
    const runCommit = commit()
    const plot = yield* plotOf(choice)
    yield* Console.log(`Seed ${choice.seed}, ${choice.minutes} min, ${plot.tasks.length} processes, on ${machine()}`)
    const auth = yield* Auth.options(choice.tokens)
    const isAmong = (group: Nemesis.Group) => choice.upgrade === undefined && choice.faults.includes(group)
    let checked = 0
    const history = yield* run({
      ...plot,
      cluster: {
        ...auth,
        spare: true,
        disk: isAmong("disks"),
        proxies: choice.proxies,
        args: [...auth.args ?? [], ...choice.upgrade ? Releases.ofSomeAge : []]
      },
      hosts: isAmong("packets"),
      auth: choice.tokens === "none" ? undefined : Auth.root,
      onRound: (history) =>
        Effect.gen(function*() {
          const held = history.reports.reduce((sum, { _tag }) => _tag === "Holds" ? sum + 1 : sum, 0)
          const minutes = ((history.to - history.from) / 60_000).toFixed(1)
          const last = history.faults.at(-1)?.name ?? ""
          yield* progress.show(
            `${minutes} of ${choice.minutes} min: ${held} bodies, ${history.faults.length} faults, last: ${last}`
          )
          if (history.to < checked + every) return true
          checked = history.to
          return own(check(since(history, history.to - lately))).length === 0
        })
    })
    yield* progress.end
    const verdict = check(history)
    const name = `seed-${choice.seed}`
    const file = write(uncommitted, `${name}.json`, JSON.stringify(history))
    const summary = Markdown.renderRun(history, verdict, machine(), runCommit)
    const directory = choice.report ? committed : uncommitted
    const picture = Timeline.render(history, verdict, Timeline.busiest(history, 30_000))
    write(directory, choice.report ? "random.md" : `${name}.md`, summary)
    write(directory, choice.report ? "timeline.svg" : `${name}.svg`, picture)
    yield* Console.log(summary)
    const violations = own(verdict)
    if (violations.length > 0) {
      yield* Console.log(violations.map((one) => windowOf(history, one)).join("\n"))
      const after = ((now() - began) / 1000).toFixed(0)
      return yield* new Violated({
        message: `${violations.length} violations after ${after} s with seed ${choice.seed}; the history is in ${file}`
      })
    }
    yield* Console.log(`No violation; the history is in ${file}`)
  }))

const windowOf = (history: History, { check, from, to, what }: Verdict["violations"][number]): string => {
  const seconds = (at: number) => ((at - history.from) / 1000).toFixed(1)
  const faults = history.faults.filter((fault) => fault.to >= from && fault.from <= to).map(({ name }) => name)
  return `VIOLATED ${check}: ${what} (from ${seconds(from)} s to ${seconds(to)} s; ${faults.join(", ") || "no fault"})`
}

// -----------------------------------------------------------------------------
// the table
// -----------------------------------------------------------------------------

const table = (rounds: number, { contenders, report }: Choice) =>
  Effect.scoped(Effect.gen(function*() {
    const progress = Progress.make(0)
    const entrants = yield* Effect.forEach(contenders, Roster.muster)
    const cluster = yield* Cluster.start()
    const measuredCommit = commit()
    const measured: Array<Table.Measured> = []
    for (let round = 0; round < rounds; round++) {
      for (const scenario of Table.scenarios) {
        const found = yield* Table.measure(scenario, round, cluster, entrants)
        measured.push(...found)
        const gaps = found.map(({ gap, kind, stopped }) => `${kind} ${stopped ? gap : "never"}`).join(", ")
        yield* progress.show(`${round + 1} of ${rounds}, ${scenario.name}: ${gaps}`)
      }
    }
    yield* progress.end
    const results: Table.Table = {
      date: new Date().toISOString(),
      commit: measuredCommit,
      machine: machine(),
      etcd: cluster.description(),
      ttl: Table.ttl,
      entrants: entrants.map(({ kind, what }) => ({ kind, what })),
      measured
    }
    const directory = report ? committed : uncommitted
    const text = Markdown.renderTable(results)
    write(directory, "table.md", text)
    write(directory, "table.json", `${JSON.stringify(results, undefined, 1)}\n`)
    yield* Console.log(text)
  }))

// -----------------------------------------------------------------------------
// the command
// -----------------------------------------------------------------------------

const command = Command.make(
  "test:faults",
  {
    minutes: Flag.Finite("minutes").pipe(Flag.withDefault(5), Flag.withDescription("How long the faults go on")),
    seed: Flag.Int("seed").pipe(
      Flag.withDescription("Decides which faults come when; a run prints its own"),
      Flag.optional
    ),
    processes: Flag.Int("processes").pipe(Flag.withDefault(8), Flag.withDescription("How many processes contend")),
    etcd: Flag.String("etcd").pipe(
      Flag.withDescription(
        "The etcd to run, instead of the one on the PATH: a file, or a release such as 3.6, which .ci/etcd gets; several for an upgrade"
      ),
      Flag.atLeast(0)
    ),
    upgrade: Flag.Boolean("upgrade").pipe(
      Flag.withDefault(false),
      Flag.withDescription(`Upgrade the members in service, one by one, through ${Releases.supported.join(", ")}`)
    ),
    contenders: Flag.Literals("contenders", Roster.kinds).pipe(
      Flag.withDescription("Who contends; may be given several times"),
      Flag.atLeast(0)
    ),
    recipes: Flag.Literals("recipes", recipes).pipe(
      Flag.withDescription("Only what this library locks by this recipe; may be given several times"),
      Flag.atLeast(0)
    ),
    faults: Flag.Literals("faults", faultGroups).pipe(
      Flag.withDescription("Only faults of this kind; may be given several times"),
      Flag.atLeast(0)
    ),
    proxies: Flag.Boolean("proxies").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Have every other process go through gRPC proxies of etcd, one in front of each member")
    ),
    tokens: Flag.Literals("tokens", ["none", "simple", "jwt"]).pipe(
      Flag.withDefault("none"),
      Flag.withDescription("Have etcd demand tokens that expire after five seconds")
    ),
    table: Flag.Boolean("table").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Measure how long after the former holder the next one begins, beside all peers")
    ),
    rounds: Flag.Int("rounds").pipe(Flag.withDefault(5), Flag.withDescription("How often, for the table")),
    report: Flag.Boolean("report").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Write the results into test/fault/report, not into .cache/fault")
    )
  },
  Effect.fnUntraced(function*(flags) {
    const etcds = flags.etcd.length === 0 && flags.upgrade ? Releases.supported : flags.etcd
    const [first, ...later] = yield* Effect.forEach(etcds, Releases.find)
    if (first !== undefined) process.env.ETCD_BINARY = first.binary
    const some = flags.contenders.length > 0 ? flags.contenders : undefined
    const choice: Choice = {
      ...flags,
      upgrade: flags.upgrade ? later : undefined,
      seed: Option.getOrElse(flags.seed, () => Math.floor(Math.random() * 2 ** 31)),
      contenders: some ?? (flags.table ? Roster.kinds : ["ours"]),
      recipes: flags.recipes.length > 0 ? flags.recipes : recipes,
      faults: flags.faults.length > 0 ? flags.faults : faultGroups
    }
    yield* flags.table ? table(flags.rounds, choice) : random(choice)
  })
).pipe(
  Command.withDescription(
    "Lets faults loose on three members of etcd while processes contend for locks, and checks what came of it"
  ),
  Command.withExamples([
    { command: "npm run test:faults -- --minutes 60 --seed 7", description: "An hour" },
    {
      command: "npm run test:faults -- --recipes readWriteLock --recipes semaphore",
      description: "Without mutexes"
    },
    { command: "npm run test:faults -- --upgrade", description: "A rolling upgrade in service" },
    {
      command: "npm run test:faults -- --etcd 3.6 --faults membership",
      description: "Members that come and go on 3.6"
    },
    {
      command: "npm run test:faults -- --etcd 3.7 --faults restores",
      description: "Backups that are restored in service"
    },
    { command: "npm run test:faults -- --contenders ours --contenders go", description: "Beside Go's mutex" },
    { command: "npm run test:faults -- --table", description: "The table of docs/guarantees.md, into .cache/fault" }
  ])
)

const failed = ({ message }: { readonly message: string }) =>
  Effect.andThen(
    Console.error(message),
    Effect.sync(() => {
      process.exitCode = 1
    })
  )

command.pipe(
  Command.run({ version: commit() }),
  Effect.catchTags({
    Violated: failed,
    EtcdNotFound: failed,
    ToolMissing: failed,
    ContenderFailed: failed,
    CallFailed: failed
  }),
  Effect.provide(Layer.merge(NodeServices.layer, CliConfig.layer({ builtIns: [GlobalFlag.Help] }))),
  NodeRuntime.runMain
)
