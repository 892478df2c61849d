import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Options } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import * as Background from "../background.ts"
import { attemptTimeout } from "../etcd/retry.ts"
import * as Log from "../log.ts"
import type * as Check from "../options.ts"
import { Client } from "./client.ts"
import { Credentials } from "./credentials.ts"
import {
  at,
  isCertificates,
  isScheme,
  isTokenOutOfDate,
  isUserMissing,
  isWithoutReason,
  mayBeScheme,
  otherCluster
} from "./errors.ts"
import { normalize } from "./hosts.ts"
import { aboutCertificates, denied, named, type Subject } from "./plainer.ts"
import { speaksPlain, speaksTls } from "./probe.ts"
import { certificates, type Reading, type User, user as userOf } from "./secrets.ts"

/**
 * The cluster's members. All calls go to one of them until it fails, then to
 * the next: etcd3 by itself picks a random one for each call, which would meet a
 * dead member again and again.
 */
export interface Members {
  readonly current: () => Client
  /** Moves on to the next member, unless another call did already. A member that only refused its token gets another. */
  readonly failed: (member: Client, error: EtcdError) => void
  /** Returns what is wrong with a member that names another cluster than those before it, if anything is. */
  readonly checkCluster: (member: Client, clusterId: bigint, method: string) => EtcdError | undefined
  /** Takes note of an answer. After a move, it shows that another member does better than the one before. */
  readonly succeeded: (member: Client) => void
  /**
   * Calls the listener, until the scope closes, when calls have moved on from a member and are answered elsewhere: its streams
   * may stay open and be silent for ever.
   */
  readonly onMove: (member: Client, listener: () => void) => Effect.Effect<void, never, Scope.Scope>
  /** Whether a request was refused for its token, or for having none, so that another token may help. */
  readonly isTokenRefused: (error: EtcdError) => boolean
  /**
   * Fails with the error, or with a plainer one where the options, the subject of the request or a probe of the
   * member's host explain it.
   */
  readonly explain: (member: Client, subject?: Subject) => (error: EtcdError) => Effect.Effect<never, EtcdError>
}

export const make = Effect.fnUntraced(function*(
  options: Options,
  requestTimeout: number,
  naming: Check.Naming | undefined
) {
  const background = yield* Background.make
  const scope = yield* Effect.scope
  const reading = { background, isClosed: () => scope.state._tag === "Closed", timeout: requestTimeout }
  const { members, user } = yield* Effect.acquireRelease(
    Effect.sync(() => connect(options, reading)),
    ({ members }) => Effect.sync(() => members.forEach(({ client }) => client.close()))
  )
  let index = 0
  let hasMoved = false
  let cluster: bigint | undefined
  /** The members that have named another cluster since one has named the known one. */
  const strangers = new Set<Client>()
  const listeners = new Set<{ readonly member: Client; readonly listener: () => void }>()
  const isTokenRefused = (error: EtcdError) => isTokenOutOfDate(error) || (user !== undefined && isUserMissing(error))
  return {
    current: () => members[index]!.client,
    isTokenRefused,
    failed: (member, error) => {
      if (isTokenRefused(error)) return member.renewToken()
      // The others would refuse the password as well, and each check of one costs them dear.
      if (error.reason === "Unauthenticated") return
      if (members[index]!.client !== member || members.length === 1) return
      index = (index + 1) % members.length
      hasMoved = true
    },
    checkCluster: (member, clusterId, method) => {
      // A proxy may leave it out, and what is no etcd has none.
      if (clusterId === 0n) return undefined
      if (clusterId !== cluster) strangers.add(member)
      // When all of them name another, the cluster has been replaced.
      if (cluster === undefined || clusterId === cluster || strangers.size === members.length) {
        cluster = clusterId
        strangers.clear()
        return undefined
      }
      return otherCluster(method, members.find(({ client }) => client === member)!.address, clusterId, cluster)
    },
    succeeded: (member) => {
      if (!hasMoved || members[index]!.client !== member) return
      hasMoved = false
      for (const moving of listeners) if (moving.member !== member) moving.listener()
    },
    onMove: (member, listener) => {
      const moving = { member, listener }
      return Effect.acquireRelease(
        Effect.sync(() => listeners.add(moving)),
        () => Effect.sync(() => listeners.delete(moving))
      )
    },
    explain: (member, subject) => (error) => {
      const { address, credentials } = members.find(({ client }) => client === member)!
      const fail = (error: EtcdError) => Effect.fail(naming === undefined ? error : named(error, naming))
      const certified = (error: EtcdError) =>
        isWithoutReason(error) && credentials?.failure !== undefined
          ? isCertificates(credentials.failure, error)
          : aboutCertificates(error, options.tls === undefined ? undefined : credentials?.used)
      const plainer = denied(certified(error), user?.username, subject)
      const known = fail(at(address, plainer))
      if (!mayBeScheme(error)) return known
      return credentials === undefined
        ? Effect.flatMap(speaksTls(address), (yes) => yes ? fail(isScheme("http", error)) : known)
        : Effect.flatMap(speaksPlain(address), (yes) => yes ? fail(certified(isScheme("https", error))) : known)
    }
  } as Members
})

/**
 * Makes an attempt of at most `timeout` milliseconds. When etcd refuses it for its token, `failed` has let the member
 * fetch another, so the rest of the time is for an attempt with that one.
 */
export const withFreshToken = <A, R>(
  members: Members,
  timeout: number,
  attempt: (timeout: number) => Effect.Effect<A, EtcdError, R>
): Effect.Effect<A, EtcdError, R> =>
  Clock.clockWith((clock) => {
    const started = clock.monotonicTimeNanosUnsafe()
    return Effect.catchIf(
      attempt(timeout),
      members.isTokenRefused,
      () => attempt(Math.max(0, timeout - Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6))
    )
  })

interface Member {
  readonly client: Client
  /** `host:port` */
  readonly address: string
  /** Undefined where it is spoken to without TLS. */
  readonly credentials: Credentials | undefined
}

const connect = (
  options: Options,
  reading: Reading
): { readonly members: ReadonlyArray<Member>; readonly user: User | undefined } => {
  const hosts = normalize(options.hosts)
  const readCertificates = certificates(options, hosts.some((host) => host.startsWith("https://")), reading)
  const user = userOf(options, reading)
  // Channels with equal options share their connection across clients, and a shared one is not replaced
  // when it silently dies. A user agent of our own keeps them apart.
  const userAgent = `effect-etcd-lock/${crypto.randomUUID()}`
  let isWarned = false
  const onNoUser = () => {
    if (isWarned) return
    isWarned = true
    reading.background(Log.warning(
      `This etcd has no authentication enabled, so user ${JSON.stringify(user?.username)} is not used until it has.`
    ))
  }
  const members = hosts.map((host) => {
    const address = host.replace("https://", "")
    const credentials = readCertificates && new Credentials(readCertificates)
    const client = new Client({
      address,
      grpcOptions: {
        "grpc.primary_user_agent": userAgent,
        // Etcd closes connections that ping more often than every 5 seconds.
        "grpc.keepalive_time_ms": 5500,
        "grpc.keepalive_timeout_ms": 2500,
        // Retries are decided in the service. The buffer that gRPC keeps for its own costs 10 % of each call.
        "grpc.enable_retries": 0,
        // A proxy of the environment is for the web, and would get connections to the loopback, too.
        "grpc.enable_http_proxy": 0
      },
      credentials,
      user,
      timeout: attemptTimeout(reading.timeout),
      onNoUser
    })
    return { client, address, credentials }
  })
  return { members, user }
}
