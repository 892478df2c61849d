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

  /** Etcd has failed with an error, and is asked again. */
  tell(message: string, error: EtcdError): Effect.Effect<void> {
    return Clock.clockWith((clock) => {
      const now = monotonicMillis(clock)
      if (this.#toldAt !== undefined && now - this.#toldAt < tellAgainAfter) return Effect.void
      this.#toldAt = now
      return Log.warning(`${message}: ${error.message}`)
    })
  }

  /** Etcd has answered: the next outage is told at once. */
  end() {
    this.#toldAt = undefined
  }
}
