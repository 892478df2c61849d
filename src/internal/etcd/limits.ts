/**
 * What an etcd takes in one transaction. It can be set lower than the default, which etcd only says by refusing one: that is
 * remembered for all that use the same service, so that it is met once and not at every batch.
 */
import type { Etcd, Txn } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"

/** What a transaction counts for. */
export interface Size {
  readonly operations: number
  readonly bytes: number
}

export interface Limits {
  /** Whether a transaction of this size is worth trying. */
  readonly allow: (size: Size) => boolean
  /** Returns whether a transaction was refused for its size, and allows only half of it from then on. */
  readonly learn: (refused: Size, error: EtcdError) => boolean
}

/** Those of an etcd with default settings, whose requests may have 1.5 MiB. */
const defaults: Size = { operations: 128, bytes: 512 * 1024 }

const known = new WeakMap<Etcd["Service"], Limits>()

/** A limit that is raised later is not noticed: it only makes for more transactions than would be needed. */
export const of = (etcd: Etcd["Service"]): Limits => {
  let limits = known.get(etcd)
  if (limits === undefined) known.set(etcd, limits = make())
  return limits
}

const make = (): Limits => {
  let { bytes, operations } = defaults
  return {
    allow: (size) => size.operations <= operations && size.bytes <= bytes,
    learn: (refused, { description, outcome, reason }) => {
      // One attempt may have been applied by a member with other limits.
      if (reason !== "InvalidArgument" || outcome !== "Refused") return false
      if (description.includes("too many operations")) {
        operations = Math.min(operations, refused.operations >> 1)
        return true
      }
      if (/request is too large|message larger than max/.test(description)) {
        bytes = Math.min(bytes, refused.bytes >> 1)
        return true
      }
      return false
    }
  }
}

/** The size of one transaction that has several nested in it. etcd counts one operation for each, and those of the largest. */
export const together = (sizes: ReadonlyArray<Size>): Size => ({
  operations: sizes.length + sizes.reduce((most, { operations }) => Math.max(most, operations), 0),
  bytes: sizes.reduce((sum, { bytes }) => sum + bytes, 0)
})

/** As few groups as may each be one transaction. */
export const chunks = <A>(
  limits: Limits,
  items: ReadonlyArray<A>,
  sizeOf: (item: A) => Size
): ReadonlyArray<ReadonlyArray<A>> => {
  const groups: Array<{ readonly items: Array<A>; readonly sizes: Array<Size> }> = []
  for (const item of items) {
    const size = sizeOf(item)
    const last = groups.at(-1)
    if (last === undefined || !limits.allow(together([...last.sizes, size]))) {
      groups.push({ items: [item], sizes: [size] })
    } else {
      last.items.push(item)
      last.sizes.push(size)
    }
  }
  return groups.map(({ items }) => items)
}

export const measure = (txn: Txn): Size => {
  let bytes = 0
  let nestedOperations = 0
  for (const { key, rangeEnd, target, value } of txn.compare) {
    bytes += overhead + key.length + (rangeEnd?.length ?? 0) + (target === "Value" ? value.length : 0)
  }
  for (const ops of [txn.then, txn.else]) {
    for (const op of ops) {
      bytes += overhead
      if (op._tag === "Txn") {
        const nested = measure(op)
        bytes += nested.bytes
        nestedOperations = Math.max(nestedOperations, nested.operations)
      } else {
        bytes += op.key.length + (op._tag === "Put" ? op.value.length : op.rangeEnd?.length ?? 0)
      }
    }
  }
  return { bytes, operations: Math.max(txn.compare.length, txn.then.length, txn.else.length) + nestedOperations }
}

/** About how many bytes of an operation or of a condition are neither key nor value. */
const overhead = 24
