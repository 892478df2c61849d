import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Net from "node:net"
import { accepts } from "./accepts.ts"
import { until } from "./eventually.ts"
import * as Proxy from "./Proxy.ts"

describe("Proxy", () => {
  it.live("passes bytes and counts connections", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThroughProxy
      assert.strictEqual(yield* proxy.connections, 1)
      client.send("hello")
      yield* client.receives("hello")
      client.socket.end()
      yield* until("the connection to end", Effect.map(proxy.connections, (n) => n === 0))
    }))

  it.live("cuts connections and takes new ones", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThroughProxy
      yield* proxy.cut
      yield* client.closes
      const next = yield* dial(proxy.endpoint)
      next.send("again")
      yield* next.receives("again")
    }))

  it.live("stalls and catches up", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThroughProxy
      yield* proxy.stall
      const next = yield* dial(proxy.endpoint)
      client.send("one")
      next.send("two")
      yield* Effect.sleep("100 millis")
      assert.strictEqual(client.received() + next.received(), "")
      assert.strictEqual(yield* proxy.connections, 2)
      yield* proxy.resume
      yield* client.receives("one")
      yield* next.receives("two")
    }))

  it.live("drops replies, then cuts what has lost some", () =>
    Effect.gen(function*() {
      const { client, echoed, proxy } = yield* echoThroughProxy
      const idle = yield* dial(proxy.endpoint)
      yield* proxy.dropReplies
      client.send("hello")
      assert.isFalse(yield* proxy.hasDropped)
      yield* until("the request to arrive", Effect.sync(() => echoed() === "hello"))
      yield* until("its reply to be lost", proxy.hasDropped)
      yield* proxy.resume
      yield* client.closes
      assert.strictEqual(client.received(), "")
      idle.send("still here")
      yield* idle.receives("still here")
    }))

  it.live("drops requests, and cuts what has lost some", () =>
    Effect.gen(function*() {
      const { client, echoed, proxy } = yield* echoThroughProxy
      yield* proxy.dropRequests
      client.send("hello")
      yield* until("the request to be lost", proxy.hasDropped)
      assert.strictEqual(echoed(), "")
      yield* proxy.resume
      yield* client.closes
    }))

  it.live("is a black hole for connections old and new, until it cuts them", () =>
    Effect.gen(function*() {
      const { client, echoed, proxy } = yield* echoThroughProxy
      yield* proxy.blackHole
      client.send("hello")
      const next = yield* dial(proxy.endpoint)
      next.send("hello")
      yield* Effect.sleep("100 millis")
      assert.strictEqual(echoed() + client.received() + next.received(), "")
      assert.isFalse(client.socket.closed || next.socket.closed)
      yield* proxy.resume
      yield* Effect.all([client.closes, next.closes])
    }))

  it.live("drops the events of etcd's watches, wherever their frames are cut, and nothing else", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThrough({ isGrpc: true })
      const [header, event] = [[1, "header"], [11, "event"]] as const
      const created = frame([header, [2, 1], [3, 1]])
      const told = frame([header, [2, 1], event])
      const read = frame([header, [2, "a key"], [4, 11]])
      const settings = frame([event], 4)
      client.send(created + told)
      yield* client.receives(created + told)
      yield* proxy.dropEvents
      for (const part of (told + read + told + settings + told + read).match(/[^]{1,7}/g)!) {
        client.send(part)
        yield* Effect.sleep("2 millis")
      }
      yield* client.receives(created + told + read + settings + read)
      assert.isFalse(yield* proxy.hasDropped)
      yield* proxy.resume
      client.send(told)
      yield* client.receives(created + told + read + settings + read + told)
    }))

  it.live("leaves connections half-open, and takes new ones", () =>
    Effect.gen(function*() {
      const { client, echoed, proxy } = yield* echoThroughProxy
      yield* proxy.halfOpen
      client.send("hello")
      yield* Effect.sleep("100 millis")
      assert.strictEqual(echoed(), "")
      assert.isFalse(client.socket.closed)
      const next = yield* dial(proxy.endpoint)
      next.send("again")
      yield* next.receives("again")
      yield* proxy.resume
      yield* client.closes
    }))

  it.live("refuses new connections and accepts again", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThroughProxy
      yield* proxy.refuse
      assert.isFalse(yield* accepts(proxy.endpoint))
      client.send("hello")
      yield* client.receives("hello")
      yield* proxy.accept
      assert.isTrue(yield* accepts(proxy.endpoint))
    }))

  it.live("delays in order", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* echoThroughProxy
      yield* proxy.delay(100)
      const sent = performance.now()
      client.send("a")
      yield* Effect.sleep("20 millis")
      client.send("b")
      yield* client.receives("ab")
      assert.isAtLeast(performance.now() - sent, 200)
    }))

  it.live("delays replies alone", () =>
    Effect.gen(function*() {
      const { client, echoed, proxy } = yield* echoThroughProxy
      yield* proxy.delayReplies(300)
      client.send("a")
      yield* until("the request to arrive", Effect.sync(() => echoed() === "a"))
      assert.strictEqual(client.received(), "")
      yield* client.receives("a")
    }))
})

const dial = (endpoint: string) =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const { hostname, port } = new URL(`tcp://${endpoint}`)
      const socket = Net.connect(Number(port), hostname, () => resume(Effect.succeed(socket)))
      socket.on("error", () => {})
    }),
    (socket) => Effect.sync(() => socket.destroy())
  ).pipe(Effect.map((socket) => {
    let received = ""
    socket.on("data", (chunk) => {
      received += String(chunk)
    })
    return {
      socket,
      send: (text: string) => socket.write(text),
      received: () => received,
      receives: (text: string) => until(`'${text}' to arrive`, Effect.sync(() => received === text)),
      closes: until("the connection to close", Effect.sync(() => socket.closed))
    }
  }))

/** An HTTP/2 frame with a gRPC message of these fields: a number, or bytes. */
const frame = (fields: ReadonlyArray<readonly [field: number, value: number | string]>, type = 0) => {
  const message = Buffer.concat(fields.map(([field, value]) =>
    typeof value === "number"
      ? Buffer.from([field << 3, value])
      : Buffer.concat([Buffer.from([field << 3 | 2, value.length]), Buffer.from(value)])
  ))
  const head = Buffer.from([0, 0, message.length + 5, type, 0, 0, 0, 0, 1, 0, 0, 0, 0, message.length])
  return Buffer.concat([head, message]).toString("latin1")
}

const echoThrough = (options?: Proxy.Options) =>
  Effect.gen(function*() {
    let echoed = ""
    const server = yield* Effect.acquireRelease(
      Effect.callback<Net.Server>((resume) => {
        const server = Net.createServer((socket) => {
          socket.on("error", () => {})
          socket.on("data", (chunk) => {
            echoed += String(chunk)
            socket.write(chunk)
          })
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => void server.close())
    )
    const proxy = yield* Proxy.make(`127.0.0.1:${(server.address() as Net.AddressInfo).port}`, options)
    const client = yield* dial(proxy.endpoint)
    yield* until("the proxy to take the connection", Effect.map(proxy.connections, (n) => n === 1))
    return { proxy, client, echoed: () => echoed }
  })

const echoThroughProxy = echoThrough()
