/** The command as a person or a script runs it: a process of its own. */
import { Effect, type Scope } from "effect"
import { execFile, spawn } from "node:child_process"
import * as Path from "node:path"
import { inject } from "vitest"

/** What `npm run build:command` makes, where it finds the packages that it needs. */
export const program = Path.resolve(import.meta.dirname, "../../.cache/bin.js")

export interface Program {
  readonly pid: number
  /** What it has printed so far. */
  readonly stdout: () => string
  readonly stderr: () => string
  /** Waits until what it has printed, on either, has a match. */
  readonly printed: (pattern: RegExp) => Effect.Effect<void>
  readonly write: (text: string) => Effect.Effect<void>
  /** Closes both outputs, as a reader does that has gone. */
  readonly leave: Effect.Effect<void>
  readonly send: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits for its end, and returns its exit code, or the signal that has ended it. */
  readonly ended: Effect.Effect<number | NodeJS.Signals>
}

export interface Options {
  readonly env?: Readonly<Record<string, string>>
  /** Give it a terminal. Both of its outputs are in `stdout` then. */
  readonly terminal?: boolean
  /** A descriptor to be its stderr. */
  readonly stderr?: number
}

/** Starts the command on the etcd of the tests. What is left of it when the scope closes is killed. */
export const start = (
  args: ReadonlyArray<string>,
  options: Options = {}
): Effect.Effect<Program, never, Scope.Scope> => {
  const words = [process.execPath, program, ...args]
  // The user's shell runs the line of `script`: one that stays, as dash does, would end at Ctrl-C by itself.
  const [file, ...rest] = options.terminal === true
    ? ["script", "--quiet", "--flush", "--return", "--command", `exec ${words.map(quoted).join(" ")}`, "/dev/null"]
    : words
  const acquire = Effect.sync(() =>
    spawn(file!, rest, {
      env: environment(options.env ?? {}),
      detached: true,
      stdio: ["pipe", "pipe", options.stderr ?? "pipe"]
    })
  )
  const release = (child: ReturnType<typeof spawn>) =>
    Effect.ignore(Effect.try(() => process.kill(-child.pid!, "SIGKILL")))
  return Effect.map(Effect.acquireRelease(acquire, release), (child) => {
    let stdout = ""
    let stderr = ""
    let code: number | NodeJS.Signals | undefined
    const listeners = new Set<() => void>()
    const changed = () => listeners.forEach((listener) => listener())
    child.stdout!.on("data", (chunk) => {
      stdout += String(chunk)
      changed()
    })
    child.stderr?.on("data", (chunk) => {
      stderr += String(chunk)
      changed()
    })
    child.stdin!.on("error", () => {})
    child.on("exit", (exitCode, signal) => {
      const end = () => {
        code ??= exitCode ?? signal!
        changed()
      }
      // What it printed last is read before that, unless what it has left behind keeps its outputs open.
      child.on("close", end)
      setTimeout(end, 3000).unref()
    })
    const until = <A>(read: () => A | undefined) =>
      Effect.callback<A>((resume) => {
        const look = () => {
          const found = read()
          if (found === undefined) return
          listeners.delete(look)
          resume(Effect.succeed(found))
        }
        listeners.add(look)
        look()
        return Effect.sync(() => listeners.delete(look))
      }).pipe(Effect.timeoutOrElse({
        duration: "40 seconds",
        orElse: () => Effect.die(new Error(`etcd-lock ${args.join(" ")} still runs. ${stdout}${stderr}`))
      }))
    return {
      pid: child.pid!,
      stdout: () => stdout,
      stderr: () => stderr,
      printed: (pattern) => Effect.asVoid(until(() => pattern.test(stdout + stderr) || undefined)),
      write: (text) => Effect.sync(() => void child.stdin!.write(text)),
      leave: Effect.sync(() => [child.stdout, child.stderr].forEach((output) => output?.destroy())),
      send: (signal) => Effect.sync(() => process.kill(child.pid!, signal)),
      ended: until(() => code)
    }
  })
}

export interface Output {
  readonly code: number | NodeJS.Signals
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command to its end. */
export const run = (args: ReadonlyArray<string>, options?: Options): Effect.Effect<Output> =>
  Effect.scoped(Effect.gen(function*() {
    const { ended, stderr, stdout } = yield* start(args, options)
    const code = yield* ended
    return { code, stdout: stdout(), stderr: stderr() }
  }))

/** Runs a script of bash in the environment of the command. */
export const shell = (script: string): Effect.Effect<Output> =>
  Effect.callback((resume) => {
    execFile("bash", ["-c", script], { env: environment({}) }, (error, stdout, stderr) => {
      resume(Effect.succeed({ code: Number(error?.code ?? 0), stdout, stderr }))
    })
  })

/** The environment of the tests, without what an `etcd-lock` around them would have set. */
const environment = (env: Readonly<Record<string, string>>) => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^ETCD(CTL)?_/.test(name))),
  NO_COLOR: "",
  ETCDCTL_ENDPOINTS: inject("etcdEndpoint"),
  ...env
})

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`
