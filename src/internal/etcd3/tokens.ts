import type { Metadata } from "@grpc/grpc-js"
import { toEtcdError } from "./errors.ts"
import { Metadata as NoToken } from "./packages.ts"
import type { User } from "./secrets.ts"

/** For how long a refusal is believed. Each check of a password costs etcd as much as hundreds of other calls. */
const memory = 1000

/**
 * The token that all calls to one member carry, in place of the client's own keeper of it: that one fetches each over a
 * connection of its own, which it never closes, asks with a password that never changes, and asks again for each call
 * that a wrong one made fail.
 */
export class Tokens {
  readonly #fetch: () => Promise<string | undefined>
  #current: Promise<Metadata> | undefined
  #isFetching = false
  #refusal: { readonly error: unknown; readonly at: number } | undefined

  /** `fetch` returns no token where etcd asks for no user. */
  constructor(user: User | undefined, fetch: (user: string, password: string) => Promise<string | undefined>) {
    this.#fetch = async () => user && await fetch(user.username, await user.readPassword())
  }

  getMetadata(): Promise<Metadata> {
    if (this.#refusal !== undefined && performance.now() - this.#refusal.at < memory) {
      return Promise.reject(this.#refusal.error)
    }
    return this.#current ??= this.#fetchNow()
  }

  /** Lets all that follows wait for another token, which is fetched once for all that found theirs refused by then. */
  renew(): void {
    this.invalidateMetadata()
    // The calls that wait for it report what goes wrong.
    this.getMetadata().catch(() => {})
  }

  /** The client calls it, too, when etcd refuses a token in a way that it knows. */
  invalidateMetadata(): void {
    if (!this.#isFetching) this.#current = undefined
  }

  async #fetchNow(): Promise<Metadata> {
    this.#isFetching = true
    try {
      const token = await this.#fetch()
      const metadata = new NoToken()
      if (token !== undefined) metadata.set("token", token)
      return metadata
    } catch (error) {
      this.#current = undefined
      if (!toEtcdError("authenticate", error).isTransient) this.#refusal = { error, at: performance.now() }
      throw error
    } finally {
      this.#isFetching = false
    }
  }
}
