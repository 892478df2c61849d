/**
 * The reads and transactions of a line, and which key is whose.
 *
 * Every write can be repeated: a put that is there already changes nothing in the line, and a delete is bound to the
 * entry that it was meant for.
 */
import * as Etcd from "../../Etcd.ts"
import type { Entry } from "./entry.ts"
import { type EntryKey, idOf } from "./entryKey.ts"

// -----------------------------------------------------------------------------
// reads
// -----------------------------------------------------------------------------

/** The head of a line. */
export const first = (range: Etcd.Range) => ({ ...range, limit: 1, sort: "CreateAscending" }) as const

/** The newest entries of a line, newest first, and how many there are. */
export const newest = (range: Etcd.Range, limit: number) =>
  ({ ...range, limit, sort: "CreateDescending", keysOnly: true }) as const

/** An entry and those nearest ahead of it, newest first. */
export const nearest = ({ createRevision, line: { range } }: Entry, limit: number) =>
  ({ ...newest(range, 1 + limit), maxCreateRevision: createRevision }) as const

/** All entries up to a create revision, oldest first. */
export const upTo = (range: Etcd.Range, maxCreateRevision: bigint) =>
  ({ ...range, sort: "CreateAscending", maxCreateRevision, keysOnly: true }) as const

/** One key, if it is there. */
export const getKey = (key: string | Uint8Array) => ({ ...Etcd.get(key), keysOnly: true }) as const

// -----------------------------------------------------------------------------
// transactions
// -----------------------------------------------------------------------------

/** Reads the head of a line, along with other requests. */
export const head = (range: Etcd.Range) => Etcd.nested({ then: [first(range)] })

/** Takes an empty line, without reading it, which would cost etcd as much again. */
export const takeFree = (entry: Entry) =>
  Etcd.nested({
    compare: [isEmpty(entry.line.range)],
    then: [put(entry)],
    else: [first(entry.line.range)]
  })

export const join = (entry: Entry, newestLimit: number) =>
  Etcd.nested({ then: [put(entry), getKey(entry.key), newest(entry.line.range, newestLimit)] })

/** Leaves with one entry and joins with the next. If the first is gone, the next may be there by an earlier attempt. */
export const handOver = (entry: Entry, next: Entry, newestLimit: number) =>
  Etcd.nested({
    compare: [guard(entry)],
    then: [Etcd.remove(entry.key), put(next), newest(next.line.range, newestLimit)],
    else: [getKey(next.key)]
  })

export const leave = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [Etcd.remove(entry.key)] })

export const describe = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [put(entry)] })

/** Removes an entry whose create revision was never learned. */
export const cleanUp = (entry: Entry) => Etcd.nested({ compare: isOurs(entry), then: [Etcd.remove(entry.key)] })

const put = ({ ref, key, value }: Entry): Etcd.Put => Etcd.put(key, value, { lease: ref.lease.id })

const isEmpty = ({ key, rangeEnd }: Etcd.Range): Etcd.Compare => ({
  key,
  rangeEnd,
  target: "CreateRevision",
  operator: "=",
  value: 0n
})

/** The condition that an entry is still there, and none that came after it under the same key. */
export const guard = (entry: Entry): Etcd.Compare => Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)

/** The condition that a key is there that was put for this entry. */
const isOurs = (entry: Entry): ReadonlyArray<Etcd.Compare> => {
  const { key, line: { layout }, ref, value } = entry
  const isOnLease = { key: Buffer.from(key), target: "Lease", operator: "=", value: ref.lease.id } as const
  return layout.hasOwnKeys ? [isOnLease] : [isOnLease, Etcd.compareValue(key, "=", value)]
}

/** Whether a key that was read was put for this entry. */
export const isOwn = ({ id, line: { layout }, ref, value }: Entry, kv: EntryKey): boolean =>
  idOf(kv) === id && kv.lease === ref.lease.id && (layout.hasOwnKeys || Buffer.compare(kv.value, value) === 0)
