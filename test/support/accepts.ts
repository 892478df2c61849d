import { Effect } from "effect"
import * as Net from "node:net"

/** Whether somebody takes connections there. */
export const accepts = (endpoint: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const { hostname, port } = new URL(`tcp://${endpoint}`)
    const socket = Net.connect(Number(port), hostname)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", () => resume(Effect.succeed(false)))
  })
