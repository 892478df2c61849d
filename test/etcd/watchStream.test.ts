/** What a stream of watches, or of renewals, makes of what a server tells it. The servers are stubs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { EventEmitter } from "node:events"
import * as Service from "../../src/internal/etcd/service.ts"
import * as KeepAlive from "../../src/internal/etcd3/keepAlive.ts"
import type { Members } from "../../src/internal/etcd3/members.ts"
import * as Watch from "../../src/internal/etcd3/watch.ts"
import { text } from "../support/connect.ts"
import { until } from "../support/eventually.ts"

/** A server's end of a stream. */
interface Stream {
  readonly requests: Array<any>
  readonly tell: (response: object) => void
  isClosed: boolean
}

const int64 = (value: number) => ({ low: value, high: value < 0 ? -1 : 0 })

const header = { revision: int64(7) }

const created = (number: number) => ({ header, watch_id: int64(number), created: true })

const refused = (reason: string) => ({ ...created(-1), canceled: true, cancel_reason: reason })

const event = (key: string, type = 1) => ({
  type,
  kv: {
    key: Buffer.from(key),
    value: [],
    create_revision: int64(0),
    mod_revision: int64(8),
    version: int64(0),
    lease: int64(0)
  }
})

const told = (number: number, ...events: ReadonlyArray<object>) => ({ header, watch_id: int64(number), events })

const defaults = {
  created: false,
  canceled: false,
  cancel_reason: "",
  compact_revision: int64(0),
  fragment: false,
  events: []
}

/** What opens streams to a stub, which hears each request of each stream. */
const stub = (onRequest: (request: any, stream: Stream) => void = () => {}) => {
  const streams: Array<Stream> = []
  const open = () => {
    const duplex = Object.assign(new EventEmitter(), {
      write: (request: unknown) => {
        stream.requests.push(request)
        onRequest(request, stream)
      },
      end: () => {
        stream.isClosed = true
      },
      cancel: () => {
        stream.isClosed = true
      }
    })
    const stream: Stream = {
      requests: [],
      tell: (response) => void duplex.emit("data", { ...defaults, ...response }),
      isClosed: false
    }
    streams.push(stream)
    return Promise.resolve(duplex)
  }
  const members = {
    current: () => ({ open, leaseClient: { leaseKeepAlive: open } }),
    isTokenRefused: () => false,
    failed: () => {},
    onMove: () => Effect.void,
    checkCluster: () => undefined,
    explain: () => Effect.fail
  } as unknown as Members
  return { members, streams }
}

const none = () => Effect.die(new Error("watches only"))

const connect = (
  onRequest?: (request: any, stream: Stream) => void
): Effect.Effect<
  { readonly etcd: Etcd.Etcd["Service"]; readonly streams: ReadonlyArray<Stream> },
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const { members, streams } = stub(onRequest)
    const watch = yield* Watch.make(members)
    const transport = { txn: none, range: none, leaseGrant: none, leaseRevoke: none, leaseKeepAlive: none }
    return { etcd: Service.make({ ...transport, leaseTimeToLive: none, watch }, 3000), streams }
  })

/** Watches keys, and notes what each watch hears. */
const subscribeAll = (etcd: Etcd.Etcd["Service"], keys: ReadonlyArray<string>, only?: "Put" | "Delete") => {
  const heard: Array<string> = []
  const subscribed = Effect.forEach(
    keys,
    (key) =>
      etcd.subscribe({ key: Buffer.from(key), only }, {
        onEvents: (events) => void heard.push(...events.map(({ kv }) => `${key}: ${text(kv.key)}`)),
        onEnd: ({ isTransient, reason }) => void heard.push(`${key}: ${reason}, ${isTransient}`)
      }),
    { concurrency: "unbounded" }
  )
  return { heard, subscribed }
}

/** The keys of the watches that a stream was asked for. */
const askedFor = (stream: Stream | undefined): ReadonlyArray<string> =>
  (stream?.requests ?? []).flatMap(({ create_request }) =>
    create_request === undefined ? [] : [text(create_request.key)!]
  )

