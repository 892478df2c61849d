import * as DateTime from "effect/DateTime"
import * as Schema from "effect/Schema"
import { printable } from "./internal/printable.ts"

/**
 * A client that holds a lock or waits for it. Other clients of the same lock, such as
 * `etcdctl lock`, leave only a key and a lease, so the fields about the process are
 * undefined for them.
 *
 * @category models
 * @since 0.1.0
 */
export class Holder extends Schema.Class<Holder>("effect-etcd-lock/Lock/Holder")({
  /** The entry's key in etcd. */
  key: Schema.String,
  leaseId: Schema.BigInt,
  /** The revision at which it joined the line. */
  createRevision: Schema.BigInt,
  host: Schema.optional(Schema.String),
  pid: Schema.optional(Schema.Int),
  /** When it asked for the lock, by its own clock. It may have waited for long before it held. */
  askedAt: Schema.optional(Schema.DateTimeUtc),
  /**
   * Since when it holds the lock, by its own clock, where its key tells. Of a client that found the lock free, it does so
   * at once; of one that waited for a second or more for a lock or for permits, when it has held them for about a second.
   * Undefined for all that wait, and where it is not known: of clients that waited for less than a second, of readers and
   * writers that had to wait, of locks that were taken together where one of them was held, of permits that were free, of
   * candidates in an election, and of other programs.
   */
  heldSince: Schema.optional(Schema.DateTimeUtc),
  /** The `metadata` of its options. */
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json)),
  /**
   * The value of its key, where that is not what this library says of a holder: what a candidate of an election proclaims,
   * or what another program has put.
   */
  value: Schema.optional(Schema.String),
  /** The span in which it waited, where its program traces. */
  trace: Schema.optional(Schema.Struct({ traceId: Schema.String, spanId: Schema.String })),
  /**
   * How many more requests of its process wait behind it, and have no entries of their own, as of about a second ago. The
   * first entry of a process in a line tells it, of a lock with a queue or of a semaphore; other entries do not.
   */
  behind: Schema.optional(Schema.Int),
  /** How long its lease would live if the client died now. `inspect` asks etcd for it, and `changes` for the first holder. */
  remaining: Schema.optional(Schema.Duration),
  /**
   * For how long its lease has not been renewed, in whole seconds, the last one begun; known where `remaining` is. A client that
   * lives renews it every third of the TTL, which is the sum of the two. A change of etcd's leader counts as a renewal.
   */
  notRenewedFor: Schema.optional(Schema.Duration)
}) {
  override toString(): string {
    const process = this.pid === undefined ? "" : ` (process ${this.pid})`
    const where = this.host === undefined ? `lease ${this.leaseId.toString(16)}` : `${printable(this.host)}${process}`
    if (this.heldSince !== undefined) return `${where} since ${DateTime.formatIso(this.heldSince)}`
    return this.askedAt === undefined ? where : `${where}, which asked at ${DateTime.formatIso(this.askedAt)}`
  }
}
