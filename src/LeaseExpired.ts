import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { EtcdError } from "./EtcdError.ts"
import { TaggedError } from "./internal/taggedError.ts"

/**
 * The lease is lost, and with it every key that was attached to it.
 *
 * - `Expired`: it was not renewed in time. This is reported before etcd's own expiry; the other fields say what
 *   happened.
 * - `Revoked`: etcd has no such lease any more; it was revoked.
 * - `Released`: its scope closes or has closed, or `revoke` was called.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseExpired extends TaggedError<LeaseExpired>("effect-etcd-lock/Lease/LeaseExpired")("LeaseExpired", {
  leaseId: Schema.BigInt,
  reason: Schema.Literals(["Expired", "Revoked", "Released"]),
  /** How long etcd had acknowledged no renewal when the lease expired. */
  unacknowledgedFor: Schema.optional(Schema.DurationFromMillis),
  /**
   * How long of that time this process stood still, by its clocks: it was stopped, its event loop was
   * blocked, or its machine slept. Undefined for less than a tenth of the TTL.
   */
  stoodStillFor: Schema.optional(Schema.DurationFromMillis),
  /** Why the last renewal failed, if one has failed in that time. */
  cause: Schema.optional(EtcdError)
}) {
  override get message(): string {
    const id = this.leaseId.toString(16)
    switch (this.reason) {
      case "Expired": {
        return `Lease ${id} expired: ${this.#story}`
      }
      case "Revoked": {
        return `Lease ${id} was revoked: etcd has no such lease any more`
      }
      case "Released": {
        return `Lease ${id} was released: its scope has closed`
      }
    }
  }

  get #story(): string {
    const { cause, stoodStillFor, unacknowledgedFor } = this
    const time = unacknowledgedFor === undefined ? "in time" : `for ${Duration.format(unacknowledgedFor)}`
    const pause = stoodStillFor === undefined
      ? ""
      : `, and this process stood still for ${Duration.format(stoodStillFor)} of that time`
    const error = cause === undefined ? "" : `; the last error was: ${cause.message}`
    return `etcd acknowledged no renewal ${time}${pause}${error}`
  }
}
