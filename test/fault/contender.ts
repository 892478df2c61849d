/**
 * The processes that contend, each with proxies of its own to the members.
 */
import { Data, Deferred, Effect, Exit, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import type * as Host from "../support/Host.ts"
import type * as Proxy from "../support/Proxy.ts"
import type { Contender, Exited, Kind, Recorded, Report } from "./history.ts"
import type { Task } from "./protocol.ts"

export class ContenderFailed extends Data.TaggedError("ContenderFailed")<{ readonly message: string }> {}

export interface Running extends Contender {
  /** Undefined where it runs on this machine itself. */
  readonly host: Host.Host | undefined
  readonly network: ReadonlyArray<Proxy.Proxy>
  readonly tell: (command: string) => Effect.Effect<void>
  readonly signal: (name: "SIGSTOP" | "SIGCONT" | "SIGKILL") => Effect.Effect<void>
  readonly exited: Effect.Effect<Omit<Exited, "millis">>
}

export interface Start {
  readonly kind: Kind
  readonly command: ReadonlyArray<string>
  readonly host?: Host.Host | undefined
  readonly network: ReadonlyArray<Proxy.Proxy>
  readonly task: Task
  readonly onReport: (report: Recorded) => void
}

/** Starts a process that ends with the scope, and waits until it is ready. */
export const start = (
  { command, host, kind, network, onReport, task }: Start
): Effect.Effect<Running, ContenderFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const { name } = task
    const [file, ...args] = host?.on(command) ?? command
    const ready = yield* Deferred.make<void, ContenderFailed>()
    const exited = yield* Deferred.make<Omit<Exited, "millis">>()
    const child = yield* Effect.acquireRelease(
      // In a group of its own, so that Ctrl-C reaches it only by the scope.
      Effect.sync(() => spawn(file!, [...args, JSON.stringify(task)], { detached: true })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    let complaints = ""
    const complain = (text: string) => {
      complaints = `${complaints}${text}\n`.slice(-2000)
    }
    createInterface(child.stdout).on("line", (line) => {
      // The rest is what it logs.
      if (!line.startsWith("{\"")) return complain(line)
      const report: Report = JSON.parse(line)
      onReport({ contender: name, ...report })
      if (report._tag === "Ready") Deferred.doneUnsafe(ready, Exit.void)
    })
    child.stderr.on("data", (chunk) => complain(String(chunk)))
    child.stdin.on("error", () => {})
    child.on("error", ({ message }) => complain(message))
    child.on("close", (code, signal) => {
      const message = `${name} ended with ${code ?? signal}\n${complaints}`
      Deferred.doneUnsafe(ready, Exit.fail(new ContenderFailed({ message })))
      Deferred.doneUnsafe(exited, Exit.succeed({ contender: name, code, signal }))
    })
    yield* Effect.timeoutOrElse(Deferred.await(ready), {
      duration: "60 seconds",
      orElse: () => Effect.fail(new ContenderFailed({ message: `${name} is not ready after 60 s\n${complaints}` }))
    })
    return {
      name,
      kind,
      pid: child.pid!,
      host,
      network,
      tell: (line) => Effect.sync(() => void child.stdin.write(`${line}\n`)),
      signal: (name) => Effect.sync(() => void child.kill(name)),
      exited: Deferred.await(exited)
    }
  })
