import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Esbuild from "esbuild"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { inject } from "vitest"
import { unique } from "../support/connect.ts"
import * as Consumer from "./consumer.ts"

/** A project in which the archive is installed. */
class Project extends Context.Service<Project, {
  readonly directory: string
  /** What npm printed when it installed the archive. */
  readonly printed: string
  /** The paths of all that the archive contains. */
  readonly files: Array<string>
}>()("Project") {}

const installed = "node_modules/effect-etcd-lock"

const ProjectLive = Layer.effect(
  Project,
  Effect.gen(function*() {
    const archive = `file:${yield* Consumer.archive}`
    const { directory, printed } = yield* Consumer.install(archive, archive)
    const entries = Fs.readdirSync(Path.join(directory, installed), { recursive: true, withFileTypes: true })
    const files = entries.filter((entry) => entry.isFile()).map((entry) =>
      Path.relative(Path.join(directory, installed), Path.join(entry.parentPath, entry.name))
    )
    for (const program of Fs.readdirSync(programs)) {
      Fs.copyFileSync(Path.join(programs, program), Path.join(directory, program))
    }
    return { directory, printed, files }
  })
)

const programs = Path.join(import.meta.dirname, "programs")
const tsc = Path.resolve(import.meta.dirname, "../../node_modules/typescript/bin/tsc")

/** Bundles a program of the project into a directory where nothing is installed, and returns the bundle's path. */
const bundle = Effect.fnUntraced(function*(program: string, format: "esm" | "cjs") {
  const { directory } = yield* Project
  const outfile = Path.join(yield* Consumer.temporary, format === "esm" ? "program.mjs" : "program.cjs")
  const { warnings } = yield* Effect.promise(() =>
    Esbuild.build({
      absWorkingDir: directory,
      entryPoints: [program],
      bundle: true,
      minify: true,
      platform: "node",
      format,
      logLevel: "silent",
      outfile
    })
  )
  assert.deepStrictEqual(warnings, [])
  return outfile
})

