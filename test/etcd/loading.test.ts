/** What is loaded, and when. In a process of its own, which sees every module that it loads. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../..")

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
  const { Config, Effect, FileSystem, Layer } = await import("effect")
  const { Etcd, Lock, Session } = await import("effect-etcd-lock")
  const seen = {}
  const look = (name) => {
    seen[name] = [...loaded].sort()
  }
  look("imported")
  const session = Session.layer().pipe(Layer.provide(Etcd.layerMemory()))
  await Effect.runPromise(Effect.provide(Lock.withLock(Effect.void, "job"), session))
  look("in memory")
  const build = (layer) => Effect.runPromise(Effect.scoped(Layer.build(layer)))
  await build(Etcd.layer({ hosts: "127.0.0.1:1" }))
  look("real")
  await build(Etcd.layerConfig({ hosts: Config.succeed("127.0.0.1:1") }))
  await build(Etcd.layerEtcdctl().pipe(Layer.provide(FileSystem.layerNoop({}))))
  look("from variables")
  console.log(JSON.stringify(seen))
`

describe("etcd3 and gRPC", () => {
  it("are loaded when the layer of a real etcd is built, and not before", () => {
    const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
    const seen = JSON.parse(execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" }))
    assert.deepStrictEqual(seen, {
      imported: [],
      "in memory": [],
      real: ["@grpc/grpc-js", "etcd3", "protobufjs"],
      "from variables": ["@grpc/grpc-js", "etcd3", "protobufjs"]
    })
  })
})

/** The packages that the sources import. */
const imports = Fs.readdirSync(Path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .flatMap((file) => {
    // Examples are in comments.
    const code = Fs.readFileSync(Path.join(root, "src", file), "utf8").replace(/\/\*\*.*?\*\//gs, "")
    return [...code.matchAll(/(?:\bfrom |\bimport |\bimport\(|\bresolve\()"((?:@[^/"]+\/)?[^./"][^/"]*)/g)]
      .map(([, name]) => ({ file, name: name! }))
      .filter(({ name }) => !name.startsWith("node:"))
  })

const isOfCommand = ({ file }: { readonly file: string }) => file === "bin.ts" || file.startsWith("cli/")
describe("Effect Cluster", () => {
  it("is loaded with the storage for it, and not with the package", () => {
    const program = `
      import { registerHooks } from "node:module"
      let loaded = 0
      registerHooks({
        load: (url, context, next) => {
          if (url.includes("/effect/dist/cluster/")) loaded++
          return next(url, context)
        }
      })
      await import("effect-etcd-lock")
      const before = loaded
      await import("effect-etcd-lock/EtcdRunnerStorage")
      console.log(JSON.stringify({ before, after: loaded > 0 }))
    `
    const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
    const seen = JSON.parse(execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" }))
    assert.deepStrictEqual(seen, { before: 0, after: true })
  })
})

describe("what the sources import", () => {
  it("is Node's own, or what is installed with the package", () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = JSON.parse(
      Fs.readFileSync(Path.join(root, "package.json"), "utf8")
    )
    const installed = new Set([
      ...Object.keys(dependencies),
      ...Object.keys(peerDependencies).filter((name) => peerDependenciesMeta[name]?.optional !== true)
    ])
    assert.isTrue(imports.some(({ name }) => name === "@grpc/grpc-js"))
    assert.deepStrictEqual(imports.filter((found) => !isOfCommand(found) && !installed.has(found.name)), [])
  })

  it("is what a user can import, in the command", () => {
    const found = new Set(imports.filter(isOfCommand).map(({ name }) => name))
    assert.sameMembers([...found], ["effect", "@effect/platform-node", "effect-etcd-lock"])
  })
})
