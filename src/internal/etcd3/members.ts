import { noop } from "cockatiel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { Etcd3, type IOptions } from "etcd3"
import type { Options } from "../../Etcd.ts"
import { normalize } from "./hosts.ts"

/**
 * The cluster's members. All calls go to one of them until it fails, then to
 * the next: etcd3 by itself picks a random one for each call, which would meet a
 * dead member again and again.
 */
export interface Members {
  readonly current: () => Etcd3
  /** Moves on to the next member, unless somebody did already. */
  readonly failed: (member: Etcd3) => void
}

export const make = Effect.fnUntraced(function*(options: Options, timeout: number) {
  const members = yield* Effect.acquireRelease(
    Effect.sync(() => connect(options, timeout)),
    (members) => Effect.sync(() => members.forEach((member) => member.close()))
  )
  let index = 0
  return {
    current: () => members[index]!,
    failed: (member) => {
      if (members[index] === member) index = (index + 1) % members.length
    }
  } as Members
})

const connect = (options: Options, timeout: number): ReadonlyArray<Etcd3> => {
  const hosts = normalize(options.hosts)
  const credentials = tlsCredentials(options)
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
        // etcd closes connections that ping more often than every 5 seconds
        "grpc.keepalive_time_ms": 5500,
        "grpc.keepalive_timeout_ms": 2500
      },
      ...(credentials === undefined ? undefined : { credentials }),
      ...(options.auth === undefined ? undefined : {
        auth: {
          username: options.auth.username,
          password: Redacted.value(options.auth.password),
          // without it a member that hangs would block the token, and with it all calls, for ever
          callOptions: deadline
        }
      })
    }
    return new Etcd3(settings)
  })
}

const tlsCredentials = ({ hosts, tls }: Options): IOptions["credentials"] => {
  if (tls === undefined) return undefined
  const plain = (typeof hosts === "string" ? [hosts] : hosts).find((host) => /^\s*http:\/\//i.test(host))
  if (plain !== undefined) {
    throw new RangeError(
      `Etcd: \`tls\` is set, but host ${JSON.stringify(plain)} says http://. Write it with https://.`
    )
  }
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    const [given, missing] = tls.cert === undefined ? ["key", "cert"] : ["cert", "key"]
    throw new RangeError(`Etcd: \`tls.${given}\` is set without \`tls.${missing}\`. A client certificate needs both.`)
  }
  const pem = (option: string, text: string, kind: string): Buffer => {
    if (!text.includes(`-----BEGIN ${kind}`) && !(kind === "" && text.includes("-----BEGIN"))) {
      throw new RangeError(
        `Etcd: \`tls.${option}\` is not PEM text ("-----BEGIN ${
          kind || "PRIVATE KEY"
        }-----"). Pass the file's content, not its path.`
      )
    }
    return Buffer.from(text)
  }
  return {
    // null means the system's authorities; the client's type does not say so
    rootCertificate: tls.ca === undefined ? null as unknown as Buffer : pem("ca", tls.ca, "CERTIFICATE"),
    ...(tls.cert === undefined || tls.key === undefined ? undefined : {
      certChain: pem("cert", tls.cert, "CERTIFICATE"),
      privateKey: pem("key", Redacted.value(tls.key), "")
    })
  }
}
