/**
 * The ways between clients and an etcd in memory. Nothing arrives by itself: each request, each answer and each event
 * is an action that waits until it is run.
 */
import { Effect, Result } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as Service from "../../src/internal/etcd/service.ts"
import type { Subscriber } from "../../src/internal/etcd/subscriber.ts"
import type { Transport } from "../../src/internal/etcd/transport.ts"
import type * as Store from "../../src/internal/memory/store.ts"
import type { Machine } from "./Machine.ts"

export const requestTimeout = 2000

/** What travels in order, and is held back as a whole: a request with its answer, or with all that a watch reports. */
export interface Channel {
  heldUntil: number
}

export interface Action {
  /** The same in every run that has come here in the same way. */
  readonly label: string
  readonly kind: "request" | "answer" | "event"
  readonly client: Client
  readonly channel: Channel
  readonly run: () => void
  /** The caller, or the watch, fails now: a request on its way is lost, and so is an answer, or the events of the watch. */
  readonly fail: () => void
}

/** One end of the wire, with what has come over it. */
export class Client {
  readonly index: number
  readonly name: string
  readonly etcd: Etcd.Etcd["Service"]
  /** Names all that it has received, and when, in its order. Clients that have received the same are in the same state. */
  received = 0
  isolatedUntil = 0
  /** A request, an answer or a watch of it was lost, or took too long. */
  wasFaulty = false
  /** A request or an answer of it was held up, which may be longer than a caller waits. */
  wasLate = false
  calls = 0
  watches = 0
  readonly #wire: Wire

  constructor(index: number, wire: Wire) {
    this.#wire = wire
    this.index = index
    this.name = "ABC"[index]!
    this.etcd = Service.make(wire.transport(this), requestTimeout)
  }

  receive(what: number) {
    this.received = mix(mix(this.received, what), this.#wire.now)
  }
}

export class Wire {
  readonly store: ReturnType<typeof Store.make>
  /** In the order in which they came up. */
  readonly actions: Array<Action> = []
  /** Names all that was written to etcd, in its order. */
  written = 0
  /** On whose behalf etcd is changed now. */
  writer: Client | "an operator" | "expiry" = "expiry"
  /** The store's. */
  revision = 1n
  /** Called with what has happened in etcd, on behalf of `writer`. */
  onWrite: (events: ReadonlyArray<Etcd.WatchEvent>) => void = () => {}
  /** Called before a client hears of events. */
  onEvents: (client: Client, events: ReadonlyArray<Etcd.WatchEvent>) => void = () => {}
  readonly #machine: Machine
  readonly #subscribers = new Map<Subscriber, Client>()

  constructor(store: Wire["store"], machine: Machine) {
    this.store = store
    this.#machine = machine
    const everything = { key: Buffer.of(0), rangeEnd: Buffer.of(0) }
    store.watch(everything, (events) => {
      this.revision = events[0]!.kv.modRevision
      this.onWrite(events)
    })
  }

  /** What can arrive now, in the order in which it came up. */
  get ready(): ReadonlyArray<Action> {
    const { now } = this.#machine
    return this.actions.filter(({ channel, client }) => channel.heldUntil <= now && client.isolatedUntil <= now)
  }

  /** When something that is held back can arrive. */
  get nextRelease(): number | undefined {
    const { now } = this.#machine
    let next: number | undefined
    for (const { channel, client } of this.actions) {
      const until = Math.max(channel.heldUntil, client.isolatedUntil)
      if (until > now && until < (next ?? Infinity)) next = until
    }
    return next
  }

  get now(): number {
    return this.#machine.now
  }

  get watches(): number {
    return this.#subscribers.size
  }

  /** Changes etcd's data on behalf of somebody. */
  write(writer: Wire["writer"], change: () => void) {
    this.writer = writer
    change()
    this.writer = "expiry"
  }

  run(action: Action) {
    this.#remove(action)
    action.run()
  }

  fail(action: Action) {
    this.#remove(action)
    action.client.wasFaulty = true
    action.fail()
  }

  /** The caller hears that its connection is lost, and the request arrives all the same, later. */
  delay(action: Action, until: number) {
    action.channel.heldUntil = until
    action.client.wasFaulty = true
    action.fail()
  }

  #remove(action: Action) {
    const index = this.actions.indexOf(action)
    if (index >= 0) this.actions.splice(index, 1)
  }

