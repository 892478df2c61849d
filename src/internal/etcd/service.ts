/**
 * Makes an `Etcd` of a transport: requests with retries and a deadline, and watches
 * without.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Etcd, Range, Subscription, Txn, Watch, WatchEvent, WatchListener, WatchOptions } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import { monotonicMillis } from "../monotonic.ts"
import * as Retry from "./retry.ts"
import { Subscriber } from "./subscriber.ts"
import type { Transport, TransportWatch } from "./transport.ts"

/** `requestTimeout` is in milliseconds. */
export const make = (transport: Transport, requestTimeout: number): Etcd["Service"] => {
  let trouble: Trouble | undefined
  const retrying = Retry.make(requestTimeout, (error, clock) => {
    if (error.reason === "Unavailable") trouble = { error, at: monotonicMillis(clock) }
  })

  const subscribed = (options: TransportWatch, listener: WatchListener) =>
    retrying((timeout) => {
      const subscriber = new Subscriber(listener)
      return transport.watch(options, timeout, subscriber).pipe(
        Effect.flatMap((revision) => subscriber.open(revision)),
        Effect.onError(() => Effect.sync(() => subscriber.close()))
      )
    })
  const subscribe: Subscribe = (options, listener) => subscribed({ ...options, isOfLine: false }, listener)
  subscribe[ofLine] = (options, listener) => subscribed({ ...options, isOfLine: true }, listener)
  const range: Ranging = (range) => retrying((timeout) => transport.range(range, timeout))
  range[lastTrouble] = () => trouble

  return {
    requestTimeout: Duration.millis(requestTimeout),
    txn: (request) => {
      const txn: Txn = {
        _tag: "Txn",
        compare: request.compare ?? [],
        then: request.then,
        else: request.else ?? []
      }
      const isIdempotent = request.idempotent === true || [...txn.then, ...txn.else].every((op) => op._tag === "Range")
      return Effect.suspend(() => {
        let repeated = false
        const attempt = (timeout: number) =>
          transport.txn(txn, timeout).pipe(
            Effect.map((result) => ({ ...result, repeated })),
            Effect.tapError((error) => {
              if (error.outcome === "Unknown") repeated = true
              return Effect.void
            })
          )
        return retrying(attempt, isIdempotent) as Effect.Effect<any, EtcdError>
      })
    },
    range,
    leaseGrant: (leaseId, seconds) => retrying((timeout) => transport.leaseGrant(leaseId, seconds, timeout)),
    leaseRevoke: (leaseId) => retrying((timeout) => transport.leaseRevoke(leaseId, timeout)),
    leaseKeepAlive: transport.leaseKeepAlive,
    leaseTimeToLive: (leaseId, options) =>
      retrying((timeout) => transport.leaseTimeToLive(leaseId, options?.keys === true, timeout)),
    watch: (options) => watchThrough((listener) => subscribe(options, listener)),
    subscribe
  }
}

// -----------------------------------------------------------------------------
// the connection
// -----------------------------------------------------------------------------

interface Trouble {
  readonly error: EtcdError
  readonly at: number
}

/** How a caller that waits no longer learns what its request has met so far. It hangs on the function, as `ofLine` does. */
const lastTrouble = Symbol("effect-etcd-lock/lastTrouble")

interface Ranging {
  (range: Range): ReturnType<Etcd["Service"]["range"]>
  [lastTrouble]?: () => Trouble | undefined
}

/** Why etcd could last not be reached, if that was in the last `millis`. */
export const troubleWithin = (etcd: Etcd["Service"], millis: number): Effect.Effect<EtcdError | undefined> =>
  Clock.clockWith((clock) => {
    const trouble = (etcd.range as Ranging)[lastTrouble]?.()
    const isRecent = trouble !== undefined && monotonicMillis(clock) - trouble.at <= millis
    return Effect.succeed(isRecent ? trouble.error : undefined)
  })

// -----------------------------------------------------------------------------
// watches of lines
// -----------------------------------------------------------------------------

/**
 * How a line subscribes on an etcd of ours. It hangs on the function, so that whoever replaces that gets the lines'
 * watches, too.
 */
const ofLine = Symbol("effect-etcd-lock/subscribeOfLine")

interface Subscribe {
  (options: WatchOptions, listener: WatchListener): Effect.Effect<Subscription, EtcdError>
  [ofLine]?: Etcd["Service"]["subscribe"]
}

/** Subscribes for a waiting line: what the program watches for itself does not hold it up. */
export const subscribeOfLine = (
  etcd: Etcd["Service"],
  options: WatchOptions,
  listener: WatchListener
): Effect.Effect<Subscription, EtcdError> => {
  const subscribe = (etcd.subscribe as Subscribe)[ofLine]
  return subscribe === undefined ? etcd.subscribe(options, listener) : subscribe(options, listener)
}

/** Watches for a waiting line. */
export const watchOfLine = (
  etcd: Etcd["Service"],
  options: WatchOptions
): Effect.Effect<Watch, EtcdError, Scope.Scope> => watchThrough((listener) => subscribeOfLine(etcd, options, listener))

const watchThrough = Effect.fnUntraced(function*(
  subscribe: (listener: WatchListener) => Effect.Effect<Subscription, EtcdError>
) {
  const seen = yield* Queue.unbounded<ReadonlyArray<WatchEvent>, EtcdError>()
  const subscribed = subscribe({
    onEvents: (events) => Queue.offerUnsafe(seen, events),
    onEnd: (error) => Queue.failCauseUnsafe(seen, Cause.fail(error))
  })
  // Only a watch that is open leaves something to its scope, in which many attempts to open it may have failed.
  const { revision } = yield* Effect.acquireRelease(
    subscribed,
    ({ close }) => Effect.andThen(Effect.sync(close), Queue.shutdown(seen)),
    { interruptible: true }
  )
  return { revision, next: Queue.take(seen) }
})
