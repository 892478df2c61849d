/**
 * Who takes part: this library, the floor, and the peers as far as they are there.
 */
import { Console, Data, Effect, Option } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Tools from "../interop/tools.ts"
import type { Claim } from "./contender.ts"
import { redisVersion } from "./stores.ts"

export const library = "effect-etcd-lock"
export const floor = "raw etcd3"
export const goMutex = "Go Mutex"
export const goRwMutex = "Go RWMutex"
export const goElection = "Go Election"
export const goFloor = "Go put+delete"
export const etcd3Lock = "etcd3 Lock"
export const redlock = "redlock"
export const effectDistributedLock = "effect-distributed-lock"
export const redisSemaphore = "redis-semaphore"

/** What can be taken of those who have more, or something else, than a lock. */
const claims: { readonly [contender: string]: ReadonlyArray<Claim> } = {
  [library]: ["lock", "read", "write", "permit", "several", "nested", "monitored", "election"],
  [goMutex]: ["lock", "several"],
  [goRwMutex]: ["read", "write"],
  [goElection]: ["election"],
  [effectDistributedLock]: ["lock", "permit"],
  [redisSemaphore]: ["permit"]
}

export const has = ({ name }: { readonly name: string }, claim: Claim): boolean =>
  (claims[name] ?? ["lock"]).includes(claim)

export interface Contender {
  readonly name: string
  readonly what: string
  readonly store: "etcd" | "redis"
  readonly command: (endpoint: string) => ReadonlyArray<string>
}

export interface Absent {
  readonly name: string
  readonly why: string
}

export class NotInstalled extends Data.TaggedError("NotInstalled")<{ readonly message: string }> {}

export interface Roster {
  readonly present: ReadonlyArray<Contender>
  readonly absent: ReadonlyArray<Absent>
}

/** Those of the given names, or all; what they need is installed and built below `.cache/bench`. */
export const muster = (names?: ReadonlyArray<string>): Effect.Effect<Roster> =>
  Effect.gen(function*() {
    const present: Array<Contender> = []
    const absent: Array<Absent> = []
    for (const [some, prepare] of sources) {
      const wanted = some.filter((name) => names === undefined || names.includes(name))
      if (wanted.length === 0) continue
      yield* Effect.match(prepare, {
        onSuccess: (contenders) => void present.push(...contenders.filter(({ name }) => wanted.includes(name))),
        onFailure: ({ message }) => void absent.push(...wanted.map((name) => ({ name, why: message })))
      })
    }
    yield* Effect.forEach(absent, ({ name, why }) => Console.log(`Without ${name}: ${why}`))
    return { present, absent }
  })

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const here = import.meta.dirname
const root = Path.resolve(here, "../..")
const cache = Path.join(root, ".cache/bench")

const worker = (file: string) => (endpoint: string) => [
  process.execPath,
  "--expose-gc",
  "--conditions=@effect-etcd-lock/source",
  Path.join(here, "worker.ts"),
  file,
  endpoint
]

const versionOf = (name: string, directory = root): string =>
  JSON.parse(Fs.readFileSync(Path.join(directory, "node_modules", name, "package.json"), "utf8")).version

const own: Effect.Effect<ReadonlyArray<Contender>> = Effect.sync(() => [
  {
    name: library,
    what: `this library, on effect ${versionOf("effect")} and etcd3 ${versionOf("etcd3")}`,
    store: "etcd",
    command: worker(Path.join(here, "contenders/effectEtcdLock.ts"))
  },
  {
    name: floor,
    what: `one put and one delete through the raw client of npm etcd3 ${
      versionOf("etcd3")
    }: the floor, excludes nobody`,
    store: "etcd",
    command: worker(Path.join(here, "contenders/rawEtcd3.ts"))
  },
  {
    name: etcd3Lock,
    what: `Lock of npm etcd3 ${versionOf("etcd3")}, tried again every 10 ms`,
    store: "etcd",
    command: worker(Path.join(here, "contenders/etcd3Lock.ts"))
  }
])

// -----------------------------------------------------------------------------
// Go
// -----------------------------------------------------------------------------

