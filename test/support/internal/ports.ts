import { Effect } from "effect"
import * as Net from "node:net"

// Below the ranges that Linux and macOS take the ports of outgoing connections from: a client that keeps dialling
// a dead server could otherwise occupy the server's port itself.
const first = 20_000
const last = 32_000

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(true))))
  })

/** Those that this process has chosen, which it may not listen on yet. */
const chosen = new Set<number>()

/** A port of 127.0.0.1 on which nothing listens, and another one each time. */
export const freePort: Effect.Effect<number> = Effect.suspend(() => {
  const port = first + Math.floor(Math.random() * (last - first))
  if (chosen.has(port)) return freePort
  chosen.add(port)
  return Effect.flatMap(isFree(port), (free) => free ? Effect.succeed(port) : freePort)
})
