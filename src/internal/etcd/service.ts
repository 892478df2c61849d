/**
 * Makes an `Etcd` of a transport: requests with retries and a deadline, and watches
 * without.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type { Etcd, Txn, WatchEvent } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import * as Retry from "./retry.ts"
import type { Transport } from "./transport.ts"
import { Watcher } from "./watcher.ts"

/** `requestTimeout` is in milliseconds. */
export const make = (transport: Transport, requestTimeout: number): Etcd["Service"] => {
  const retrying = Retry.make(requestTimeout)

  const subscribe: Etcd["Service"]["subscribe"] = (options, watcher) =>
    retrying((timeout) => transport.watch(options, timeout, watcher))

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
    range: (range) => retrying((timeout) => transport.range(range, timeout)),
    leaseGrant: (leaseId, seconds) => retrying((timeout) => transport.leaseGrant(leaseId, seconds, timeout)),
    leaseRevoke: (leaseId) => retrying((timeout) => transport.leaseRevoke(leaseId, timeout)),
    leaseKeepAlive: transport.leaseKeepAlive,
    leaseTimeToLive: (leaseId) => retrying((timeout) => transport.leaseTimeToLive(leaseId, timeout)),
    watch: Effect.fnUntraced(function*(options) {
      const seen = yield* Queue.unbounded<ReadonlyArray<WatchEvent>, EtcdError>()
      const watcher = new Watcher(Exit.match({
        onSuccess: (events) => Queue.offerUnsafe(seen, events),
        onFailure: (cause) => Queue.failCauseUnsafe(seen, cause)
      }))
      yield* Effect.addFinalizer(() => Effect.sync(() => watcher.close()))
      return { revision: yield* subscribe(options, watcher), next: Queue.take(seen) }
    }),
    subscribe
  }
}
