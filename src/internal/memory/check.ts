import * as Result from "effect/Result"
import type { Op, Range, Txn } from "../../Etcd.ts"
import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import { toText } from "../etcd/bytes.ts"
import { contains, type Interval, interval } from "./interval.ts"

// What etcd refuses without a look at its keys. The order of the checks, and their gaps, are etcd's own
// (`checkTxnRequest` and `checkIntervals` in its server/etcdserver/api/v3rpc/key.go).

export type Checked = Result.Result<void, EtcdError>

export const refuse = (method: string, reason: EtcdErrorReason, description: string) =>
  Result.fail(new EtcdError({ reason, method, outcome: "Refused", description }))

const emptyKey = (method: string) => refuse(method, "InvalidArgument", "etcdserver: key is not provided")
const tooManyOps = refuse("txn", "InvalidArgument", "etcdserver: too many operations in txn request")
const duplicateKey = refuse("txn", "InvalidArgument", "etcdserver: duplicate key given in txn request")

export const checkRange = (range: Range): Checked => range.key.length === 0 ? emptyKey("range") : Result.void

export const checkTxn = (txn: Txn): Checked =>
  Result.gen(function*() {
    yield* checkSize(txn, maxOps)
    yield* collectWrites(txn.then)
    yield* collectWrites(txn.else)
  })

const maxOps = 128

// What a transaction takes of the limit is not left for those nested in it.
const checkSize = (txn: Txn, limit: number): Checked =>
  Result.gen(function*() {
    const size = Math.max(txn.compare.length, txn.then.length, txn.else.length)
    if (size > limit) return yield* tooManyOps
    if (txn.compare.some(({ key }) => key.length === 0)) return yield* emptyKey("txn")
    for (const op of [...txn.then, ...txn.else] as ReadonlyArray<Op>) {
      if (op._tag === "Txn") yield* checkSize(op, limit - size)
      else if (op.key.length === 0) yield* emptyKey("txn")
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
