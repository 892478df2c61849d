/** Which keys make a line, and what each of them claims. */
import * as Result from "effect/Result"
import * as Etcd from "../../Etcd.ts"
import { type Claim, lock, read } from "./discipline.ts"
import { type EntryKey, keyOf } from "./entryKey.ts"
import type { EntryLease } from "./leaseRef.ts"

export interface Layout {
  /** All keys of the line. */
  readonly range: (prefix: string) => Etcd.Range
  /** Whether only a part of the line can be in the way of a claim. */
  readonly seesPart: (claim: Claim) => boolean
  /** That part. */
  readonly part: (prefix: string) => ReadonlyArray<Etcd.Range>
  /** The key of a new entry. */
  readonly key: (prefix: string, lease: EntryLease, claim: Claim) => string
  /** Whether a key in the range is an entry, by its name: one on no lease is none, and might stay for ever. */
  readonly isEntry: (prefix: string, kv: EntryKey) => boolean
  /** Whether a key names its lease, as entries of ours and of Go's client do. Others may be on none. */
  readonly namesLease: (prefix: string, kv: EntryKey) => boolean
  /** What an entry claims, by its key. */
  readonly claimIn: (prefix: string, kv: Pick<EntryKey, "key">) => Claim
  /** What an entry claims, as far as that matters to a claim. Undefined if the two cannot stand in one line. */
  readonly claimOf: (prefix: string, kv: EntryKey, own: Claim) => Claim | undefined
  /** How many of the nearest entries in the way of a claim are enough to name its guards. */
  readonly guardsAmong: (claim: Claim) => number
  /** Whether a claim may be met although there are entries in its way. */
  readonly sharesWithAhead: (claim: Claim) => boolean
  /** Requests of one lane cannot travel together: each would be answered as if it were the only one. */
  readonly lane: (prefix: string, key: string, claim: Claim) => string
  /**
   * Whether an entry is put only once, so that no other caller takes it over with a description of its own: other
   * clients order the line by the keys' last revisions, or the value is the owner's to change.
   */
  readonly putsOnce: (claim: Claim) => boolean
  /**
   * Whether each entry has a key of its own. Where all have the same, they cannot stand in line, only the value shows
   * whose the key is, and etcd neither deletes nor puts it twice in one transaction.
   */
  readonly hasOwnKeys: boolean
}

/** Whether an entry that is there may be put again, with another description of the process that it belongs to. */
export const isDescribable = (layout: Layout, claim: Claim): boolean => layout.hasOwnKeys && !layout.putsOnce(claim)

/**
 * A key for each entry, as Go's client has them: the lease's ID, and a number since a lease may have several entries.
 *
 * Those of readers and writers lie in two folders, as `recipe.RWMutex` has them, and those of others directly under the
 * prefix, as `concurrency.Mutex` has them. All stand in one line. Only the keys outside of the readers' folder are in
 * the way of a reader, so a reader reads and watches no other reader.
 */
export const queue: Layout = {
  range: Etcd.getPrefix,
  seesPart: ({ kind }) => kind === "read",
  part: (prefix) => allBut(prefix, readers),
  key: (prefix, lease, claim) => newKey(`${prefix}${folders[claim.kind]}`, lease, suffixOf(claim)),
  isEntry: (prefix, kv) => isEntryKey.test(keyOf(kv).slice(prefix.length)),
  namesLease: (prefix, kv) => namesLease.test(keyOf(kv).slice(prefix.length)),
  claimIn: (prefix, kv) => claimShownBy(keyOf(kv).slice(prefix.length)),
  claimOf: (prefix, kv, own) => {
    const suffix = keyOf(kv).slice(prefix.length)
    if (!isEntryKey.test(suffix)) return undefined
    if (own.kind !== "permits") return suffix.startsWith(readers) ? read : lock
    const claim = claimShownBy(suffix)
    if (claim.kind !== "permits") return { ...own, permits: own.of }
    return accepts(own, claim.of) ? claim : undefined
  },
  // Every entry has a permit at least.
  guardsAmong: ({ kind, of }) => kind === "permits" ? of : 1,
  sharesWithAhead: ({ kind }) => kind === "permits",
  // A reader's request may be answered as if it were the only one: another reader changes nothing for it.
  lane: (prefix, key, { kind }) => kind === "read" ? key : prefix,
  putsOnce: ({ kind }) => kind === "read" || kind === "write" || kind === "election",
  hasOwnKeys: true
}

