import { Data, Effect } from "effect"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as PostgresServer from "../support/PostgresServer.ts"

/** Says in one sentence what is not there and how to get it. */
export class ToolMissing extends Data.TaggedError("ToolMissing")<{ readonly message: string }> {}

const missing = (what: string) =>
  new ToolMissing({
    message: `${what}: let .ci/interop-tools install it`
  })

/** The `etcdctl` to test with. */
export const etcdctl: Effect.Effect<string, ToolMissing> = Effect.suspend(() => {
  const binary = process.env.ETCDCTL_BINARY ?? onPath("etcdctl")
  return binary === undefined ? Effect.fail(missing("There is no etcdctl on the PATH")) : Effect.succeed(binary)
})

/** What it takes to build programs with etcd's own Go client: the compiler, and where the client's package is. */
const toolchain = Effect.gen(function*() {
  const gopath = process.env.INTEROP_GOPATH ?? "/usr/share/gocode"
  const compiler = process.env.INTEROP_GO ?? onPath("go")
  if (compiler === undefined) return yield* missing("There is no go on the PATH")
  const etcd = Path.join(gopath, "src/go.etcd.io/etcd")
  // the client's place since etcd 3.5, and that until then
  const client = (["client/v3", "clientv3"] as const).find((path) =>
    Fs.existsSync(Path.join(etcd, path, "concurrency/mutex.go"))
  )
  if (client === undefined) return yield* missing(`There are no sources of etcd's Go client in ${etcd}`)
  return { gopath, compiler, client }
})

/** Where etcd's recipes are, by the place of its client. */
const recipesBeside = { "client/v3": "client/v3/experimental/recipes", clientv3: "contrib/recipes" }

/** The `prometheus` to test with, which has its `promtool` beside it. */
export const prometheus: Effect.Effect<string, ToolMissing> = Effect.suspend(() => {
  const unpacked = Path.join(root, ".cache/prometheus/usr/bin/prometheus")
  const binary = process.env.PROMETHEUS_BINARY ?? onPath("prometheus") ??
    (Fs.existsSync(unpacked) ? unpacked : undefined)
  return binary === undefined
    ? Effect.fail(missing("There is no prometheus on the PATH or in .cache"))
    : Effect.succeed(binary)
})

/** Where the programs of the PostgreSQL to test with are. */
export const postgres: Effect.Effect<string, ToolMissing> = Effect.mapError(
  PostgresServer.find,
  ({ message }) => missing(message)
)

/**
 * Why tests with the programs of others do not run, unless they do. With `INTEROP=on` they run, and fail, where a tool is
 * missing.
 */
const leftOut = (needed: Effect.Effect<unknown, ToolMissing>): Effect.Effect<string | undefined> =>
  Effect.suspend(() => {
    if (process.env.INTEROP === "on") return Effect.undefined
    if (process.env.INTEROP === "off") return Effect.succeed("INTEROP=off")
    return Effect.match(needed, { onSuccess: () => undefined, onFailure: ({ message }) => message })
  })

/** Prometheus can be had wherever Debian's packages can, so its tests fail where it is missing. */
export const groupsLeftOut = Effect.all({
  interop: leftOut(Effect.andThen(etcdctl, toolchain)),
  postgres: leftOut(postgres),
  prometheus: leftOut(Effect.void)
})

const onPath = (name: string): string | undefined =>
  (process.env.PATH ?? "").split(Path.delimiter)
    .map((directory) => Path.join(directory, name))
    .find((file) => Fs.existsSync(file))

const root = Path.resolve(import.meta.dirname, "../..")

/** Builds a program of `test/interop/go`. */
export const go = (program: "election" | "mutex" | "rwmutex" | "tutorial"): Effect.Effect<string, ToolMissing> =>
  goFrom(program, Path.join(import.meta.dirname, "go", `${program}.go`))

/**
 * Builds a Go program with the sources of etcd's own client that Debian and Ubuntu package, below `.cache`, once for each
 * state of it and of them.
 */
export const goFrom = (program: string, file: string): Effect.Effect<string, ToolMissing> =>
  Effect.gen(function*() {
    const { client, compiler, gopath } = yield* toolchain
    const source = Fs.readFileSync(file, "utf8")
      .replaceAll("go.etcd.io/etcd/clientv3", `go.etcd.io/etcd/${client}`)
      .replaceAll("go.etcd.io/etcd/contrib/recipes", `go.etcd.io/etcd/${recipesBeside[client]}`)
    const version = createHash("sha256").update(source).update(compiler).update(gopath).digest("hex").slice(0, 16)
    const binary = Path.join(root, ".cache/interop", `${program}-${version}`)
    if (!Fs.existsSync(binary)) yield* build(compiler, gopath, source, binary)
    return binary
  })

const build = (compiler: string, gopath: string, source: string, binary: string) =>
  Effect.callback<void>((resume) => {
    Fs.mkdirSync(Path.dirname(binary), { recursive: true })
    const work = Fs.mkdtempSync(`${binary}.`)
    const [file, built] = [Path.join(work, "main.go"), Path.join(work, "main")]
    Fs.writeFileSync(file, source)
    const env = { ...process.env, GO111MODULE: "off", GOPATH: gopath, GOFLAGS: "", GOTOOLCHAIN: "local" }
    execFile(compiler, ["build", "-o", built, file], { env }, (error) => {
      // in one step, so that nobody ever runs half of it
      if (error === null) Fs.renameSync(built, binary)
      Fs.rmSync(work, { recursive: true })
      resume(error === null ? Effect.void : Effect.die(error))
    })
  })