  /** The answer to a request is lost, or the request itself; the caller hears at once that its connection is. */
  #send<A>(
    client: Client,
    method: Etcd.Method,
    timeout: number,
    apply: () => Result.Result<A, Etcd.EtcdError>,
    channel: Channel = { heldUntil: 0 }
  ): Effect.Effect<A, Etcd.EtcdError> {
    return Effect.callback<A, Etcd.EtcdError>((resume) => {
      const id = ++client.calls
      const label = `${client.name} ${method} ${id}`
      let isOver = false
      let answering: Action | undefined
      const fail = () => {
        isOver = true
        client.receive(mix(id, -1))
        resume(Effect.fail(connectionLost(method)))
      }
      const run = () => {
        const before = this.revision
        let answer!: Result.Result<A, Etcd.EtcdError>
        this.write(client, () => {
          answer = apply()
        })
        const isWrite = this.revision !== before || method.startsWith("lease")
        const what = mix(mix(this.written, client.index), id)
        if (isWrite) this.written = what
        if (isOver) return
        answering = {
          label: `answer ${label}`,
          kind: "answer",
          client,
          channel,
          fail,
          run: () => {
            isOver = true
            client.receive(what)
            resume(Effect.fromResult(answer))
          }
        }
        this.actions.push(answering)
      }
      this.actions.push({ label, kind: "request", client, channel, run, fail })
      return Effect.sync(() => {
        isOver = true
        if (answering !== undefined) this.#remove(answering)
      })
    }).pipe(Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => {
        client.wasFaulty = true
        return Effect.fail(timedOut(method))
      }
    }))
  }

  transport(client: Client): Transport {
    const { store } = this
    const now = () => this.#machine.monotonicTimeNanosUnsafe()
    const send = <A>(method: Etcd.Method, timeout: number, apply: () => Result.Result<A, Etcd.EtcdError>) =>
      this.#send(client, method, timeout, apply)
    return {
      txn: (txn, timeout) => send("txn", timeout, () => store.txn(txn)),
      range: (range, timeout) => send("range", timeout, () => store.range(range)),
      leaseGrant: (id, seconds, timeout) => send("leaseGrant", timeout, () => store.grant(id, seconds, now())),
      leaseRevoke: (id, timeout) => send("leaseRevoke", timeout, () => store.revoke(id)),
      leaseKeepAlive: (id, timeout) => send("leaseKeepAlive", timeout, () => store.keepAlive(id, now())),
      leaseTimeToLive: (id, withKeys, timeout) =>
        send("leaseTimeToLive", timeout, () => store.timeToLive(id, withKeys, now())),
      watch: (options, timeout, subscriber) => {
        // Its events come after the answer that it is open.
        const channel: Channel = { heldUntil: 0 }
        return this.#send(client, "watch", timeout, () => {
          // An attempt that has failed opens nothing, however late its request arrives.
          if (subscriber.isClosed) return Result.succeed(0n)
          return Result.map(this.#watch(client, options, subscriber, channel), ({ revision }) => revision)
        }, channel)
      }
    }
  }

  #watch(client: Client, options: Etcd.WatchOptions, subscriber: Subscriber, channel: Channel) {
    const id = ++client.watches
    let reported = 0
    const fail = () => {
      client.receive(mix(id, -2))
      end()
      subscriber.end(connectionLost("watch"))
    }
    const watching = this.store.watch(options, (events) => {
      const number = ++reported
      const what = mix(mix(id, number), Number(events[0]!.kv.modRevision))
      this.actions.push({
        label: `${client.name} event ${id}.${number}`,
        kind: "event",
        client,
        channel,
        fail,
        run: () => {
          client.receive(what)
          this.onEvents(client, events)
          subscriber.publish(events)
        }
      })
    })
    const end = () => {
      if (Result.isSuccess(watching)) watching.success.stop()
      this.#subscribers.delete(subscriber)
      for (const action of this.actions.filter((action) => action.channel === channel)) this.#remove(action)
    }
    subscriber.source = { cancel: end, giveUp: () => this.#giveUp(client) }
    this.#subscribers.set(subscriber, client)
    return watching
  }

  /** All watches of a client come from the same connection. */
  #giveUp(client: Client) {
    for (const [subscriber, other] of this.#subscribers) {
      if (other !== client) continue
      const { source } = subscriber
      subscriber.end(connectionLost("watch"))
      source!.cancel(subscriber)
    }
  }
}

const connectionLost = (method: Etcd.Method) =>
  new Etcd.EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description: "the connection was lost" })

const timedOut = (method: Etcd.Method) =>
  new Etcd.EtcdError({
    reason: "Timeout",
    method,
    outcome: method === "watch" ? "Refused" : "Unknown",
    description: "no answer in time"
  })

/** Names what comes after what has another name. */
export const mix = (a: number, b: number): number => {
  let hash = Math.imul(a ^ (a / 2 ** 32), 0x9e3779b1) ^ Math.imul(b + 0x7f4a7c15, 0x85ebca6b)
  hash = Math.imul(hash ^ hash >>> 15, 0x2c1b3c6d)
  const high = Math.imul(hash ^ a, 0xc2b2ae35) ^ Math.imul(b ^ hash >>> 13, 0x27d4eb2f)
  return ((high ^ high >>> 16) & 0x1fffff) * 2 ** 32 + (hash >>> 0)
}
