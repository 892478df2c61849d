import type { Compare, Header, KeyValue, Op, OpResult, Range, RangeResult, Txn } from "../../Etcd.ts"
import { CompareResult, CompareTarget, SortOrder, SortTarget } from "./packages.ts"
import type * as Rpc from "./rpc.ts"

const targets = {
  CreateRevision: CompareTarget.Create,
  ModRevision: CompareTarget.Mod,
  Version: CompareTarget.Version,
  Lease: CompareTarget.Lease
} as const
const fields = {
  CreateRevision: "create_revision",
  ModRevision: "mod_revision",
  Version: "version",
  Lease: "lease"
} as const
const operators = {
  "=": CompareResult.Equal,
  "!=": CompareResult.NotEqual,
  "<": CompareResult.Less,
  ">": CompareResult.Greater
} as const
const sorts = { CreateAscending: SortOrder.Ascend, CreateDescending: SortOrder.Descend } as const

const int64 = (value: bigint): Rpc.Int64 => {
  const bits = BigInt.asUintN(64, value)
  return { low: Number(bits & 0xffffffffn) | 0, high: Number(bits >> 32n) | 0 }
}

export const bigint = ({ high, low }: Rpc.Int64): bigint =>
  high === 0 ? BigInt(low >>> 0) : (BigInt(high) << 32n) | BigInt(low >>> 0)

export const headerOf = ({ cluster_id, raft_term, revision }: Rpc.Header): Header => ({
  revision: bigint(revision),
  // Of its numbers, this one has no sign.
  clusterId: BigInt.asUintN(64, bigint(cluster_id)),
  term: bigint(raft_term)
})

/** The client has numbers as text, and no header at all where a proxy leaves it out. */
export const textHeaderOf = (
  header: { readonly revision: string; readonly cluster_id: string; readonly raft_term: string } | null
): Header => ({
  revision: BigInt(header?.revision ?? 0),
  clusterId: BigInt(header?.cluster_id ?? 0),
  term: BigInt(header?.raft_term ?? 0)
})

export const buffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const firstKey = Buffer.of(0)

// Etcd takes an empty end for "all keys from here on", and refuses an empty beginning. Neither is what was meant.
export const rangeBounds = ({ key, rangeEnd }: {
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
}) =>
  rangeEnd === undefined || rangeEnd.length === 0
    ? { key: buffer(key) }
    : { key: key.length === 0 ? firstKey : buffer(key), range_end: buffer(rangeEnd) }

const encodeCompare = (compare: Compare): Rpc.Compare => ({
  ...rangeBounds(compare),
  result: operators[compare.operator],
  ...(compare.target === "Value"
    ? { target: CompareTarget.Value, value: buffer(compare.value) }
    : { target: targets[compare.target], [fields[compare.target]]: int64(compare.value) })
})

export const encodeRange = (range: Range): Rpc.RangeRequest => ({
  ...rangeBounds(range),
  ...(range.limit === undefined ? undefined : { limit: range.limit }),
  ...(range.keysOnly ? { keys_only: true } : undefined),
  ...(range.serializable ? { serializable: true } : undefined),
  ...(range.sort === undefined ? undefined : { sort_target: SortTarget.Create, sort_order: sorts[range.sort] }),
  ...(range.maxCreateRevision === undefined
    ? undefined
    : { max_create_revision: int64(range.maxCreateRevision) })
})

const encodeOp = (op: Op): Rpc.RequestOp => {
  switch (op._tag) {
    case "Put": {
      const put = { key: buffer(op.key), value: buffer(op.value) }
      return { request_put: op.lease === undefined ? put : { ...put, lease: int64(op.lease) } }
    }
    case "Range": {
      return { request_range: encodeRange(op) }
    }
    case "Delete": {
      return { request_delete_range: rangeBounds(op) }
    }
    case "Txn": {
      return { request_txn: encodeTxn(op) }
    }
  }
}

export const encodeTxn = (txn: Txn): Rpc.TxnRequest => ({
  compare: txn.compare.map(encodeCompare),
  success: txn.then.map(encodeOp),
  failure: txn.else.map(encodeOp)
})

// Empty bytes are absent on the wire.
const nothing = Buffer.alloc(0)
const decodeBytes = (bytes: Rpc.Bytes): Buffer => bytes.length === 0 ? nothing : bytes as Buffer

export const decodeKeyValue = (kv: Rpc.KeyValue): KeyValue => ({
  key: decodeBytes(kv.key),
  value: decodeBytes(kv.value),
  createRevision: bigint(kv.create_revision),
  modRevision: bigint(kv.mod_revision),
  version: bigint(kv.version),
  lease: bigint(kv.lease)
})

export const decodeRange = (response: Rpc.RangeResponse): RangeResult => ({
  _tag: "Range",
  kvs: response.kvs.map(decodeKeyValue),
  count: Number(bigint(response.count))
})

const decodeOp = (response: Rpc.ResponseOp): OpResult<Op> => {
  if (response.response_txn) return decodeTxn(response.response_txn)
  if (response.response_range) return decodeRange(response.response_range)
  if (response.response_delete_range) {
    return { _tag: "Delete", deleted: Number(bigint(response.response_delete_range.deleted)) }
  }
  return { _tag: "Put" }
}

export const decodeTxn = (response: Rpc.TxnResponse): OpResult<Txn> => ({
  _tag: "Txn",
  succeeded: response.succeeded,
  responses: response.responses.map(decodeOp)
})
