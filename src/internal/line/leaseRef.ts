/** What entries need of leases. */
import type { Lease } from "../../Lease.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import type { Bodies, OnLoss } from "../supervise.ts"
import type { Entry } from "./entry.ts"

export interface EntryLease extends Lease {
  readonly isAlive: () => boolean
  /** Its loss, also one that no timer has reported yet. */
  readonly loss: LeaseExpired | undefined
  readonly onLoss: OnLoss<LeaseExpired>
  /** Called when a request on this lease was answered with "no such lease". */
  readonly notFound: () => void
  /** All that runs under the lease or under a lock on it. */
  readonly bodies: Bodies
  /** The entries on it, which its heartbeats look after, and which are lost with it. */
  readonly entries: Set<Entry>
}

/** One reference to a lease. A session's lease is revoked after the last one is released. */
export interface LeaseRef {
  readonly lease: EntryLease
  /** It is the session's lease, and ends with it. */
  readonly isShared: boolean
  readonly release: () => void
  /** No entry gets another reference to it. The log says why, by default that the outcome of a write on it is unknown. */
  readonly retire: (why?: string) => void
}
