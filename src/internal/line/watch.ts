/**
 * A watch for deletes that stays open.
 *
 * It is opened "from now", since etcd serves a watch with a past revision from a loop
 * that runs every 100 ms; what happened before it is read once it is open. Revisions
 * decide what it covers: it reports every delete after `from`.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Semaphore from "effect/Semaphore"
import type * as Etcd from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Background } from "../background.ts"
import { subscribeOfLine } from "../etcd/service.ts"
import { giveUp } from "../etcd/subscriber.ts"
import type { Outage } from "../outage.ts"

/** What watches have in common, so that each of thousands is small. */
export interface Host {
  readonly etcd: Etcd.Etcd["Service"]
  readonly background: Background
  readonly outage: Outage
}

/** What a watch is for. */
export interface Subject {
  readonly range: Pick<Etcd.Range, "key" | "rangeEnd">
  readonly onDeletes: (events: ReadonlyArray<Etcd.WatchEvent>) => void
  /** Reads what happened before `from`. */
  readonly read: (from: bigint) => Effect.Effect<void, EtcdError>
  /** Called with an error that opening it again cannot cure. */
  readonly onError: (error: EtcdError) => void
  /** Whether the watch is to be opened again when it has ended. */
  readonly isNeeded: boolean
  /** Limits how many watches are opened at once. */
  readonly openingLimit: Semaphore.Semaphore
}

/** In milliseconds. */
export const retryAfter = 200

/** In milliseconds. An event may come after the answer to a read that shows the same. */
const mayBeLateBy = 2000

export class DeletionWatch {
  /** The revision after which it reports everything; undefined while it is not open yet. */
  from: bigint | undefined
  readonly #host: Host
  readonly #subject: Subject
  #subscription: Etcd.Subscription | undefined
  #opening: Fiber.Fiber<void> | undefined
  /** What it waits for before it is opened. */
  #queuedAt: Semaphore.Semaphore | undefined
  /** How many times it has reported something. */
  #reports = 0
  /** One that should have reported something, as a read has shown. */
  #doubted: Etcd.Subscription | undefined

  constructor(host: Host, subject: Subject) {
    this.#host = host
    this.#subject = subject
  }

  /** It is open, or is being opened. */
  get isOpen(): boolean {
    return this.#subscription !== undefined || this.#opening !== undefined
  }

  open() {
    const { openingLimit } = this.#subject
    // By now a waiter needs it, or none does any more.
    if (this.#queuedAt !== undefined && this.#queuedAt !== openingLimit) this.close()
    if (this.isOpen) return
    const opened = Effect.catch(
      persistently(this.#host.outage, this.#opened()),
      (error) => Effect.sync(() => this.#subject.onError(error))
    )
    this.#queuedAt = openingLimit
    const begun = Effect.suspend(() => {
      this.#queuedAt = undefined
      return opened
    })
    const opening = this.#opening = this.#host.background(openingLimit.withPermits(1)(begun))
    opening.addObserver(() => {
      if (this.#opening === opening) this.#opening = undefined
    })
  }

  close() {
    const opening = this.#opening
    const subscription = this.#subscription
    this.#opening = this.#subscription = this.from = undefined
    this.#queuedAt = undefined
    opening?.interruptUnsafe()
    // In doubt, it stays until that is over.
    if (subscription !== this.#doubted) subscription?.close()
  }

  /**
   * A read has shown what it has not reported. If it still reports nothing a while later, what it comes from is silent: it is
   * given up, and a needed one is opened elsewhere.
   */
  doubt() {
    const subscription = this.#subscription
    if (subscription === undefined || this.#doubted === subscription) return
    this.#doubted = subscription
    const reports = this.#reports
    const decide = (isOver: boolean) => {
      this.#doubted = undefined
      const isSilent = isOver && this.#reports === reports
      if (isSilent) giveUp(subscription)
      if (this.#subscription !== subscription) return subscription.close()
      if (!isSilent) return
      this.close()
      if (this.#subject.isNeeded) this.open()
    }
    // The end of the session interrupts it.
    this.#host.background(
      Effect.onExit(Effect.sleep(mayBeLateBy), (exit) => Effect.sync(() => decide(Exit.isSuccess(exit))))
    )
  }

  #opened(): Effect.Effect<void, EtcdError> {
    const { key, rangeEnd } = this.#subject.range
    return Effect.uninterruptibleMask((restore) => {
      let subscription: Etcd.Subscription | undefined
      let hasEnded = false
      // The listener lives as long as the watch does, so it sees no more of its surroundings than it needs.
      const subscribed = subscribeOfLine(this.#host.etcd, { key, rangeEnd, only: "Delete" }, {
        onEvents: (events) => {
          this.#reports++
          this.#subject.onDeletes(events)
        },
        onEnd: () => {
          hasEnded = true
          this.#ended(subscription)
        }
      })
      return Effect.flatMap(restore(subscribed), (opened) => {
        subscription = opened
        if (!hasEnded) {
          this.#subscription = opened
          this.from = opened.revision
        }
        return this.#subject.read(opened.revision).pipe(
          Effect.flatMap(() => hasEnded ? Effect.delay(this.#opened(), retryAfter) : Effect.void),
          restore,
          Effect.onError(() =>
            Effect.sync(() => {
              opened.close()
              this.#forget(opened)
            })
          )
        )
      })
    })
  }

  #ended(subscription: Etcd.Subscription | undefined) {
    this.#forget(subscription)
    // An opening that is under way goes on.
    if (this.#opening !== undefined) return
    this.#host.background(Effect.delay(Effect.sync(() => this.#subject.isNeeded && this.open()), retryAfter))
  }

  #forget(subscription: Etcd.Subscription | undefined) {
    if (this.#subscription === subscription) this.#subscription = this.from = undefined
  }
}

/**
 * A read that failed says nothing about what is there: it is repeated, unless etcd will never allow it. Thousands may
 * meet one outage, and tell of it together.
 */
export const persistently = <A, R>(
  outage: Outage,
  effect: Effect.Effect<A, EtcdError, R>
): Effect.Effect<A, EtcdError, R> => {
  // A retry would keep the errors of all attempts alive, each in the context of the next one.
  const again = (error: EtcdError): Effect.Effect<A, EtcdError, R> =>
    Effect.andThen(
      outage.tell("The lines of this session cannot be seen", error),
      Effect.catchIf(Effect.delay(effect, retryAfter), isPassing, again)
    )
  const answered = Effect.catchIf(effect, isPassing, (error) => outage.during(again(error)))
  return Effect.tap(answered, () => Effect.sync(() => outage.end()))
}

const isPassing = ({ reason }: EtcdError): boolean =>
  reason !== "PermissionDenied" && reason !== "Unauthenticated" && reason !== "InvalidArgument"
