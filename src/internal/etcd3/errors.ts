import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import {
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError
} from "./packages.ts"
import type { Header } from "./rpc.ts"
import { isUnreadable } from "./secrets.ts"

/** Types what the client rejected with. */
export const toEtcdError = (method: string, cause: unknown): EtcdError => {
  const text = cause instanceof Error ? cause.message : String(cause)
  const [, code, details] = /^(\d+) [A-Z_]+: ([^]*)$/.exec(text) ?? [undefined, undefined, text]
  const { reason, description, outcome } = classify(cause, codeOf(code, details!), details!)
  return new EtcdError({ reason, method, outcome: outcome ?? "Refused", description, cause })
}

/** Etcd's gRPC proxy passes on what etcd says without etcd's code. */
const codeOf = (code: string | undefined, details: string): number | undefined =>
  code === "2" && details.startsWith("etcdserver: ")
    ? codes.find(([, texts]) => texts.test(details))?.[0] ?? 2
    : code === undefined
    ? undefined
    : Number(code)

const codes: ReadonlyArray<readonly [code: number, texts: RegExp]> = [
  [3, /key is not provided|too many operations in txn|duplicate key given in txn|request is too large/],
  [8, /database space exceeded|too many requests/],
  [9, /lease already exists/],
  [11, /too large lease TTL|required revision/]
]

interface Classified {
  readonly reason: EtcdErrorReason
  readonly description: string
  readonly outcome?: "Unknown" | undefined
}

// The client has classes for what etcd says, but only for unary calls: streams and cancelled watches report it as text.
const classify = (cause: unknown, code: number | undefined, details: string): Classified => {
  const says = (text: string) => details.includes(text)
  const status = /^Received HTTP status code (\d+)/.exec(details)?.[1]
  if (status !== undefined) return answeredBy(status)
  if (kineOnly.test(details)) return { reason: "Internal", description: kine }
  if (refusedByMember.test(details)) return { reason: "Unavailable", description: details }
  if (cause instanceof EtcdLeaseInvalidError || says("requested lease not found")) {
    return { reason: "LeaseNotFound", description: "the lease has expired or was revoked" }
  }
  if (cause instanceof EtcdAuthenticationFailedError || says("authentication failed")) {
    return { reason: "Unauthenticated", description: "wrong user name or password" }
  }
  if (cause instanceof EtcdPermissionDeniedError || says("permission denied")) {
    return { reason: "PermissionDenied", description: notAllowed }
  }
  // A token ends with its time, with a restart of etcd, or with a change of users and roles. Another may help.
  if (
    cause instanceof EtcdInvalidAuthTokenError || says("invalid auth token") || says("revision of auth store is old")
  ) {
    return { reason: "Unavailable", description: tokenOutOfDate }
  }
  if (says("user name is empty")) {
    return { reason: "Unauthenticated", description: userMissing }
  }
  if (isUnreadable("password", details)) return { reason: "Unauthenticated", description: details }
  switch (code) {
    case 3: {
      if (says(tooManyOperations)) {
        return { reason: "InvalidArgument", description: `${details}; allow it more by --max-txn-ops` }
      }
      if (says(tooLarge)) {
        return { reason: "InvalidArgument", description: `${details}; allow it more by --max-request-bytes` }
      }
      return { reason: "InvalidArgument", description: details }
    }
    case 4: {
      return /waiting for/i.test(details) && !details.includes("previous attempts")
        ? { reason: "Timeout", description: notInTime }
        : { reason: "Timeout", description: "no answer in time", outcome: "Unknown" }
    }
    case 7: {
      return { reason: "PermissionDenied", description: details }
    }
    case 16: {
      return { reason: "Unauthenticated", description: details }
    }
    case 8: {
      if (details.includes("database space exceeded")) {
        return {
          reason: "NoSpace",
          description: "etcd's database is full; compact and defragment it, then disarm the alarm",
          // etcd says the same of the requests that it was about to apply when the database became full: those it has
          // applied.
          outcome: "Unknown"
        }
      }
      if (details.includes("too many requests")) return { reason: "TooManyRequests", description: details }
      // Only gRPC's own client writes it with a capital letter. etcd has responded, so it has applied the request.
      const answer = /^Received message larger than max \((\d+) vs (\d+)\)/.exec(details)
      if (answer !== null) {
        return {
          reason: "InvalidArgument",
          description: `etcd's answer was too large to receive (${answer[1]} bytes, where ${answer[2]} are the most)` +
            "; read fewer keys, or set a `limit`",
          outcome: "Unknown"
        }
      }
      if (says("grpc: received message larger than max")) return { reason: "InvalidArgument", description: details }
      // A server that may not send its response has applied the request, too.
      if (says("larger than max")) return { reason: "InvalidArgument", description: details, outcome: "Unknown" }
      return { reason: "Unavailable", description: details, outcome: "Unknown" }
    }
    case 9: {
      return { reason: details.includes("lease already exists") ? "LeaseExists" : "Internal", description: details }
    }
    case 11:
    case 12: {
      return { reason: "InvalidArgument", description: details }
    }
    case 14: {
      return unavailable(details)
    }
    // Cancelled, unknown, aborted, internal: the connection or the member went away in the middle.
    case 1:
    case 2:
    case 10:
    case 13: {
      return { reason: "Unavailable", description: details, outcome: "Unknown" }
    }
    default: {
      return { reason: "Internal", description: details, outcome: "Unknown" }
    }
  }
}