/** The key itself is the entry, and there is one at most. */
export const singleKey: Layout = {
  ...queue,
  range: Etcd.get,
  key: (name) => name,
  isEntry: () => true,
  claimIn: () => lock,
  claimOf: () => lock,
  hasOwnKeys: false
}

// -----------------------------------------------------------------------------
// folders
// -----------------------------------------------------------------------------

const readers = "read/"
const folders = { lock: "", read: readers, write: "write/", permits: "", election: "" }

/** The path of a line, given that path or that of its folder of readers or of writers. */
export const withoutFolder = (path: string): string => path.replace(/(?<=.)\/(read|write)$/, "")

/**
 * Leaves out the readers' entries of writers that can become readers. Such a pair is one client, and the two have joined
 * at one revision.
 */
export const withoutCompanions = <A extends EntryKey>(prefix: string, entries: ReadonlyArray<A>): Array<A> => {
  const isIn = (folder: string, kv: EntryKey) => keyOf(kv).startsWith(`${prefix}${folder}`)
  const writers = entries.filter((kv) => isIn(folders.write, kv))
  const pairs = new Set(writers.map(({ createRevision }) => createRevision))
  return entries.filter((kv) => !pairs.has(kv.createRevision) || !isIn(readers, kv))
}

/** What follows the prefix: a name, which may be in one of the folders. */
const isEntryKey = /^(read\/|write\/)?[^/]+$/

/** The same where the name is the ID of a lease, maybe with a number and permits. */
const namesLease = /^(read\/|write\/)?[\da-f]{1,16}(-\d+(-\d+of\d+)?)?$/

/** All keys of a line that are not in a folder of it. */
const allBut = (prefix: string, folder: string): ReadonlyArray<Etcd.Range> => {
  const all = Etcd.getPrefix(prefix)
  const excluded = Etcd.getPrefix(`${prefix}${folder}`)
  return [{ ...all, rangeEnd: excluded.key }, { ...all, key: excluded.rangeEnd! }]
}

// -----------------------------------------------------------------------------
// permits
// -----------------------------------------------------------------------------

/** A semaphore's entries have their permits in their keys, so that they need not be read with their values. */
const suffixOf = ({ kind, of, permits }: Claim): string => kind === "permits" ? `-${permits}of${of}` : ""

// The function is the caller's, and no fiber would get here what it throws. A throw counts as a refusal, which the
// recipe explains in the caller's fiber.
const accepts = ({ acceptOf, of }: Claim, theirs: number): boolean =>
  theirs === of || Result.getOrElse(Result.try(() => acceptOf?.(theirs) === true), () => false)

/** The claim of an entry, by what follows the prefix in its key. With impossible numbers, it claims all permits. */
const claimShownBy = (suffix: string): Claim => {
  if (suffix.startsWith(readers)) return read
  const [permits = 0, of = 0] = /-(\d+)of(\d+)$/.exec(suffix)?.slice(1).map(Number) ?? []
  return permits >= 1 && permits <= of && Number.isSafeInteger(of) ? { kind: "permits", permits, of } : lock
}

// -----------------------------------------------------------------------------
// the keys of a lease
// -----------------------------------------------------------------------------

/** Lets another entry have the key, once nothing of the last one is left in etcd. */
export const releaseKey = (lease: EntryLease, key: string, createRevision = 0n): void => {
  const known = keys.get(lease)
  if (known === undefined) return
  known.used.delete(key)
  if (createRevision === 0n) return
  known.released.delete(key)
  known.released.set(key, createRevision)
  if (known.released.size > rememberedAtMost) known.released.delete(known.released.keys().next().value!)
}

/** The create revision of the last entry that had the key and was released, if no other has it. */
export const wasReleased = (lease: Identified, key: Uint8Array): bigint | undefined => {
  const { released, used } = keysOf(lease)
  const text = keyOf({ key })
  return used.has(text) ? undefined : released.get(text)
}

/** A backup may bring back what was released since it was taken. */
const rememberedAtMost = 1024

// Takes the smallest free number: until it is compacted, etcd keeps every key that ever was, and walks over all of them
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
  /** The create revisions of the last entries that were released, by their keys. */
  readonly released: Map<string, bigint>
}

type Identified = Pick<EntryLease, "id">

const keys = new WeakMap<Identified, Keys>()

const keysOf = (lease: Identified): Keys => {
  let found = keys.get(lease)
  if (found === undefined) keys.set(lease, found = { hex: lease.id.toString(16), used: new Set(), released: new Map() })
  return found
}
