import * as Effect from "effect/Effect"
import * as Net from "node:net"
import * as Tls from "node:tls"

// An etcd that is spoken to with the wrong scheme closes the connection without a word, as a dying one does: only
// an attempt with the other scheme distinguishes them. Nothing is sent over these connections, so they need not be trusted.

/** Whether a server speaks TLS at `host:port`. */
export const speaksTls = (address: string): Effect.Effect<boolean> =>
  ask((answer) => {
    const socket = Tls.connect({ ...target(address), rejectUnauthorized: false }, () => answer(true))
    // A refusal of our certificate, or of our having none, is TLS too.
    socket.once("error", (error: NodeJS.ErrnoException) => answer(error.code?.includes("_ALERT_") === true))
    return socket
  })

/** Whether a server at `host:port` speaks HTTP/2 without TLS. */
export const speaksPlain = (address: string): Effect.Effect<boolean> =>
  ask((answer) => {
    const socket = Net.connect(target(address), () => socket.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${noSettings}`))
    socket.once("data", (data) => answer(data[0] !== tlsAlert))
    return socket
  })

const noSettings = "\0\0\0\u0004\0\0\0\0\0"
const tlsAlert = 0x15

const target = (address: string) => {
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address)!
  return { host: host!, port: Number(port) }
}

const ask = (open: (answer: (yes: boolean) => void) => Net.Socket): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = open((yes) => {
      socket.destroy()
      resume(Effect.succeed(yes))
    })
    socket.on("error", () => {})
    socket.once("close", () => resume(Effect.succeed(false)))
    socket.setTimeout(500, () => socket.destroy())
    return Effect.sync(() => socket.destroy())
  })
