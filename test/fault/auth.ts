/**
 * Authentication with tokens that soon expire.
 */
import { Effect, type Scope } from "effect"
import * as Auth from "../support/Auth.ts"
import * as Cluster from "./cluster.ts"

export const root = { username: "root", password: "root" }

export type Tokens = "none" | "simple" | "jwt"

/** In seconds. etcd's own tokens live on for as long as they are used, the others do not. */
const lifetime = 5

/** Makes the cluster demand a user and a password. */
const enable = (server: { readonly endpoint: string }): Effect.Effect<void, Cluster.CallFailed> =>
  Effect.forEach(
    [
      ["auth/user/add", { name: root.username, password: root.password }],
      ["auth/role/add", { name: "root" }],
      ["auth/user/grant", { user: root.username, role: "root" }],
      ["auth/enable", {}]
    ] as const,
    ([path, body]) => Cluster.post(server.endpoint, path, body),
    { discard: true }
  )

/** The options of a cluster that demands them. */
export const options = (tokens: Tokens): Effect.Effect<Cluster.Options, never, Scope.Scope> => {
  if (tokens === "none") return Effect.succeed({})
  const simple = { args: ["--auth-token=simple", `--auth-token-ttl=${lifetime}`], files: [] }
  return Effect.map(tokens === "jwt" ? Auth.jwt(lifetime) : Effect.succeed(simple), ({ args, files }) => ({
    args: ["--bcrypt-cost=4", ...args ?? []],
    files,
    ctl: [`--user=${root.username}:${root.password}`],
    enable,
    token: (server) =>
      Effect.map(
        Cluster.post(server.endpoint, "auth/authenticate", { name: root.username, password: root.password }),
        ({ token }) => token as string
      )
  }))
}
