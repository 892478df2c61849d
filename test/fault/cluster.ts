/**
 * Three members of etcd as processes of this machine, with a proxy in front of everything: for each client and member,
 * and for each pair of members.
 */
import { Data, Effect, Schedule, type Scope } from "effect"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Proxy from "../support/Proxy.ts"
import * as PeerSwitch from "./peerSwitch.ts"

export class CallFailed extends Data.TaggedError("CallFailed")<{ readonly message: string }> {}

export interface Member extends EtcdServer.EtcdServer {
  readonly index: number
  /** In decimal, as etcd's JSON has it; another one after it was replaced. */
  id: string
}

export interface Cluster {
  readonly description: string
  readonly members: ReadonlyArray<Member>
  /** A way of a client's own to each member. */
  readonly client: Effect.Effect<ReadonlyArray<Proxy.Proxy>, never, Scope.Scope>
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
}

export interface Options {
  readonly args?: ReadonlyArray<string> | undefined
  readonly files?: ReadonlyArray<string> | undefined
  /** Gets a token, where there is authentication, which is turned on with `enable`. */
  readonly token?: ((member: EtcdServer.EtcdServer) => Effect.Effect<string, CallFailed>) | undefined
  readonly enable?: ((member: EtcdServer.EtcdServer) => Effect.Effect<void, CallFailed>) | undefined
}

export const start = Effect.fnUntraced(function*(options: Options = {}) {
  const switches: Array<PeerSwitch.PeerSwitch> = []
  const servers = yield* EtcdServer.startCluster(3, {
    args: options.args,
    files: options.files,
    advertise: (peer) =>
      Effect.map(PeerSwitch.make(peer), (made) => {
        switches.push(made)
        return made.port
      })
  })
  // Those of an attempt that failed come first.
  const ways = switches.slice(-servers.length)

  let isAuthenticated = false
  const askServer = (server: EtcdServer.EtcdServer, path: string, body: object): Effect.Effect<any, CallFailed> =>
    Effect.gen(function*() {
      const token = isAuthenticated ? yield* options.token?.(server) ?? Effect.undefined : undefined
      return yield* post(server.endpoint, path, body, token)
    })
  const members = yield* Effect.forEach(servers, (server, index) =>
    Effect.map(
      askServer(server, "maintenance/status", {}),
      ({ header }): Member => ({ ...server, index, id: header.member_id })
    ))

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
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => Effect.die(new Error("the cluster has not recovered within 60 s"))
    }),
    Effect.asVoid,
    Effect.orDie
  )

  const cluster: Cluster = {
    description: members[0]!.description,
    members,
    client: Effect.forEach(members, ({ endpoint }) => Proxy.make(endpoint)),
    between: (one, other) =>
      ways.length === 0
        ? Effect.succeed([])
        : Effect.all([ways[other.index]!.from(hex(one.id)), ways[one.index]!.from(hex(other.id))]),
    ask,
    askAny,
    leader,
    healthy,
    remove: (member) =>
      Effect.andThen(
        persistently(askAny("cluster/member/remove", { ID: member.id })),
        member.wipe
      ),
    add: (member) =>
      persistently(askAny("cluster/member/add", { peerURLs: [`http://127.0.0.1:${ways[member.index]!.port}`] })).pipe(
        Effect.tap(({ member: { ID } }) =>
          Effect.sync(() => {
            member.id = ID
          })
        ),
        Effect.andThen(member.restart)
      )
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

/** A cluster that has just changed may refuse to change again. */
const persistently = <A>(effect: Effect.Effect<A, CallFailed>): Effect.Effect<A> =>
  Effect.orDie(Effect.retry(effect, { times: 20, schedule: Schedule.spaced("500 millis") }))

const hex = (id: string) => BigInt(id).toString(16)
