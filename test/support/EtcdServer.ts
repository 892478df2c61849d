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
  /** `etcd 3.4.23 (/usr/bin/etcd)` */
  readonly description: string
  /** Stops the server where it stands (SIGSTOP): connections stay open, nothing answers. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Ends the server at once (SIGKILL) and keeps its data. */
  readonly kill: Effect.Effect<void>
  /** Starts a killed server on the same data and port, and waits until it is ready. */
  readonly restart: Effect.Effect<void>
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

/**
 * Starts a cluster of `voters` members, and one more that has only begun to learn from them: it has no vote, and refuses
 * nearly all requests. Containers do not reach each other's loopback, so it is for an etcd on this machine.
 */
export const startWithLearner = (
  voters: number,
  options: Options = {}
): Effect.Effect<
  { readonly voters: ReadonlyArray<EtcdServer>; readonly learner: EtcdServer },
  EtcdNotFound,
  Scope.Scope
> => started((launcher) => launchWithLearner(launcher, voters, options))

const startMembers = (size: number, options: ClusterOptions) =>
  started((launcher) => Effect.map(launch(launcher, size, options), ({ servers }) => servers))

const started = <A>(launch: (launcher: Launcher) => Effect.Effect<A, StartFailed, Scope.Scope>) =>
  Effect.flatMap(find, (launcher) =>
    launch(launcher).pipe(
      // between choosing a free port and listening on it, somebody else may have taken it
      Effect.retry({ times: 3, while: (error) => /already (in use|allocated)/.test(error.message) }),
      Effect.catchTag("StartFailed", Effect.die)
    ))

const launch = Effect.fnUntraced(function*(launcher: Launcher, size: number, options: ClusterOptions) {
  const plans: Array<Plan> = []
  for (let i = 0; i < size; i++) plans.push(yield* planOf(launcher, `etcd-${i}`, options))
  const members = yield* launcher.members(plans)
  const servers = yield* Effect.forEach(members, (member, i) => serve(launcher.what, plans[i]!, member), {
    concurrency: "unbounded"
  })
  return { plans, servers }
})

const launchWithLearner = Effect.fnUntraced(function*(launcher: Launcher, size: number, options: Options) {
  const { plans, servers } = yield* launch(launcher, size, options)
  const args = [...options.args ?? [], "--initial-cluster-state=existing"]
  const plan = yield* planOf(launcher, "learner", { ...options, args })
  yield* addLearner(servers[0]!.endpoint, `http://127.0.0.1:${plan.ports.peer}`)
  const [member] = yield* launcher.members([plan], plans)
  return { voters: servers, learner: yield* serve(launcher.what, plan, member!) }
})

const addLearner = (endpoint: string, peer: string) =>
  Effect.tryPromise(() =>
    fetch(`http://${endpoint}/v3/cluster/member/add`, {
      method: "POST",
      body: JSON.stringify({ peerURLs: [peer], isLearner: true })
    }).then(async (response) => {
      if (!response.ok) throw new Error(await response.text())
    })
  ).pipe(
    // members that have just met do not call themselves healthy yet
    Effect.retry({ times: 100, schedule: Schedule.spaced("100 millis") }),
    Effect.orDie
  )

const planOf = Effect.fnUntraced(function*(launcher: Launcher, name: string, options: ClusterOptions) {
  const [client, peer, metrics] = yield* Effect.all([freePort, freePort, freePort])
  const advertised = launcher.isLocal
    ? yield* options.advertise?.(`127.0.0.1:${peer}`) ?? Effect.undefined
    : undefined
  const plan: Plan = {
    name,
    ports: { client, peer, metrics, advertised },
    tls: options.tls,
    args: options.args ?? [],
    files: options.files ?? [],
    dataDir: options.dataDir
  }
  return plan
})

const serve = (what: string, plan: Plan, member: Member): Effect.Effect<EtcdServer, StartFailed> => {
  const startUntilReady = Effect.andThen(member.start, Effect.raceFirst(untilReady(plan, member), member.died))
  return Effect.map(startUntilReady, (version) => ({
    endpoint: `${member.host}:${plan.ports.client}`,
    description: `etcd ${version} (${what})`,
    pause: member.pause,
    resume: member.resume,
    kill: member.kill,
    restart: Effect.asVoid(Effect.orDie(startUntilReady)),
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
