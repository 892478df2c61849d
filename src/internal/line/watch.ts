/**
 * A watch for deletes that stays open.
 *
 * It is opened "from now", since etcd serves a watch with a past revision from a loop
 * that runs every 100 ms; what happened before it is read once it stands. Revisions
 * decide what it covers: it reports every delete after `from`.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Semaphore from "effect/Semaphore"
import type * as Etcd from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Background } from "../background.ts"
import { type Sight, Watcher } from "../etcd/watcher.ts"

/** What the watches of one kind have in common, so that each of thousands is small. */
export interface Host<Subject> {
  readonly etcd: Etcd.Etcd["Service"]
  readonly background: Background
  readonly onDeletes: (subject: Subject, events: ReadonlyArray<Etcd.WatchEvent>) => void
  /** Reads what happened before `from`. */
  readonly read: (subject: Subject, from: bigint) => Effect.Effect<void, EtcdError>
  /** Called with an error that opening it again cannot cure. */
  readonly onError: (subject: Subject, error: EtcdError) => void
  /** Whether it is to be opened again when it has ended. */
  readonly isNeeded: (subject: Subject) => boolean
}

/** In milliseconds. */
export const retryAfter = 200

export class DeletionWatch<Subject> {
  /** The revision after which it reports everything; undefined while it does not stand. */
  from: bigint | undefined
  readonly #host: Host<Subject>
  readonly #range: Pick<Etcd.Range, "key" | "rangeEnd">
  readonly #subject: Subject
  #watcher: Watcher | undefined
  #opening: Fiber.Fiber<void> | undefined

  constructor(host: Host<Subject>, range: Pick<Etcd.Range, "key" | "rangeEnd">, subject: Subject) {
    this.#host = host
    this.#range = range
    this.#subject = subject
  }

  /** It stands, or is about to. */
  get isOpen(): boolean {
    return this.#watcher !== undefined || this.#opening !== undefined
  }

  /** `limit` lets others go first, where nobody waits for what it reports. */
  open(limit?: Semaphore.Semaphore) {
    if (this.isOpen) return
    const { background, onError } = this.#host
    const opened = Effect.catch(
      persistently(this.#opened()),
      (error) => Effect.sync(() => onError(this.#subject, error))
    )
    const opening = this.#opening = background(limit === undefined ? opened : limit.withPermits(1)(opened))
    opening.addObserver(() => {
      if (this.#opening === opening) this.#opening = undefined
    })
  }

  close() {
    const opening = this.#opening
    const watcher = this.#watcher
    this.#opening = this.#watcher = this.from = undefined
    opening?.interruptUnsafe()
    watcher?.close()
  }

  #opened(): Effect.Effect<void, EtcdError> {
    return Effect.suspend(() => {
      // Thousands of held locks keep one each, so this closure keeps nothing else.
      const watcher: Watcher = this.#watcher = new Watcher((sight) => this.#heard(watcher, sight))
      return this.#subscribed(watcher)
    })
  }

  #subscribed(watcher: Watcher): Effect.Effect<void, EtcdError> {
    const { etcd, read } = this.#host
    const { key, rangeEnd } = this.#range
    return etcd.subscribe({ key, rangeEnd, only: "Delete" }, watcher).pipe(
      Effect.flatMap((from) => {
        if (!watcher.isClosed) this.from = from
        return read(this.#subject, from)
      }),
      Effect.flatMap(() => watcher.isClosed ? Effect.delay(this.#opened(), retryAfter) : Effect.void),
      Effect.onError(() =>
        Effect.sync(() => {
          watcher.close()
          this.#ended(watcher)
        })
      )
    )
  }

  #heard(watcher: Watcher, sight: Sight) {
    const { background, isNeeded, onDeletes } = this.#host
    if (Exit.isSuccess(sight)) return onDeletes(this.#subject, sight.value)
    this.#ended(watcher)
    // While it is being opened, that goes on.
    if (this.#opening !== undefined) return
    background(Effect.delay(Effect.sync(() => isNeeded(this.#subject) && this.open()), retryAfter))
  }

  #ended(watcher: Watcher) {
    if (this.#watcher === watcher) this.#watcher = this.from = undefined
  }
}

/** A read that failed says nothing about what is there: it is repeated, unless etcd will never allow it. */
export const persistently: <A>(effect: Effect.Effect<A, EtcdError>) => Effect.Effect<A, EtcdError> = Effect
  .retry({ while: (error) => isPassing(error), schedule: Schedule.spaced(retryAfter) })

const isPassing = ({ reason }: EtcdError): boolean =>
  reason !== "PermissionDenied" && reason !== "Unauthenticated" && reason !== "InvalidArgument"
