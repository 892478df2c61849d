/**
 * The reads and transactions of a line, and which key is whose.
 *
 * Every write can be repeated: a put that is there already changes nothing in the line, and a delete is bound to the
 * entry that it was meant for.
 */
import * as Etcd from "../../Etcd.ts"
import type { Claim } from "./discipline.ts"
import type { Entry } from "./entry.ts"
import { type EntryKey, type EntryKeyValue, idOf } from "./entryKey.ts"

// -----------------------------------------------------------------------------
// reads
// -----------------------------------------------------------------------------

/** The head of a line. */
export const first = (range: Etcd.Range) => ({ ...range, limit: 1, sort: "CreateAscending" }) as const

/** The newest entries of a line up to a create revision, newest first. `count` is that of all its entries. */
export const newest = ({ key, rangeEnd }: Etcd.Range, limit: number, maxCreateRevision?: bigint): Etcd.Range => ({
  _tag: "Range",
  key,
  rangeEnd,
  limit,
  sort: "CreateDescending",
  maxCreateRevision,
  keysOnly: true
})

/** The newest entries in the way of one that joins, as many as its line needs. */
const newestAhead = ({ claim, line }: Entry): ReadonlyArray<Etcd.Range> =>
  line.ahead(claim).map((range) => newest(range, line.newestLimit(claim)))

/** An entry's own key and the `limit` nearest entries in its way, newest first, in one read. */
export const ownAndAhead = ({ createRevision, line }: Entry, limit: number) =>
  newest(line.range, 1 + limit, createRevision)

/** The same with a separate read of the own key, for an entry outside its own ranges or not alone at its revision. */
export const ownBesideAhead = ({ claim, createRevision, key, line }: Entry, limit: number) => {
  const then: readonly [Etcd.Range, ...Array<Etcd.Range>] = [
    getKey(key),
    ...line.ahead(claim).map((range) => newest(range, limit, createRevision - 1n))
  ]
  return { then }
}

/** All entries up to a create revision, oldest first. */
export const upTo = (range: Etcd.Range, maxCreateRevision: bigint) =>
  ({ ...range, sort: "CreateAscending", maxCreateRevision, keysOnly: true }) as const

/** One key, if it is there. */
export const getKey = (key: string | Uint8Array) => ({ ...Etcd.get(key), keysOnly: true }) as const

/**
 * Asks whether a key is on a lease. Only a condition can: etcd 3.7 leaves the lease out of answers without values, and
 * where it does not, a key that was deleted just before has none.
 */
export const leaseOf = ({ createRevision, key }: EntryKey) => {
  const then: readonly [Etcd.Range] = [getKey(key)]
  return Etcd.nested({
    compare: [
      Etcd.compareCreateRevision(key, "=", createRevision),
      { key, target: "Lease", operator: "!=", value: 0n }
    ],
    then,
    else: then
  })
}

/** What the answer to that says. */
export const shownBy = (
  { createRevision }: EntryKey,
  { responses: [{ kvs: [kv] }], succeeded }: Etcd.OpResult<ReturnType<typeof leaseOf>>
): "OnLease" | "OnNone" | "Gone" => succeeded ? "OnLease" : kv?.createRevision === createRevision ? "OnNone" : "Gone"

/** What several ranges of one line have, newest first. */
export const together = (results: ReadonlyArray<Etcd.RangeResult>): Pick<Etcd.RangeResult, "kvs" | "count"> => {
  if (results.length === 1) return results[0]!
  const kvs = results.flatMap(({ kvs }) => kvs).sort((a, b) => a.createRevision < b.createRevision ? 1 : -1)
  return { kvs, count: results.reduce((sum, { count }) => sum + count, 0) }
}

export const headOf = (heads: ReadonlyArray<Etcd.RangeResult>): EntryKeyValue | undefined =>
  heads.length === 0 ? undefined : together(heads).kvs.at(-1)

// -----------------------------------------------------------------------------
// transactions
// -----------------------------------------------------------------------------

/** Reads the first entry of each range, along with other requests. */
export const heads = (ranges: ReadonlyArray<Etcd.Range>) => Etcd.nested({ then: ranges.map(first) })

/** Joins if nothing is in the way, without reading the line, which would cost etcd as much again. */
export const takeFree = (entry: Entry) => {
  const { claim, key, line } = entry
  const ahead = line.ahead(claim)
  const others: readonly [Etcd.Range, ...Array<Etcd.Range>] = [Etcd.get(key), ...ahead.map(first)]
  // If its own key is not among those that can be in its way, a repeated request would find the lock free again.
  const isNew = ahead.length === 1 ? [] : [isEmpty(Etcd.get(key))]
  return Etcd.nested({ compare: [...ahead.map(isEmpty), ...isNew], then: [put(entry)], else: others })
}

/**
 * The beginning of a line up to what a claim can be met beside, since more entries than there are permits cannot all hold,
 * and what the first of its entries says of itself.
 */
export const beginning = ({ of }: Claim, range: Etcd.Range) => {
  const then: readonly [Etcd.Range, Etcd.Range] = [{ ...first(range), limit: of + 1, keysOnly: true }, first(range)]
  return Etcd.nested({ then })
}