const go: Effect.Effect<ReadonlyArray<Contender>, NotInstalled | Tools.ToolMissing> = Effect.gen(function*() {
  const binary = yield* Tools.goFrom("bench", Path.join(here, "go/main.go"))
  const version = yield* Tools.goClientVersion
  const goVersion = (yield* run("go", ["version", binary], root)).trim().split(" ").at(-1)
  return [
    {
      name: goMutex,
      what: `Mutex of Go's concurrency package, client ${version}, ${goVersion}`,
      store: "etcd",
      command: (endpoint) => [binary, "mutex", endpoint]
    },
    {
      name: goRwMutex,
      what: `RWMutex of Go's recipe package, client ${version}, ${goVersion}`,
      store: "etcd",
      command: (endpoint) => [binary, "rwmutex", endpoint]
    },
    {
      name: goElection,
      what: `Election of Go's concurrency package, client ${version}, ${goVersion}`,
      store: "etcd",
      command: (endpoint) => [binary, "election", endpoint]
    },
    {
      name: goFloor,
      what: `one put and one delete through Go's client ${version}, ${goVersion}`,
      store: "etcd",
      command: (endpoint) => [binary, "raw", endpoint]
    }
  ]
})

// -----------------------------------------------------------------------------
// npm packages that are no dependencies of the project
// -----------------------------------------------------------------------------

const peers: Effect.Effect<ReadonlyArray<Contender>, NotInstalled> = Effect.gen(function*() {
  if (Option.isNone(redisVersion)) {
    return yield* new NotInstalled({
      message: "there is no redis-server: put one on the PATH, or set REDIS_BINARY to it"
    })
  }
  const work = Path.join(cache, "peers")
  Fs.mkdirSync(work, { recursive: true })
  const lock = Fs.readFileSync(Path.join(here, "peers/package-lock.json"), "utf8")
  const stamp = Path.join(work, "installed")
  const isInstalled = Fs.existsSync(stamp) && Fs.readFileSync(stamp, "utf8") === lock
  // so that what they import is found there, and not in the project
  Fs.cpSync(Path.join(here, "peers"), work, { recursive: true })
  if (!isInstalled) {
    yield* run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
    Fs.writeFileSync(stamp, lock)
  }
  const version = (name: string) => `${name} ${versionOf(name, work)}`
  const redis = `Redis ${redisVersion.value} (appendfsync always)`
  return [
    {
      name: redlock,
      what: `npm ${version("redlock")} with ${version("ioredis")} on one ${redis}`,
      store: "redis",
      command: worker(Path.join(work, "redlock.ts"))
    },
    {
      name: effectDistributedLock,
      what: `npm ${version("effect-distributed-lock")} with ${version("effect")} and ${
        version("ioredis")
      } on one ${redis}`,
      store: "redis",
      command: worker(Path.join(work, "effectDistributedLock.ts"))
    },
    {
      name: redisSemaphore,
      what: `Semaphore of npm ${version("redis-semaphore")} with ${version("ioredis")} on one ${redis}`,
      store: "redis",
      command: worker(Path.join(work, "redisSemaphore.ts"))
    }
  ]
})

const sources: ReadonlyArray<
  readonly [ReadonlyArray<string>, Effect.Effect<ReadonlyArray<Contender>, NotInstalled | Tools.ToolMissing>]
> = [
  [[library, floor, etcd3Lock], own],
  [[goMutex, goRwMutex, goElection, goFloor], go],
  [[redlock, effectDistributedLock, redisSemaphore], peers]
]

const run = (
  command: string,
  args: ReadonlyArray<string>,
  cwd: string,
  environment?: Readonly<Record<string, string>>
): Effect.Effect<string, NotInstalled> =>
  Effect.callback((resume) => {
    execFile(command, args, { cwd, env: { ...process.env, ...environment } }, (error, stdout, stderr) => {
      const why = stderr.trim().split("\n").at(-1) || error?.message
      resume(error === null ? Effect.succeed(stdout.trim()) : new NotInstalled({ message: `${command}: ${why}` }))
    })
  })
