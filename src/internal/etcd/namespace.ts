import * as Bytes from "effect/Bytes"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { KeyValue, Op, OpResult, RangeResult, Txn, WatchEvent } from "../../Etcd.ts"
import { isEndOfKeys, prefixEnd } from "./bytes.ts"
import { giveUp, Subscriber } from "./subscriber.ts"
import type { Transport } from "./transport.ts"

/** Puts `prefix` before every key on its way to etcd, and takes it off on the way back. */
export const prefixed = (transport: Transport, prefix: Uint8Array): Transport => {
  const end = prefixEnd(prefix)

  const into = <A extends { readonly key: Uint8Array; readonly rangeEnd?: Uint8Array | undefined }>(target: A): A => ({
    ...target,
    key: Bytes.concat([prefix, target.key]),
    // Etcd takes an empty end for none.
    rangeEnd: target.rangeEnd === undefined || target.rangeEnd.length === 0
      ? undefined
      : isEndOfKeys(target.rangeEnd)
      ? end
      : Bytes.concat([prefix, target.rangeEnd])
  })

  const intoOp = (op: Op): Op =>
    op._tag === "Txn"
      ? { ...op, compare: op.compare.map(into), then: op.then.map(intoOp), else: op.else.map(intoOp) }
      : into(op)

  const outOfKeyValue = (kv: KeyValue): KeyValue => ({ ...kv, key: kv.key.subarray(prefix.length) })

  const outOfEvent = (event: WatchEvent): WatchEvent => ({ ...event, kv: outOfKeyValue(event.kv) })

  const outOfRange = <A extends RangeResult>(result: A): A => ({ ...result, kvs: result.kvs.map(outOfKeyValue) })

  const outOf = (result: OpResult<Op>): OpResult<Op> => {
    if (result._tag === "Range") return outOfRange(result)
    return result._tag === "Txn" ? { ...result, responses: result.responses.map(outOf) } : result
  }

  return {
    ...transport,
    txn: (txn, timeout) =>
      Effect.map(
        transport.txn(intoOp(txn) as Txn, timeout),
        (result) => ({ ...result, responses: result.responses.map(outOf) })
      ),
    range: (range, timeout) => Effect.map(transport.range(into(range), timeout), outOfRange),
    leaseTimeToLive: (leaseId, withKeys, timeout) =>
      Effect.map(transport.leaseTimeToLive(leaseId, withKeys, timeout), (result) => ({
        ...result,
        // Whoever knows a lease may put keys outside of the prefix on it.
        keys: result.keys.filter((key) => Buffer.compare(key.subarray(0, prefix.length), prefix) === 0)
          .map((key) => key.subarray(prefix.length))
      })),
    watch: (options, timeout, subscriber) =>
      Effect.suspend(() => {
        const inner = new Subscriber({
          onEvents: (events) => subscriber.publish(events.map(outOfEvent)),
          onEnd: (error) => subscriber.end(error)
        })
        subscriber.source = { cancel: () => inner.close(), giveUp: () => giveUp(inner) }
        return Effect.flatMap(
          transport.watch(into(options), timeout, inner),
          (revision) => Exit.map(inner.open(revision), () => revision)
        )
      })
  }
}
