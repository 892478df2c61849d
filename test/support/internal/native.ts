import { Effect, type Scope } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as GrpcProxy from "./grpcProxy.ts"
import { commandLine, EtcdNotFound, type Launcher, type Member, type Plan, StartFailed } from "./launcher.ts"

/** The etcd that `binary` is. */
export const fromBinary = (binary: string): Effect.Effect<Launcher, EtcdNotFound> =>
  Effect.as(check(binary), {
    what: binary,
    isLocal: true,
    members: (plans) => Effect.forEach(plans, (plan) => member(binary, plan, plans)),
    proxy: (endpoint) => GrpcProxy.inFrontOf(binary, endpoint)
  })

export const fromPath: Effect.Effect<Launcher, EtcdNotFound> = Effect.suspend(() => {
  const binary = (process.env.PATH ?? "").split(Path.delimiter)
    .map((directory) => Path.join(directory, "etcd"))
    .find((file) => Fs.existsSync(file))
  return binary === undefined
    ? Effect.fail(new EtcdNotFound({ message: "There is no etcd on the PATH: install one, or set ETCD_BINARY to it" }))
    : fromBinary(binary)
})

const check = (binary: string): Effect.Effect<void, EtcdNotFound> =>
  Effect.callback((resume) => {
    execFile(binary, ["--version"], { env: environment(), timeout: 10_000 }, (error, stdout) => {
      const why = error?.message.trim() ?? "it tells no version"
      resume(
        stdout.includes("etcd Version")
          ? Effect.void
          : Effect.fail(new EtcdNotFound({ message: `'${binary}' is not an etcd that runs here: ${why}` }))
      )
    })
  })

const member = Effect.fnUntraced(function*(
  binary: string,
  plan: Plan,
  all: ReadonlyArray<Plan>
): Effect.fn.Return<Member, never, Scope.Scope> {
  const dataDir = yield* temporaryDirectory(plan.dataDir)
  const args = commandLine(plan, all, {
    listen: "127.0.0.1",
    peerHost: () => "127.0.0.1",
    dataDir,
    file: (path) => Path.resolve(path)
  })
  let current = binary
  let process: Process | undefined
  let state: ReadonlyArray<string> = []
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void process?.child.kill(name))
  const end = (signal: NodeJS.Signals) => Effect.suspend(() => process?.end(signal) ?? Effect.void)
  const kill = end("SIGKILL")
  yield* Effect.addFinalizer(() => kill)
  return {
    host: "127.0.0.1",
    start: Effect.andThen(
      kill,
      Effect.sync(() => {
        process = run(current, [...args, ...state], dataDir)
      })
    ),
    died: Effect.suspend(() => process!.closed).pipe(
      Effect.flatMap(() => new StartFailed({ message: `etcd ended at its start\n${process!.output()}` }))
    ),
    // Its other threads may go on for a moment.
    pause: Effect.andThen(signal("SIGSTOP"), Effect.sleep("20 millis")),
    resume: signal("SIGCONT"),
    kill,
    wipe: Effect.andThen(
      kill,
      Effect.sync(() => {
        // The guard of the member that was killed may have been faster.
        Fs.rmSync(dataDir, { recursive: true, force: true })
        Fs.mkdirSync(dataDir, { mode: 0o700 })
        state = ["--initial-cluster-state=existing"]
      })
    ),
    backup: Fs.existsSync(`${binary}ctl`) ? backupOf(binary, plan, dataDir, args, kill) : undefined,
    upgrade: (binary) =>
      Effect.andThen(
        end("SIGTERM"),
        Effect.sync(() => {
          current = binary
        })
      )
  }
})

