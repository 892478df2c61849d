/**
 * A value that is set once. Its listeners run in the step that sets it, without a fiber: there may be one for each of
 * thousands of held locks.
 */
export class Signal<A> {
  #value: A | undefined
  #listeners: Listener<A> | Set<Listener<A>> | undefined

  get value(): A | undefined {
    return this.#value
  }

  set(value: A): void {
    if (this.#value !== undefined) return
    this.#value = value
    const listeners = this.#listeners
    this.#listeners = undefined
    if (typeof listeners === "function") return listeners(value)
    for (const listener of listeners ?? []) listener(value)
  }

  /** Calls the listener once, with the value; at once if it is set already. Returns how to unsubscribe. */
  subscribe(listener: Listener<A>): () => void {
    if (this.#value !== undefined) {
      listener(this.#value)
    } else if (this.#listeners === undefined) {
      // Most signals have one listener, which needs no set.
      this.#listeners = listener
    } else {
      if (typeof this.#listeners === "function") this.#listeners = new Set([this.#listeners])
      this.#listeners.add(listener)
    }
    return () => this.#unsubscribe(listener)
  }

  #unsubscribe(listener: Listener<A>) {
    if (this.#listeners === listener) this.#listeners = undefined
    else if (typeof this.#listeners === "object") this.#listeners.delete(listener)
  }
}

interface Listener<A> {
  (value: A): void
}
