import { Effect, Redacted, type Scope } from "effect"
import type { Etcd } from "effect-etcd-lock"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert } from "vitest"
import * as EtcdServer from "./EtcdServer.ts"
import { temporaryDirectory } from "./internal/native.ts"

export interface Options extends Pick<EtcdServer.Options, "args" | "files"> {
  /** Each has a role of the same name, which may read and write all keys under the prefix, and nothing else. */
  readonly users: { readonly [name: string]: { readonly password: string; readonly prefix: string } }
  /** Whether it asks for them from the start. Default: true. */
  readonly enabled?: boolean | undefined
}

export interface EtcdWithAuth extends EtcdServer.EtcdServer {
  /** The version that it reports, such as `3.6.16`. */
  readonly version: string
  /** Lets a user's role read and write all keys under one more prefix. */
  readonly allow: (user: string, prefix: string) => Effect.Effect<void>
  /** The reverse. */
  readonly disallow: (user: string, prefix: string) => Effect.Effect<void>
  readonly changePassword: (user: string, password: string) => Effect.Effect<void>
  readonly enable: Effect.Effect<void>
  readonly disable: Effect.Effect<void>
}

export const user = (username: string, password: string): Required<Pick<Etcd.Options, "username" | "password">> => ({
  username,
  password: Redacted.make(password)
})

/** Starts an etcd that asks for a user and a password. Besides the users there is `root`, with the password `root`. */
export const start = Effect.fnUntraced(function*({ args = [], enabled = true, files, users }: Options) {
  const server = yield* EtcdServer.start({ args: ["--bcrypt-cost=4", ...args], files })
  const post = (path: string, body: object, token?: string) =>
    Effect.promise(async () => {
      const response = await fetch(`http://${server.endpoint}/v3/auth/${path}`, {
        method: "POST",
        headers: token === undefined ? {} : { authorization: token },
        body: JSON.stringify(body)
      })
      const text = await response.text()
      assert.isTrue(response.ok, `${path}: ${text}`)
      return JSON.parse(text) as { readonly token?: string }
    })
  const rangeOf = (prefix: string) => {
    const end = `${prefix.slice(0, -1)}${String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)}`
    return { key: btoa(prefix), range_end: btoa(end) }
  }
  const allow = (name: string, prefix: string, token?: string) =>
    post("role/grant", { name, perm: { permType: "READWRITE", ...rangeOf(prefix) } }, token)
  yield* post("user/add", { name: "root", password: "root" })
  yield* post("role/add", { name: "root" })
  yield* post("user/grant", { user: "root", role: "root" })
  for (const [name, { password, prefix }] of Object.entries(users)) {
    yield* post("user/add", { name, password })
    yield* post("role/add", { name })
    yield* allow(name, prefix)
    yield* post("user/grant", { user: name, role: name })
  }
  const enable = Effect.asVoid(post("enable", {}))
  if (enabled) yield* enable
  const asRoot = (use: (token?: string) => Effect.Effect<unknown>) =>
    Effect.flatMap(post("authenticate", { name: "root", password: "root" }), ({ token }) => Effect.asVoid(use(token)))
  const { etcdserver } = yield* Effect.promise(async () => {
    const response = await fetch(`http://${server.endpoint}/version`)
    return await response.json() as { readonly etcdserver: string }
  })
  const withAuth: EtcdWithAuth = {
    ...server,
    version: etcdserver,
    allow: (name, prefix) => asRoot((token) => allow(name, prefix, token)),
    disallow: (role, prefix) => asRoot((token) => post("role/revoke", { role, ...rangeOf(prefix) }, token)),
    changePassword: (name, password) => asRoot((token) => post("user/changepw", { name, password }, token)),
    enable,
    disable: asRoot((token) => post("disable", {}, token))
  }
  return withAuth
})

/** Tokens that carry their own end: etcd knows them after a restart, too. */
export const jwt = (
  seconds: number
): Effect.Effect<Required<Pick<EtcdServer.Options, "args" | "files">>, never, Scope.Scope> =>
  Effect.map(temporaryDirectory(), (directory) => {
    const { privateKey, publicKey } = Crypto.generateKeyPairSync("rsa", {
      modulusLength: 2048,
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
      publicKeyEncoding: { type: "spki", format: "pem" }
    })
    const files = [Path.join(directory, "jwt-public.pem"), Path.join(directory, "jwt-private.pem")] as const
    Fs.writeFileSync(files[0], publicKey)
    Fs.writeFileSync(files[1], privateKey)
    return {
      args: [`--auth-token=jwt,pub-key=${files[0]},priv-key=${files[1]},sign-method=RS256,ttl=${seconds}s`],
      files
    }
  })
