/**
 * What is known of the line before one of our entries, and what follows from each
 * answer and each event. All of it is synchronous and knows neither etcd nor fibers.
 *
 * Entries ahead can only go: new ones have greater create revisions. So what a read
 * showed ahead stays an upper bound of what is there, and an entry that may hold
 * according to it may hold as long as its own key exists.
 *
 * A turn comes in three ways, whose revisions compare: the join found no entry in the
 * way, and its own revision is the token; a read found the own key and no entry in the
 * way, and the read's revision is the token; or, in a short line, the one watch of the
 * whole, which reports all deletes since a read in their order, one's own too, reported
 * the last entry in the way, and that delete's revision is the token. Each is greater
 * than the token of the holder before, whose key was deleted at or before it.
 *
 * The watch of a single key gives no turn: it says nothing of the own key.
 */
import { admits, type Claim, guards } from "./discipline.ts"
import { type EntryKey, idOf } from "./entryKey.ts"
import type { Layout } from "./layout.ts"

export type Place = Unplaced | Complete | Guarded

/** A join or a read is under way. */
export interface Unplaced {
  readonly _tag: "Unplaced"
}

/** All entries ahead are known, oldest first, and the watch of the whole line reports their end. */
export interface Complete {
  readonly _tag: "Complete"
  readonly ahead: Map<string, EntryKey>
}

/**
 * These entries ahead were there at the revision `seenAt`. The turn cannot come while all of them stay, so nothing else
 * needs to be watched; the end of one causes a read, and never a turn.
 */
export interface Guarded {
  readonly _tag: "Guarded"
  readonly guards: ReadonlyMap<string, EntryKey>
  readonly seenAt: bigint
}

export type Step =
  | { readonly _tag: "Turn"; readonly revision: bigint }
  | { readonly _tag: "Foreign"; readonly kv: EntryKey }
  | { readonly _tag: "Look" }
  | { readonly _tag: "Wait"; readonly place: Complete | Guarded }

/** What makes a line the one that it is. */
export interface Rules {
  readonly prefix: string
  readonly layout: Pick<Layout, "claimOf">
}

/** When keys were last deleted, by their `idOf`. */
export type Deletes = ReadonlyMap<string, bigint>

export const unplaced: Unplaced = { _tag: "Unplaced" }

/** All that was ahead at a revision, oldest first, while the watch of the whole line has reported `deletes`. */
export const settle = (
  rules: Rules,
  own: Claim,
  ahead: ReadonlyArray<EntryKey>,
  revision: bigint,
  deletes: Deletes | undefined
): Step => {
  const left = new Map(ahead.map((kv) => [idOf(kv), kv]))
  let latest = revision
  for (const [id, kv] of left) {
    const deleted = deletes?.get(id)
    if (deleted === undefined || deleted <= kv.createRevision) continue
    left.delete(id)
    if (deleted > latest) latest = deleted
  }
  return foreignAmong(rules, own, ahead) ?? (isMet(rules, own, left.values())
    ? { _tag: "Turn", revision: latest }
    : { _tag: "Wait", place: { _tag: "Complete", ahead: left } })
}

/**
 * What was nearest ahead at a revision, newest first. `isComplete` if nothing else was ahead. Of what happened after `seenAt`
 * only watches can tell.
 */
export const follow = (
  rules: Rules,
  own: Claim,
  nearest: ReadonlyArray<EntryKey>,
  isComplete: boolean,
  revision: bigint,
  seenAt = revision
): Step => {
  const foreign = foreignAmong(rules, own, nearest)
  if (foreign !== undefined) return foreign
  if (isComplete && isMet(rules, own, nearest)) return { _tag: "Turn", revision }
  const found = guards(own, nearest, (kv) => claimOf(rules, own, kv))
  if (found === undefined) return { _tag: "Look" }
  return {
    _tag: "Wait",
    place: { _tag: "Guarded", guards: new Map(found.map((kv) => [idOf(kv), kv])), seenAt }
  }
}

/** The entries that keep an entry waiting, as far as they are known. */
export const inTheWay = (place: Place): ReadonlyMap<string, EntryKey> => {
  switch (place._tag) {
    case "Unplaced": {
      return none
    }
    case "Complete": {
      return place.ahead
    }
    case "Guarded": {
      return place.guards
    }
  }
}

const none: ReadonlyMap<string, EntryKey> = new Map()

/** A delete that a watch has reported. The watch of the whole line is the only one that reports all of a revision. */
export const onDelete = (
  rules: Rules,
  own: Claim,
  place: Place,
  deleted: { readonly id: string; readonly revision: bigint },
  isWhole: boolean
): Step | undefined => {
  if (place._tag === "Guarded") {
    const guard = place.guards.get(deleted.id)
    return guard !== undefined && deleted.revision > guard.createRevision ? { _tag: "Look" } : undefined
  }
  if (place._tag !== "Complete" || !isWhole) return undefined
  const earlier = place.ahead.get(deleted.id)
  if (earlier === undefined || deleted.revision < earlier.createRevision) return undefined
  place.ahead.delete(deleted.id)
  return isMet(rules, own, place.ahead.values()) ? { _tag: "Turn", revision: deleted.revision } : undefined
}

const isMet = (rules: Rules, own: Claim, ahead: Iterable<EntryKey>): boolean =>
  admits(own, Array.from(ahead, (kv) => claimOf(rules, own, kv)))

/** The claim of a key that is known to be an entry. */
const claimOf = ({ layout, prefix }: Rules, own: Claim, kv: EntryKey): Claim => layout.claimOf(prefix, kv, own)!

const foreignAmong = (
  { layout, prefix }: Rules,
  own: Claim,
  ahead: ReadonlyArray<EntryKey>
): Extract<Step, { readonly _tag: "Foreign" }> | undefined => {
  const kv = ahead.find((kv) => layout.claimOf(prefix, kv, own) === undefined)
  return kv === undefined ? undefined : { _tag: "Foreign", kv }
}
