/**
 * What a contender is started with, as one argument of JSON. It reports on its standard output, one line of JSON each, and
 * obeys on its standard input: `block MILLIS` has its event loop stand still, `crowd COUNT LOCK` has so many more wait for a
 * lock, `usage` has it report its heap and sockets, `stop` has every worker end its turn and the process end by itself.
 */
import type { Claim } from "./history.ts"

export interface Task {
  readonly name: string
  readonly seed: number
  /** One for each member of the cluster. */
  readonly hosts: ReadonlyArray<string>
  readonly auth?: { readonly username: string; readonly password: string } | undefined
  /** In seconds. */
  readonly ttl: number
  /** Up to how many entries it watches a line as a whole, where that is not left to the library. */
  readonly shortLine?: number | undefined
  readonly workers: ReadonlyArray<Work>
}

/** What a worker does, over and over. */
export interface Work {
  readonly lock: string
  /** Mutexes that are taken along with it, all at once. */
  readonly also?: ReadonlyArray<string> | undefined
  readonly claim: Claim
  /** Of a mutex. */
  readonly layout: "queue" | "single-key"
  /**
   * In a section, by a handle, by the handle of a session of its own, which closes while the body runs, in a section if it is
   * free, or by the handle of a writer that goes on as a reader.
   */
  readonly how: "section" | "handle" | "close" | "try" | "downgrade"
  /** The workers of a process that have the same number share a session. */
  readonly session: number
  /** `short` sections with pauses between, or `forever`: one turn that ends with the loss of the lock, or with `stop`. */
  readonly turns: "short" | "forever"
}

export const keys = {
  counter: (counter: string, lock: string) => `counters/${counter}/${lock}`,
  marks: (counter: string, lock: string) => `marks/${counter}/${lock}/`
}

/** Longer than that, and a process is said to have stood still. */
export const standstill = 100

/** How long a body takes to stop when it is interrupted. */
export const cleanUp = 20
