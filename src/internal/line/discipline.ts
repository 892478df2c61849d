/** Who may hold beside whom. */
import type { EntryKey } from "./entryKey.ts"

/** What a discipline looks at. */
export type Claim = Pick<EntryKey, "key" | "value">

/**
 * Walks a line from its head and says of each entry whether it may hold beside those before it. The first one that may
 * not ends the walk, so the holders are always the beginning of the line, and no waiter is overtaken.
 */
export interface Discipline {
  readonly walk: () => (claim: Claim) => boolean
  /**
   * The guards among the entries ahead, which come newest first: the nearest ones that cannot all stay if the turn is
   * to come. Undefined where more entries are needed to name them.
   */
  readonly guards: (ahead: ReadonlyArray<EntryKey>) => ReadonlyArray<EntryKey> | undefined
  /** How many of the entries ahead are enough to name the guards. */
  readonly guardsAmong: number
}

/** One holder: the head of the line. An entry's turn cannot come while the one directly before it is there. */
export const mutex: Discipline = {
  walk: () => {
    let before = 0
    return () => before++ === 0
  },
  guards: (ahead) => ahead.length > 0 ? ahead.slice(0, 1) : undefined,
  guardsAmong: 1
}

/** Whether an entry may hold, given all entries ahead of it, oldest first. */
export const admits = ({ walk }: Discipline, ahead: Iterable<EntryKey>, own: Claim): boolean => {
  const next = walk()
  for (const entry of ahead) if (!next(entry)) return false
  return next(own)
}
