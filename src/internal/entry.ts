/**
 * An entry of a waiting line, from its join to its end: a key of its own that hangs
 * on a lease.
 */
import * as Exit from "effect/Exit"
import * as Etcd from "../Etcd.ts"
import type { Lease } from "../Lease.ts"
import type { Done } from "./batch.ts"
import type { Line } from "./line.ts"

/** Says whether it is an entry's turn, from the entries that are before it. */
export type Rule = (ahead: ReadonlyMap<string, Etcd.KeyValue>) => boolean

/** What hangs an entry on a lease and takes it off again. */
export interface Hold {
  readonly lease: Lease
  readonly leave: () => void
  /** The outcome of a write on this lease stays unknown: nothing new may hang on it. */
  readonly retire: () => void
}

/** The mutex's rule: any earlier entry blocks. */
export const noneAhead: Rule = (ahead) => ahead.size === 0

/** What an entry is made of. */
export interface Ticket {
  readonly hold: Hold
  readonly value: Uint8Array
  readonly rule: Rule
}

/** Why an entry came to nothing. */
export type EntryError = EntryLost | ForeignEntry | Etcd.EtcdError

export class EntryLost {
  readonly _tag = "EntryLost"
  readonly reason: "LeaseExpired" | "KeyDeleted" | "Released"
  constructor(reason: EntryLost["reason"]) {
    this.reason = reason
  }
}

/** A key under the prefix that can be no entry, and would be waited for for ever. */
export class ForeignEntry {
  readonly _tag = "ForeignEntry"
  readonly key: string
  constructor(key: string) {
    this.key = key
  }
}

export class Entry {
  readonly line: Line
  readonly hold: Hold
  readonly key: string
  readonly value: Uint8Array
  readonly rule: Rule
  createRevision = 0n
  /** The revision at which its turn came. */
  fencingToken = 0n
  state: "Waiting" | "Held" | "Left" = "Waiting"
  heldSince = Infinity
  /** The earlier entries, in order, as far as they are known. */
  ahead: Map<string, Etcd.KeyValue> | undefined
  loss: EntryLost | undefined
  /** A put of it may come late, or its removal failed. */
  mayRemain = false
  #turn: Exit.Exit<void, EntryError> | undefined
  #onTurn: Done<void, EntryError> | undefined
  #onLoss: ReadonlyArray<(loss: EntryLost) => void> = []

  constructor(line: Line, key: string, { hold, rule, value }: Ticket) {
    this.line = line
    this.key = key
    this.hold = hold
    this.rule = rule
    this.value = value
  }

  /** Tells once, of its turn or of why it will not come. */
  onTurn(done: Done<void, EntryError>) {
    if (this.#turn === undefined) this.#onTurn = done
    else done(this.#turn)
  }

  decide(turn: Exit.Exit<void, EntryError>) {
    if (this.#turn !== undefined) return
    this.#turn = turn
    const done = this.#onTurn
    this.#onTurn = undefined
    done?.(turn)
  }

  /** Its loss, also one that no timer has told of yet. */
  look(): EntryLost | undefined {
    // the lease tells the entry when it finds that its time is over
    this.hold.lease.isAlive()
    return this.loss
  }

  /** Returns how to unsubscribe. */
  onLoss(listener: (loss: EntryLost) => void): () => void {
    const loss = this.look()
    if (loss !== undefined) {
      listener(loss)
      return () => {}
    }
    this.#onLoss = [...this.#onLoss, listener]
    return () => {
      this.#onLoss = this.#onLoss.filter((other) => other !== listener)
    }
  }

  /** Tells whoever waits for the entry's turn, or holds, that it came to nothing. */
  lose(reason: EntryLost["reason"]) {
    if (this.loss !== undefined || this.state === "Left") return
    this.loss = new EntryLost(reason)
    this.decide(Exit.fail(this.loss))
    this.tell(this.loss)
  }

  /** Tells whoever holds that it is over. */
  tell(loss: EntryLost) {
    const listeners = this.#onLoss
    this.#onLoss = []
    for (const listener of listeners) listener(loss)
  }
}

// -----------------------------------------------------------------------------
// what etcd has of it
// -----------------------------------------------------------------------------

/** What etcd tells about an entry. */
export type EntryKey = Pick<Etcd.KeyValue, "key" | "value" | "lease" | "createRevision">

export const keyOf = (kv: Pick<Etcd.KeyValue, "key">): string => Buffer.from(kv.key).toString()

/** An entry is a direct child of the prefix, or the key itself, and hangs on a lease; anything else might stay for ever. */
export const isEntry = (prefix: string, kv: EntryKey): boolean =>
  kv.lease !== 0n && !keyOf(kv).slice(prefix.length).includes("/")

export const putOf = ({ hold, key, value }: Entry): Etcd.Put => Etcd.put(key, value, { lease: hold.lease.id })

export const removalOf = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [Etcd.remove(entry.key)] })

/** The condition that an entry is still there, and none that came after it under the same key. */
export const guard = (entry: Entry): Etcd.Compare => Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)

/** The condition that a key is there that was put for this entry. */
export const own = (entry: Entry): ReadonlyArray<Etcd.Compare> => [
  { key: Buffer.from(entry.key), target: "Lease", operator: "=", value: entry.hold.lease.id },
  Etcd.compareValue(entry.key, "=", entry.value)
]

export const isOwn = (entry: Entry, kv: Etcd.KeyValue): boolean =>
  keyOf(kv) === entry.key && kv.lease === entry.hold.lease.id && Buffer.compare(kv.value, entry.value) === 0