layer(ProjectLive, { excludeTestServices: true, timeout: 120_000 })("the archive", (it) => {
  it.effect("is installed without a warning of the package's own", () =>
    Effect.gen(function*() {
      const { printed } = yield* Project
      const warnings = printed.split("\n").filter((line) => line.startsWith("npm warn"))
      // npm asks whether a script of protobufjs may run, on which etcd3 depends. It need not.
      const others = warnings.filter((line) => !line.startsWith("npm warn install-scripts"))
      const scripts = warnings.flatMap((line) => /^npm warn install-scripts {3}(\S+)@/.exec(line)?.[1] ?? [])
      assert.deepStrictEqual(others, [])
      assert.includeMembers(["protobufjs"], scripts)
    }))

  it.effect("contains the sources, what was built of each, and what is to be read", () =>
    Effect.gen(function*() {
      const { files } = yield* Project
      const sources = files.filter((file) => file.startsWith("src/"))
      assert.includeMembers(sources, ["src/index.ts", "src/Lock.ts", "src/internal/options.ts"])
      const ofLibrary = sources.filter((source) => !/^src\/(cli\/|bin\.ts$)/.test(source))
      const built = ofLibrary.flatMap((source) => {
        const path = source.replace(/^src\/(.*)\.ts$/, "dist/$1")
        return [".js", ".js.map", ".d.ts", ".d.ts.map"].map((extension) => `${path}${extension}`)
      })
      // The command is one file that starts another, with the license of what is in them.
      const command = ["dist/bin.js", "dist/cli/main.js", "dist/bin.LICENSE"]
      const others = ["CHANGELOG.md", "LICENSE", "README.md", "package.json", ...command]
      assert.sameMembers(files, [...sources, ...built, ...others])
    }))

  it.effect("has source maps that lead to its sources", () =>
    Effect.gen(function*() {
      const { directory, files } = yield* Project
      const read = (file: string) => Fs.readFileSync(Path.join(directory, installed, file), "utf8")
      const maps = files.filter((file) => file.endsWith(".map"))
      for (const map of maps) {
        const { sourceRoot = "", sources } = JSON.parse(read(map))
        const paths = sources.map((source: string) => Path.join(Path.dirname(map), sourceRoot, source))
        const [, built] = /^dist\/(.*?)(?:\.d\.ts|\.js)\.map$/.exec(map)!
        assert.deepStrictEqual(paths, [`src/${built}.ts`])
        assert.include(files, paths[0])
        assert.include(read(map.slice(0, -".map".length)), `//# sourceMappingURL=${Path.basename(map)}`)
      }
      assert.isNotEmpty(maps)
    }))

  it.effect("is imported and required without @effect/platform-node, and not below its public modules", () =>
    Effect.gen(function*() {
      const { directory } = yield* Project
      // A project of its own, in which npm has installed no peer that the package can do without.
      const bare = yield* Consumer.temporary
      const modules = Path.join(bare, "node_modules")
      Fs.mkdirSync(modules)
      Fs.cpSync(Path.join(directory, installed), Path.join(bare, installed), { recursive: true })
      Fs.symlinkSync(Path.join(directory, "node_modules/effect"), Path.join(modules, "effect"))
      Fs.writeFileSync(
        Path.join(bare, "program.cjs"),
        `
          const refused = (path) => import("effect-etcd-lock/" + path).then(() => "imported", ({ code }) => code)
          const required = require("effect-etcd-lock")
          import("effect-etcd-lock").then(async (imported) =>
            console.log(JSON.stringify([
              Object.keys(imported),
              imported.Lock === required.Lock,
              Object.keys(await import("effect-etcd-lock/EtcdRunnerStorage")),
              await refused("internal/options"),
              await refused("internal/etcd3/client"),
              await refused("index")
            ]))
          )
        `
      )
      assert.deepStrictEqual(JSON.parse(yield* Consumer.runModule(bare, "program.cjs")), [
        ["Election", "Etcd", "Lease", "Lock", "LockMetrics", "ReadWriteLock", "Semaphore", "Session"],
        true,
        ["Shards", "layer", "layerWithShards", "make"],
        ...Array.from({ length: 3 }, () => "ERR_PACKAGE_PATH_NOT_EXPORTED")
      ])
    }))

  it.effect("has the command for npx, by both of its names", () =>
    Effect.gen(function*() {
      const { directory } = yield* Project
      const { version } = JSON.parse(Fs.readFileSync(Path.join(directory, installed, "package.json"), "utf8"))
      for (const name of ["effect-etcd-lock", "etcd-lock"]) {
        const { stdout } = yield* Consumer.run(directory, "npx", [name, "--version"])
        assert.strictEqual(stdout.trim(), `etcd-lock v${version}`)
      }
      const lock = unique("npx")
      const env = { ETCDCTL_ENDPOINTS: inject("etcdEndpoint") }
      const { stdout } = yield* Consumer.run(
        directory,
        "npx",
        ["etcd-lock", "run", lock, "--", "sh", "-c", "echo $ETCD_LOCK_NAME"],
        env
      )
      assert.strictEqual(stdout, `${lock}\n`)
    }))

  for (const [module, moduleResolution] of [["NodeNext", "NodeNext"], ["ESNext", "Bundler"]]) {
    it.effect(`has types for TypeScript's resolution ${moduleResolution}`, () =>
      Effect.gen(function*() {
        const { directory } = yield* Project
        const options = ["--module", module!, "--moduleResolution", moduleResolution!, "--target", "ES2022"]
        yield* Consumer.run(directory, process.execPath, [
          tsc,
          "--ignoreConfig",
          "--noEmit",
          "--strict",
          ...options,
          "types.ts"
        ])
      }))
  }

  for (const format of ["esm", "cjs"] as const) {
    it.effect(`bundled as ${format}, takes a lock in memory with nothing installed, and is under 360 KiB`, () =>
      Effect.gen(function*() {
        const file = yield* bundle("memory.ts", format)
        assert.strictEqual(yield* Consumer.runModule(Path.dirname(file), file), "held")
        assert.isBelow(Fs.statSync(file).size, 360 * 1024)
      }))

    it.effect(`bundled as ${format}, takes a lock on a real etcd with the packages installed that the guide names`, () =>
      Effect.gen(function*() {
        const { directory } = yield* Project
        const file = yield* bundle("real.ts", format)
        const modules = Path.join(Path.dirname(file), "node_modules")
        const guide = Fs.readFileSync(Path.resolve(import.meta.dirname, "../../docs/connecting.md"), "utf8")
        const [, named = ""] = /^## Bundling\n[^]*?^npm install (.*)$/m.exec(guide) ?? []
        for (const specifier of named.split(" ")) {
          const name = specifier.slice(0, specifier.lastIndexOf("@"))
          Fs.mkdirSync(Path.dirname(Path.join(modules, name)), { recursive: true })
          Fs.symlinkSync(Path.join(directory, "node_modules", name), Path.join(modules, name))
        }
        const env = { ENDPOINT: inject("etcdEndpoint"), LOCK: unique("bundled") }
        assert.strictEqual(yield* Consumer.runModule(Path.dirname(file), file, env), "held")
      }))
  }
})
