import { Effect } from "effect"
import type { TestProject } from "vitest/node"
import * as Tools from "./tools.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** Whether the tests with Go and etcdctl run. */
    readonly interop: boolean
    /** Whether those with PostgreSQL do. */
    readonly postgres: boolean
    /** Whether those with Prometheus do. */
    readonly prometheus: boolean
  }
}

export default async (project: TestProject): Promise<void> => {
  const { interop, postgres, prometheus } = await Effect.runPromise(Tools.groupsLeftOut)
  if (interop !== undefined) process.stdout.write(`Tests with Go and etcdctl do NOT run. ${interop}\n`)
  if (postgres !== undefined) process.stdout.write(`Tests with PostgreSQL do NOT run. ${postgres}\n`)
  if (prometheus !== undefined) process.stdout.write(`Tests with Prometheus do NOT run. ${prometheus}\n`)
  project.provide("interop", interop === undefined)
  project.provide("postgres", postgres === undefined)
  project.provide("prometheus", prometheus === undefined)
}
