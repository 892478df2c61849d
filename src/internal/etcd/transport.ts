import type * as Effect from "effect/Effect"
import type {
  Header,
  LeaseKeepAlive,
  LeaseTimeToLive,
  Op,
  OpResult,
  Range,
  RangeResult,
  Txn,
  WatchOptions
} from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Subscriber } from "./subscriber.ts"

/**
 * One attempt at each request, to one member of the cluster. `timeout` is in
 * milliseconds: the attempt ends by then, with `Timeout` if nothing else.
 *
 * An attempt that is interrupted is abandoned, not taken back: etcd may still
 * apply it.
 */
export interface Transport {
  readonly txn: (request: Txn, timeout: number) => Effect.Effect<TransportTxnResult, EtcdError>
  readonly range: (request: Range, timeout: number) => Effect.Effect<RangeResult & Header, EtcdError>
  /** Returns the granted TTL, in seconds. */
  readonly leaseGrant: (leaseId: bigint, seconds: number, timeout: number) => Effect.Effect<number, EtcdError>
  readonly leaseRevoke: (leaseId: bigint, timeout: number) => Effect.Effect<void, EtcdError>
  readonly leaseKeepAlive: (leaseId: bigint, timeout: number) => Effect.Effect<LeaseKeepAlive & Header, EtcdError>
  readonly leaseTimeToLive: (
    leaseId: bigint,
    withKeys: boolean,
    timeout: number
  ) => Effect.Effect<LeaseTimeToLive & Header, EtcdError>
  /**
   * Returns the revision after which the subscriber gets every event. Each attempt has a subscriber of its own, which
   * the caller closes when the attempt fails.
   */
  readonly watch: (options: TransportWatch, timeout: number, subscriber: Subscriber) => Effect.Effect<bigint, EtcdError>
}

export interface TransportWatch extends WatchOptions {
  /**
   * Whether a waiting line needs it. Etcd sends the events of one stream one after another, so that what a program watches
   * for itself would hold up its hand-overs.
   */
  readonly isOfLine: boolean
}

export interface TransportTxnResult extends Header {
  readonly succeeded: boolean
  readonly responses: ReadonlyArray<OpResult<Op>>
}
