import * as Schema from "effect/Schema"
import { TaggedError } from "./internal/taggedError.ts"

/**
 * What went wrong, by what a caller can do about it.
 *
 * - `Unavailable`: no member could be reached, or none had a leader. Transient.
 * - `Timeout`: no response within the request timeout. Transient.
 * - `TooManyRequests`: etcd asks to slow down. Transient.
 * - `Tls`: the TLS handshake failed; certificates or the scheme are wrong.
 * - `Unauthenticated`: the user name or the password is missing or wrong.
 * - `PermissionDenied`: the user may not do this to this key.
 * - `InvalidArgument`: etcd refused the request as malformed or too large,
 *   or its response was too large to receive.
 * - `NoSpace`: etcd's database is full; it takes no writes, but may have applied
 *   this one when it found that.
 * - `LeaseNotFound`: the lease has expired or was revoked.
 * - `LeaseExists`: a lease with this ID exists already.
 * - `Internal`: anything else; see the message and the cause.
 *
 * @category errors
 * @since 0.1.0
 */
export const EtcdErrorReason = Schema.Literals([
  "Unavailable",
  "Timeout",
  "TooManyRequests",
  "Tls",
  "Unauthenticated",
  "PermissionDenied",
  "InvalidArgument",
  "NoSpace",
  "LeaseNotFound",
  "LeaseExists",
  "Internal"
])

/**
 * One of the reasons that `EtcdErrorReason` lists.
 *
 * @category errors
 * @since 0.1.0
 */
export type EtcdErrorReason = typeof EtcdErrorReason.Type

/**
 * A request to etcd that failed.
 *
 * **Details**
 *
 * `reason` says what a caller can do, `method` names the request, and `outcome` says
 * whether etcd may have applied it all the same: `Refused` means that it certainly did
 * not, `Unknown` that it may have, or may do so yet.
 *
 * @category errors
 * @since 0.1.0
 */
export class EtcdError extends TaggedError<EtcdError>("effect-etcd-lock/Etcd/EtcdError")("EtcdError", {
  reason: EtcdErrorReason,
  method: Schema.String,
  outcome: Schema.Literals(["Refused", "Unknown"]),
  description: Schema.String,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `etcd ${this.method} failed (${this.reason}): ${this.description}`
  }

  /** Whether the same request may succeed when it is sent again. */
  get isTransient(): boolean {
    return this.reason === "Unavailable" || this.reason === "Timeout" || this.reason === "TooManyRequests"
  }
}
