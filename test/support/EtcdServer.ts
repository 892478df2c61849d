import { Effect, Schedule, type Scope } from "effect"
import * as Container from "./internal/container.ts"
import { EtcdNotFound, type Launcher, type Member, type Plan, StartFailed, type Tls } from "./internal/launcher.ts"
import * as NativeEtcd from "./internal/native.ts"
import * as Package from "./internal/package.ts"
import { freePort } from "./internal/ports.ts"

export { EtcdNotFound } from "./internal/launcher.ts"

export interface EtcdServer {
  /** `127.0.0.1:23791` */
  readonly endpoint: string
  /** `etcd 3.4.23 (/usr/bin/etcd)`, as it was started first */
  readonly description: string
  /** Stops the server where it stands (SIGSTOP): connections stay open, nothing answers. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Ends the server at once (SIGKILL) and keeps its data. */
  readonly kill: Effect.Effect<void>
  /** Starts a killed server on the same data and port, or a spare one, and waits until it is ready. */
  readonly restart: Effect.Effect<void>
  /** Ends the server as an operator does (SIGTERM), starts another etcd on the same data and port, and tells its version. */
  readonly upgrade: (binary: string) => Effect.Effect<string>
  /**
   * Saves a snapshot, restores one beside the data while the server serves, and starts it again on that instead; undefined
   * where there are no tools for that.
   */
  readonly backup:
    | {
      readonly save: (file: string, ...flags: ReadonlyArray<string>) => Effect.Effect<void>
      readonly prepare: (file: string, ...flags: ReadonlyArray<string>) => Effect.Effect<void>
      readonly adopt: Effect.Effect<void>
    }
    | undefined
  /** Starts etcd's gRPC proxy, of the same version, in front of it, and answers the proxy's endpoint. */
  readonly proxy: Effect.Effect<string, never, Scope.Scope>
  /** Kills the server and removes its data. It starts again as a new member, once the others have added it. */
  readonly wipe: Effect.Effect<void>
}

export interface Options {
  readonly args?: ReadonlyArray<string> | undefined
  /** Paths of the files that `args` name, each with a name of its own. */
  readonly files?: ReadonlyArray<string> | undefined
  /** Where to make the directory of its data; a container keeps its own. Default: in memory where there is room, else the system's temporary directory. */
  readonly dataDir?: string | undefined
  readonly tls?: Tls | undefined
}

export interface ClusterOptions extends Options {
  /** How many servers come after those that are members: `restart` starts one, once the members have added it. */
  readonly spares?: number | undefined
  /** Where to make the directory of the first member's data, where that is not as for the others. */
  readonly firstDataDir?: string | undefined
  /**
   * Makes a way to a member's port for the other members, `127.0.0.1:23791`, and returns the port that they are to use. It
   * is not called where the members run in containers, which do not reach it.
   */
  readonly advertise?: ((peer: string) => Effect.Effect<number, never, Scope.Scope>) | undefined
}

/**
 * Starts a private etcd on free ports with its own data; both are gone when the scope closes.
 */
export const start = (options: Options = {}): Effect.Effect<EtcdServer, EtcdNotFound, Scope.Scope> =>
  Effect.map(startMembers(1, options), ([server]) => server!)

/**
 * Starts a cluster of `size` members on the loopback.
 */
export const startCluster = (
  size: number,
  options: ClusterOptions = {}
): Effect.Effect<ReadonlyArray<EtcdServer>, EtcdNotFound, Scope.Scope> => startMembers(size, options)

const startMembers = (size: number, options: ClusterOptions) =>
  Effect.flatMap(find, (launcher) =>
    launch(launcher, size, options).pipe(
      // between choosing a free port and listening on it, somebody else may have taken it
      Effect.retry({ times: 3, while: (error) => /already (in use|allocated)/.test(error.message) }),
      Effect.catchTag("StartFailed", Effect.die)
    ))

