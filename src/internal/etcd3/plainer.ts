/**
 * What went wrong in a user's own terms, where gRPC, OpenSSL or etcd only have a number or a sentence that fits all
 * requests alike.
 */
import { X509Certificate } from "node:crypto"
import type { Op, Options, Txn } from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import { isHandshake, notAllowed } from "./errors.ts"

/** What a request is about. */
export type Subject = Txn | { readonly key: Uint8Array }

const describe = ({ cause, method, outcome, reason }: EtcdError, description: string): EtcdError =>
  new EtcdError({ reason, method, outcome, description, cause })

// -----------------------------------------------------------------------------
// permissions
// -----------------------------------------------------------------------------

/** Names the user and the key that a request was denied for, of which etcd says nothing. */
export const denied = (error: EtcdError, user: string | undefined, subject: Subject | undefined): EtcdError => {
  if (error.description !== notAllowed) return error
  const roles = user === undefined ? "the user's roles" : `the roles of user ${JSON.stringify(user)}`
  return describe(error, `${roles} do not allow this${on(subject)}`)
}

const on = (subject: Subject | undefined): string => {
  const [first, ...others] = subject === undefined ? [] : new Set(keysOf(subject))
  if (first === undefined) return ""
  const key = JSON.stringify(first)
  return others.length === 0 ? ` on key ${key}` : ` on all keys of the request, the first of which is ${key}`
}

const keysOf = (subject: Subject | Op): ReadonlyArray<string> =>
  "key" in subject
    ? [Buffer.from(subject.key).toString()]
    : [subject.compare, subject.then, subject.else].flatMap((part: ReadonlyArray<Subject | Op>) => part.flatMap(keysOf))

// -----------------------------------------------------------------------------
// certificates
// -----------------------------------------------------------------------------

/** Says whose certificate the handshake failed for, and why. */
export const aboutCertificates = (error: EtcdError, tls: Options["tls"]): EtcdError => {
  if (!isHandshake(error)) return error
  const alert = /SSL alert number (\d+)/.exec(error.description)?.[1]
  const cure = alert === undefined ? ofEtcd(error.description, tls) : ofOurs(Number(alert), tls?.cert)
  return cure === undefined ? error : describe(error, cure)
}

/** Why we refused etcd's certificate. */
const ofEtcd = (trouble: string, tls: Options["tls"]): string | undefined => {
  if (/unable to verify the first certificate|self.signed certificate|unable to get (local )?issuer/.test(trouble)) {
    return tls?.ca === undefined
      ? "etcd's certificate is not signed by an authority that Node trusts; set `tls.ca`"
      : "etcd's certificate is not signed by `tls.ca`"
  }
  if (trouble.includes("certificate has expired")) return "etcd's certificate, or that of its authority, has expired"
  const names = /does not match certificate's altnames: (.*)\)$/.exec(trouble)?.[1]
  return names === undefined ? undefined : `etcd's certificate is for another host (${names})`
}

/** Why etcd refused ours, by the number of its alert: older versions have one for all reasons. */
const ofOurs = (alert: number, cert: string | undefined): string | undefined => {
  if (cert === undefined) {
    return alert === badCertificate || alert === certificateRequired
      ? "etcd wants a client certificate; set `tls.cert` and `tls.key`"
      : undefined
  }
  const { validFromDate, validToDate } = new X509Certificate(cert)
  const refused = "etcd refused our client certificate"
  switch (alert) {
    case badCertificate:
    case certificateExpired: {
      if (validToDate.getTime() < Date.now()) return `${refused}: expired (on ${validToDate.toISOString()})`
      if (validFromDate.getTime() > Date.now()) {
        return `${refused}: not valid yet (but from ${validFromDate.toISOString()})`
      }
      return alert === certificateExpired
        ? `${refused}: expired, by etcd's clock (its time is until ${validToDate.toISOString()})`
        : `${refused}; an authority that etcd trusts must have signed it, for use by clients`
    }
    case certificateRevoked: {
      return `${refused}: revoked`
    }
    case unknownAuthority: {
      return `${refused}: not signed by an authority that etcd trusts`
    }
    default: {
      return undefined
    }
  }
}

const badCertificate = 42
const certificateRevoked = 44
const certificateExpired = 45
const unknownAuthority = 48
const certificateRequired = 116
