/**
 * The fibers of this process that contend for one name, in the order of their requests. The first of them has the
 * process's place in etcd's line, or is to get it; the others cost etcd nothing.
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Entry, EntryError } from "../line/entry.ts"
import type { EntryLease } from "../line/leaseRef.ts"

export interface Request {
  readonly prefix: string
  readonly value: Uint8Array
  /** What the caller says of itself, as the value has it. */
  readonly metadata: string
  /** A lease of the user's own instead of the session's. */
  readonly lease: EntryLease | undefined
}

/** One request for the lock, whether or not its fiber still waits for it. */
export class Waiter {
  readonly request: Request
  /**
   * Behind others of this process; the first of them, and called to join etcd's line; with a join under way; with an
   * entry there; or given up.
   */
  state: "Queued" | "Called" | "Joining" | "Placed" | "Gone" = "Queued"
  /** Its place in etcd's line. */
  entry: Entry | undefined
  /** Whether it was called; undefined while it is to wait for that. */
  #outcome: Exit.Exit<void, EntryError> | undefined
  #called: Deferred.Deferred<void, EntryError> | undefined

  constructor(request: Request) {
    this.request = request
  }

  /** Waits until it is called or has been given an entry. */
  get called(): Effect.Effect<void, EntryError> {
    return Effect.suspend(() => this.#outcome ?? Deferred.await(this.#called ??= Deferred.makeUnsafe()))
  }

  /** It is the first now, and is to join by itself, unless its wait has failed. */
  call(outcome: Exit.Exit<void, EntryError> = Exit.void) {
    this.state = "Called"
    this.#end(outcome)
  }

  place(entry: Entry) {
    this.state = "Placed"
    this.entry = entry
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
  #first: Waiter | undefined
  /** Made for the first fiber that has to wait: for most locks none has to. */
  #waiting: Set<Waiter> | undefined

  constructor(first: Waiter) {
    this.#first = first
  }

  get first(): Waiter | undefined {
    return this.#first
  }

  get next(): Waiter | undefined {
    return this.#waiting?.values().next().value
  }

  add(waiter: Waiter) {
    ;(this.#waiting ??= new Set()).add(waiter)
  }

  remove(waiter: Waiter) {
    this.#waiting?.delete(waiter)
  }

  /** Makes the next waiter the first, and returns it. */
  advance(): Waiter | undefined {
    const { next } = this
    // V8 keeps a map's outgrown table until the next major collection: a queue that is over must not keep its last waiter.
    this.#first = next
    if (next !== undefined) this.remove(next)
    return next
  }

  /** Fails all that wait behind the first. */
  failWaiting(cause: Cause.Cause<EntryError>) {
    const waiting = this.#waiting
    this.#waiting = undefined
    for (const waiter of waiting ?? []) waiter.fail(cause)
  }
}
