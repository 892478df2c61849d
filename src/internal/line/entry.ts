/**
 * An entry of a waiting line, from its join to its end: a key of its own that hangs
 * on a lease.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Etcd from "../../Etcd.ts"
import type { Lease } from "../../Lease.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import type { Done } from "../etcd/batch.ts"
import type { Bodies, OnLoss } from "../supervise.ts"
import type { Line } from "./line.ts"
import { type Place, unplaced } from "./view.ts"

/** What an entry needs of the lease that it hangs on. */
export interface EntryLease extends Lease {
  readonly isAlive: () => boolean
  readonly onLoss: OnLoss<LeaseExpired>
  /** Called when a request on this lease was answered with "no such lease". */
  readonly notFound: () => void
  /** All that runs under the lease or under a lock on it. */
  readonly bodies: Bodies
}

/** One reference to a lease. A session's lease is revoked after the last one is released. */
export interface LeaseRef {
  readonly lease: EntryLease
  /** It is the session's lease, and ends with it. */
  readonly isShared: boolean
  readonly release: () => void
  /** The outcome of a write on this lease stays unknown: nobody gets another reference to it. */
  readonly retire: () => void
}

/** What an entry is made of. */
export interface EntryOptions {
  readonly ref: LeaseRef
  readonly value: Uint8Array
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
  readonly ref: LeaseRef
  readonly key: string
  /** As `idOf` names the key. */
  readonly id: string
  value: Uint8Array
  createRevision = 0n
  /** The revision at which its turn came. */
  fencingToken = 0n
  state: "Waiting" | "Held" | "Left" = "Waiting"
  /** Since when it is in its state, on the monotonic clock. */
  since = Infinity
  place: Place = unplaced
  loss: EntryLost | undefined
  /** A put of it may come late, or its removal failed. */
  outcomeUnknown = false
  #turn: Exit.Exit<void, EntryError> | undefined
  #onTurn: Done<void, EntryError> | undefined
  #onLoss: ReadonlyArray<(loss: EntryLost) => void> = []

  constructor(line: Line, key: string, { ref, value }: EntryOptions) {
    this.line = line
    this.key = key
    // ASCII is the same text either way, and one string less to keep.
    this.id = Buffer.byteLength(key) === key.length ? key : Buffer.from(key).toString("latin1")
    this.ref = ref
    this.value = value
  }

  /** Reports once, to the last one who asked: its turn, or why it will not come. */
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

  /** Returns its loss, also one that no timer has reported yet. */
  checkLoss(): EntryLost | undefined {
    // A lease that finds that its time is over notifies its entries.
    this.ref.lease.isAlive()
    return this.loss
  }

  /** Returns how to unsubscribe. */
  onLoss(listener: (loss: EntryLost) => void): () => void {
    const loss = this.checkLoss()
    if (loss !== undefined) {
      listener(loss)
      return () => {}
    }
    this.#onLoss = [...this.#onLoss, listener]
    return () => {
      this.#onLoss = this.#onLoss.filter((other) => other !== listener)
    }
  }

  /** Notifies the waiter or the holder that the entry came to nothing. */
  lose(reason: EntryLost["reason"]) {
    if (this.loss !== undefined || this.state === "Left") return
    this.loss = new EntryLost(reason)
    this.decide(Exit.fail(this.loss))
    this.notify(this.loss)
  }

  /** Nothing of it is left in etcd. */
  get isGone(): boolean {
    return this.loss !== undefined && this.loss.reason !== "Released"
  }

  /** Notifies the holder that it is over. */
  notify(loss: EntryLost) {
    const listeners = this.#onLoss
    this.#onLoss = []
    for (const listener of listeners) listener(loss)
  }
}

/**
 * Gives an entry away as soon as no body of it runs any more. Returns the wait for that, which ends after one TTL
 * even if bodies still run.
 */
export const giveAway = (entry: Entry, give: (done: () => void) => void): Effect.Effect<void> => {
  const { bodies, ttl } = entry.ref.lease
  const given = Latch.makeUnsafe()
  const isRunning = bodies.isRunning(entry)
  bodies.onEnd(entry, () => give(() => given.openUnsafe()))
  return !isRunning ? given.await : Effect.timeoutOrElse(given.await, {
    duration: ttl,
    orElse: () =>
      Effect.logWarning(
        `'${entry.key}' is still held: what runs under it has not ended within ${
          Duration.format(ttl)
        } after it was interrupted`
      )
  })
}

// -----------------------------------------------------------------------------
// what etcd has of it
// -----------------------------------------------------------------------------

/** What etcd has of an entry. */
export type EntryKey = Pick<Etcd.KeyValue, "key" | "value" | "lease" | "createRevision">

/** A key as text, to be shown. */
export const keyOf = (kv: Pick<Etcd.KeyValue, "key">): string => Buffer.from(kv.key).toString()

/** A key as an index. Keys are bytes: two that are no UTF-8 may be shown as the same text. */
export const idOf = ({ key }: Pick<Etcd.KeyValue, "key">): string =>
  Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1")

/** An entry is a direct child of the prefix, or the key itself, and hangs on a lease; anything else might stay for ever. */
export const isEntry = (prefix: string, kv: EntryKey): boolean =>
  kv.lease !== 0n && !keyOf(kv).slice(prefix.length).includes("/")

export const putOf = ({ ref, key, value }: Entry): Etcd.Put => Etcd.put(key, value, { lease: ref.lease.id })

export const removalOf = (entry: Entry) => Etcd.nested({ compare: [guard(entry)], then: [Etcd.remove(entry.key)] })

/** The condition that an entry is still there, and none that came after it under the same key. */
export const guard = (entry: Entry): Etcd.Compare => Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)

/** The condition that a key is there that was put for this entry. */
export const own = (entry: Entry): ReadonlyArray<Etcd.Compare> => {
  const hangsOnLease = {
    key: Buffer.from(entry.key),
    target: "Lease",
    operator: "=",
    value: entry.ref.lease.id
  } as const
  return hasSharedKey(entry) ? [hangsOnLease, Etcd.compareValue(entry.key, "=", entry.value)] : [hangsOnLease]
}

export const isOwn = (entry: Entry, kv: Etcd.KeyValue): boolean =>
  idOf(kv) === entry.id && kv.lease === entry.ref.lease.id &&
  (!hasSharedKey(entry) || Buffer.compare(kv.value, entry.value) === 0)

/** Other entries on its lease may have the same key; only the value tells them apart. */
const hasSharedKey = ({ key, line }: Entry): boolean => key === line.prefix
