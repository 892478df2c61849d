/**
 * Three members of etcd as processes of this machine, with a proxy in front of everything: for each client and member,
 * and for each pair of members.
 */
import { Data, type Duration, Effect, Schedule, type Scope } from "effect"
import * as Path from "node:path"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as FrozenDisk from "../support/FrozenDisk.ts"
import { temporaryDirectory } from "../support/internal/native.ts"
import * as Proxy from "../support/Proxy.ts"
import * as PeerSwitch from "./peerSwitch.ts"

export class CallFailed extends Data.TaggedError("CallFailed")<{ readonly message: string }> {}

export interface Member extends EtcdServer.EtcdServer {
  readonly index: number
  /** In decimal, as etcd's JSON has it; another one after it was replaced. */
  id: string
}

export interface Cluster {
  /** `etcd 3.4.23`, or `etcd 3.5.33, then 3.6.16` once a member was upgraded. */
  readonly description: () => string
  readonly members: ReadonlyArray<Member>
  /** A fourth one, which is no member until it is added: clients know its address from the beginning. */
  readonly spare: Member | undefined
  /** A way of a client's own to each member, and to the spare one. */
  readonly client: (way?: Way) => Effect.Effect<ReadonlyArray<Proxy.Proxy>, never, Scope.Scope>
  /** The two ways between two members; none where they run in containers. */
  readonly between: (one: Member, other: Member) => Effect.Effect<ReadonlyArray<Proxy.Proxy>>
  /** Asks a member, past all proxies, by etcd's JSON gateway. */
  readonly ask: (member: Member, path: string, body: object) => Effect.Effect<any, CallFailed>
  /** Asks one member after the other until one answers. */
  readonly askAny: (path: string, body: object) => Effect.Effect<any, CallFailed>
  /** The leader, as most of the members see it. */
  readonly leader: Effect.Effect<Member | undefined>
  /** Waits until all members agree on a leader and serve. */
  readonly healthy: Effect.Effect<void>
  /** Takes a member out of the cluster, with its data. */
  readonly remove: (member: Member) => Effect.Effect<void>
  /** Adds it again, without any. */
  readonly add: (member: Member) => Effect.Effect<void>
  /** Adds it without a vote. */
  readonly addLearner: (member: Member) => Effect.Effect<void>
  /** Gives a learner a vote, as soon as it has caught up. */
  readonly promote: (member: Member) => Effect.Effect<void>
  /** Has a member go on as another etcd, on its data. */
  readonly upgrade: (member: Member, binary: string) => Effect.Effect<void>
  /** Waits until the cluster speaks the version of its members: only then may they become the next minor one. */
  readonly upgraded: Effect.Effect<void>
  /** Undefined where there are no tools for that. */
  readonly backup: Backup | undefined
  /** The first member's, which can hang; undefined where this machine has none. */
  readonly disk: FrozenDisk.FrozenDisk | undefined
}

export interface Way {
  /** The address of this machine at which it begins. */
  readonly address?: string | undefined
  /** Whether it leads through etcd's gRPC proxies, where there are some, and not to the spare member. */
  readonly isProxied?: boolean | undefined
}

export interface Backup {
  /** Whether revisions can leap at a restore. */
  readonly canLeap: boolean
  /** Has in it what etcd has acknowledged until now. */
  readonly save: Effect.Effect<void>
  /** Restores what was saved last beside the data of all members, which serve on. */
  readonly prepare: (leaps: boolean) => Effect.Effect<void>
  /** Starts all members on what was prepared. They were killed before: none of them may meet one that serves the past. */
  readonly adopt: Effect.Effect<void>
}

/** A member as etcd lists it. */
interface Listed {
  readonly ID: string
  readonly peerURLs: ReadonlyArray<string>
  readonly isLearner?: boolean
}

export interface Options {
  /** Whether there is a spare member. */
  readonly spare?: boolean | undefined
  /** Whether there is a gRPC proxy of etcd's in front of each member, for those clients that go through it. */
  readonly proxies?: boolean | undefined
  /** Whether the first member has a disk that can hang, where this machine can have one. */
  readonly disk?: boolean | undefined
  readonly args?: ReadonlyArray<string> | undefined
  readonly files?: ReadonlyArray<string> | undefined
  /** Gets a token, where there is authentication, which is turned on with `enable`. */
  readonly token?: ((member: EtcdServer.EtcdServer) => Effect.Effect<string, CallFailed>) | undefined
  readonly enable?: ((member: EtcdServer.EtcdServer) => Effect.Effect<void, CallFailed>) | undefined
  /** How etcdctl signs in, where there is authentication. */
  readonly ctl?: ReadonlyArray<string> | undefined
}