/** By the tools that came with the binary: from 3.5 on, etcdutl restores. */
const backupOf = (
  binary: string,
  plan: Plan,
  dataDir: string,
  args: ReadonlyArray<string>,
  kill: Effect.Effect<void>
): Member["backup"] => {
  const call = (tool: string, args: ReadonlyArray<string>) =>
    Effect.callback<void>((resume) => {
      execFile(tool, args, { env: { ...environment(), ETCDCTL_API: "3" } }, (error) => {
        resume(error === null ? Effect.void : Effect.die(error))
      })
    })
  const restorer = Fs.existsSync(`${binary}utl`) ? `${binary}utl` : `${binary}ctl`
  const kept = args.filter((arg) => /^--(name|initial-cluster|initial-advertise-peer-urls)=/.test(arg))
  const prepared = Path.join(dataDir, "prepared")
  const remove = (path: string) => Fs.rmSync(path, { recursive: true, force: true })
  return {
    save: (file, ...flags) =>
      call(`${binary}ctl`, [`--endpoints=127.0.0.1:${plan.ports.client}`, ...flags, "snapshot", "save", file]),
    prepare: (file, ...flags) =>
      Effect.suspend(() => {
        remove(prepared)
        return call(restorer, ["snapshot", "restore", file, `--data-dir=${prepared}`, ...kept, ...flags])
      }),
    adopt: Effect.andThen(
      kill,
      Effect.sync(() => {
        remove(Path.join(dataDir, "member"))
        Fs.renameSync(Path.join(prepared, "member"), Path.join(dataDir, "member"))
        remove(prepared)
      })
    )
  }
}

export interface Process {
  readonly child: ChildProcess
  readonly closed: Effect.Effect<void>
  /** Sends it the signal, keeps its data, and waits until it is gone. */
  readonly end: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly output: () => string
}

// Becomes the server with a guard beside it. When this process ends in whatever way, the guard's input closes and it kills
// the server, paused or not, and removes the data ($0); a line of input sends the guard away first. The guard also keeps stdout
// open, so that "close" means that both are gone.
const guarded = `exec 3<&0 </dev/null
{ read -r line <&3 || { kill -KILL $$; rm -rf "$0"; }; } 2>/dev/null &
exec "$@" 3<&- >/dev/null`

export const run = (
  binary: string,
  args: ReadonlyArray<string>,
  dataDir: string,
  user: { readonly uid?: number; readonly gid?: number } = {}
): Process => {
  let output = ""
  // its own process group, so that Ctrl-C reaches it only after the scopes that use it have closed
  const child = spawn("/bin/sh", ["-c", guarded, dataDir, binary, ...args], {
    ...user,
    env: environment(),
    detached: true
  })
  child.stderr.on("data", (chunk) => {
    output = (output + String(chunk)).slice(-4000)
  })
  child.on("error", (error) => {
    output += error.message
  })
  child.stdin.on("error", () => {})
  child.stdout.resume()
  let isClosed = false
  child.on("close", () => {
    isClosed = true
  })
  const closed = Effect.callback<void>((resume) => {
    if (isClosed) {
      return resume(Effect.void)
    }
    const done = () => resume(Effect.void)
    child.once("close", done)
    return Effect.sync(() => child.off("close", done))
  })
  return {
    child,
    closed,
    end: (signal) =>
      Effect.suspend(() => {
        child.stdin.write("keep the data\n")
        child.kill(signal)
        return closed
      }),
    output: () => output
  }
}

// etcd reads every ETCD_* variable as a setting, and refuses one that a flag overrides.
const environment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD_"))),
  // 3.4 wants to be asked for it there
  ...process.arch === "arm64" && { ETCD_UNSUPPORTED_ARCH: "arm64" }
})

export const temporaryDirectory = (parent = roomiest()) =>
  Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(parent, "etcd-test-"))),
    (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
  )

/** In memory where there is room for many an etcd: a disk that others keep busy lets an etcd miss every deadline. */
export const roomiest = (): string => {
  const memory = "/dev/shm"
  if (!Fs.existsSync(memory)) return Os.tmpdir()
  const { bavail, bsize } = Fs.statfsSync(memory)
  return bavail * bsize >= 4 * 2 ** 30 ? memory : Os.tmpdir()
}
