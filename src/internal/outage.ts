/** Tells that something waits for an etcd that does not answer: at once, and then every minute. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { EtcdError } from "../EtcdError.ts"
import * as Log from "./log.ts"
import { monotonicMillis } from "./monotonic.ts"

/** In milliseconds. */
const tellAgainAfter = 60_000

export class Outage {
  #toldAt: number | undefined
  #waiting = 0

  /** Etcd has failed with an error, and is asked again. */
  tell(message: string, error: EtcdError): Effect.Effect<void> {
    return Clock.clockWith((clock) => {
      const now = monotonicMillis(clock)
      if (this.#toldAt !== undefined && now - this.#toldAt < tellAgainAfter) return Effect.void
      this.#toldAt = now
      return Log.warning(`${message}: ${error.message}`)
    })
  }

  /** Etcd has answered: the next outage is told at once, unless this one lasts for others. */
  end() {
    if (this.#waiting === 0) this.#toldAt = undefined
  }

  /** The outage lasts at least as long as this does. */
  during<A, E, R>(waiting: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.acquireUseRelease(
      Effect.sync(() => this.#waiting++),
      () => waiting,
      () => Effect.sync(() => this.#waiting--)
    )
  }
}
