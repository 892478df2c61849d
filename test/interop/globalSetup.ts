import { Effect } from "effect"
import type { TestProject } from "vitest/node"
import * as Tools from "./tools.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** Whether the tests with Go and etcdctl run. */
    readonly interop: boolean
  }
}

export default async (project: TestProject): Promise<void> => {
  const missing = await Effect.runPromise(Tools.leftOut)
  if (missing !== undefined) process.stdout.write(`Tests with Go and etcdctl do NOT run. ${missing}\n`)
  project.provide("interop", missing === undefined)
}
