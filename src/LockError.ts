import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { Holder } from "./Holder.ts"
import { printable } from "./internal/printable.ts"
import { TaggedError } from "./internal/taggedError.ts"
import { LeaseExpired } from "./LeaseExpired.ts"

/**
 * Another client, or another fiber, holds the lock, and the caller did not want to wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockHeld extends TaggedError<LockHeld>("effect-etcd-lock/Lock/LockHeld")("LockHeld", {
  lock: Schema.String,
  /**
   * Undefined when nobody was seen to hold it: it has just been released, or an earlier request of this process, whose
   * outcome is not known, may still have its place.
   */
  holder: Schema.UndefinedOr(Holder)
}) {
  override get message(): string {
    return this.holder === undefined
      ? `Lock '${this.lock}' was not free a moment ago, and nobody was seen to hold it`
      : `Lock '${this.lock}' is held by ${this.holder}`
  }
}

/**
 * The lock was not acquired within the time that the caller wanted to wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockTimeout extends TaggedError<LockTimeout>("effect-etcd-lock/Lock/LockTimeout")("LockTimeout", {
  lock: Schema.String,
  /** Never less than the timeout of the options; zero where that was zero, since the caller did not wait. */
  waited: Schema.DurationFromMillis,
  /** Undefined when the lock has just been released. */
  holder: Schema.UndefinedOr(Holder)
}) {
  override get message(): string {
    const time = Duration.isZero(this.waited) ? "at once" : `within ${Duration.format(this.waited)}`
    const held = this.holder === undefined ? "" : `; it is held by ${this.holder}`
    return `Lock '${this.lock}' was not acquired ${time}${held}`
  }
}

/**
 * The lock, or the place in the line for it, was lost.
 *
 * - `LeaseExpired`: its lease was not renewed in time, or was revoked. `cause` says what happened: for how long etcd
 *   acknowledged no renewal and why, or for how long this process stood still.
 * - `KeyDeleted`: its key was deleted from etcd, by another client, or with its lease when that was revoked.
 * - `Released`: the handle was released, or the session or the lease that the lock is attached to has closed.
 *
 * A body may have ended by itself before that was known: the whole fails all the same. The cause has what the body failed
 * with beside the loss, or is annotated with what it succeeded with, see `BodySuccess`.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockLost extends TaggedError<LockLost>("effect-etcd-lock/Lock/LockLost")("LockLost", {
  lock: Schema.String,
  /** Undefined when the lock had not been acquired yet. */
  fencingToken: Schema.UndefinedOr(Schema.BigInt),
  reason: Schema.Literals(["LeaseExpired", "KeyDeleted", "Released"]),
  /** How long it had been held when the loss was noticed; undefined when it had not been acquired yet. */
  heldFor: Schema.UndefinedOr(Schema.DurationFromMillis),
  /** The end of its lease, where that is the reason. */
  cause: Schema.optional(LeaseExpired)
}) {
  override get message(): string {
    const { cause, heldFor } = this
    const what = heldFor === undefined ? `The place in the line for lock '${this.lock}'` : `Lock '${this.lock}'`
    const time = heldFor === undefined
      ? ""
      : Duration.isZero(heldFor)
      ? " at once"
      : ` after ${Duration.format(heldFor)}`
    switch (this.reason) {
      case "LeaseExpired": {
        const why = cause === undefined ? "its lease was not renewed in time, or was revoked" : cause.message
        return `${what} was lost${time}: ${why}`
      }
      case "KeyDeleted": {
        return `${what} was lost${time}: its key was deleted from etcd`
      }
      case "Released": {
        return `${what} was released${time}: by its handle, or because its session or lease has closed`
      }
    }
  }
}

/**
 * A key that is not an entry of this lock lies where its entries do, and could stay there for ever.
 *
 * - `NestedLock`: the key is attached to a lease and lies deeper, as an entry does of a lock whose name begins with
 *   this one's. Use other names. A client may hold that lock, and would lose it if the key were deleted.
 * - `PlainKey`: the key is attached to no lease, so no client of a lock has put it there. Delete it, or use another
 *   name.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockNameConflict
  extends TaggedError<LockNameConflict>("effect-etcd-lock/Lock/LockNameConflict")("LockNameConflict", {
    lock: Schema.String,
    key: Schema.String,
    kind: Schema.Literals(["NestedLock", "PlainKey"])
  })
{
  override get message(): string {
    const what = `Lock '${this.lock}' cannot be acquired`
    const key = printable(this.key)
    switch (this.kind) {
      case "NestedLock": {
        return `${what}: '${key}' lies under its name and belongs to another lock. Use a name that is not the ` +
          "beginning of another lock's path."
      }
      case "PlainKey": {
        return `${what}: '${key}' lies in its place and is attached to no lease, so it is not a lock's entry. ` +
          "Delete the key, or use another name."
      }
    }
  }
}
