/**
 * One port in front of a member's peer port, which leads through another proxy for each member that it is dialled from, so
 * that two members can be kept apart in both directions. A member names itself in the first lines of each connection.
 */
import { Effect, Scope } from "effect"
import * as Net from "node:net"
import { freePort } from "../support/internal/ports.ts"
import * as Proxy from "../support/Proxy.ts"

export interface PeerSwitch {
  readonly port: number
  /** The proxy for what a member dials, by its ID in hexadecimal. */
  readonly from: (id: string) => Effect.Effect<Proxy.Proxy>
}

export const make = (peer: string): Effect.Effect<PeerSwitch, never, Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const proxies = new Map<string, Proxy.Proxy>()
    const from = (id: string) =>
      Effect.suspend(() => {
        const known = proxies.get(id)
        if (known !== undefined) return Effect.succeed(known)
        return Effect.tap(Scope.provide(Proxy.make(peer), scope), (proxy) => Effect.sync(() => proxies.set(id, proxy)))
      })
    // What does not name itself, such as a probe, carries no message of the cluster's.
    const unnamed = yield* from("")
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      readHead(socket, (head) => {
        const id = /^x-server-from: *([0-9a-f]+)/im.exec(head)?.[1]
        const route = id === undefined ? Effect.succeed(unnamed) : from(id)
        run(Effect.map(route, ({ adopt }) => {
          adopt(socket)
          socket.resume()
        }))
      })
    })
    const port = yield* freePort
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => void server.listen(port, "127.0.0.1", () => resume(Effect.void))),
      () => Effect.sync(() => server.close())
    )
    return { port, from }
  })

/** Waits for the end of an HTTP head, and leaves it in the socket. */
const readHead = (socket: Net.Socket, onHead: (head: string) => void) => {
  let read = Buffer.alloc(0)
  const onError = () => socket.destroy()
  const onData = (chunk: Buffer) => {
    read = Buffer.concat([read, chunk])
    if (!read.includes("\r\n\r\n") && read.length < 2 ** 14) return
    socket.off("data", onData).off("end", onError).off("close", onError)
    socket.pause()
    socket.unshift(read)
    onHead(read.toString("latin1"))
  }
  socket.on("data", onData).on("end", onError).on("close", onError).on("error", onError)
}
