/** Which keys make a line. */
import * as Etcd from "../../Etcd.ts"
import { type EntryKey, keyOf } from "./entryKey.ts"
import type { EntryLease } from "./leaseRef.ts"

export interface Layout {
  readonly range: (prefix: string) => Etcd.Range
  /** The key of a new entry. */
  readonly key: (prefix: string, lease: EntryLease) => string
  /** Whether a key in the range is an entry. Another one might stay for ever. */
  readonly isEntry: (prefix: string, kv: EntryKey) => boolean
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
  // The smallest number that is free: etcd keeps every key that ever was until it is compacted, and walks over all of
  // them to read the line.
  key: (prefix, lease) => {
    const { hex, used } = keysOf(lease)
    let number = 1
    let key: string
    do {
      key = `${prefix}${hex}-${number++}`
    } while (used.has(key))
    used.add(key)
    return key
  },
  isEntry: (prefix, kv) => {
    const suffix = keyOf(kv).slice(prefix.length)
    return kv.lease !== 0n && suffix !== "" && !suffix.includes("/")
  },
  hasOwnKeys: true
}

/** The key itself is the entry, and there is one at most. */
export const singleKey: Layout = {
  range: Etcd.get,
  key: (name) => name,
  isEntry: (_, kv) => kv.lease !== 0n,
  hasOwnKeys: false
}

/** Lets another entry have the key, once nothing of the last one is left in etcd. */
export const releaseKey = (lease: EntryLease, key: string): void => void keys.get(lease)?.used.delete(key)

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
