import * as Bytes from "effect/Bytes"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type { Etcd, KeyValue } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import { type Connection, Faults, type Snapshot } from "../../EtcdFaults.ts"
import { bytes, prefixEnd } from "../etcd/bytes.ts"
import { prefixed } from "../etcd/namespace.ts"
import type { Transport } from "../etcd/transport.ts"
import * as Network from "./network.ts"
import * as Store from "./store.ts"

/** An etcd in memory, and what can go wrong with it. All see keys without the prefix. */
export const make = Effect.fnUntraced(function*(
  prefix: Uint8Array,
  toService: (transport: Transport) => Etcd["Service"]
) {
  const clock = yield* Clock.Clock
  const now = () => clock.monotonicTimeNanosUnsafe()
  const store = Store.make(yield* Random.Random)
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

  // --- connections ---

  const connect = (): Connection => {
    const { channel, faults, send } = network.connect()

    const watch: Transport["watch"] = (options, timeout, subscriber) =>
      send("watch", timeout, (): Result.Result<bigint, EtcdError> => {
        // An attempt that has failed opens nothing, however late its request arrives.
        if (subscriber.isClosed) return Result.succeed(0n)
        const { close, deliver, giveUp, open } = channel(options.isOfLine)
        const watching = store.watch(options, (batch) => deliver(() => subscriber.publish(batch)))
        return Result.map(watching, ({ revision, stop }) => {
          open((error) => {
            stop()
            subscriber.end(error)
          })
          subscriber.source = {
            cancel: () => {
              stop()
              close()
            },
            giveUp
          }
          return revision
        })
      })

    const transport: Transport = {
      txn: (txn, timeout) => send("txn", timeout, () => store.txn(txn)),
      range: (range, timeout) => send("range", timeout, () => store.range(range)),
      leaseGrant: (leaseId, seconds, timeout) => send("leaseGrant", timeout, () => grant(leaseId, seconds)),
      leaseRevoke: (leaseId, timeout) => send("leaseRevoke", timeout, () => revoke(leaseId)),
      leaseKeepAlive: (leaseId, timeout) => send("leaseKeepAlive", timeout, () => store.keepAlive(leaseId, now())),
      leaseTimeToLive: (leaseId, withKeys, timeout) =>
        send("leaseTimeToLive", timeout, () => store.timeToLive(leaseId, withKeys, now())),
      watch
    }
    return { etcd: toService(prefix.length === 0 ? transport : prefixed(transport, prefix)), faults }
  }

  // --- faults ---

  const withoutPrefix = (kv: KeyValue): KeyValue => ({ ...kv, key: kv.key.subarray(prefix.length) })

  const dropLease = (leaseId: bigint) =>
    Effect.sync(() => {
      store.dropLease(leaseId)
      stopExpiry(leaseId)
    })

  const faults = Faults.of({
    ...network.faults,
    connect: Effect.sync(connect),
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

  return { connect, faults }
})
