/** The keys of a line that are watched by themselves: guards, and entries of our own in a long line. */
import type * as Effect from "effect/Effect"
import type * as Semaphore from "effect/Semaphore"
import * as Etcd from "../../Etcd.ts"
import { idOf } from "./entryKey.ts"
import type { Line } from "./line.ts"
import { DeletionWatch, type Host, type Subject } from "./watch.ts"

export class KeyWatches {
  readonly #host: Host
  readonly #line: Line
  /** By the keys' `idOf`. */
  readonly #watched = new Map<string, WatchedKey>()
  /** The last guards. Their watches are kept, since they often guard again. */
  #guards: ReadonlySet<string> = new Set()
  /** All guards whose watches may be open. Several entries of ours have different ones. */
  readonly #opened = new Set<string>()

  constructor(host: Host, line: Line) {
    this.#host = host
    this.#line = line
  }

  open(id: string, key: Uint8Array) {
    let watched = this.#watched.get(id)
    if (watched === undefined) this.#watched.set(id, watched = new WatchedKey(this.#host, this.#line, this, id, key))
    watched.watch.open()
  }

  close(id: string) {
    this.#watched.get(id)?.watch.close()
    this.#watched.delete(id)
  }

  doubt(id: string) {
    this.#watched.get(id)?.watch.doubt()
  }

  closeAll() {
    for (const { watch } of this.#watched.values()) watch.close()
    this.#watched.clear()
    this.#opened.clear()
  }

  /** The revision after which the end of a key is reported, if its watch is open. */
  from(id: string): bigint | undefined {
    return this.#watched.get(id)?.watch.from
  }

  /** When a key was last deleted, as far as its watch has reported. */
  deletedAt(id: string): bigint | undefined {
    return this.#watched.get(id)?.deletedAt
  }

  /** Replaces the guards, and closes the watches that none of our entries needs any more. */
  setGuards(guards: ReadonlySet<string>) {
    this.#guards = guards
    for (const id of guards) this.#opened.add(id)
    for (const id of this.#opened) {
      if (this.isNeeded(id)) continue
      this.#opened.delete(id)
      this.close(id)
    }
  }

  /** Whether a watch is still the one of its key. Another one may have been opened since it was closed. */
  has(id: string, watched: WatchedKey): boolean {
    return this.#watched.get(id) === watched
  }

  isNeeded(id: string): boolean {
    return this.#line.entries.size > 0 && (this.#guards.has(id) || this.#line.needs(id))
  }
}

class WatchedKey implements Subject {
  readonly range: Etcd.Range
  readonly watch: DeletionWatch
  /** The revision at which the key was last deleted, as far as its watch has reported. */
  deletedAt: bigint | undefined
  readonly #line: Line
  readonly #all: KeyWatches
  readonly #id: string

  constructor(host: Host, line: Line, all: KeyWatches, id: string, key: Uint8Array) {
    this.range = Etcd.get(key)
    this.watch = new DeletionWatch(host, this)
    this.#line = line
    this.#all = all
    this.#id = id
  }

  onDeletes(events: ReadonlyArray<Etcd.WatchEvent>) {
    // Anybody can implement `Etcd`: an event counts for the key that it names.
    const last = events.findLast(({ kv }) => idOf(kv) === this.#id)
    if (last !== undefined) this.deletedAt = last.kv.modRevision
    this.#line.onDeletes(events, false)
  }

  read(from: bigint): Effect.Effect<void, Etcd.EtcdError> {
    return this.#line.verify(this.#id, this.range.key, from)
  }

  onError(error: Etcd.EtcdError) {
    this.#line.onError(error)
  }

  get isNeeded(): boolean {
    return this.#all.has(this.#id, this) && this.#all.isNeeded(this.#id)
  }

  get openingLimit(): Semaphore.Semaphore {
    return this.#line.openingLimit
  }
}
