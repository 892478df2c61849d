import * as Effect from "effect/Effect"
import * as Tls from "node:tls"

/**
 * Whether somebody speaks TLS at `host:port`. An etcd that wants TLS closes a
 * plain connection without a word, as a dying one does: only asking tells which.
 */
export const speaksTls = (address: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address)!
    // nothing is sent over this connection, so it need not be trusted
    const socket = Tls.connect({ host: host!, port: Number(port), rejectUnauthorized: false })
    const answer = (yes: boolean) => {
      socket.destroy()
      resume(Effect.succeed(yes))
    }
    socket.once("secureConnect", () => answer(true))
    // a refusal of our certificate, or of our having none, is TLS too
    socket.on("error", (error: NodeJS.ErrnoException) => answer(error.code?.includes("_ALERT_") === true))
    socket.setTimeout(500, () => answer(false))
    return Effect.sync(() => socket.destroy())
  })