const size = 3

export const start = Effect.fnUntraced(function*(options: Options = {}) {
  const switches: Array<PeerSwitch.PeerSwitch> = []
  const disk = options.disk === true && FrozenDisk.isAvailable() ? yield* FrozenDisk.start : undefined
  const servers = yield* EtcdServer.startCluster(size, {
    args: options.args,
    files: options.files,
    firstDataDir: disk?.directory,
    spares: options.spare === true ? 1 : 0,
    advertise: (peer) =>
      Effect.map(PeerSwitch.make(peer), (made) => {
        switches.push(made)
        return made.port
      })
  })
  // A member whose disk hangs cannot be killed.
  if (disk !== undefined) yield* Effect.addFinalizer(() => disk.thaw)
  // Those of an attempt that failed come first.
  const ways = switches.slice(-servers.length)

  let isAuthenticated = false
  const askServer = (server: EtcdServer.EtcdServer, path: string, body: object): Effect.Effect<any, CallFailed> =>
    Effect.gen(function*() {
      const token = isAuthenticated ? yield* options.token?.(server) ?? Effect.undefined : undefined
      return yield* post(server.endpoint, path, body, token)
    })
  const idOf = (server: EtcdServer.EtcdServer): Effect.Effect<string, CallFailed> =>
    Effect.map(askServer(server, "maintenance/status", {}), ({ header }) => header.member_id)
  const members = yield* Effect.forEach(
    servers.slice(0, size),
    (server, index) => Effect.map(idOf(server), (id): Member => ({ ...server, index, id }))
  )
  const spare: Member | undefined = servers[size] && { ...servers[size], index: size, id: "" }
  const versions = new Set(members.map(({ description }) => /^etcd (\S+)/.exec(description)![1]!))

  const ask: Cluster["ask"] = askServer
  const askAny: Cluster["askAny"] = (path, body) =>
    Effect.retry(Effect.firstSuccessOf(members.map((member) => ask(member, path, body))), {
      times: 3,
      schedule: Schedule.spaced("500 millis")
    })

  // Undefined where a member does not answer, or knows of no leader.
  const leaders = Effect.forEach(
    members,
    (member) =>
      Effect.match(ask(member, "maintenance/status", {}), {
        onSuccess: ({ leader }) => members.find(({ id }) => id === leader),
        onFailure: () => undefined
      }),
    { concurrency: "unbounded" }
  )
  const leader = Effect.map(
    leaders,
    (seen) => members.find((member) => seen.filter((one) => one === member).length > members.length / 2)
  )
  const agreed = Effect.map(
    leaders,
    ([first, ...others]) => first !== undefined && others.every((one) => one === first)
  )
  const read = Effect.forEach(members, (member) => ask(member, "kv/range", { key: btoa("health") }))
  const healthy = Effect.filterOrFail(agreed, (agreed) => agreed).pipe(
    Effect.andThen(read),
    Effect.retry(Schedule.spaced("100 millis")),
    within("60 seconds", "the cluster has not recovered within 60 s")
  )

  // A change looks first whether an earlier attempt has made it, without an answer.
  const listed = (isIt: (member: Listed) => boolean): Effect.Effect<Listed | undefined, CallFailed> =>
    Effect.map(askAny("cluster/member/list", {}), ({ members }) => (members as ReadonlyArray<Listed>).find(isIt))
  const join = (member: Member, isLearner: boolean): Effect.Effect<void> => {
    const url = `http://127.0.0.1:${ways[member.index]!.port}`
    const added = Effect.gen(function*() {
      const known = yield* listed(({ peerURLs }) => peerURLs.includes(url))
      member.id = known?.ID ?? (yield* askAny("cluster/member/add", { peerURLs: [url], isLearner })).member.ID
    })
    return Effect.andThen(persistently(added), member.restart)
  }
  const change = (member: Member, path: string, isDue: (known: Listed | undefined) => boolean): Effect.Effect<void> =>
    persistently(Effect.gen(function*() {
      const known = yield* listed(({ ID }) => ID === member.id)
      if (isDue(known)) yield* askAny(path, { ID: member.id })
    }))

  const proxies = options.proxies === true ? yield* Effect.forEach(members, ({ proxy }) => proxy) : []
  const file = Path.join(yield* temporaryDirectory(), "snapshot.db")
  const backups = members.flatMap(({ backup }) => backup ?? [])
  const backup: Backup | undefined = backups.length < size ? undefined : {
    canLeap: !members.some(({ description }) => description.startsWith("etcd 3.4.")),
    // A member that answers this has all that was acknowledged before.
    save: Effect.andThen(
      persistently(ask(members[0]!, "kv/range", { key: btoa("backup") })),
      backups[0]!.save(file, ...options.ctl ?? [])
    ),
    prepare: (leaps) => {
      const flags = leaps ? ["--bump-revision=1000000000", "--mark-compacted"] : []
      return Effect.forEach(backups, ({ prepare }) => prepare(file, ...flags), { concurrency: size, discard: true })
    },
    adopt: Effect.gen(function*() {
      yield* Effect.forEach(backups, ({ adopt }) => adopt, { concurrency: size, discard: true })
      // One that has taken another's place has that one's ID again.
      for (const member of members) member.id = yield* persistently(idOf(member))
    })
  }

  const cluster: Cluster = {
    description: () => `etcd ${[...versions].join(", then ")}`,
    members,
    spare,
    client: ({ address, isProxied } = {}) =>
      Effect.forEach(
        isProxied === true && proxies.length > 0 ? proxies : servers.map(({ endpoint }) => endpoint),
        (endpoint) => Proxy.make(endpoint, { address, isGrpc: true })
      ),
    between: (one, other) =>
      ways.length === 0
        ? Effect.succeed([])
        : Effect.all([ways[other.index]!.from(hex(one.id)), ways[one.index]!.from(hex(other.id))]),
    ask,
    askAny,
    leader,
    healthy,
    remove: (member) =>
      Effect.andThen(change(member, "cluster/member/remove", (known) => known !== undefined), member.wipe),
    add: (member) => join(member, false),
    addLearner: (member) => join(member, true),
    promote: (member) => change(member, "cluster/member/promote", (known) => known?.isLearner === true),
    upgrade: (member, binary) => Effect.map(member.upgrade(binary), (version) => void versions.add(version)),
    upgraded: Effect.forEach(members, ({ endpoint }) => versionsOf(endpoint)).pipe(
      Effect.filterOrFail((some) => some.every(({ cluster, server }) => cluster === server)),
      Effect.retry(Schedule.spaced("100 millis")),
      within("60 seconds", "the cluster does not speak the version of its members after 60 s")
    ),
    backup,
    disk
  }
  yield* healthy
  if (options.enable !== undefined) {
    yield* options.enable(members[0]!)
    isAuthenticated = true
  }
  return cluster
})

