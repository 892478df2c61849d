/**
 * Where the entries of a line are, and what their keys are.
 */
import * as Etcd from "../../Etcd.ts"
import type { EntryLease } from "./entry.ts"

/** Which keys make a line. */
export interface Layout {
  readonly range: (prefix: string) => Etcd.Range
  /** The key of a new entry. Where others use the same key, each entry must have a value of its own. */
  readonly key: (prefix: string, lease: EntryLease) => string
}

/**
 * A key for each entry, as Go's `concurrency` package has them: the lease's, and a number since it may have several.
 *
 * The smallest number that is free, since etcd keeps every key that ever was until it is compacted, and walks over
 * all of them to read the line.
 */
export const queue: Layout = {
  range: Etcd.getPrefix,
  key: (prefix, lease) => {
    const { hex, used } = keysOf(lease)
    let number = 1
    let key: string
    do {
      key = `${prefix}${hex}-${number++}`
    } while (used.has(key))
    used.add(key)
    return key
  }
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
