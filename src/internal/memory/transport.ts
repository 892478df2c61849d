import * as Bytes from "effect/Bytes"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { KeyValue, WatchOptions } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import { Faults, type Snapshot } from "../../EtcdFaults.ts"
import { bytes, prefixEnd } from "../etcd/bytes.ts"
import { prefixed } from "../etcd/namespace.ts"
import type { Subscriber } from "../etcd/subscriber.ts"
import type { Transport } from "../etcd/transport.ts"
import * as Network from "./network.ts"
import * as Store from "./store.ts"

/** An etcd in memory, and what can go wrong with it. Both see keys without the prefix. */
export const make = Effect.fnUntraced(function*(prefix: Uint8Array) {
  const clock = yield* Clock.Clock
  const now = () => clock.monotonicTimeNanosUnsafe()
  const store = Store.make()
  const network = yield* Network.make(() => {
    for (const leaseId of store.leaseIds()) {
      if (store.expiresAt(leaseId)! <= now()) store.dropLease(leaseId)
    }
  })

  // --- leases ---

  const expiries = yield* FiberMap.make<bigint>()
  const fork = yield* FiberMap.runtime(expiries)()

  const expire = Effect.fnUntraced(function*(leaseId: bigint) {
    let expiresAt = store.expiresAt(leaseId)
    while (expiresAt !== undefined && expiresAt > now()) {
      yield* Effect.sleep(Duration.nanos(expiresAt - now()))
      // Renewals have moved it.
      expiresAt = store.expiresAt(leaseId)
    }
    if (!network.isStalled()) store.dropLease(leaseId)
  })

  const grant = (leaseId: bigint, seconds: number): Result.Result<number, EtcdError> =>
    Result.map(store.grant(leaseId, seconds, now()), (granted) => {
      fork(leaseId, expire(leaseId))
      return granted
    })

  const stopExpiry = (leaseId: bigint): void =>
    Option.getOrUndefined(FiberMap.getUnsafe(expiries, leaseId))?.interruptUnsafe()

  const revoke = (leaseId: bigint): Result.Result<void, EtcdError> =>
    Result.map(store.revoke(leaseId), () => stopExpiry(leaseId))

  // --- watches ---

  const watch = (options: WatchOptions, timeout: number, subscriber: Subscriber) =>
    network.send("watch", timeout, (): Result.Result<bigint, EtcdError> => {
      // An attempt that has failed opens nothing, however late its request arrives.
      if (subscriber.isClosed) return Result.succeed(0n)
      const delivery = network.makeDelivery()
      const watching = store.watch(options, (batch) => delivery.deliver(() => subscriber.publish(batch)))
      return Result.map(watching, ({ revision, stop }) => {
        const end = () => {
          stop()
          delivery.lose()
        }
        const disconnect = network.connect((error) => {
          end()
          subscriber.end(error)
        })
        subscriber.source = {
          cancel: () => {
            end()
            disconnect()
          }
        }
        return revision
      })
    })

  const transport: Transport = {
    txn: (txn, timeout) => network.send("txn", timeout, () => store.txn(txn)),
    range: (range, timeout) => network.send("range", timeout, () => store.range(range)),
    leaseGrant: (leaseId, seconds, timeout) => network.send("leaseGrant", timeout, () => grant(leaseId, seconds)),
    leaseRevoke: (leaseId, timeout) => network.send("leaseRevoke", timeout, () => revoke(leaseId)),
    leaseKeepAlive: (leaseId, timeout) =>
      network.send("leaseKeepAlive", timeout, () => store.keepAlive(leaseId, now())),
    leaseTimeToLive: (leaseId, withKeys, timeout) =>
      network.send("leaseTimeToLive", timeout, () => store.timeToLive(leaseId, withKeys, now())),
    watch
  }

  const withoutPrefix = (kv: KeyValue): KeyValue => ({ ...kv, key: kv.key.subarray(prefix.length) })

  const dropLease = (leaseId: bigint) =>
    Effect.sync(() => {
      store.dropLease(leaseId)
      stopExpiry(leaseId)
    })

  const faults = Faults.of({
    drop: (what, matching) => Effect.sync(() => network.drop(what, matching?.method, matching?.times ?? 1)),
    delay: (duration) => Effect.sync(() => network.delay(Duration.toMillis(Duration.fromInputUnsafe(duration)))),
    delayWatches: (duration) =>
      Effect.sync(() => network.delayWatches(Duration.toMillis(Duration.fromInputUnsafe(duration)))),
    cut: Effect.sync(network.cut),
    stall: Effect.sync(network.stall),
    resume: Effect.sync(network.resume),
    unreachable: Effect.sync(network.unreachable),
    reachable: Effect.sync(network.reachable),
    heal: Effect.sync(network.heal),
    expireLease: dropLease,
    revokeLease: dropLease,
    deleteKey: (key) => Effect.sync(() => void store.removeKeys({ key: Bytes.concat([prefix, bytes(key)]) })),
    deletePrefix: (keys) =>
      Effect.sync(() => {
        const key = Bytes.concat([prefix, bytes(keys)])
        store.removeKeys({ key, rangeEnd: prefixEnd(key) })
      }),
    snapshot: Effect.sync(() => store.snapshot() as Snapshot),
    restore: (snapshot, options) =>
      Effect.sync(() => {
        for (const leaseId of store.leaseIds()) stopExpiry(leaseId)
        const { anotherCluster: isAnotherCluster = false, bumpRevision: addRevisions = 0n } = options ?? {}
        store.restore(snapshot as Snapshot & Store.Snapshot, { addRevisions, isAnotherCluster }, now())
        for (const leaseId of store.leaseIds()) fork(leaseId, expire(leaseId))
        network.cut()
      }),
    leases: Effect.sync(store.leaseIds),
    keys: Effect.sync(() => store.keyValues().map(withoutPrefix))
  })

  return { transport: prefix.length === 0 ? transport : prefixed(transport, prefix), faults }
})
