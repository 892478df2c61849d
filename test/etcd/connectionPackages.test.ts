import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as Fs from "node:fs"
import { createRequire } from "node:module"
import { afterEach, vi } from "vitest"
import { defectOf } from "../support/exits.ts"

const require = createRequire(import.meta.url)
const pool = require("etcd3/lib/connection-pool.js")
const manifest = JSON.parse(Fs.readFileSync(require.resolve("../../package.json"), "utf8"))

const undo: Array<() => void> = []
afterEach(() => {
  vi.restoreAllMocks()
  for (const back of undo.splice(0)) back()
})

const replace = (prototype: Record<string, unknown>, method: string) => {
  const original = prototype[method]
  undo.push(() => {
    prototype[method] = original
  })
  prototype[method] = undefined
}

const build = Effect.exit(Effect.scoped(Layer.build(Layer.fresh(Etcd.layer({ hosts: "127.0.0.1:1" })))))

describe("a client of another version", () => {
  const changes: ReadonlyArray<readonly [string, () => unknown]> = [
    ["etcd3's hosts", () => replace(pool.Host.prototype, "getServiceClient")],
    ["etcd3's pool", () => replace(pool.ConnectionPool.prototype, "markFailed")],
    ["etcd3's authenticator", () => vi.spyOn(pool.ConnectionPool.prototype, "buildAuthentication").mockReturnValue({})]
  ]
  for (const [what, change] of changes) {
    it.effect(`is refused when the layer is built, where ${what} is not what is needed`, () =>
      Effect.gen(function*() {
        yield* build
        change()
        const { message } = defectOf(yield* build) as Error
        const { "@grpc/grpc-js": grpc, etcd3 } = manifest.dependencies
        assert.include(
          message,
          `effect-etcd-lock works with etcd3 ${etcd3} and @grpc/grpc-js ${grpc}, and found etcd3 1.1.`
        )
        assert.include(message, `in which it misses ${what}. Install versions that work.`)
      }))
  }
})