/**
 * What etcd says before it proposes anything, because this member cannot, and another may. The codes of these differ
 * between versions.
 */
const refusedByMember =
  /etcdserver: (no leader|not leader|not capable|unhealthy cluster|rpc not supported for learner)|^not a primary lessor$/

// -----------------------------------------------------------------------------
// what is not etcd
// -----------------------------------------------------------------------------

const notEtcd = "this is not etcd"
const noHttp2 = `${notEtcd}: it does not speak HTTP/2, as antietcd, for example, does not`
const kine = "this is kine (k3s), not etcd: it has no lease renewal"

/** What kine says to requests that it does not know, which are most of those that a lock needs. */
const kineOnly =
  /is not implemented by kine|unsupported (operations in txn|options in watch) request|^lease [a-z ]+ is not supported$/

/** What a web server or a proxy says, of which only some will let etcd speak later. */
const answeredBy = (status: string): Classified => {
  const isPassing = /^(408|429|5..)$/.test(status)
  return {
    reason: isPassing ? "Unavailable" : "Internal",
    description: `${notEtcd}: it answers with HTTP status ${status}`,
    outcome: isPassing ? "Unknown" : undefined
  }
}

/** Whether an answer came from a server that has a part of etcd's interface only: such a one has no cluster to name. */
export const isForeign = (header: Header | null): boolean =>
  header === null || (header.cluster_id.low === 0 && header.cluster_id.high === 0)

/** Whatever such a server is, it has answered, so it has applied what was to be written. */
export const foreign = (method: string): EtcdError =>
  new EtcdError({
    reason: "Internal",
    method,
    outcome: method === "range" ? "Refused" : "Unknown",
    description: kine
  })

export const otherCluster = (method: string, host: string, named: bigint, known: bigint): EtcdError =>
  new EtcdError({
    reason: "Unavailable",
    method,
    outcome: "Unknown",
    description: `host ${host} is of another cluster, ${named.toString(16)} instead of ${known.toString(16)}; ` +
      "name the members of one cluster, and start this program again if the cluster was replaced"
  })

/** Kine gives every lease its TTL for an ID. */
export const otherLease = (asked: bigint, granted: bigint, seconds: number): EtcdError => {
  const leases = `lease ${asked.toString(16)} was asked for, and lease ${granted.toString(16)} granted`
  const description = granted === BigInt(seconds) ? `${kine} (${leases})` : leases
  return new EtcdError({ reason: "Internal", method: "leaseGrant", outcome: "Unknown", description })
}

/** Whether another member may do better with the same request. */
export const isOfMember = (error: EtcdError): boolean =>
  // A certificate may be wrong on one member alone, and one host may be another server's.
  error.isTransient || error.reason === "Tls" || isNotEtcd(error)

const isNotEtcd = ({ description }: EtcdError): boolean =>
  description.startsWith(notEtcd) || description.startsWith(kine)

// -----------------------------------------------------------------------------
// limits
// -----------------------------------------------------------------------------

