/**
 * What a worker is asked for, as JSON, one request a line. It answers each with one
 * line: the reply, or `{ "error": "..." }`. Times are microseconds of the machine's
 * monotonic clock, which all processes share.
 */
import type { Claim } from "./contender.ts"

export interface Requests {
  /** Takes and releases locks over and over, with one contender for each name. */
  readonly loops: {
    readonly names: ReadonlyArray<string>
    readonly claim: Claim
    readonly millis: number
    /** How long each lock is held, in milliseconds. */
    readonly section: number
    /** Whether to tell of each section. */
    readonly trace: boolean
    /** Whether each contender has a session and a connection of its own, as one in another process has. */
    readonly apart?: boolean
  }
  /** Tries over and over to take a lock that somebody else holds. */
  readonly tries: { readonly name: string; readonly millis: number }
  readonly hold: { readonly names: ReadonlyArray<string> }
  /** Lets so many contenders ask for a lock, each for one turn. */
  readonly lineUp: { readonly name: string; readonly count: number }
  /** Waits until so many of those in the line have had their turn, or the time is up. */
  readonly drain: { readonly count: number; readonly millis: number }
  readonly usage: { readonly collect: boolean }
  /** Stands in an election until the process ends. It is answered when its term begins; SIGTERM makes it resign. */
  readonly lead: { readonly name: string }
}

export interface Replies {
  readonly loops: {
    /** How often each contender has had the lock within the time. */
    readonly counts: ReadonlyArray<number>
    /** With those that came after the time. */
    readonly total: number
    /** From asking for a lock until it was released again. */
    readonly latencies: ReadonlyArray<number>
    /** When each section began and ended, and whose it was; if that was asked for. */
    readonly sections: ReadonlyArray<readonly [began: number, ended: number, contender: number]>
    /** How often a section began while more of the same lock ran in the same process than may. */
    readonly overlaps: number
  }
  readonly tries: { readonly latencies: ReadonlyArray<number>; readonly taken: number }
  readonly hold: { readonly millis: number }
  readonly lineUp: { readonly millis: number }
  /** When each turn began. */
  readonly drain: { readonly began: ReadonlyArray<number> }
  /** The heap is what is alive after a garbage collection, if that was asked for. */
  readonly usage: { readonly heapBytes: number; readonly cpuMillis: number }
  readonly lead: { readonly began: number }
}

export type Op = keyof Requests

export type Request = { readonly [K in Op]: Requests[K] & { readonly op: K } }[Op]

/** The time on that clock. */
export const now = (): number => {
  const [seconds, nanos] = process.hrtime()
  return seconds * 1e6 + nanos / 1e3
}
