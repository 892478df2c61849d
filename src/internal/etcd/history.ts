/**
 * Whether etcd still has the history that its clients know.
 *
 * A backup that is restored takes etcd back to an earlier revision, or far beyond its latest one where revisions are bumped,
 * and a cluster that was wiped begins anew. Then what a client knows of leases and keys is about another past. Revisions
 * tell: a request that was sent after a revision was seen is not answered at a lower one, and no etcd writes so many
 * at once as a restore is to skip.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Etcd, Header, Range, WatchListener, WatchOptions } from "../../Etcd.ts"
import { monotonicMillis } from "../monotonic.ts"

type Service = Etcd["Service"]
type State = Pick<Header, "clusterId" | "revision">

/** The latest state that an answer has shown. */
interface Seen extends State {
  /** When, on the monotonic clock. */
  at: number
  /** How many times the history has changed before. */
  readonly changes: number
}

/** Called with what differs, and whether revisions, and with them fencing tokens, are smaller than before. */
interface Listener {
  (what: string, isBack: boolean): void
}

interface History {
  /** The same service, whose answers are looked at. */
  readonly watched: Service
  readonly listeners: Set<Listener>
}

const histories = new WeakMap<Service, History>()

/** The service with its linearizable answers compared with the history as all know it that use the same service. */
export const watched = (etcd: Service, clock: Clock.Clock): Service => {
  let history = histories.get(etcd)
  if (history === undefined) {
    history = make(etcd, clock)
    histories.set(etcd, history)
    histories.set(history.watched, history)
  }
  return history.watched
}

/**
 * Calls the listener as soon as an answer to a watched service shows another history, before its caller sees that answer.
 * Returns how to unsubscribe it.
 */
export const onChange = (watched: Service, listener: Listener): () => void => {
  const { listeners } = histories.get(watched)!
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

// The clock of one caller may be another than that of the next.
const make = (etcd: Service, clock: Clock.Clock): History => {
  const listeners: History["listeners"] = new Set()
  let latest: Seen | undefined

  const compared = <A extends State, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const before = latest
      return Effect.map(request, (answer) => {
        compare(before, answer, monotonicMillis(clock))
        return answer
      })
    })

  const compare = (before: Seen | undefined, { clusterId, revision }: State, at: number) => {
    const { changes = 0 } = latest ?? {}
    // The request belongs to a past that is known to be over.
    if (before !== undefined && before.changes < changes) return
    const what = latest && difference(latest, before, { clusterId, revision }, at)
    if (what === undefined && latest !== undefined && revision <= latest.revision) {
      latest.at = at
      return
    }
    const isBack = latest !== undefined && revision < latest.revision
    latest = { clusterId, revision, at, changes: what === undefined ? changes : changes + 1 }
    if (what !== undefined) { for (const listener of listeners) listener(what, isBack) }
  }

  return {
    listeners,
    // Whoever implements the service may do so by a class, whose methods are not its own properties.
    watched: {
      requestTimeout: etcd.requestTimeout,
      leaseGrant: (id, seconds) => etcd.leaseGrant(id, seconds),
      leaseRevoke: (id) => etcd.leaseRevoke(id),
      leaseKeepAlive: (id, timeout) => etcd.leaseKeepAlive(id, timeout),
      leaseTimeToLive: (id, options) => etcd.leaseTimeToLive(id, options),
      watch: (options) => etcd.watch(options),
      subscribe: Object.assign(
        (options: WatchOptions, listener: WatchListener) => etcd.subscribe(options, listener),
        etcd.subscribe
      ),
      txn: (request) => compared(etcd.txn(request)),
      // It keeps what hangs on the function, such as why etcd could last not be reached.
      range: Object.assign(
        (range: Range) => range.serializable === true ? etcd.range(range) : compared(etcd.range(range)),
        etcd.range
      )
    }
  }
}

const difference = (latest: Seen, before: State | undefined, now: State, at: number): string | undefined => {
  if (now.clusterId !== latest.clusterId) {
    return `etcd is another cluster now, ${now.clusterId.toString(16)} instead of ${latest.clusterId.toString(16)}`
  }
  if (before !== undefined && now.revision < before.revision) {
    return `etcd's history went back from revision ${before.revision} to ${now.revision}`
  }
  if (Number(now.revision - latest.revision) > mostWritten(at - latest.at)) {
    return `etcd's history leapt from revision ${latest.revision} to ${now.revision}`
  }
  return undefined
}

/** More revisions than any etcd writes in so many milliseconds, and fewer than a restored backup is bumped by. */
const mostWritten = (millis: number): number => 100_000_000 + 1000 * millis