/** Joins, and reads the beginning of the line. */
export const joinAndLook = (entry: Entry) => {
  const [oldest, head] = beginning(entry.claim, entry.line.range).then
  const then: readonly [Etcd.Put, Etcd.Range, Etcd.Range, Etcd.Range] = [put(entry), Etcd.get(entry.key), oldest, head]
  return Etcd.nested({ then })
}

export const join = (entry: Entry) => {
  const then: readonly [Etcd.Op, Etcd.Range, ...Array<Etcd.Range>] = [
    putOnce(entry),
    Etcd.get(entry.key),
    ...newestAhead(entry)
  ]
  return Etcd.nested({ then })
}

/**
 * Joins with several entries at one revision. An entry that is gone is not put again, since the others would be ahead of
 * it then.
 */
export const joinAll = (entries: ReadonlyArray<Entry>) =>
  Etcd.nested({
    compare: entries.map(({ key }) => isEmpty(Etcd.get(key))),
    then: entries.map((entry) => {
      const then: readonly [Etcd.Put, ...Array<Etcd.Range>] = [put(entry), ...newestAhead(entry)]
      return Etcd.nested({ then })
    }),
    else: entries.map(({ key }) => Etcd.get(key))
  })

/** Joins with several entries if nothing is in the way of any. */
export const takeAllFree = (entries: ReadonlyArray<Entry>) =>
  Etcd.nested({
    compare: entries.flatMap(({ claim, line }) => line.ahead(claim).map(isEmpty)),
    then: entries.map(put),
    else: entries.map(({ claim, key, line }) => {
      const then: readonly [Etcd.Range, ...Array<Etcd.Range>] = [Etcd.get(key), ...line.ahead(claim).map(first)]
      return Etcd.nested({ then })
    })
  })

/** Leaves with one entry and joins with the next. If the first is gone, the next may be there by an earlier attempt. */
export const handOver = (entry: Entry, next: Entry) => {
  const then: readonly [Etcd.Delete, Etcd.Put, ...ReadonlyArray<Etcd.Range>] = [
    Etcd.remove(entry.key),
    put(next),
    ...newestAhead(next)
  ]
  return Etcd.nested({ compare: [guard(entry)], then, else: [Etcd.get(next.key)] })
}

export const leave = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [Etcd.remove(entry.key)] })

export const describe = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [put(entry)] })

/** Removes an entry whose create revision was never learned. */
export const cleanUp = (entry: Entry) => Etcd.nested({ compare: isOurs(entry), then: [Etcd.remove(entry.key)] })

/** Asks whether the user may put keys, on whatever lease, and read the lines: etcd checks that also for what it does not do. */
export const mayJoin = (keys: ReadonlyArray<string>, read: ReadonlyArray<Etcd.Range>) => ({
  compare: keys.map((key) => Etcd.compareCreateRevision(key, "<", 0n)),
  then: keys.map((key) => Etcd.put(key, "")),
  else: read.map(first)
})

/** A late put must not change an entry that is there. */
const putOnce = (entry: Entry): Etcd.Op =>
  entry.line.layout.putsOnce(entry.claim)
    ? Etcd.nested({ compare: [isEmpty(Etcd.get(entry.key))], then: [put(entry)] })
    : put(entry)

const put = (entry: Entry): Etcd.Put => Etcd.put(entry.key, valueOf(entry), { lease: entry.ref.lease.id })

/** A description is a JSON object, to which is added since when it holds, and the number of those behind. */
export const valueOf = ({ behind, heldSince, value }: Entry): Uint8Array => {
  const held = heldSince === undefined ? "" : `,"heldSince":"${new Date(heldSince).toISOString()}"`
  const waiting = behind === 0 ? "" : `,"behind":${behind}`
  return held + waiting === ""
    ? value
    : Buffer.concat([value.subarray(0, -1), Buffer.from(`${held}${waiting}}`)])
}

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
  const { key, line: { layout }, ref } = entry
  const isOnLease = { key: Buffer.from(key), target: "Lease", operator: "=", value: ref.lease.id } as const
  return layout.hasOwnKeys ? [isOnLease] : [isOnLease, Etcd.compareValue(key, "=", valueOf(entry))]
}

/** Whether a key was put for this entry. That it has the name of one says nothing: any client can put it. */
export const isOwn = (entry: Entry, kv: EntryKeyValue): boolean =>
  idOf(kv) === entry.id && kv.lease === entry.ref.lease.id &&
  (entry.line.layout.hasOwnKeys || Buffer.compare(kv.value, valueOf(entry)) === 0)

// -----------------------------------------------------------------------------
// answers
// -----------------------------------------------------------------------------

export type OwnBesideAhead = readonly [Etcd.RangeResult, ...ReadonlyArray<Etcd.RangeResult>]

export type Joined = readonly [Etcd.OpResult<Etcd.Op>, Etcd.RangeResult, ...ReadonlyArray<Etcd.RangeResult>]

export type Looked = readonly [oldest: Etcd.RangeResult, head: Etcd.RangeResult]

export type JoinedAndLooked = readonly [Etcd.PutResult, own: Etcd.RangeResult, ...Looked]

export type HandedOver = readonly [Etcd.DeleteResult, Etcd.PutResult, ...ReadonlyArray<Etcd.RangeResult>]
