/**
 * Who may hold beside whom.
 *
 * Every line is a semaphore: an entry may hold when the permits of all entries ahead and its own are at most as many as
 * there are. The holder of a mutex, and a writer, take all permits of the line, and a reader one. Entries ahead can only
 * leave, and others join behind, so the holders are always the beginning of the line, and no waiter is overtaken, be it
 * a writer behind readers or a claim to many permits behind claims to one.
 */
import type { EntryKey } from "./entryKey.ts"

/** What an entry asks for. */
export interface Claim {
  readonly kind: "lock" | "read" | "write"
  readonly permits: number
  /** How many permits there are. */
  readonly of: number
}

/** More permits than a line can ever have readers. */
const all = Number.MAX_SAFE_INTEGER

/** The claim to be the only holder. */
export const lock: Claim = { kind: "lock", permits: all, of: all }

/** The claims to a lock that has many readers or one writer. */
export const read: Claim = { kind: "read", permits: 1, of: all }
export const write: Claim = { kind: "write", permits: all, of: all }

/** Whether the claim of an entry is met, given all entries ahead of it. */
export const admits = (claim: Claim, ahead: Iterable<EntryKey>, permitsOf: (kv: EntryKey) => number): boolean => {
  let used = claim.permits
  for (const kv of ahead) used += permitsOf(kv)
  return used <= claim.of
}

/**
 * The guards among the entries ahead, which come newest first: the nearest ones that cannot all stay if the claim is to
 * be met, and of those as few as possible, so that the end of one is likely to matter. Undefined where more entries are
 * needed to name them.
 */
export const guards = (
  claim: Claim,
  ahead: ReadonlyArray<EntryKey>,
  permitsOf: (kv: EntryKey) => number
): ReadonlyArray<EntryKey> | undefined => {
  const room = claim.of - claim.permits
  const nearest: Array<EntryKey> = []
  let used = 0
  for (const kv of ahead) {
    nearest.push(kv)
    used += permitsOf(kv)
    if (used > room) break
  }
  if (used <= room) return undefined
  return nearest.filter((kv) => {
    const others = used - permitsOf(kv)
    if (others > room) used = others
    return others <= room
  })
}
