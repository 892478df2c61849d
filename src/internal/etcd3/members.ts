import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { IOptions } from "etcd3"
import * as Crypto from "node:crypto"
import * as Tls from "node:tls"
import type { Options } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import * as Check from "../options.ts"
import { Client } from "./client.ts"
import { at, isScheme, isTokenOutOfDate, mayBeScheme } from "./errors.ts"
import { normalize } from "./hosts.ts"
import { noop } from "./packages.ts"
import { aboutCertificates, denied, named, type Subject } from "./plainer.ts"
import { speaksPlain, speaksTls } from "./probe.ts"

/**
 * The cluster's members. All calls go to one of them until it fails, then to
 * the next: etcd3 by itself picks a random one for each call, which would meet a
 * dead member again and again.
 */
export interface Members {
  readonly current: () => Client
  /** Moves on to the next member, unless another call did already. A member that only refused its token gets another. */
  readonly failed: (member: Client, error: EtcdError) => void
  /**
   * Fails with the error, or with a plainer one where the options, the subject of the request or a probe of the
   * member's host explain it.
   */
  readonly explain: (member: Client, subject?: Subject) => (error: EtcdError) => Effect.Effect<never, EtcdError>
}

export const make = Effect.fnUntraced(function*(options: Options, timeout: number, naming: Check.Naming | undefined) {
  const members = yield* Effect.acquireRelease(
    Effect.sync(() => connect(options, timeout)),
    (members) => Effect.sync(() => members.forEach(({ client }) => client.close()))
  )
  let index = 0
  return {
    current: () => members[index]!.client,
    failed: (member, error) => {
      if (isTokenOutOfDate(error)) member.renewToken()
      else if (members[index]!.client === member) index = (index + 1) % members.length
    },
    explain: (member, subject) => (error) => {
      const { address, secure } = members.find(({ client }) => client === member)!
      const fail = (error: EtcdError) => Effect.fail(naming === undefined ? error : named(error, naming))
      const plainer = denied(aboutCertificates(error, options.tls), options.auth?.username, subject)
      const known = fail(at(address, plainer))
      if (!mayBeScheme(error)) return known
      return secure
        ? Effect.flatMap(
          speaksPlain(address),
          (yes) => yes ? fail(aboutCertificates(isScheme("https", error), options.tls)) : known
        )
        : Effect.flatMap(speaksTls(address), (yes) => yes ? fail(isScheme("http", error)) : known)
    }
  } as Members
})

/**
 * Makes an attempt of at most `timeout` milliseconds. When etcd refuses it for its token, `failed` has let the member
 * fetch another, so the rest of the time is for an attempt with that one.
 */
export const withFreshToken = <A, R>(
  timeout: number,
  attempt: (timeout: number) => Effect.Effect<A, EtcdError, R>
): Effect.Effect<A, EtcdError, R> =>
  Clock.clockWith((clock) => {
    const started = clock.monotonicTimeNanosUnsafe()
    return Effect.catchIf(
      attempt(timeout),
      isTokenOutOfDate,
      () => attempt(Math.max(0, timeout - Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6))
    )
  })

interface Member {
  readonly client: Client
  /** `host:port` */
  readonly address: string
  readonly secure: boolean
}

const connect = (options: Options, timeout: number): ReadonlyArray<Member> => {
  const hosts = normalize(options.hosts)
  const credentials = tlsCredentials(options)
  const auth = credentialsOf(options)
  // Channels with equal options share their connection across clients, and a shared one is not replaced
  // when it silently dies. A user agent of our own keeps them apart.
  const userAgent = `effect-etcd-lock/${crypto.randomUUID()}`
  const deadline = () => ({ deadline: Date.now() + timeout })
  return hosts.map((host) => {
    const settings: IOptions = {
      hosts: host,
      // The defaults repeat transactions that may have been applied, and break the circuit for calls that
      // have nothing to do with each other.
      faultHandling: { global: noop, host: () => noop },
      grpcOptions: {
        "grpc.primary_user_agent": userAgent,
        // Etcd closes connections that ping more often than every 5 seconds.
        "grpc.keepalive_time_ms": 5500,
        "grpc.keepalive_timeout_ms": 2500,
        // Retries are decided in the service. The buffer that gRPC keeps for its own costs 10 % of each call.
        "grpc.enable_retries": 0
      },
      ...(credentials === undefined ? undefined : { credentials }),
      // Without a deadline a member that hangs would block the token, and with it all calls, for ever.
      ...(auth === undefined ? undefined : { auth: { ...auth, callOptions: deadline } })
    }
    const address = host.replace("https://", "")
    return { client: new Client(settings), address, secure: credentials !== undefined || address !== host }
  })
}

