/** What the examples of several processes share. Copy it with them. */
import { Effect, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as Net from "node:net"
import { say } from "./support.ts"

/** Starts the example itself as a process of that name, and prints what it says. `heard` gets each line. */
export const start = Effect.fnUntraced(function*(
  who: string,
  args: ReadonlyArray<string> = [],
  heard: (line: string) => Effect.Effect<unknown> = () => Effect.void
) {
  const words = [...process.execArgv, process.argv[1]!, who, ...args]
  const child = yield* ChildProcess.make(process.execPath, words, { stderr: "inherit" })
  const lines = child.stdout.pipe(Stream.decodeText, Stream.splitLines)
  const printing = yield* Effect.forkScoped(
    Stream.runForEach(lines, (line) => Effect.andThen(say(who, line), heard(line)))
  )
  yield* say("Operator", `has started ${who}`)
  const signal = (name: NodeJS.Signals) =>
    Effect.andThen(say("Operator", `sends ${name} to ${who}`), Effect.sync(() => process.kill(child.pid, name)))
  return { signal, printing }
})

/** A port of this machine that no process listens at. */
export const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})
