import * as Exit from "effect/Exit"
import type { Subscription, WatchEvent, WatchListener } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"

/** What ends a watch for its subscriber. */
export interface Source {
  readonly cancel: (subscriber: Subscriber) => void
  /** Ends all watches that have the same source, which is silent where it should have reported something. */
  readonly giveUp?: () => void
}

/** Gives up what a watch comes from, as far as that is known, so that it is opened elsewhere. */
export const giveUp = (subscription: Subscription): void => {
  if (subscription instanceof Subscriber && !subscription.isClosed) subscription.source?.giveUp?.()
}

/** What a watch reports before its opening is known to have succeeded. */
interface Early {
  readonly events: Array<ReadonlyArray<WatchEvent>>
  error: EtcdError | undefined
}

/**
 * One attempt to open a watch, and then the watch itself. The listener is called for
 * successful attempts alone: with all that the watch reports, and finally with why it
 * ended, unless it was closed before. Closing it ends the watch, or keeps it from being
 * opened.
 *
 * Thousands of held locks have one each, so it has neither a fiber nor a scope, and
 * is the subscription itself.
 */
export class Subscriber implements Subscription {
  readonly #listener: WatchListener
  /** Undefined once the watch is open. */
  #early: Early | undefined = { events: [], error: undefined }
  /** The source's name for it. */
  id = 0
  source: Source | undefined
  isClosed = false
  revision = 0n

  constructor(listener: WatchListener) {
    this.#listener = listener
  }

  publish(events: ReadonlyArray<WatchEvent>) {
    if (this.isClosed) return
    if (this.#early === undefined) this.#listener.onEvents(events)
    else this.#early.events.push(events)
  }

  end(error: EtcdError) {
    if (this.isClosed) return
    this.isClosed = true
    if (this.#early === undefined) this.#listener.onEnd(error)
    else this.#early.error = error
  }

  /** The attempt has succeeded, unless its watch has ended since. */
  open(revision: bigint): Exit.Exit<Subscription, EtcdError> {
    const early = this.#early
    if (early?.error !== undefined) return Exit.fail(early.error)
    this.#early = undefined
    this.revision = revision
    for (const events of early?.events ?? []) this.publish(events)
    return Exit.succeed(this)
  }

  /** A function of its own each time, since callers may take it off the subscription. */
  get close(): () => void {
    return () => {
      if (this.isClosed) return
      this.isClosed = true
      this.source?.cancel(this)
    }
  }
}
