import { Redacted } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"

const pem = (name: string): string => Path.join(import.meta.dirname, "tls", `${name}.pem`)

/** Paths of the test certificates: for `EtcdServer.start({ tls: server })` and its clients. */
export const ca = pem("ca")

/** Signed by `ca` for localhost and 127.0.0.1. */
export const server = { ca, cert: pem("server"), key: pem("server-key") }

/** Signed by `ca`. */
export const client = { ca, cert: pem("client"), key: pem("client-key") }

/** Signed by `ca`, for use by servers alone. */
export const noClient = { ca, cert: pem("no-client"), key: pem("no-client-key") }

/** Signed by `ca`, as `server` is, and over. */
export const expiredServer = { ca, cert: pem("expired-server"), key: pem("expired-server-key") }

/** Has signed `foreignClient` and none of the others. */
export const foreignCa = pem("foreign-ca")

export const foreignClient = { ca, cert: pem("foreign-client"), key: pem("foreign-client-key") }

/** Signed by `ca`, and over. */
export const expiredClient = { ca, cert: pem("expired-client"), key: pem("expired-client-key") }

const read = (path: string) => Fs.readFileSync(path, "utf8")

/** What the files hold, as the options want it. */
export const certificates = (of: { readonly ca: string; readonly cert: string; readonly key: string }) => ({
  ca: read(of.ca),
  cert: read(of.cert),
  key: Redacted.make(read(of.key))
})
