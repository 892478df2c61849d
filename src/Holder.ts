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
  /** When it asked for the lock, by its own clock. */
  since: Schema.optional(Schema.DateTimeUtc),
  /** The `metadata` of its options. */
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json)),
  /** The span in which it waited, where its program traces. */
  trace: Schema.optional(Schema.Struct({ traceId: Schema.String, spanId: Schema.String })),
  /**
   * How many more requests of its process wait behind it, and have no entries of their own, as of about a second ago. The
   * first entry of a process in a line tells it, of a lock with a queue or of a semaphore; other entries do not.
   */
  behind: Schema.optional(Schema.Int),
  /** How long its lease would live if the client died now. `inspect` asks etcd for it, and `changes` for the first holder. */
  remaining: Schema.optional(Schema.Duration)
}) {
  override toString(): string {
    const process = this.pid === undefined ? "" : ` (process ${this.pid})`
    const where = this.host === undefined ? `lease ${this.leaseId.toString(16)}` : `${printable(this.host)}${process}`
    return this.since === undefined ? where : `${where} since ${DateTime.formatIso(this.since)}`
  }
}
