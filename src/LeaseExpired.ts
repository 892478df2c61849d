import * as Schema from "effect/Schema"

/**
 * The lease is lost, and with it every key that was attached to it.
 *
 * - `Expired`: it was not renewed in time. Reported before etcd's own expiry.
 * - `Revoked`: etcd has no such lease any more; it was revoked.
 * - `Released`: its scope has closed, or is about to.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseExpired extends Schema.TaggedError<LeaseExpired>("effect-etcd-lock/Lease/LeaseExpired")(
  "LeaseExpired",
  {
    leaseId: Schema.BigInt,
    reason: Schema.Literals(["Expired", "Revoked", "Released"])
  }
) {
  override get message(): string {
    const id = this.leaseId.toString(16)
    switch (this.reason) {
      case "Expired": {
        return `Lease ${id} expired: etcd acknowledged no renewal in time`
      }
      case "Revoked": {
        return `Lease ${id} was revoked: etcd has no such lease any more`
      }
      case "Released": {
        return `Lease ${id} was released: its scope has closed`
      }
    }
  }
}
