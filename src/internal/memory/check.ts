import * as Result from "effect/Result"
import type { Op, OpResult, Range, Txn } from "../../Etcd.ts"
import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import { toText } from "../etcd/bytes.ts"
import { measure } from "../etcd/limits.ts"
import { type Bounds, contains, type Interval, interval } from "./interval.ts"

// What etcd refuses without a look at its keys. The order of the checks, and their gaps, are etcd's own
// (`checkTxnRequest` and `checkIntervals` in its server/etcdserver/api/v3rpc/key.go). Bytes are counted to within a few
// for each operation.

export type Checked = Result.Result<void, EtcdError>

export const refuse = (method: string, reason: EtcdErrorReason, description: string) =>
  Result.fail(new EtcdError({ reason, method, outcome: "Refused", description }))

const emptyKey = (method: string) => refuse(method, "InvalidArgument", "etcdserver: key is not provided")
const tooManyOps = refuse("txn", "InvalidArgument", "etcdserver: too many operations in txn request")
const tooLarge = refuse(
  "txn",
  "InvalidArgument",
  "etcdserver: request is too large; allow it more by --max-request-bytes"
)
const duplicateKey = refuse("txn", "InvalidArgument", "etcdserver: duplicate key given in txn request")

export const checkRange = (range: Range): Checked => isKeyless(range) ? emptyKey("range") : Result.void

/** An empty key is the first of all where there is an end. */
const isKeyless = ({ key, rangeEnd }: Bounds) => key.length === 0 && (rangeEnd === undefined || rangeEnd.length === 0)

export const checkTxn = (txn: Txn): Checked =>
  Result.gen(function*() {
    const { bytes } = measure(txn)
    if (bytes > maxReceived) {
      const description = `grpc: received message larger than max (${bytes} vs. ${maxReceived})`
      return yield* refuse("txn", "InvalidArgument", description)
    }
    yield* checkSize(txn, maxOps)
    yield* collectWrites(txn.then)
    yield* collectWrites(txn.else)
    // What only reads is not proposed.
    const isReadOnly = [...txn.then, ...txn.else].every(({ _tag }) => _tag === "Range")
    if (bytes > maxProposed && !isReadOnly) yield* tooLarge
  })

/** Fails where an answer could not be received, whose request has been applied all the same. */
export const checkAnswer = (method: string, results: ReadonlyArray<OpResult<Op>>): Checked => {
  const bytes = sizeOf(results)
  if (bytes <= maxAnswer) return Result.void
  return Result.fail(
    new EtcdError({
      reason: "InvalidArgument",
      method,
      outcome: "Unknown",
      description: `etcd's answer was too large to receive (${bytes} bytes, where ${maxAnswer} are the most)` +
        "; read fewer keys, or set a `limit`"
    })
  )
}

const sizeOf = (results: ReadonlyArray<OpResult<Op>>): number => {
  let bytes = 0
  for (const result of results) {
    if (result._tag === "Txn") bytes += sizeOf(result.responses)
    if (result._tag !== "Range") continue
    for (const { key, value } of result.kvs) bytes += overhead + key.length + value.length
  }
  return bytes
}

/** About how many bytes a key's numbers take. */
const overhead = 24
const maxProposed = 1.5 * 1024 * 1024
const maxReceived = 2 * 1024 * 1024
// What gRPC's clients take.
const maxAnswer = 4 * 1024 * 1024

const maxOps = 128

// What a transaction takes of the limit is not left for those nested in it.
const checkSize = (txn: Txn, limit: number): Checked =>
  Result.gen(function*() {
    const size = Math.max(txn.compare.length, txn.then.length, txn.else.length)
    if (size > limit) return yield* tooManyOps
    if (txn.compare.some(isKeyless)) return yield* emptyKey("txn")
    for (const op of [...txn.then, ...txn.else] as ReadonlyArray<Op>) {
      if (op._tag === "Txn") yield* checkSize(op, limit - size)
      else if (isKeyless(op)) yield* emptyKey("txn")
    }
  })

interface Writes {
  readonly puts: ReadonlySet<string>
  readonly deletes: ReadonlyArray<Interval>
}

/**
 * Refuses a key that would be written twice. Deletes do not collide with each
 * other; and those of a nested transaction only with puts that come later.
 */
const collectWrites = (ops: ReadonlyArray<Op>): Result.Result<Writes, EtcdError> =>
  Result.gen(function*() {
    const puts = new Set<string>()
    const deletes = ops.flatMap((op) => op._tag === "Delete" ? intervalOfDelete(op) : [])
    const isDeleted = (key: string) => deletes.some((deleted) => contains(deleted, key))

    for (const op of ops) {
      if (op._tag !== "Txn") continue
      const taken = yield* collectWrites(op.then)
      const other = yield* collectWrites(op.else)
      for (const key of taken.puts) {
        if (puts.has(key) || isDeleted(key)) yield* duplicateKey
        puts.add(key)
      }
      for (const key of other.puts) {
        // Only one of both branches will run.
        if ((puts.has(key) && !taken.puts.has(key)) || isDeleted(key)) yield* duplicateKey
        puts.add(key)
      }
      deletes.push(...taken.deletes, ...other.deletes)
    }

    for (const op of ops) {
      if (op._tag !== "Put") continue
      const key = toText(op.key)
      if (puts.has(key) || isDeleted(key)) yield* duplicateKey
      puts.add(key)
    }
    return { puts, deletes }
  })

// Etcd takes the end of all keys for an ordinary key here, so that such a delete collides with nothing.
const intervalOfDelete = (op: Parameters<typeof interval>[0]): Array<Interval> => {
  const deleted = interval(op)
  return deleted.to === undefined ? [] : [deleted]
}
