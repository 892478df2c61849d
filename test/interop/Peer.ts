import { Effect, Queue, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

/** A program of others that uses the same locks, and tells line by line what it does. */
export interface Peer {
  /** The next line that it tells. */
  readonly heard: Effect.Effect<string>
  readonly write: (line: string) => Effect.Effect<void>
  /** Ends its input. */
  readonly hangUp: Effect.Effect<void>
  /** Asks it to end (SIGTERM), and waits until it has. */
  readonly stop: Effect.Effect<void>
  /** Ends it at once (SIGKILL), with whatever it started. */
  readonly kill: Effect.Effect<void>
  /** Waits until it has ended, and answers its exit code. */
  readonly ended: Effect.Effect<number | null>
}

/** Starts a program, which is killed when the scope closes. */
export const start = (
  binary: string,
  args: ReadonlyArray<string>,
  env?: Readonly<Record<string, string>>
): Effect.Effect<Peer, never, Scope.Scope> =>
  Effect.gen(function*() {
    const lines = yield* Queue.unbounded<string>()
    let stderr = ""
    // a process group of its own, for `kill` to reach what it started
    const child = spawn(binary, args, { env: { ...environment(), ...env }, detached: true })
    createInterface(child.stdout).on("line", (line) => Queue.offerUnsafe(lines, line))
    child.stderr.on("data", (chunk) => {
      stderr = (stderr + String(chunk)).slice(-2000)
    })
    child.stdin.on("error", () => {})
    let code: number | null | undefined
    const onEnd: Array<() => void> = []
    const end = (exitCode: number | null) => {
      code = exitCode
      for (const resume of onEnd) resume()
    }
    child.on("error", (error) => {
      stderr += error.message
      end(null)
    })
    child.on("close", end)
    const ended = Effect.callback<number | null>((resume) => {
      const done = () => resume(Effect.succeed(code ?? null))
      if (code !== undefined) return done()
      onEnd.push(done)
    })
    const endBy = (signal: NodeJS.Signals) =>
      Effect.suspend(() => {
        const { pid } = child
        // It may have ended while its last output is still being read.
        const send = code === undefined && pid !== undefined
          ? Effect.ignore(Effect.try(() => process.kill(-pid, signal)))
          : Effect.void
        return Effect.asVoid(Effect.andThen(send, ended))
      })
    const kill = endBy("SIGKILL")
    yield* Effect.addFinalizer(() => kill)
    const silence = Effect.andThen(
      Effect.timeoutOption(ended, "30 seconds"),
      Effect.suspend(() => Effect.die(new Error(`${binary} ${args.join(" ")} tells nothing more. ${stderr}`)))
    )
    return {
      heard: Effect.raceFirst(Queue.take(lines), silence),
      write: (line) => Effect.sync(() => void child.stdin.write(`${line}\n`)),
      hangUp: Effect.sync(() => void child.stdin.end()),
      stop: endBy("SIGTERM"),
      kill,
      ended
    }
  })

// etcdctl refuses a variable that a flag overrides
const environment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^ETCD(CTL)?_/.test(name)))