const tooManyOperations = "etcdserver: too many operations in txn request"
const tooLarge = "etcdserver: request is too large"

/** The user and the key have to be added to it, since etcd does not name them. */
export const notAllowed = "the user's roles do not allow this"

const tokenOutOfDate = "the authentication token is out of date"

/** Whether the request was refused for the token that it was sent with. */
export const isTokenOutOfDate = (error: EtcdError): boolean => error.description === tokenOutOfDate

const userMissing = "this etcd wants a user name and a password; set `username` and `password`"

/** Whether the request was refused for want of a token. */
export const isUserMissing = (error: EtcdError): boolean => error.description === userMissing

/** What etcd says to those who ask for a token while its authentication is not enabled. */
export const notEnabled = "authentication is not enabled"

const handshakeFailed = "the TLS handshake failed; check the certificate authority and the client certificate"

/** Whether a certificate may be the reason of the failure. */
export const isHandshake = (error: EtcdError): boolean => error.description.startsWith(handshakeFailed)

const tlsTrouble = /certificate|self.signed|altname|SSL|TLS|EPROTO|ERR_OSSL/i
const withoutAWord = /^Failed to connect$|^read ECONNRESET$|socket hang up|before secure TLS connection/
const closedAtOnce = "the connection was closed before etcd said anything"
const noReason = "cannot connect to etcd"
const notInTime = "no connection in time"
const neverSent = "the connection was given up before the request was sent"

const unavailable = (details: string): Classified => {
  const noConnection = /^No connection established\. Last error: ([^]*?)\. Resolution note:/.exec(details)?.[1]
  // The client could not even connect, so nothing was sent.
  if (noConnection !== undefined) {
    const trouble = noConnection.replace(/^Error: /, "").replace(/\s*\(\d{4}-[^)]*Z\)$/, "")
    if (isUnreadable("tls", trouble)) return { reason: "Tls", description: trouble }
    if (trouble === "Protocol error") return { reason: "Internal", description: noHttp2 }
    if (withoutAWord.test(trouble)) return { reason: "Unavailable", description: closedAtOnce }
    if (tlsTrouble.test(trouble)) {
      return {
        reason: "Tls",
        description: /wrong version number|packet length too long|EPROTO/i.test(trouble)
          ? wrongScheme.https
          : `${handshakeFailed} (${trouble})`
      }
    }
    return { reason: "Unavailable", description: trouble === "null" ? noReason : `${noReason} (${trouble})` }
  }
  if (/Name resolution failed|DNS/.test(details)) {
    return { reason: "Unavailable", description: `cannot find the host; check its name (${details})` }
  }
  // The deadline of another call made the client close the channel in which this one waited for a connection.
  if (details === "Channel closed before call started") return { reason: "Unavailable", description: neverSent }
  return { reason: "Unavailable", description: details, outcome: "Unknown" }
}

const wrongScheme = {
  http: "etcd speaks TLS here; write the host with https://",
  https: "etcd does not speak TLS here; write the host with http://"
}

/** Whether the connection was closed in a way that the wrong scheme may explain. */
export const mayBeScheme = (error: EtcdError): boolean => error.description === closedAtOnce

/** Whether TLS was spoken to an etcd that does not speak it. */
export const isPlainServer = (error: EtcdError): boolean => error.description === wrongScheme.https

/** Whether there is no connection, and gRPC does not say why. */
export const isWithoutReason = (error: EtcdError): boolean => error.description === noReason

/** There is no connection because the certificates for it could not be read. */
export const isCertificates = (description: string, { cause, method }: EtcdError): EtcdError =>
  new EtcdError({ reason: "Tls", method, outcome: "Refused", description, cause })

export const isScheme = (wrong: "http" | "https", { cause, method }: EtcdError): EtcdError =>
  new EtcdError({ reason: "Tls", method, outcome: "Refused", description: wrongScheme[wrong], cause })

/** Names the host where nothing else in the message does. */
export const at = (host: string, error: EtcdError): EtcdError => {
  const { cause, description, method, outcome, reason } = error
  return [closedAtOnce, noReason, notInTime, neverSent].includes(description) || isNotEtcd(error)
    ? new EtcdError({ reason, method, outcome, description: `${description} (${host})`, cause })
    : error
}
