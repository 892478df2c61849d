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
  readonly kind: "lock" | "read" | "write" | "permits" | "election"
  readonly permits: number
  /** How many permits there are. */
  readonly of: number
  /** Whether it may stand in line with entries that know of another number of permits; the smaller one counts. */
  readonly acceptOf?: ((theirs: number) => boolean) | undefined
}

/** More permits than a line can ever have readers. */
const all = Number.MAX_SAFE_INTEGER

/** The claim to be the only holder. */
export const lock: Claim = { kind: "lock", permits: all, of: all }
export const election: Claim = { ...lock, kind: "election" }

/** The claims to a lock that has many readers or one writer. */
export const read: Claim = { kind: "read", permits: 1, of: all }
export const write: Claim = { kind: "write", permits: all, of: all }

/** The claims of a writer that can become a reader, which are met together. No other claim is met beside both. */
export const downgradable: readonly [Claim, Claim] = [{ kind: "write", permits: all - 1, of: all - 1 }, read]

/** Whether another entry of the same client may have joined the line at its revision. */
export const hasCompanion = (claim: Claim): boolean => isSame(claim, downgradable[0])

export const isSame = (a: Claim, b: Claim): boolean => a.kind === b.kind && a.permits === b.permits && a.of === b.of

/** Whether a claim is met, given those of all entries ahead. */
export const admits = (own: Claim, ahead: Iterable<Claim>): boolean => {
  let used = own.permits
  let { of } = own
  for (const claim of ahead) {
    used += claim.permits
    of = Math.min(of, claim.of)
  }
  return used <= of
}

/** How many of the claims in a line are met, which are those of its beginning. */
export const metAmong = (line: ReadonlyArray<Claim>): number => {
  let used = 0
  let of = all
  const waiting = line.findIndex((claim) => {
    used += claim.permits
    of = Math.min(of, claim.of)
    return used > of
  })
  return waiting < 0 ? line.length : waiting
}

/**
 * The guards of an entry among those ahead, which come newest first: the nearest ones that cannot all stay if the claim
 * is to be met, and of those as few as possible, so that the end of one is likely to matter. Undefined where more entries
 * are needed to name them.
 */
export const guards = <A extends EntryKey>(
  own: Claim,
  ahead: ReadonlyArray<A>,
  claimOf: (kv: A) => Claim
): ReadonlyArray<A> | undefined => {
  const room = ahead.reduce((of, kv) => Math.min(of, claimOf(kv).of), own.of) - own.permits
  const nearest: Array<A> = []
  let used = 0
  for (const kv of ahead) {
    nearest.push(kv)
    used += claimOf(kv).permits
    if (used > room) break
  }
  if (used <= room) return undefined
  return nearest.filter((kv) => {
    const others = used - claimOf(kv).permits
    if (others > room) used = others
    return others <= room
  })
}
