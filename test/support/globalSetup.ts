import { Effect, Exit, Scope } from "effect"
import type { TestProject } from "vitest/node"
import * as EtcdServer from "./EtcdServer.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** `host:port` of the etcd that all tests of a project share. */
    readonly etcdEndpoint: string
  }
}

const shared = Effect.suspend(() => {
  const [given = ""] = (process.env.ETCD_ENDPOINTS ?? "").split(",")
  const endpoint = given.trim().replace(/^http:\/\//, "")
  return endpoint === ""
    ? EtcdServer.start()
    : Effect.succeed({ endpoint, description: `etcd at ${endpoint} (ETCD_ENDPOINTS)` })
})

export default async (project: TestProject): Promise<() => Promise<void>> => {
  const scope = Scope.makeUnsafe()
  // without a stack: the sentence says it all
  const etcd = Effect.mapError(shared, ({ message }) => Object.assign(new Error(message), { stack: message }))
  const { description, endpoint } = await Effect.runPromise(Scope.provide(etcd, scope))
  process.stdout.write(`Tests of ${project.name} run on ${description}\n`)
  project.provide("etcdEndpoint", endpoint)
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
