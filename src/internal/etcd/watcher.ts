import * as Exit from "effect/Exit"
import type { WatchEvent } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"

/** What a watch has reported, or why it ended. */
export type Sight = Exit.Exit<ReadonlyArray<WatchEvent>, EtcdError>

/** What a watcher's events come from. */
export interface Source {
  readonly cancel: (watcher: Watcher) => void
}

/**
 * Is told of all that a watch sees, and at last of why it ended, unless it was
 * closed before. Closing it ends the watch, or keeps it from being opened.
 *
 * Thousands of held locks have one each, so there is neither a fiber nor a scope
 * to it.
 */
export class Watcher {
  readonly #listener: (sight: Sight) => void
  /** The source's name for it. */
  id = 0
  source: Source | undefined
  isClosed = false

  constructor(listener: (sight: Sight) => void) {
    this.#listener = listener
  }

  tell(sight: Sight) {
    if (this.isClosed) return
    this.isClosed = Exit.isFailure(sight)
    this.#listener(sight)
  }

  close() {
    if (this.isClosed) return
    this.isClosed = true
    this.source?.cancel(this)
  }
}
