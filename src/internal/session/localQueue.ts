/**
 * The fibers of this process that contend for one name, in the order of their requests. Those whose claims would be met
 * if there were no other process are called to join etcd's line; the others cost etcd nothing.
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Claim } from "../line/discipline.ts"
import type { Entry, EntryError } from "../line/entry.ts"
import type { EntryLease } from "../line/leaseRef.ts"

export interface Request {
  readonly prefix: string
  readonly claim: Claim
  readonly value: Uint8Array
  /** What the caller says of itself in the entry's value. */
  readonly metadata: string | undefined
  /** A lease of the user's own instead of the session's. */
  readonly lease: EntryLease | undefined
  /** The label of its metrics, beside their recipe. */
  readonly label: string | undefined
  /** Called when the lock is not free, with the number of entries in its way, if that is known. */
  readonly onContended: ((ahead: number | undefined) => void) | undefined
  /** It is one of several that join all lines at one revision, so it never takes over another waiter's place. */
  readonly isOneOfSeveral: boolean
}

/** One request for the lock, whether or not its fiber still waits for it. */
export class Waiter {
  readonly request: Request
  /**
   * Behind others of this process; called to join etcd's line; with a join under way; with an entry there; or given up.
   */
  state: "Queued" | "Called" | "Joining" | "Placed" | "Gone" = "Queued"
  /** The lock was not free. */
  isContended = false
  /** Its place in etcd's line. */
  entry: Entry | undefined
  /** What that is on, or will be when the join has been answered. */
  lease: EntryLease | undefined
  /** How its wait in this queue ended; undefined while it waits. */
  #outcome: Exit.Exit<void, EntryError> | undefined
  #called: Deferred.Deferred<void, EntryError> | undefined

  constructor(request: Request) {
    this.request = request
  }

  /** Waits until it is called or has been given an entry. */
  get called(): Effect.Effect<void, EntryError> {
    return Effect.suspend(() => this.#outcome ?? Deferred.await(this.#called ??= Deferred.makeUnsafe()))
  }

  /** Calls it to join by itself, or fails its wait. */
  call(outcome: Exit.Exit<void, EntryError> = Exit.void) {
    this.state = "Called"
    this.#end(outcome)
  }

  join(lease: EntryLease) {
    this.state = "Joining"
    this.lease = lease
  }

  place(entry: Entry) {
    this.state = "Placed"
    this.entry = entry
    this.lease = entry.ref.lease
    this.#end(Exit.void)
  }

  fail(cause: Cause.Cause<EntryError>) {
    this.state = "Gone"
    this.#end(Exit.failCause(cause))
  }

  #end(outcome: Exit.Exit<void, EntryError>) {
    this.#outcome = outcome
    if (this.#called !== undefined) Deferred.doneUnsafe(this.#called, outcome)
    this.#called = undefined
  }
}

export class LocalQueue {
  /** The permits of those that were called and have not left. */
  #used = 0
  /** These are of a semaphore. */
  #isSemaphore = false
  /** Made for the first fiber that has to wait: for most locks none has to. */
  #waiting: Set<Waiter> | undefined

  get isEmpty(): boolean {
    return this.#used === 0 && this.next === undefined
  }

  get waiting(): number {
    return this.#waiting?.size ?? 0
  }

  get next(): Waiter | undefined {
    return this.#waiting?.values().next().value
  }

  /** The next waiter, if it may have the place of another one. */
  get successor(): Waiter | undefined {
    return this.next?.request.isOneOfSeveral === true ? undefined : this.next
  }

  /** Whether a claim would be called at once. */
  admits(claim: Claim): boolean {
    return this.next === undefined && this.#hasRoomFor(claim)
  }

  /** How many permits are left by those of this queue: none while one waits, or a reader or a writer has all. */
  leftFor({ of }: Claim): number {
    const isLeft = this.next === undefined && (this.#used === 0 || this.#isSemaphore)
    return isLeft ? Math.max(0, of - this.#used) : 0
  }

  add(waiter: Waiter) {
    if (this.admits(waiter.request.claim)) this.#call(waiter)
    else (this.#waiting ??= new Set()).add(waiter)
  }

  remove(waiter: Waiter) {
    this.#waiting?.delete(waiter)
    this.admit()
  }

  /** A waiter that was called has left: others are called in its place. */
  release({ permits }: Claim) {
    this.#used -= permits
    this.admit()
  }

  /** Takes out the next waiter if it can have the place of one that leaves. It is not called, since it gets that place. */
  replace(left: Claim): Waiter | undefined {
    const next = this.successor
    const used = this.#used - left.permits
    if (next === undefined || !this.#hasRoomFor(next.request.claim, used)) return undefined
    this.#waiting!.delete(next)
    this.#take(next.request.claim, used)
    return next
  }

  /** Fails all that have not been called. */
  failWaiting(cause: Cause.Cause<EntryError>) {
    const waiting = this.#waiting
    this.#waiting = undefined
    for (const waiter of waiting ?? []) waiter.fail(cause)
  }

  /** Calls those whose claims can be met now. */
  admit() {
    let { next } = this
    while (next !== undefined && this.#hasRoomFor(next.request.claim)) {
      this.#waiting!.delete(next)
      this.#call(next)
      next = this.next
    }
  }

  #call(waiter: Waiter) {
    this.#take(waiter.request.claim)
    waiter.call()
  }

  #take({ kind, permits }: Claim, used = this.#used) {
    this.#used = used + permits
    this.#isSemaphore = kind === "permits"
  }

  /** Readers are in the way of a semaphore, and its holders are in theirs, although each of them leaves permits. */
  #hasRoomFor({ kind, of, permits }: Claim, used = this.#used): boolean {
    return used + permits <= of && (used === 0 || (kind === "permits") === this.#isSemaphore)
  }
}
