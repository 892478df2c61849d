import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import { freePort } from "./internal/ports.ts"

export interface Proxy {
  readonly endpoint: string
  /** How many clients are connected at the moment. */
  readonly connections: Effect.Effect<number>
  /** Destroys all connections; new ones are taken as before. */
  readonly cut: Effect.Effect<void>
  /** Forwards nothing in either direction while connections, new ones too, stay open: a half-dead network. */
  readonly stall: Effect.Effect<void>
  /** Forwards requests and swallows everything that comes back. */
  readonly dropReplies: Effect.Effect<void>
  /** Whether there is a connection that has lost replies. */
  readonly hasDropped: Effect.Effect<boolean>
  /** Forwards again, first what was held back; connections that have lost replies are cut. */
  readonly resume: Effect.Effect<void>
  /** Refuses new connections; those that stand go on. */
  readonly refuse: Effect.Effect<void>
  /** Takes new connections again. */
  readonly accept: Effect.Effect<void>
  /** Delays everything that arrives from now on by so much, in both directions. */
  readonly delay: (millis: number) => Effect.Effect<void>
}

/**
 * A TCP proxy on the loopback in front of `endpoint`, which passes all bytes untouched until told otherwise.
 */
export const make = (endpoint: string): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const at = endpoint.lastIndexOf(":")
    const target = { host: endpoint.slice(0, at), port: Number(endpoint.slice(at + 1)), allowHalfOpen: true }
    const network: Network = { mode: "forward", delay: 0 }
    const links = new Set<Link>()
    const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
      const etcd = Net.connect({ ...target, noDelay: true })
      const link: Link = {
        client,
        etcd,
        requests: flow(client, etcd, network, false),
        replies: flow(etcd, client, network, true)
      }
      links.add(link)
      etcd.once("close", () => client.destroyed && links.delete(link))
      client.once("close", () => etcd.destroyed && links.delete(link))
    })
    const port = yield* freePort
    const accept = Effect.callback<void>((resume) => {
      if (server.listening) {
        return resume(Effect.void)
      }
      server.listen(port, "127.0.0.1", () => resume(Effect.void))
    })
    // stops listening at once; the callback of `close` would wait for the last connection
    const refuse = Effect.sync(() => void server.close())
    const cutWhere = (predicate: (link: Link) => boolean) =>
      Effect.sync(() => {
        for (const link of [...links].filter(predicate)) {
          link.client.destroy()
          link.etcd.destroy()
        }
      })
    const cut = cutWhere(() => true)
    const enter = (mode: Network["mode"]) =>
      Effect.sync(() => {
        network.mode = mode
        for (const link of links) {
          link.requests.pump()
          link.replies.pump()
        }
      })
    yield* Effect.acquireRelease(accept, () => Effect.andThen(refuse, cut))
    return {
      endpoint: `127.0.0.1:${port}`,
      connections: Effect.sync(() => [...links].filter((link) => !link.client.destroyed).length),
      cut,
      stall: enter("stall"),
      dropReplies: enter("dropReplies"),
      hasDropped: Effect.sync(() => [...links].some((link) => link.replies.dropped())),
      resume: Effect.andThen(cutWhere((link) => link.replies.dropped()), enter("forward")),
      refuse,
      accept,
      delay: (millis) =>
        Effect.sync(() => {
          network.delay = millis
        })
    }
  })

interface Network {
  mode: "forward" | "stall" | "dropReplies"
  delay: number
}

interface Link {
  readonly client: Net.Socket
  readonly etcd: Net.Socket
  readonly requests: Flow
  readonly replies: Flow
}

interface Flow {
  readonly pump: () => void
  readonly dropped: () => boolean
}

// One direction of a connection: what happens at `from` is queued and happens at `to` as soon as the network lets it.
const flow = (from: Net.Socket, to: Net.Socket, network: Network, isReply: boolean): Flow => {
  const queue: Array<{ readonly due: number; readonly apply: () => void }> = []
  let dropped = false
  let timer: NodeJS.Timeout | undefined
  const pump = () => {
    clearTimeout(timer)
    while (queue.length > 0 && network.mode !== "stall") {
      const wait = queue[0]!.due - performance.now()
      if (wait > 0) {
        timer = setTimeout(pump, Math.ceil(wait))
        return
      }
      const { apply } = queue.shift()!
      if (isReply && network.mode === "dropReplies") {
        dropped = true
      } else {
        apply()
      }
    }
  }
  const push = (apply: () => void) => {
    queue.push({ due: performance.now() + network.delay, apply })
    pump()
  }
  from.on("data", (chunk) => push(() => to.writable && to.write(chunk)))
  from.on("end", () => push(() => to.end()))
  from.on("close", () => push(() => to.destroySoon()))
  from.on("error", () => {})
  return { pump, dropped: () => dropped }
}