const invalid = (problem: Omit<Check.Problem, "module">) => new Check.InvalidOption({ module: "Etcd", ...problem })

const credentialsOf = ({ auth }: Options): { readonly username: string; readonly password: string } | undefined => {
  if (auth === undefined) return undefined
  Check.object("Etcd", "auth", auth, "{ username: \"ann\", password: Redacted.make(password) }")
  const username: unknown = auth.username
  if (typeof username !== "string" || username === "") {
    throw invalid({
      option: "auth.username",
      // Some users write the password into it.
      problem: (name) => `${name("auth.username")} must be a user's name, got ${Check.kindOf(username)}`,
      cure: () => "Write it as \"ann\"."
    })
  }
  return { username, password: Check.secret("Etcd", "auth.password", auth.password) }
}

const tlsCredentials = ({ hosts, tls }: Options): IOptions["credentials"] => {
  if (tls === undefined) return undefined
  Check.object("Etcd", "tls", tls, "{ ca }")
  const plain = (typeof hosts === "string" ? [hosts] : hosts).find((host) => /^\s*http:\/\//i.test(host))
  if (plain !== undefined) {
    throw invalid({
      option: "tls",
      problem: (name) => `${name("tls")} is set, but host ${Check.show(plain)} of ${name("hosts")} says http://`,
      cure: () => "Write it with https://."
    })
  }
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    const [given, missing] = tls.cert === undefined ? ["key", "cert"] : ["cert", "key"]
    throw invalid({
      option: `tls.${given}`,
      problem: (name) => `${name(`tls.${given}`)} is set without ${name(`tls.${missing}`)}`,
      cure: () => "A client certificate needs both."
    })
  }
  const pem = (option: string, text: unknown, kind: string): Buffer => {
    if (typeof text !== "string") {
      throw invalid({
        option,
        problem: (name) => `${name(option)} must be PEM text, got ${Check.kindOf(text)}`,
        cure: () => "Read its file as \"utf8\"."
      })
    }
    if (!/-----BEGIN [A-Z ]+-----/.test(text)) {
      throw invalid({
        option,
        problem: (name) => `${name(option)} is not PEM text ("-----BEGIN ${kind}-----")`,
        cure: () => "Pass the file's content, not its path."
      })
    }
    return Buffer.from(text)
  }
  // The client takes a broken authority for none, and does not say which part of the others is wrong.
  const readable = (option: string, read: () => unknown) => {
    try {
      read()
    } catch (cause) {
      throw invalid({
        option,
        problem: (name) => `${name(option)} cannot be used: ${(cause as Error).message}`,
        cause
      })
    }
  }
  const ca = tls.ca === undefined ? undefined : pem("tls.ca", tls.ca, "CERTIFICATE")
  if (ca !== undefined) readable("tls.ca", () => new Crypto.X509Certificate(ca))
  // Null means the authorities that Node trusts by itself; the client's type does not say so.
  const rootCertificate = ca ?? null as unknown as Buffer
  if (tls.cert === undefined || tls.key === undefined) return { rootCertificate }
  const certChain = pem("tls.cert", tls.cert, "CERTIFICATE")
  const privateKey = pem("tls.key", Check.secret("Etcd", "tls.key", tls.key), "PRIVATE KEY")
  readable("tls.cert", () => new Crypto.X509Certificate(certChain))
  readable("tls.key", () => Tls.createSecureContext({ cert: certChain, key: privateKey }))
  return { rootCertificate, certChain, privateKey }
}