export const post = (endpoint: string, path: string, body: object, token?: string): Effect.Effect<any, CallFailed> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`http://${endpoint}/v3/${path}`, {
        method: "POST",
        headers: token === undefined ? {} : { authorization: token },
        body: JSON.stringify(body),
        signal
      })
      const text = await response.text()
      if (!response.ok) throw new Error(text)
      return JSON.parse(text)
    },
    catch: (error) => new CallFailed({ message: `${path}: ${error instanceof Error ? error.message : String(error)}` })
  }).pipe(
    Effect.timeoutOrElse({
      duration: "3 seconds",
      orElse: () => Effect.fail(new CallFailed({ message: `${path}: no answer within 3 s` }))
    })
  )

/** The minor versions that a member has, and that it speaks with the others. */
const versionsOf = (endpoint: string) =>
  Effect.map(
    Effect.tryPromise((signal) =>
      fetch(`http://${endpoint}/version`, { signal }).then((response) =>
        response.json() as Promise<{ readonly etcdserver: string; readonly etcdcluster: string }>
      )
    ),
    ({ etcdcluster, etcdserver }) => ({ cluster: minorOf(etcdcluster), server: minorOf(etcdserver) })
  )

const minorOf = (version: string): string => version.split(".").slice(0, 2).join(".")

const within = (duration: Duration.Input, otherwise: string) => <A, E>(effect: Effect.Effect<A, E>) =>
  effect.pipe(
    Effect.timeoutOrElse({ duration, orElse: () => Effect.die(new Error(otherwise)) }),
    Effect.asVoid,
    Effect.orDie
  )

/** A cluster that has just changed may refuse to change again. */
const persistently = <A>(effect: Effect.Effect<A, CallFailed>): Effect.Effect<A> =>
  Effect.orDie(Effect.retry(effect, { times: 20, schedule: Schedule.spaced("500 millis") }))

const hex = (id: string) => BigInt(id).toString(16)
