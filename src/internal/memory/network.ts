import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Result from "effect/Result"
import { EtcdError } from "../../EtcdError.ts"
import type { Method } from "../../EtcdFaults.ts"

type Loss = "Request" | "Reply"

/** What a cut ends. */
interface Connection {
  readonly method: Method
  readonly fail: (error: EtcdError) => void
}

interface Call extends Connection {
  hasArrived: boolean
  isCut: boolean
}

/** The way of a watch's events, which keep their order. */
export interface Delivery {
  /** Reports what happened at one revision, once etcd can, and as late as watches are. */
  readonly deliver: (report: () => void) => void
  /** Loses what is on its way. */
  readonly lose: () => void
}

interface Event {
  /** On the monotonic clock, in milliseconds. */
  readonly dueAt: number
  readonly report: () => void
}

/**
 * The way to etcd, and the faults on it. `onResume` is called when etcd wakes up,
 * before it looks at the requests that have piled up.
 */
export const make = Effect.fnUntraced(function*(onResume: () => void) {
  const fork = yield* FiberSet.makeRuntime()
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const calls = new Set<Call>()
  const watches = new Set<Connection>()
  let drops: Array<{ readonly what: Loss; readonly method: Method | undefined; left: number }> = []
  let delay = 0
  let watchDelay = 0
  /** Each lets what is on its way to a watch arrive at once. */
  const hurries = new Set<() => void>()
  let isUnreachable = false
  let isStalled = false
  // This is what etcd does when it wakes up.
  let events: Array<() => void> = []
  let requests: Array<() => void> = []

  const takeLoss = (method: Method): Loss | undefined => {
    const drop = drops.find((drop) => drop.method === undefined || drop.method === method)
    if (drop !== undefined && --drop.left <= 0) drops = drops.filter((other) => other !== drop)
    return drop?.what
  }

  /** Sends a request to etcd, which handles it with `apply`, once if at all, whatever happens to the caller. */
  const send = <A>(
    method: Method,
    timeout: number,
    apply: () => Result.Result<A, EtcdError>
  ): Effect.Effect<A, EtcdError> =>
    Effect.suspend(() => {
      if (isUnreachable) return Effect.fail(refused(method))
      const loss = takeLoss(method)
      if (loss === undefined && delay === 0 && !isStalled) {
        const answer = apply()
        // Other fibers may run before an answer arrives, as they may with a real network.
        return Effect.andThen(Effect.yieldNow, Effect.fromResult(answer))
      }
      const reply = Deferred.makeUnsafe<A, EtcdError>()
      const call: Call = {
        method,
        hasArrived: false,
        isCut: false,
        fail: (error) => Deferred.doneUnsafe(reply, Effect.fail(error))
      }
      calls.add(call)
      fork(travel(call, reply, apply, loss, delay / 2))
      return Deferred.await(reply).pipe(
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(timedOut(method)) }),
        Effect.ensuring(Effect.sync(() => calls.delete(call)))
      )
    })

  const travel = Effect.fnUntraced(function*<A>(
    call: Call,
    reply: Deferred.Deferred<A, EtcdError>,
    apply: () => Result.Result<A, EtcdError>,
    loss: Loss | undefined,
    oneWay: number
  ) {
    if (oneWay > 0) yield* Effect.sleep(oneWay)
    if (loss === "Request" || call.isCut) return
    call.hasArrived = true
    const answer = yield* Effect.callback<Result.Result<A, EtcdError>>((resume) => {
      const handle = () => resume(Effect.succeed(apply()))
      if (isStalled) requests.push(handle)
      else handle()
    })
    if (oneWay > 0) yield* Effect.sleep(oneWay)
    if (loss === undefined) Deferred.doneUnsafe(reply, Effect.fromResult(answer))
  })

  const makeDelivery = (): Delivery => {
    let late: Array<Event> = []
    let carrier: Fiber.Fiber<void> | undefined

    const deliver: Delivery["deliver"] = (report) => {
      // Also without a delay, no event may overtake one that is on its way.
      if (late.length === 0 && watchDelay === 0) return arrive(report)
      late.push({ dueAt: now() + watchDelay, report })
      hurries.add(hurry)
      carrier ??= fork(carry)
    }

    const carry = Effect.gen(function*() {
      while (late.length > 0) {
        const left = late[0]!.dueAt - now()
        if (left > 0) yield* Effect.sleep(left)
        arrive(late.shift()!.report)
      }
      carrier = undefined
      hurries.delete(hurry)
    })

    const lose = () => {
      hurries.delete(hurry)
      carrier?.interruptUnsafe()
      carrier = undefined
      late = []
    }

    const hurry = () => {
      const underWay = late
      lose()
      for (const { report } of underWay) arrive(report)
    }

    return { deliver, lose }
  }

  const arrive = (report: () => void): void => {
    if (isStalled) events.push(report)
    else report()
  }

  /** Registers a watch, for `cut` to end it. */
  const connect = (fail: (error: EtcdError) => void): () => void => {
    const connection: Connection = { method: "watch", fail }
    watches.add(connection)
    return () => void watches.delete(connection)
  }

  const cut = () => {
    for (const call of calls) call.isCut = !call.hasArrived
    const connections: ReadonlyArray<Connection> = [...calls, ...watches]
    watches.clear()
    for (const { fail, method } of connections) fail(connectionLost(method))
  }

  const resume = () => {
    if (!isStalled) return
    isStalled = false
    const [heldEvents, heldRequests] = [events, requests]
    events = []
    requests = []
    for (const report of heldEvents) report()
    onResume()
    for (const handle of heldRequests) handle()
  }

  return {
    send,
    makeDelivery,
    connect,
    isStalled: () => isStalled,
    drop: (what: Loss, method: Method | undefined, times: number) => {
      if (times > 0) drops.push({ what, method, left: times })
    },
    delay: (millis: number) => {
      delay = millis
    },
    delayWatches: (millis: number) => {
      watchDelay = millis
    },
    cut,
    stall: () => {
      isStalled = true
    },
    resume,
    unreachable: () => {
      isUnreachable = true
      cut()
    },
    reachable: () => {
      isUnreachable = false
    },
    heal: () => {
      drops = []
      delay = 0
      isUnreachable = false
      watchDelay = 0
      for (const hurry of hurries) hurry()
      resume()
    }
  }
})

const timedOut = (method: Method) =>
  new EtcdError({
    reason: "Timeout",
    method,
    // A watch that is not confirmed is given up, even if etcd opened it.
    outcome: method === "watch" ? "Refused" : "Unknown",
    description: "no answer in time"
  })

const connectionLost = (method: Method) =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description: "the connection was cut" })

const refused = (method: Method) =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Refused", description: "No connection established" })