const launch = Effect.fnUntraced(function*(launcher: Launcher, size: number, options: ClusterOptions) {
  const plans: Array<Plan> = []
  for (let i = 0; i < size + (options.spares ?? 0); i++) {
    const [client, peer, metrics] = yield* Effect.all([freePort, freePort, freePort])
    const advertised = launcher.isLocal
      ? yield* options.advertise?.(`127.0.0.1:${peer}`) ?? Effect.undefined
      : undefined
    plans.push({
      name: `etcd-${i}`,
      ports: { client, peer, metrics, advertised },
      tls: options.tls,
      args: options.args ?? [],
      files: options.files ?? [],
      dataDir: i === 0 ? options.firstDataDir ?? options.dataDir : options.dataDir,
      isSpare: i >= size
    })
  }
  const members = yield* launcher.members(plans)
  const servers = yield* Effect.forEach(members, (member, i) => serve(launcher, plans[i]!, member), {
    concurrency: "unbounded"
  })
  return process.env.ETCD_BEHIND === "grpc-proxy" ? yield* Effect.forEach(servers, behindProxy) : servers
})

/** Has clients meet the proxy first; what is done to the server is done to the etcd behind it. */
const behindProxy = (server: EtcdServer): Effect.Effect<EtcdServer, never, Scope.Scope> =>
  Effect.map(server.proxy, (endpoint) => ({
    ...server,
    endpoint,
    description: `${server.description} behind its gRPC proxy`
  }))

const serve = ({ proxy, what }: Launcher, plan: Plan, member: Member): Effect.Effect<EtcdServer, StartFailed> => {
  const startUntilReady = Effect.andThen(member.start, Effect.raceFirst(untilReady(plan, member), member.died))
  const { upgrade } = member
  const endpoint = `${member.host}:${plan.ports.client}`
  return Effect.map(plan.isSpare ? Effect.succeed("to be started") : startUntilReady, (version) => ({
    endpoint,
    description: `etcd ${version} (${what})`,
    pause: member.pause,
    resume: member.resume,
    kill: member.kill,
    restart: Effect.asVoid(Effect.orDie(startUntilReady)),
    upgrade: (binary) =>
      upgrade === undefined
        ? Effect.die(new Error(`${what} cannot become another etcd`))
        : Effect.andThen(upgrade(binary), Effect.orDie(startUntilReady)),
    backup: member.backup && {
      save: member.backup.save,
      prepare: member.backup.prepare,
      adopt: Effect.asVoid(Effect.andThen(member.backup.adopt, Effect.orDie(startUntilReady)))
    },
    proxy: Effect.orDie(proxy?.(endpoint) ?? Effect.die(new Error(`${what} cannot start a gRPC proxy`))),
    wipe: member.wipe ?? Effect.die(new Error(`${what} cannot lose its data`))
  }))
}

// Asks the port of the metrics, which speaks plain HTTP whatever TLS and certificates the clients need. The answer
// `true` means that there is a leader and that a read has passed.
const untilReady = (plan: Plan, member: Member): Effect.Effect<string, StartFailed> => {
  const get = (path: string) =>
    Effect.tryPromise((signal) =>
      fetch(`http://${member.host}:${plan.ports.metrics}/${path}`, { signal }).then((response) => response.text())
    )
  return Effect.gen(function*() {
    const health = yield* get("health")
    if (!health.includes(`"health":"true"`)) {
      return yield* Effect.fail("unhealthy")
    }
    const metrics = yield* get("metrics")
    return /server_version="([^"]+)"/.exec(metrics)?.[1] ?? "of an unknown version"
  }).pipe(
    Effect.timeout("2 seconds"),
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.orDie,
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () =>
        new StartFailed({ message: `etcd on ${member.host}:${plan.ports.client} was not ready within 60 s` })
    })
  )
}

const find: Effect.Effect<Launcher, EtcdNotFound> = Effect.suspend(() => {
  const explicit = process.env.ETCD_BINARY
  if (explicit !== undefined && explicit !== "") {
    return NativeEtcd.fromBinary(explicit)
  }
  switch (process.env.ETCD_FROM ?? "") {
    case "":
      return Effect.firstSuccessOf([NativeEtcd.fromPath, Container.fromDocker, Package.fromPackage, notFound])
    case "path":
      return NativeEtcd.fromPath
    case "docker":
      return Container.fromDocker
    case "package":
      return Package.fromPackage
    default:
      return Effect.fail(
        new EtcdNotFound({ message: `ETCD_FROM is '${process.env.ETCD_FROM}': use path, docker or package` })
      )
  }
})

const notFound = Effect.fail(
  new EtcdNotFound({
    message: "No etcd found: put an etcd on the PATH, start Docker, or set ETCD_BINARY to an etcd binary"
  })
)
