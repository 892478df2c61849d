import { Redacted } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
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

/** Whether certificates can be made while a test runs. */
export const canIssue = spawnSync("openssl", ["version"]).status === 0

const config = (directory: string) => `
[req]
distinguished_name = name
[name]
[ca]
default_ca = signer
[signer]
database = ${directory}/index
new_certs_dir = ${directory}
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth, clientAuth
[client]
extendedKeyUsage = clientAuth
`

/** An authority of a test's own. `issue` writes a certificate and its key in place of those that have these paths. */
export const authority = (directory: string, name: string) => {
  const own = Path.join(directory, name)
  Fs.mkdirSync(own)
  Fs.writeFileSync(Path.join(own, "config"), config(own))
  Fs.writeFileSync(Path.join(own, "index"), "")
  const openssl = (...args: ReadonlyArray<string>) => execFileSync("openssl", args, { cwd: own, stdio: "pipe" })
  const certificate = (section: string, seconds: number, ...signer: ReadonlyArray<string>) => {
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
    openssl("req", "-new", "-config", "config", "-key", "key.pem", "-subj", `/CN=${name} ${section}`, "-out", "csr")
    const time = (millis: number) => new Date(millis).toISOString().replace(/[-:T]|\.\d+/g, "")
    const [start, end] = [Date.now() - 60_000, Date.now() + seconds * 1000].map(time) as [string, string]
    const dates = ["-startdate", start, "-enddate", end]
    const files = ["-config", "config", "-in", "csr", "-out", "cert.pem"]
    openssl("ca", "-batch", "-notext", "-extensions", section, ...files, ...signer, ...dates)
  }
  certificate("authority", 3600, "-selfsign", "-keyfile", "key.pem")
  Fs.renameSync(Path.join(own, "key.pem"), Path.join(own, "ca-key.pem"))
  Fs.renameSync(Path.join(own, "cert.pem"), Path.join(own, "ca.pem"))
  return {
    ca: Path.join(own, "ca.pem"),
    issue: (section: "server" | "client", paths: { readonly cert: string; readonly key: string }, seconds = 3600) => {
      certificate(section, seconds, "-cert", "ca.pem", "-keyfile", "ca-key.pem")
      Fs.renameSync(Path.join(own, "cert.pem"), paths.cert)
      Fs.renameSync(Path.join(own, "key.pem"), paths.key)
    }
  }
}
