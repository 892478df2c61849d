/**
 * The processes in which a contender runs.
 */
import { Data, Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { now, type Op, type Replies, type Requests } from "./protocol.ts"

export class WorkerFailed extends Data.TaggedError("WorkerFailed")<{ readonly message: string }> {}

export interface Worker {
  readonly ask: <K extends Op>(op: K, request: Requests[K]) => Effect.Effect<Replies[K], WorkerFailed>
  /** Sends it a signal. Returns when, on the clock of the replies. */
  readonly signal: (name: "SIGTERM" | "SIGKILL") => Effect.Effect<number>
}

/** Starts a process that ends with the scope, or with this one in whatever way. */
export const start = (command: ReadonlyArray<string>): Effect.Effect<Worker, WorkerFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(command[0]!, command.slice(1), { stdio: ["pipe", "pipe", "pipe"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const next = listen(child)
    // it says that it is ready
    yield* next
    return {
      ask: (op, request) => {
        const send = Effect.sync(() => child.stdin!.write(`${JSON.stringify({ op, ...request })}\n`))
        const patience = ("millis" in request ? request.millis : 0) + 180_000
        return Effect.andThen(send, next).pipe(
          Effect.timeoutOrElse({
            duration: patience,
            orElse: () => new WorkerFailed({ message: `no answer to '${op}' within ${patience / 1000} s` })
          })
        ) as Effect.Effect<any, WorkerFailed>
      },
      signal: (name) =>
        Effect.sync(() => {
          const sent = now()
          child.kill(name)
          return sent
        })
    }
  })

const listen = (child: ChildProcess): Effect.Effect<unknown, WorkerFailed> => {
  const replies: Array<Effect.Effect<unknown, WorkerFailed>> = []
  let waiting: ((reply: Effect.Effect<unknown, WorkerFailed>) => void) | undefined
  let complaints = ""
  let over: Effect.Effect<unknown, WorkerFailed> | undefined
  const offer = (reply: Effect.Effect<unknown, WorkerFailed>) => {
    if (waiting === undefined) {
      replies.push(reply)
    } else {
      const resume = waiting
      waiting = undefined
      resume(reply)
    }
  }
  const end = (message: string) => {
    over = new WorkerFailed({ message })
    offer(over)
  }
  createInterface({ input: child.stdout! }).on("line", (line) => {
    const reply = JSON.parse(line)
    offer(reply.error === undefined ? Effect.succeed(reply) : new WorkerFailed({ message: reply.error }))
  })
  child.stderr!.on("data", (chunk) => {
    complaints = (complaints + String(chunk)).slice(-2000)
  })
  child.stdin!.on("error", () => {})
  child.on("error", ({ message }) => end(message))
  child.on("close", (code) => end(`it ended with ${code}\n${complaints}`))
  return Effect.callback((resume) => {
    const reply = replies.shift() ?? over
    if (reply !== undefined) return resume(reply)
    waiting = resume
    return Effect.sync(() => {
      waiting = undefined
    })
  })
}
