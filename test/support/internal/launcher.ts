import { Data, type Effect, type Scope } from "effect"

export class EtcdNotFound extends Data.TaggedError("EtcdNotFound")<{ readonly message: string }> {}

export class StartFailed extends Data.TaggedError("StartFailed")<{ readonly message: string }> {}

/** Paths of PEM files. */
export interface Tls {
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly clientCertAuth?: boolean | undefined
}

export interface Plan {
  readonly name: string
  readonly ports: {
    readonly client: number
    readonly peer: number
    readonly metrics: number
    /** Where the other members are to reach it, if that is not `peer`. */
    readonly advertised?: number | undefined
  }
  readonly tls: Tls | undefined
  /** They may name `files`. */
  readonly args: ReadonlyArray<string>
  /** Paths of what etcd reads besides, each with a name of its own. */
  readonly files: ReadonlyArray<string>
  readonly dataDir: string | undefined
  /** Whether it joins the others later, once these have added it. */
  readonly isSpare: boolean
}

/** One etcd that can be started more than once on the same data. */
export interface Member {
  readonly host: string
  readonly start: Effect.Effect<void, StartFailed>
  /** Fails when the started etcd ends by itself. */
  readonly died: Effect.Effect<never, StartFailed>
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  /** Kills it and removes its data: it starts again as a new member, once the others have added it. A container cannot. */
  readonly wipe?: Effect.Effect<void> | undefined
  /** Saves a snapshot of what it has to a file, restores one beside its data, and has it start on that. A container cannot. */
  readonly backup?: {
    readonly save: (file: string, ...flags: ReadonlyArray<string>) => Effect.Effect<void>
    readonly prepare: (file: string, ...flags: ReadonlyArray<string>) => Effect.Effect<void>
    readonly adopt: Effect.Effect<void>
  } | undefined
  /** Ends it by SIGTERM, and has it start as another etcd on the same data from now on. A container cannot. */
  readonly upgrade?: ((binary: string) => Effect.Effect<void>) | undefined
}

/** A way to run etcd on this machine. */
export interface Launcher {
  /** What it runs: a path, or an image. */
  readonly what: string
  /** Whether its members reach the loopback of this machine. */
  readonly isLocal: boolean
  readonly members: (plans: ReadonlyArray<Plan>) => Effect.Effect<ReadonlyArray<Member>, StartFailed, Scope.Scope>
  /** Starts etcd's gRPC proxy in front of a member's endpoint, and answers its own. A container cannot. */
  readonly proxy?: ((endpoint: string) => Effect.Effect<string, StartFailed, Scope.Scope>) | undefined
}

/** Where an etcd lives, as its command line has to say it. */
export interface Place {
  readonly listen: string
  readonly peerHost: (plan: Plan) => string
  readonly dataDir: string
  readonly file: (path: string) => string
}

export const commandLine = (plan: Plan, all: ReadonlyArray<Plan>, place: Place): Array<string> => {
  const { client, metrics, peer } = plan.ports
  const scheme = plan.tls === undefined ? "http" : "https"
  // A member that joins has to name those that are there, and itself, and no others.
  const known = all.filter((other) => other === plan || !other.isSpare)
  const peerUrl = (plan: Plan) => `http://${place.peerHost(plan)}:${plan.ports.advertised ?? plan.ports.peer}`
  const tls = plan.tls === undefined ? [] : [
    `--cert-file=${place.file(plan.tls.cert)}`,
    `--key-file=${place.file(plan.tls.key)}`,
    // With an authority alone etcd would ask for a client's certificate, too.
    ...plan.tls.clientCertAuth === true ? ["--client-cert-auth", `--trusted-ca-file=${place.file(plan.tls.ca)}`] : []
  ]
  return [
    `--name=${plan.name}`,
    `--data-dir=${place.dataDir}`,
    `--listen-client-urls=${scheme}://${place.listen}:${client}`,
    `--advertise-client-urls=${scheme}://127.0.0.1:${client}`,
    `--listen-peer-urls=http://${place.listen}:${peer}`,
    `--initial-advertise-peer-urls=${peerUrl(plan)}`,
    `--initial-cluster=${known.map((plan) => `${plan.name}=${peerUrl(plan)}`).join(",")}`,
    ...plan.isSpare ? ["--initial-cluster-state=existing"] : [],
    `--listen-metrics-urls=http://${place.listen}:${metrics}`,
    ...tls,
    ...plan.args.map((arg) => plan.files.reduce((arg, path) => arg.replaceAll(path, place.file(path)), arg))
  ]
}