/** The numbers of the watches that a stream was asked to cancel. */
const cancelled = ({ requests }: Stream): ReadonlyArray<number> =>
  requests.flatMap(({ cancel_request }) => cancel_request === undefined ? [] : [cancel_request.watch_id.low])

/** Gives watches the numbers that are asked for. */
const etcdOfOrder = (request: any, { tell }: Stream) => {
  const number: number | undefined = request.create_request?.watch_id.low
  if (number !== undefined) setTimeout(() => tell(created(number)))
}

/** Gives watches numbers of its own as they are asked for, and confirms those that wait in the wrong order. */
const grpcProxy = () => {
  const numbers = new Map<string, number>()
  let waiting: Array<number> = []
  const onRequest = ({ create_request }: any, { tell }: Stream) => {
    if (create_request === undefined) return
    const number = numbers.size
    numbers.set(text(create_request.key)!, number)
    waiting.push(number)
    if (waiting.length > 1) return
    setTimeout(() => {
      const numbers = waiting.toReversed()
      waiting = []
      for (const number of numbers) tell(created(number))
    }, 5)
  }
  return { numbers, onRequest }
}

describe("a watch", () => {
  it.live("has the number that its confirmation names, in whatever order confirmations would come", () =>
    Effect.gen(function*() {
      const proxy = grpcProxy()
      const { etcd, streams: [stream, ...others] } = yield* Effect.tap(
        connect(proxy.onRequest),
        ({ etcd }) =>
          Effect.flatMap(
            etcd.subscribe(Etcd.get("first"), { onEvents: () => {}, onEnd: () => {} }),
            ({ close }) => Effect.sync(close)
          )
      )
      const { heard, subscribed } = subscribeAll(etcd, ["a", "b", "c"])
      const [, second] = yield* subscribed
      const number = (key: string): number => proxy.numbers.get(key)!
      for (const key of ["a", "b", "c"]) stream!.tell(told(number(key), event(key)))
      assert.deepStrictEqual(heard, ["a: a", "b: b", "c: c"])
      second!.close()
      assert.deepStrictEqual(cancelled(stream!), [number("first"), number("b")])
      assert.lengthOf(others, 0)
    }))

  it.live("is asked for along with others once the server has taken a number that was asked for", () =>
    Effect.gen(function*() {
      const { etcd, streams } = yield* connect()
      const { heard, subscribed } = subscribeAll(etcd, ["a", "b", "c", "d"])
      const opening = yield* Effect.forkChild(subscribed, { startImmediately: true })
      yield* until("a request", Effect.sync(() => askedFor(streams[0]).length > 0))
      assert.deepStrictEqual(askedFor(streams[0]), ["a"])
      const [stream] = streams
      const number = (i: number): number => stream!.requests[i].create_request.watch_id.low
      stream!.tell(created(number(0)))
      assert.deepStrictEqual(askedFor(stream), ["a", "b", "c", "d"])
      for (const i of [2, 3, 1]) stream!.tell(created(number(i)))
      yield* Fiber.join(opening)
      for (const i of [0, 1, 2, 3]) stream!.tell(told(number(i), event("abcd"[i]!)))
      assert.deepStrictEqual(heard, ["a: a", "b: b", "c: c", "d: d"])
    }))

  it.live("that was given up before its confirmation is cancelled when that comes", () =>
    Effect.gen(function*() {
      const { etcd, streams } = yield* connect()
      const first = yield* Effect.forkChild(subscribeAll(etcd, ["first"]).subscribed, { startImmediately: true })
      yield* until("a request", Effect.sync(() => askedFor(streams[0]).length > 0))
      const [stream] = streams
      const number = (i: number): number => stream!.requests[i].create_request.watch_id.low
      stream!.tell(created(number(0)))
      yield* Fiber.join(first)
      const { heard, subscribed } = subscribeAll(etcd, ["a"])
      const opening = yield* Effect.forkChild(subscribed, { startImmediately: true })
      yield* until("another request", Effect.sync(() => askedFor(stream).length > 1))
      yield* Fiber.interrupt(opening)
      assert.deepStrictEqual(cancelled(stream!), [])
      stream!.tell(created(number(1)))
      assert.deepStrictEqual(cancelled(stream!), [number(1)])
      stream!.tell(told(number(1), event("a")))
      assert.deepStrictEqual(heard, [])
    }))

  it.live("that is refused is the oldest of those that were asked for", () =>
    Effect.gen(function*() {
      const { etcd, streams } = yield* connect()
      const { subscribed } = subscribeAll(etcd, ["a"])
      const { subscribed: denied } = subscribeAll(etcd, ["b"])
      const { subscribed: last } = subscribeAll(etcd, ["c"])
      const opening = yield* Effect.forEach([subscribed, denied, last], (subscribed) =>
        Effect.forkChild(Effect.exit(subscribed), { startImmediately: true }))
      yield* until(
        "a request",
        Effect.sync(() =>
          askedFor(streams[0]).length > 0
        )
      )
      const [stream] = streams
      const number = (i: number): number => stream!.requests[i].create_request.watch_id.low
      stream!.tell(created(number(0)))
      stream!.tell(refused("rpc error: code = PermissionDenied desc = etcdserver: permission denied"))
      stream!.tell(created(number(2)))
      const exits = yield* Effect.forEach(opening, Fiber.join)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true])
    }))

  it.live("that waits behind others does not end their stream when its time is up", () =>
    Effect.gen(function*() {
      let number = 0
      const { etcd, streams } = yield* connect(({ create_request }, { tell }) => {
        if (create_request !== undefined) setTimeout(() => tell(created(number++)), 400)
      })
      const { heard, subscribed } = subscribeAll(etcd, ["a", "b", "c", "d"])
      yield* subscribed
      assert.isAbove(askedFor(streams[0]).length, 4)
      assert.lengthOf(streams, 1)
      assert.deepStrictEqual(heard, [])
    }))

  it.live("that waits behind one that is never confirmed, and that nobody wants any more, is opened on another stream", () =>
    Effect.gen(function*() {
      const { etcd, streams } = yield* connect((request, stream) => {
        if (streams.length > 1) etcdOfOrder(request, stream)
      })
      const opening = yield* Effect.forkChild(subscribeAll(etcd, ["a"]).subscribed, { startImmediately: true })
      yield* until("a request", Effect.sync(() => askedFor(streams[0]).length > 0))
      yield* Fiber.interrupt(opening)
      yield* subscribeAll(etcd, ["b"]).subscribed
      assert.deepStrictEqual(streams.map(askedFor), [["a"], ["b"]])
      assert.isTrue(streams[0]!.isClosed)
    }))
})

