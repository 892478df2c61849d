import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import { events } from "./internal/events.ts"
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
  /** Forwards replies and swallows everything that is sent. */
  readonly dropRequests: Effect.Effect<void>
  /** Swallows everything in both directions, while connections, new ones too, stay open. */
  readonly blackHole: Effect.Effect<void>
  /** Swallows what etcd tells of watches, and nothing else, where it was made for gRPC; nothing shows that afterwards. */
  readonly dropEvents: Effect.Effect<void>
  /** Ends all connections at the server, and says nothing to the clients; new ones are taken as before. */
  readonly halfOpen: Effect.Effect<void>
  /** Whether there is a connection that has lost something. */
  readonly hasDropped: Effect.Effect<boolean>
  /** Forwards again, first what was held back; connections that have lost something are cut. */
  readonly resume: Effect.Effect<void>
  /** Refuses new connections; those that stand go on. */
  readonly refuse: Effect.Effect<void>
  /** Takes new connections again. */
  readonly accept: Effect.Effect<void>
  /** Delays everything that arrives from now on by so much, in both directions. */
  readonly delay: (millis: number) => Effect.Effect<void>
  /** Delays the replies by so much more. */
  readonly delayReplies: (millis: number) => Effect.Effect<void>
  /** Takes a connection that another server has accepted. */
  readonly adopt: (client: Net.Socket) => void
}

export interface Options {
  /** The address of this machine where it listens, instead of the loopback. */
  readonly address?: string | undefined
  /** Whether nothing but gRPC without TLS goes through it. */
  readonly isGrpc?: boolean | undefined
}

/**
 * A TCP proxy on this machine in front of `endpoint`, which passes all bytes untouched until told otherwise.
 */
export const make = (
  endpoint: string,
  { address = "127.0.0.1", isGrpc = false }: Options = {}
): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const at = endpoint.lastIndexOf(":")
    const target = { host: endpoint.slice(0, at), port: Number(endpoint.slice(at + 1)), allowHalfOpen: true }
    const network: Network = { mode: "forward", delay: 0, replyDelay: 0 }
    const links = new Set<Link>()
    const adopt = (client: Net.Socket) => {
      const etcd = Net.connect({ ...target, noDelay: true })
      const link: Link = {
        client,
        etcd,
        requests: flow(client, etcd, network, false),
        replies: flow(etcd, client, network, true, isGrpc ? events() : undefined)
      }
      links.add(link)
      etcd.once("close", () => client.destroyed && links.delete(link))
      client.once("close", () => etcd.destroyed && links.delete(link))
    }
    const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, adopt)
    const port = yield* freePort
    const accept = Effect.callback<void>((resume) => {
      if (server.listening) {
        return resume(Effect.void)
      }
      server.listen(port, address, () => resume(Effect.void))
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
      endpoint: `${address}:${port}`,
      connections: Effect.sync(() => [...links].filter((link) => !link.client.destroyed).length),
      cut,
      stall: enter("stall"),
      dropReplies: enter("dropReplies"),
      dropRequests: enter("dropRequests"),
      blackHole: enter("blackHole"),
      dropEvents: enter("dropEvents"),
      halfOpen: Effect.sync(() => {
        for (const link of links) {
          link.replies.silence()
          link.etcd.destroy()
        }
      }),
      hasDropped: Effect.sync(() => [...links].some(hasDropped)),
      resume: Effect.andThen(cutWhere(hasDropped), enter("forward")),
      refuse,
      accept,
      delay: (millis) =>
        Effect.sync(() => {
          network.delay = millis
        }),
      delayReplies: (millis) =>
        Effect.sync(() => {
          network.replyDelay = millis
        }),
      adopt
    }
  })

interface Network {
  mode: "forward" | "stall" | "dropReplies" | "dropRequests" | "dropEvents" | "blackHole"
  delay: number
  replyDelay: number
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
  /** Swallows everything from now on. */
  readonly silence: () => void
}

const hasDropped = ({ replies, requests }: Link) => replies.dropped() || requests.dropped()

// One direction of a connection: what happens at `from` is queued and happens at `to` as soon as the network lets it.
const flow = (
  from: Net.Socket,
  to: Net.Socket,
  network: Network,
  isReply: boolean,
  filter: ReturnType<typeof events> = (chunk) => chunk
): Flow => {
  const queue: Array<{ readonly due: number; readonly apply: () => void }> = []
  let dropped = false
  let isSilent = false
  const isSwallowed = () =>
    isSilent || network.mode === "blackHole" || network.mode === (isReply ? "dropReplies" : "dropRequests")
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
      if (isSwallowed()) {
        dropped = true
      } else {
        apply()
      }
    }
  }
  const push = (apply: () => void) => {
    queue.push({ due: performance.now() + network.delay + (isReply ? network.replyDelay : 0), apply })
    pump()
  }
  from.on("data", (chunk) => push(() => to.writable && to.write(filter(chunk, network.mode === "dropEvents"))))
  from.on("end", () => push(() => to.end()))
  from.on("close", () => push(() => to.destroySoon()))
  from.on("error", () => {})
  return {
    pump,
    dropped: () => dropped,
    silence: () => {
      isSilent = true
      dropped = true
    }
  }
}
