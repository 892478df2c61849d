/**
 * Whether etcd still has the history that its clients know.
 *
 * A backup that is restored takes etcd back to an earlier revision, or far beyond its latest one where revisions are bumped,
 * and a cluster that was wiped begins anew. Then what a client knows of leases and keys is about another past. Revisions
 * tell: a request that was sent after a revision was seen is not answered at a lower one, and no etcd writes a million
 * revisions a second.
 */
import type * as Clock from "effect/Clock"
import type { Etcd, Header } from "../../Etcd.ts"
import { monotonicMillis } from "../monotonic.ts"

type State = Pick<Header, "clusterId" | "revision">

/** The latest state that an answer has shown. */
interface Seen extends State {
  /** When, on the monotonic clock. */
  readonly at: number
  /** How many times the history has changed before. */
  readonly changes: number
}

export interface History {
  /** What is known when a request is sent, to be compared with its answer. */
  readonly seen: () => Seen | undefined
  /** Takes note of the state that the answer to a linearizable request shows. */
  readonly answered: (before: Seen | undefined, state: State, clock: Clock.Clock) => void
  /** Calls the listener when an answer comes from another history, and says what differs. Returns how to unsubscribe it. */
  readonly onChange: (listener: (what: string) => void) => () => void
}

const histories = new WeakMap<Etcd["Service"], History>()

/** The history as all know it that use the same service. */
export const of = (etcd: Etcd["Service"]): History => {
  let history = histories.get(etcd)
  if (history === undefined) histories.set(etcd, history = make())
  return history
}

const make = (): History => {
  const listeners = new Set<(what: string) => void>()
  let latest: Seen | undefined

  return {
    seen: () => latest,
    answered: (before, { clusterId, revision }, clock) => {
      const at = monotonicMillis(clock)
      if (latest === undefined) {
        latest = { clusterId, revision, at, changes: 0 }
        return
      }
      // The request belongs to a past that is known to be over.
      if (before !== undefined && before.changes < latest.changes) return
      const what = clusterId !== latest.clusterId
        ? `etcd is another cluster now, ${clusterId.toString(16)} instead of ${latest.clusterId.toString(16)}`
        : before !== undefined && revision < before.revision
        ? `etcd's history went back from revision ${before.revision} to ${revision}`
        : Number(revision - latest.revision) > mostWritten(at - latest.at)
        ? `etcd's history leapt from revision ${latest.revision} to ${revision}`
        : undefined
      if (what !== undefined) {
        latest = { clusterId, revision, at, changes: latest.changes + 1 }
        for (const listener of [...listeners]) listener(what)
      } else if (revision > latest.revision) {
        latest = { clusterId, revision, at, changes: latest.changes }
      }
    },
    onChange: (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
}

/** More revisions than any etcd writes in so many milliseconds, and fewer than a restore is to add. */
const mostWritten = (millis: number): number => 100_000_000 + 1000 * millis
