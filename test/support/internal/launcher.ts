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
}

/** A way to run etcd on this machine. */
export interface Launcher {
  /** What it runs: a path, or an image. */
  readonly what: string
  /** Whether its members reach the loopback of this machine. */
  readonly isLocal: boolean
  /** `others` have started before, and are in one cluster with these. Containers know of no others. */
  readonly members: (
    plans: ReadonlyArray<Plan>,
    others?: ReadonlyArray<Plan>
  ) => Effect.Effect<ReadonlyArray<Member>, StartFailed, Scope.Scope>
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
    `--initial-cluster=${all.map((plan) => `${plan.name}=${peerUrl(plan)}`).join(",")}`,
    `--listen-metrics-urls=http://${place.listen}:${metrics}`,
    ...tls,
    ...plan.args.map((arg) => plan.files.reduce((arg, path) => arg.replaceAll(path, place.file(path)), arg))
  ]
}
