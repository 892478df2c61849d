/** What is loaded, and when. In a process of its own, which sees every module that it loads. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as Path from "node:path"

const program = `
  import { registerHooks } from "node:module"
  const loaded = new Set()
  registerHooks({
    load: (url, context, next) => {
      const found = /node_modules\\/(etcd3|@grpc\\/grpc-js|protobufjs|@effect\\/platform-node)\\//.exec(url)
      if (found) loaded.add(found[1])
      return next(url, context)
    }
  })
  const { Effect, Layer } = await import("effect")
  const { Etcd, Lock, Session } = await import("effect-etcd-lock")
  const seen = {}
  const look = (name) => {
    seen[name] = [...loaded].sort()
  }
  look("imported")
  const session = Session.layer().pipe(Layer.provide(Etcd.layerMemory()))
  await Effect.runPromise(Effect.provide(Lock.withLock(Effect.void, "job"), session))
  look("in memory")
  await Effect.runPromise(Effect.scoped(Layer.build(Etcd.layer({ hosts: "127.0.0.1:1" }))))
  look("real")
  console.log(JSON.stringify(seen))
`

describe("etcd3 and gRPC", () => {
  it("are loaded when the layer of a real etcd is built, and not before", () => {
    const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
    const cwd = Path.resolve(import.meta.dirname, "../..")
    const seen = JSON.parse(execFileSync(process.execPath, args, { cwd, encoding: "utf8" }))
    assert.deepStrictEqual(seen, {
      imported: [],
      "in memory": [],
      real: ["@grpc/grpc-js", "etcd3", "protobufjs"]
    })
  })
})
