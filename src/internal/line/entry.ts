/**
 * An entry of a waiting line, from its join to its end: a key of its own that is attached to a lease.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Etcd from "../../Etcd.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import * as Log from "../log.ts"
import { Signal } from "../signal.ts"
import type { OnLoss, Owner } from "../supervise.ts"
import type { Claim } from "./discipline.ts"
import type { EntryKey } from "./entryKey.ts"
import type { EntryLease, LeaseRef } from "./leaseRef.ts"
import type { Line } from "./line.ts"
import { type Place, unplaced } from "./view.ts"

/** How long it has waited and held, in milliseconds, before its key tells since when it holds. */
export const worthTelling = 1000

/** What an entry is made of. */
export interface EntryOptions {
  readonly ref: LeaseRef
  readonly value: Uint8Array
  readonly claim: Claim
}

/** Why an entry does not become or stay a holder. */
export type EntryError = EntryLost | ForeignEntry | Etcd.EtcdError

export class EntryLost {
  readonly _tag = "EntryLost"
  readonly reason: "LeaseExpired" | "KeyDeleted" | "Released"
  /** What happened to its lease, where that is the reason. */
  readonly cause: LeaseExpired | undefined
  constructor(reason: EntryLost["reason"], cause?: LeaseExpired) {
    this.reason = reason
    this.cause = cause
  }
}

/** etcd has said that the key is not there, or that another entry has put it since. */
export const keyDeleted = new EntryLost("KeyDeleted")

/** What the loss of its lease means to an entry. */
export const lostWith = (cause: LeaseExpired): EntryLost =>
  new EntryLost(cause.reason === "Released" ? "Released" : "LeaseExpired", cause)

/** What the end of its lease means to an entry, where the lease is over, by its clock as well. */
export const endOf = ({ loss }: EntryLease): EntryLost | undefined => loss && lostWith(loss)

/** A key of the line that is no entry. Waiting for it could take for ever. */
export class ForeignEntry {
  readonly _tag = "ForeignEntry"
  readonly kv: EntryKey
  /** As etcd has said of it. */
  readonly isOnLease: boolean
  constructor(kv: EntryKey, isOnLease: boolean) {
    this.kv = kv
    this.isOnLease = isOnLease
  }
}

export class Entry implements Owner {
  readonly line: Line
  readonly ref: LeaseRef
  readonly claim: Claim
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
  /** How many requests of its process its key tells of, which wait for this place and have no entries of their own. */
  behind = 0
  /** Since when it holds, as its key tells, in milliseconds of the wall clock. */
  heldSince: number | undefined
  /** A fiber of this process has waited for this place before. */
  hasWaited = false
  /** When its key is to tell since when it holds, on the monotonic clock. */
  tellAt = Infinity
  /** Its key may not tell of those behind: the request that put the number has failed. */
  isBehindInDoubt = false
  /** How many entries were in its way when it joined, if that is known. */
  ahead: number | undefined
  /** A put of it may come late, or its removal failed. */
  outcomeUnknown = false
  /** Notified of a loss before all listeners, without a closure for each of thousands of held locks. */
  ownership: { readonly lost: (loss: EntryLost) => void } | undefined
  loss: EntryLost | undefined
  readonly #listeners = new Signal<EntryLost>()
  #failure: ForeignEntry | Etcd.EtcdError | undefined
  #turn: Deferred.Deferred<void, EntryError> | undefined

  constructor(line: Line, { claim, ref, value }: EntryOptions) {
    this.line = line
    this.claim = claim
    const key = this.key = line.layout.key(line.prefix, ref.lease, claim)
    // ASCII is the same text either way, and one string less to keep.
    this.id = Buffer.byteLength(key) === key.length ? key : Buffer.from(key).toString("latin1")
    this.ref = ref
    this.value = value
  }

  /** etcd has created its key. */
  joined(createRevision: bigint, now: number) {
    this.createRevision = createRevision
    this.since = now
  }

  /** Takes the turn, unless the entry was lost before. */
  takeTurn(revision: bigint, now: number) {
    if (this.state !== "Waiting" || this.checkLoss() !== undefined) return
    this.state = "Held"
    // One that may be over soon is not worth a commit, and who hardly waited holds since it asked, or nearly so.
    if (this.hasWaited || now - this.since >= worthTelling) this.tellAt = now + worthTelling
    this.since = now
    this.place = unplaced
    this.fencingToken = revision
    if (this.#turn !== undefined) Deferred.doneUnsafe(this.#turn, Effect.void)
  }

  /** Waits until its turn has come; fails with the reason if it will not. */
  get turn(): Effect.Effect<void, EntryError> {
    return Effect.suspend(() => {
      const failure = this.failure
      if (failure !== undefined) return Effect.fail(failure)
      return this.state === "Held" ? Effect.void : Deferred.await(this.#turn ??= Deferred.makeUnsafe())
    })
  }

  /** Its turn will not come, although its key may still be there. */
  fail(failure: ForeignEntry | Etcd.EtcdError) {
    if (this.state !== "Waiting" || this.failure !== undefined) return
    this.#failure = failure
    this.#failTurn(failure)
  }

  get failure(): EntryError | undefined {
    return this.checkLoss() ?? this.#failure
  }

  /** The entry is no longer in the line, or has to leave it. */
  lose(reported: EntryLost) {
    if (this.state === "Left" || this.loss !== undefined) return
    // A process that stood still may hear of its key's end before it looks at the clock of the lease, which explains it.
    const loss = reported.cause === undefined ? endOf(this.ref.lease) ?? reported : reported
    // The lease has told it by now.
    if (this.loss !== undefined) return
    this.loss = loss
    this.ownership?.lost(loss)
    this.#listeners.set(loss)
    this.#failTurn(loss)
  }

  /** Returns its loss, also one that no timer has reported yet. */
  checkLoss(): EntryLost | undefined {
    // A lease that finds that its time is over notifies its entries.
    this.ref.lease.isAlive()
    return this.loss
  }

  get onLoss(): OnLoss<EntryLost> {
    return (listener) => {
      this.checkLoss()
      return this.#listeners.subscribe(listener)
    }
  }

  /** Lost, and not given away by its owner. */
  get isLost(): boolean {
    return this.loss !== undefined && this.loss.reason !== "Released"
  }

  #failTurn(error: EntryError) {
    if (this.#turn !== undefined) Deferred.doneUnsafe(this.#turn, Effect.fail(error))
  }
}

/**
 * Gives an entry away as soon as no body of it runs any more. Returns the wait for that, which ends after one TTL
 * even if bodies still run. It fails with a loss that etcd's answer shows.
 */
export const giveAway = <E>(
  entry: Entry,
  give: (done: (exit: Exit.Exit<void, E>) => void) => void
): Effect.Effect<void, E> => {
  const { bodies, ttl } = entry.ref.lease
  const given = Deferred.makeUnsafe<void, E>()
  const isRunning = bodies.isRunning(entry)
  bodies.onEnd(entry, () => give((exit) => Deferred.doneUnsafe(given, exit)))
  return !isRunning ? Deferred.await(given) : Effect.timeoutOrElse(Deferred.await(given), {
    duration: ttl,
    orElse: () =>
      Log.warning(
        `'${entry.key}' is still held: what runs under it has not ended within ${
          Duration.format(ttl)
        } after it was interrupted`
      )
  })
}
