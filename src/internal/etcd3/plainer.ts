/**
 * What went wrong in a user's own terms, where gRPC, OpenSSL or etcd only have a number or a sentence that fits all
 * requests alike.
 */
import { X509Certificate } from "node:crypto"
import type { Op, Txn } from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import type { Naming } from "../options.ts"
import { isHandshake, isPlainServer, notAllowed } from "./errors.ts"
import type { Pem } from "./secrets.ts"

/** What a request is about. */
export type Subject = Txn | { readonly key: Uint8Array }

const describe = ({ cause, method, outcome, reason }: EtcdError, description: string): EtcdError =>
  new EtcdError({ reason, method, outcome, description, cause })

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

/** Calls the options by the names under which the caller gave them. */
export const named = (error: EtcdError, naming: Naming): EtcdError =>
  describe(
    error,
    error.description.replace(
      /`((?:hosts|username|password|tls|requestTimeout)(?:\.\w+)?)`/g,
      (itself, option: string) => naming(option) === option ? itself : naming(option)
    )
  )

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
  if (first === allKeys) return " on all keys of etcd; name a prefix that they allow, such as \"reports/\""
  const key = JSON.stringify(first)
  return others.length === 0 ? ` on key ${key}` : ` on all keys of the request, the first of which is ${key}`
}

/** How etcd writes the range of all keys: no key of a user's is like it. */
const allKeys = "\0"

const keysOf = (subject: Subject | Op): ReadonlyArray<string> =>
  "key" in subject
    ? [Buffer.from(subject.key).toString()]
    : [subject.compare, subject.then, subject.else].flatMap((part: ReadonlyArray<Subject | Op>) => part.flatMap(keysOf))

// -----------------------------------------------------------------------------
// certificates
// -----------------------------------------------------------------------------

/**
 * Says whether there should be certificates at all, whose certificate the handshake failed for, why, and what to do about
 * it. `used` is what it was made with, where `tls` is set.
 */
export const aboutCertificates = (error: EtcdError, used: Pem | undefined): EtcdError => {
  if (isPlainServer(error)) {
    return used === undefined ? error : describe(error, `${error.description} and leave out \`tls\``)
  }
  if (!isHandshake(error)) return error
  const alert = /SSL alert number (\d+)/.exec(error.description)?.[1]
  const plainer = alert === undefined ? ofEtcd(error.description, used?.ca) : ofOurs(Number(alert), used?.cert)
  return plainer === undefined ? error : describe(error, plainer)
}

/** Why we refused etcd's certificate. */
const ofEtcd = (trouble: string, ca: Buffer | undefined): string | undefined => {
  if (/unable to verify the first certificate|self.signed certificate|unable to get (local )?issuer/.test(trouble)) {
    return `etcd's certificate is not signed by ${unknownTo(ca)}`
  }
  if (trouble.includes("certificate has expired")) {
    return "etcd's certificate, or that of its authority, has expired; renew it"
  }
  if (trouble.includes("certificate is not yet valid")) {
    return "etcd's certificate, or that of its authority, is not valid yet; check the clocks"
  }
  const names = /does not match certificate's altnames: (.*)\)$/.exec(trouble)?.[1]
  return names === undefined
    ? undefined
    : `etcd's certificate is for another host (${names}); use a name in \`hosts\` that it has`
}

const unknownTo = (ca: Buffer | undefined): string => {
  if (ca !== undefined) return "an authority in `tls.ca`; set it to the authority that signed that certificate"
  // gRPC takes this file instead of Node's list.
  const { GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: roots } = process.env
  return roots === undefined || roots === ""
    ? "an authority on Node's own list, which is not that of the system; set `tls.ca` to the authority that signed it, " +
      "or add to the list: the file of an authority by NODE_EXTRA_CA_CERTS, the system's list by NODE_USE_SYSTEM_CA=1"
    : "an authority in the file of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH; set `tls.ca` to the authority that signed it"
}

/** Why etcd refused ours, by the number of its alert: older versions have one for all reasons. */
const ofOurs = (alert: number, cert: Buffer | undefined): string | undefined => {
  if (cert === undefined) {
    return alert === badCertificate || alert === certificateRequired
      ? "etcd wants a client certificate, and got none; set `tls.cert` and `tls.key`"
      : undefined
  }
  const ours = new X509Certificate(cert)
  const { issuer, validFromDate, validToDate } = ours
  const [from, until] = [validFromDate.toISOString(), validToDate.toISOString()]
  const refused = "etcd refused the client certificate in `tls.cert`"
  const signer = `an authority that etcd trusts (by --trusted-ca-file); ${JSON.stringify(issuer.replace(/\n/g, ", "))}`
  switch (alert) {
    case badCertificate:
    case certificateExpired: {
      if (validToDate.getTime() < Date.now()) return `${refused}: it expired on ${until}; renew it`
      if (validFromDate.getTime() > Date.now()) return `${refused}: it is not valid before ${from}; check the clocks`
      if (alert === certificateExpired) {
        return `${refused}: it is out of date by etcd's clock, but valid from ${from} until ${until}; check the clocks`
      }
      return isForClients(ours)
        ? `${refused}: use one for clients, signed by ${signer} signed it`
        : `${refused}: its extended key usage is not for clients; use one with clientAuth`
    }
    case certificateRevoked: {
      return `${refused}: it was revoked; use another`
    }
    case unknownAuthority: {
      return `${refused}: it is not signed by ${signer} signed it`
    }
    default: {
      return undefined
    }
  }
}

const isForClients = (certificate: X509Certificate): boolean => {
  // Without the extension it is for any use, and the type does not say that it may be absent.
  const usages: ReadonlyArray<string> | undefined = certificate.keyUsage
  return usages === undefined || usages.includes(clientAuth) || usages.includes(anyUsage)
}

const clientAuth = "1.3.6.1.5.5.7.3.2"
const anyUsage = "2.5.29.37.0"

const badCertificate = 42
const certificateRevoked = 44
const certificateExpired = 45
const unknownAuthority = 48
const certificateRequired = 116