describe("a stream of watches", () => {
  const misfits: Record<string, (number: number) => object> = {
    "an event of a neighbouring key": (number) => told(number, event("b")),
    "an event of a neighbouring key beside one of its own": (number) => told(number, event("a"), event("ab")),
    "a put to a watch for deletes": (number) => told(number, event("a", 0)),
    "a part of a revision's events": (number) => ({ ...told(number, event("a")), fragment: true }),
    "a confirmation of a watch that is open": (number) => created(number),
    "a confirmation while none is asked for": () => created(3),
    "a refusal while none is asked for": () => refused("no")
  }
  for (const [what, misfit] of Object.entries(misfits)) {
    it.live(`ends with ${what}, and its watches can be opened again`, () =>
      Effect.gen(function*() {
        const { etcd, streams } = yield* connect(etcdOfOrder)
        const { heard, subscribed } = subscribeAll(etcd, ["a"], "Delete")
        yield* subscribed
        const [stream] = streams
        stream!.tell(misfit(stream!.requests[0].create_request.watch_id.low))
        assert.deepStrictEqual(heard, ["a: Unavailable, true"])
        assert.isTrue(stream!.isClosed)
        yield* subscribed
        const again = streams[1]!
        again.tell(told(again.requests[0].create_request.watch_id.low, event("a")))
        assert.deepStrictEqual(heard.slice(1), ["a: a"])
      }))
  }

  it.live("ends with a confirmation without a header, and the watch can be opened on another", () =>
    Effect.gen(function*() {
      let isFirst = true
      const { etcd, streams } = yield* connect((request, stream) => {
        if (!isFirst) return etcdOfOrder(request, stream)
        isFirst = false
        setTimeout(() => stream.tell({ ...created(request.create_request.watch_id.low), header: null }))
      })
      yield* subscribeAll(etcd, ["a"]).subscribed
      assert.deepStrictEqual(streams.map(({ isClosed }) => isClosed), [true, false])
    }))

  it.live("ends with a number that nobody asked for, once the server has taken one", () =>
    Effect.gen(function*() {
      const { etcd, streams } = yield* connect(({ create_request }, { tell }) => {
        const key = text(create_request?.key)
        if (key !== "b") return etcdOfOrder({ create_request }, { tell, requests: [], isClosed: false })
        // As another server would.
        if (streams.length === 1) setTimeout(() => tell(created(0)))
        else setTimeout(() => tell(created(create_request.watch_id.low)))
      })
      const first = subscribeAll(etcd, ["a"])
      yield* first.subscribed
      const second = subscribeAll(etcd, ["b"])
      yield* second.subscribed
      assert.deepStrictEqual(first.heard, ["a: Unavailable, true"])
      assert.lengthOf(streams, 2)
    }))

  it.live("ends the one watch whose events etcd has compacted", () =>
    Effect.gen(function*() {
      const { etcd, streams: [stream] } = yield* Effect.tap(
        connect(etcdOfOrder),
        ({ etcd }) => etcd.subscribe(Etcd.get("first"), { onEvents: () => {}, onEnd: () => {} })
      )
      const { heard, subscribed } = subscribeAll(etcd, ["a", "b"])
      yield* subscribed
      const number = (i: number): number => stream!.requests[i].create_request.watch_id.low
      stream!.tell({ ...told(number(1)), compact_revision: int64(5) })
      stream!.tell(told(number(2), event("b")))
      assert.deepStrictEqual(heard, ["a: Unavailable, true", "b: b"])
    }))

  it.live("takes no notice of what it is told of watches that it has closed, and of all watches at once", () =>
    Effect.gen(function*() {
      const { etcd, streams: [stream] } = yield* Effect.tap(
        connect(etcdOfOrder),
        ({ etcd }) => etcd.subscribe(Etcd.get("first"), { onEvents: () => {}, onEnd: () => {} })
      )
      const { heard, subscribed } = subscribeAll(etcd, ["a", "b"])
      const [first] = yield* subscribed
      const number = (i: number): number => stream!.requests[i].create_request.watch_id.low
      first!.close()
      stream!.tell(told(number(1), event("a")))
      stream!.tell({ ...told(number(1)), canceled: true })
      stream!.tell(told(-1))
      stream!.tell(told(number(2), event("b")))
      assert.deepStrictEqual(heard, ["b: b"])
    }))
})

describe("a renewal", () => {
  it.live("is answered by what names its lease, and finds it gone whatever the server says of that", () =>
    Effect.gen(function*() {
      const { members, streams } = stub()
      const renew = yield* KeepAlive.make(members)
      const renewing = yield* Effect.forEach(
        [1n, 2n],
        (id) => Effect.forkChild(renew(id, 1000), { startImmediately: true })
      )
      yield* until("two requests", Effect.sync(() => streams[0]?.requests.length === 2))
      const { tell } = streams[0]!
      tell({ ID: "3", TTL: "99" })
      tell({ ID: "2", TTL: "-1" })
      tell({ ID: "1", TTL: "15" })
      const renewed = yield* Effect.forEach(renewing, Fiber.join)
      assert.deepStrictEqual(renewed.map(({ ttl }) => ttl), [15, 0])
    }))
})
