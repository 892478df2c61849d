import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import {
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError
} from "./packages.ts"
import { isUnreadable } from "./secrets.ts"

/** Types what the client rejected with. */
export const toEtcdError = (method: string, cause: unknown): EtcdError => {
  const text = cause instanceof Error ? cause.message : String(cause)
  const [, code, details] = /^(\d+) [A-Z_]+: ([^]*)$/.exec(text) ?? [undefined, undefined, text]
  const { reason, description, outcome } = classify(cause, code === undefined ? undefined : Number(code), details!)
  return new EtcdError({ reason, method, outcome: outcome ?? "Refused", description, cause })
}

interface Classified {
  readonly reason: EtcdErrorReason
  readonly description: string
  readonly outcome?: "Unknown"
}

// The client has classes for what etcd says, but only for unary calls: streams and cancelled watches report it as text.
const classify = (cause: unknown, code: number | undefined, details: string): Classified => {
  const says = (text: string) => details.includes(text)
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
  // These come from etcd itself, before it proposes anything.
  if (/etcdserver: (no leader|not capable|unhealthy cluster)/.test(details)) {
    return { reason: "Unavailable", description: details }
  }
  return { reason: "Unavailable", description: details, outcome: "Unknown" }
}

const wrongScheme = {
  http: "etcd speaks TLS here; write the host with https://",
  https: "etcd does not speak TLS here; write the host with http:// and leave out `tls`"
}

/** Whether the connection was closed in a way that the wrong scheme may explain. */
export const mayBeScheme = (error: EtcdError): boolean => error.description === closedAtOnce

export const isScheme = (wrong: "http" | "https", { cause, method }: EtcdError): EtcdError =>
  new EtcdError({ reason: "Tls", method, outcome: "Refused", description: wrongScheme[wrong], cause })

/** Names the host where nothing else in the message does. */
export const at = (host: string, error: EtcdError): EtcdError => {
  const { cause, description, method, outcome, reason } = error
  return [closedAtOnce, noReason, notInTime, neverSent].includes(description)
    ? new EtcdError({ reason, method, outcome, description: `${description} (${host})`, cause })
    : error
}
