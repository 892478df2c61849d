import type {
  ICompare,
  IKeyValue,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseOp,
  ITxnRequest,
  ITxnResponse
} from "etcd3"
import type { Compare, KeyValue, Op, OpResult, Range, RangeResult, Txn } from "../../Etcd.ts"

// The client encodes an unknown enum name as 0 and decodes a string given for bytes as base64, both
// silently. So these tables and `buffer` are the only way from our terms to its.

const targets = { CreateRevision: "Create", ModRevision: "Mod", Version: "Version", Lease: "Lease" } as const
const fields = {
  CreateRevision: "create_revision",
  ModRevision: "mod_revision",
  Version: "version",
  Lease: "lease"
} as const
const operators = { "=": "Equal", "!=": "NotEqual", "<": "Less", ">": "Greater" } as const
const sorts = { CreateAscending: "Ascend", CreateDescending: "Descend" } as const

// The client takes decimal text, which costs it ten times as much as the two halves of the number.
const int64 = (value: bigint): string => {
  const bits = BigInt.asUintN(64, value)
  return { low: Number(bits & 0xffffffffn) | 0, high: Number(bits >> 32n) | 0, unsigned: false } as unknown as string
}

export const buffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const firstKey = Buffer.of(0)

// etcd takes an empty end for "all keys from here on", and no empty beginning; neither is what was meant
export const rangeBounds = ({ key, rangeEnd }: {
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
}) =>
  rangeEnd === undefined || rangeEnd.length === 0
    ? { key: buffer(key) }
    : { key: key.length === 0 ? firstKey : buffer(key), range_end: buffer(rangeEnd) }

const encodeCompare = (compare: Compare): ICompare => ({
  ...rangeBounds(compare),
  result: operators[compare.operator],
  ...(compare.target === "Value"
    ? { target: "Value", value: buffer(compare.value) }
    : { target: targets[compare.target], [fields[compare.target]]: int64(compare.value) })
})

export const encodeRange = (range: Range): IRangeRequest => ({
  ...rangeBounds(range),
  ...(range.limit === undefined ? undefined : { limit: range.limit }),
  ...(range.sort === undefined ? undefined : { sort_target: "Create", sort_order: sorts[range.sort] }),
  ...(range.maxCreateRevision === undefined
    ? undefined
    : { max_create_revision: int64(range.maxCreateRevision) })
})

const encodeOp = (op: Op): IRequestOp => {
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

export const encodeTxn = (txn: Txn): ITxnRequest => ({
  compare: txn.compare.map(encodeCompare),
  success: txn.then.map(encodeOp),
  failure: txn.else.map(encodeOp)
})

export const decodeKeyValue = (kv: IKeyValue): KeyValue => ({
  key: kv.key,
  value: kv.value,
  createRevision: BigInt(kv.create_revision),
  modRevision: BigInt(kv.mod_revision),
  version: BigInt(kv.version),
  lease: BigInt(kv.lease)
})

export const decodeRange = (response: IRangeResponse): RangeResult => ({
  _tag: "Range",
  kvs: response.kvs.map(decodeKeyValue),
  count: Number(response.count)
})

const decodeOp = (response: IResponseOp): OpResult<Op> => {
  // the oneof's other members are absent, whatever their type says
  const present = response as Partial<IResponseOp> & { readonly response_txn?: ITxnResponse }
  if (present.response_range) return decodeRange(present.response_range)
  if (present.response_delete_range) return { _tag: "Delete", deleted: Number(present.response_delete_range.deleted) }
  if (present.response_txn) return decodeTxn(present.response_txn)
  return { _tag: "Put" }
}

export const decodeTxn = (response: ITxnResponse): OpResult<Txn> => ({
  _tag: "Txn",
  succeeded: response.succeeded,
  responses: response.responses.map(decodeOp)
})
