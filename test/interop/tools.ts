import { Data, Effect } from "effect"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as PostgresServer from "../support/PostgresServer.ts"

const root = Path.resolve(import.meta.dirname, "../..")

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

/** What it takes to build Go programs with etcd's own client. */
interface GoClient {
  readonly compiler: string
  readonly version: string
  /** What is in the directory in which a program is built. */
  readonly files: (program: string) => Readonly<Record<string, string>>
  readonly env: Readonly<Record<string, string>>
}

const goClient: Effect.Effect<GoClient, ToolMissing> = Effect.suspend(() => {
  const compiler = process.env.INTEROP_GO ?? onPath("go")
  if (compiler === undefined) return Effect.fail(missing("There is no go on the PATH"))
  switch (process.env.INTEROP_CLIENT ?? "") {
    case "":
      return fromModule(compiler)
    case "debian":
      return fromDebian(compiler)
    default:
      return Effect.fail(
        new ToolMissing({ message: `INTEROP_CLIENT is '${process.env.INTEROP_CLIENT}': use debian, or leave it out` })
      )
  }
})

/** The client that `test/go.mod` names. A Go that is too old for it fetches the one that it asks for. */
const fromModule = (compiler: string): Effect.Effect<GoClient, ToolMissing> => {
  const [mod, sum] = ["go.mod", "go.sum"].map((name) => Fs.readFileSync(Path.join(root, "test", name), "utf8"))
  const client = "go.etcd.io/etcd/client/v3"
  const env = { GO111MODULE: "on", GOFLAGS: "-mod=readonly", GOWORK: "off", GOTOOLCHAIN: "auto", CGO_ENABLED: "0" }
  return run(compiler, ["mod", "download", client], { cwd: Path.join(root, "test"), env }).pipe(
    Effect.mapError((why) => new ToolMissing({ message: `Go cannot get etcd's client as a module: ${why}` })),
    Effect.as({
      compiler,
      version: new RegExp(`${client} v([^ \n]+)`).exec(mod!)![1]!,
      files: (program) => ({ "go.mod": mod!, "go.sum": sum!, "main.go": program }),
      env
    })
  )
}

/** The client that Debian and Ubuntu package, which needs no network. Until etcd 3.5 it was in another place. */
const fromDebian = (compiler: string): Effect.Effect<GoClient, ToolMissing> => {
  const gopath = process.env.INTEROP_GOPATH ?? "/usr/share/gocode"
  const etcd = Path.join(gopath, "src/go.etcd.io/etcd")
  const has = (directory: string) => Fs.existsSync(Path.join(etcd, directory, "concurrency/mutex.go"))
  if (!has("client/v3") && !has("clientv3")) {
    return Effect.fail(missing(`There are no sources of etcd's Go client in ${etcd}`))
  }
  const adapt = has("client/v3") ? (program: string) => program : (program: string) =>
    program
      .replaceAll("go.etcd.io/etcd/client/v3/experimental/recipes", "go.etcd.io/etcd/contrib/recipes")
      .replaceAll("go.etcd.io/etcd/client/v3", "go.etcd.io/etcd/clientv3")
  return run("dpkg-query", ["--show", "--showformat=${Version}", "golang-etcd-server-dev"]).pipe(
    Effect.orElseSucceed(() => "of an unknown version"),
    Effect.map((version) => ({
      compiler,
      version,
      files: (program) => ({ "main.go": adapt(program) }),
      env: { GO111MODULE: "off", GOPATH: gopath, GOFLAGS: "", GOTOOLCHAIN: "local" }
    }))
  )
}

/** The version of the client that `go` and `goFrom` build with. */
export const goClientVersion: Effect.Effect<string, ToolMissing> = Effect.map(goClient, ({ version }) => version)

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

export const groupsLeftOut = Effect.all({
  interop: leftOut(Effect.andThen(etcdctl, goClient)),
  postgres: leftOut(postgres),
  prometheus: leftOut(prometheus)
})

const onPath = (name: string): string | undefined =>
  (process.env.PATH ?? "").split(Path.delimiter)
    .map((directory) => Path.join(directory, name))
    .find((file) => Fs.existsSync(file))

/** Builds a program of `test/interop/go`. */
export const go = (program: "election" | "mutex" | "rwmutex" | "tutorial"): Effect.Effect<string, ToolMissing> =>
  goFrom(program, Path.join(import.meta.dirname, "go", `${program}.go`))

/** Builds a Go program with etcd's own client, below `.cache`, once for each state of it and of the client. */
export const goFrom = (program: string, file: string): Effect.Effect<string, ToolMissing> =>
  Effect.gen(function*() {
    const { compiler, env, files: filesOf } = yield* goClient
    const files = filesOf(Fs.readFileSync(file, "utf8"))
    const state = createHash("sha256").update(JSON.stringify([compiler, env, files])).digest("hex").slice(0, 16)
    const binary = Path.join(root, ".cache/interop", `${program}-${state}`)
    if (!Fs.existsSync(binary)) yield* Effect.orDie(build(compiler, env, files, binary))
    return binary
  })

const build = (
  compiler: string,
  env: Readonly<Record<string, string>>,
  files: Readonly<Record<string, string>>,
  binary: string
) =>
  Effect.scoped(Effect.gen(function*() {
    Fs.mkdirSync(Path.dirname(binary), { recursive: true })
    const work = yield* Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(`${binary}.`)),
      (work) => Effect.sync(() => Fs.rmSync(work, { recursive: true }))
    )
    for (const [name, text] of Object.entries(files)) Fs.writeFileSync(Path.join(work, name), text)
    yield* run(compiler, ["build", "-o", "program", "main.go"], { cwd: work, env })
    // in one step, so that nobody ever runs half of it
    Fs.renameSync(Path.join(work, "program"), binary)
  }))

/** What a command prints; its failure has the last line of its complaint. */
const run = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd, env }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {}
): Effect.Effect<string, string> =>
  Effect.callback((resume) => {
    execFile(command, args, { cwd, env: { ...process.env, ...env } }, (error, stdout, stderr) => {
      const why = stderr.trim().split("\n").at(-1) || (error?.message ?? "")
      resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(why))
    })
  })
