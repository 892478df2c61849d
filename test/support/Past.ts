import type { Etcd } from "effect-etcd-lock"

export type Entry = Etcd.KeyValue & { readonly key: Buffer }

/** One life of a key. */
export interface Known {
  readonly entry: Entry
  /** The last revision at which it was seen. */
  lastSeen: bigint
  /** The first revision at which it was seen to be gone, and the time. */
  gone: { readonly revision: bigint; readonly at: number } | undefined
}

/** Tells one life of a key from the next one. */
export const identity = (kv: Pick<Entry, "key" | "createRevision">) => `${kv.key}@${kv.createRevision}`

/**
 * What etcd held at each of its revisions. It has to be shown etcd after whatever may have changed it. Of revisions that
 * it was not shown one by one, it does not say when in between a key went.
 */
export class Past {
  revision = 0n
  readonly #known = new Map<string, Known>()
  readonly #present = new Set<Known>()
  /** The revisions between two that it was shown, of which it knows nothing. */
  readonly #unseen: Array<{ readonly first: bigint; readonly last: bigint }> = []

  see(revision: bigint, kvs: () => ReadonlyArray<Entry>, now: number) {
    if (revision === this.revision) return
    if (revision > this.revision + 1n) this.#unseen.push({ first: this.revision + 1n, last: revision - 1n })
    const found = new Set(kvs().map((entry) => this.#knownAs(entry)))
    for (const known of this.#present) {
      if (found.has(known)) continue
      known.lastSeen = this.revision
      known.gone = { revision, at: now }
      this.#present.delete(known)
    }
    for (const known of found) this.#present.add(known)
    this.revision = revision
  }

  #knownAs(entry: Entry): Known {
    const id = identity(entry)
    const known = this.#known.get(id) ?? { entry, lastSeen: entry.createRevision, gone: undefined }
    this.#known.set(id, known)
    return known
  }

  find(key: string, createRevision: bigint): Known | undefined {
    return this.#known.get(`${key}@${createRevision}`)
  }

  /** Whether a key may have been created at a revision, and have gone before etcd was shown again. */
  isUnseen(revision: bigint): boolean {
    return this.#unseen.some(({ first, last }) => first <= revision && revision <= last)
  }

  /** Whether there were states since a revision of which it knows nothing. */
  hasUnseenSince(revision: bigint): boolean {
    return this.#unseen.some(({ last }) => last > revision)
  }

  /** Whether it was ever shown a key that fits. */
  hasSeen(fits: (entry: Entry) => boolean): boolean {
    return [...this.#known.values()].some(({ entry }) => fits(entry))
  }

  /** All keys under a prefix that were there at a revision for certain, oldest first. */
  at(prefix: string, revision: bigint): ReadonlyArray<Entry> {
    return this.#under(prefix).filter((known) => isThere(known, revision) === "Yes").map(({ entry }) => entry)
  }

  /** All that was under a prefix at any moment since a revision, one state after the other. */
  statesSince(prefix: string, from: bigint): ReadonlyArray<ReadonlyArray<Entry>> {
    const known = this.#under(prefix).filter(({ gone }) => gone === undefined || gone.revision > from)
    const changes = known.flatMap((
      { entry, gone }
    ) => [entry.createRevision, ...gone === undefined ? [] : [gone.revision]])
    const moments = new Set([from, ...changes.filter((revision) => revision > from)])
    return [...moments].map((moment) =>
      known.filter(({ entry, gone }) =>
        entry.createRevision <= moment && !(gone !== undefined && gone.revision <= moment)
      )
        .map(({ entry }) => entry)
    )
  }

  #under(prefix: string): ReadonlyArray<Known> {
    return [...this.#known.values()].filter(({ entry }) => entry.key.toString().startsWith(prefix))
      .sort((a, b) => Number(a.entry.createRevision - b.entry.createRevision))
  }
}

export const isThere = ({ entry, gone, lastSeen }: Known, revision: bigint): "Yes" | "No" | "Unsaid" => {
  if (revision < entry.createRevision) return "No"
  if (gone === undefined || revision <= lastSeen) return "Yes"
  return revision >= gone.revision ? "No" : "Unsaid"
}
