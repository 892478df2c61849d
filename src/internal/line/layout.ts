/** Which keys make a line, and what each of them claims. */
import * as Etcd from "../../Etcd.ts"
import type { Claim } from "./discipline.ts"
import { type EntryKey, keyOf } from "./entryKey.ts"
import type { EntryLease } from "./leaseRef.ts"

export interface Layout {
  /** All keys of the line. */
  readonly range: (prefix: string) => Etcd.Range
  /** Where the entries are that can be in the way of a claim. */
  readonly ahead: (prefix: string, claim: Claim) => ReadonlyArray<Etcd.Range>
  /** The key of a new entry. */
  readonly key: (prefix: string, lease: EntryLease, claim: Claim) => string
  /** Whether a key in the range is an entry. Another one might stay for ever. */
  readonly isEntry: (prefix: string, kv: EntryKey) => boolean
  /** How many permits an entry has, by its key. */
  readonly permitsOf: (prefix: string, kv: EntryKey, claim: Claim) => number
  /** How many of the nearest entries in the way of a claim are enough to name its guards. */
  readonly guardsAmong: (claim: Claim) => number
  /** Requests of one lane cannot travel together: each would be answered as if it was the only one. */
  readonly lane: (prefix: string, key: string, claim: Claim) => string
  /** Whether an entry's value must not change, since others order the line by the keys' last revisions. */
  readonly putsOnce: boolean
  /**
   * Whether each entry has a key of its own. Where all have the same, they cannot stand in line, only the value shows
   * whose the key is, and etcd neither deletes nor puts it twice in one transaction.
   */
  readonly hasOwnKeys: boolean
}

/**
 * A key for each entry, as Go's `concurrency` package has them: the lease's ID, and a number since a lease may have
 * several entries.
 */
export const queue: Layout = {
  range: Etcd.getPrefix,
  ahead: (prefix) => [Etcd.getPrefix(prefix)],
  key: (prefix, lease) => newKey(prefix, lease, ""),
  isEntry: (prefix, kv) => {
    const suffix = keyOf(kv).slice(prefix.length)
    return kv.lease !== 0n && suffix !== "" && !suffix.includes("/")
  },
  permitsOf: () => 1,
  guardsAmong: () => 1,
  lane: (prefix) => prefix,
  putsOnce: false,
  hasOwnKeys: true
}

/** The key itself is the entry, and there is one at most. */
export const singleKey: Layout = {
  ...queue,
  range: Etcd.get,
  ahead: (name) => [Etcd.get(name)],
  key: (name) => name,
  isEntry: (_, kv) => kv.lease !== 0n,
  hasOwnKeys: false
}

// -----------------------------------------------------------------------------
// the keys of a lease
// -----------------------------------------------------------------------------

/** Lets another entry have the key, once nothing of the last one is left in etcd. */
export const releaseKey = (lease: EntryLease, key: string): void => void keys.get(lease)?.used.delete(key)

// The smallest number that is free: etcd keeps every key that ever was until it is compacted, and walks over all of them
// to read the line.
const newKey = (folder: string, lease: EntryLease, suffix: string): string => {
  const { hex, used } = keysOf(lease)
  let number = 1
  let key: string
  do {
    key = `${folder}${hex}-${number++}${suffix}`
  } while (used.has(key))
  used.add(key)
  return key
}

interface Keys {
  /** The lease's ID as keys show it. */
  readonly hex: string
  /** The keys of its entries, also of those that may be left behind. */
  readonly used: Set<string>
}

const keys = new WeakMap<EntryLease, Keys>()

const keysOf = (lease: EntryLease): Keys => {
  let found = keys.get(lease)
  if (found === undefined) keys.set(lease, found = { hex: lease.id.toString(16), used: new Set() })
  return found
}
