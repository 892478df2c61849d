/** The errors that recipes have in common. */
import type * as Duration from "effect/Duration"
import type { Holder } from "../../Holder.ts"
import { LockHeld, LockLost, LockNameConflict, LockTimeout } from "../../LockError.ts"
import type { ForeignEntry } from "../line/entry.ts"
import { conflictOf } from "./description.ts"
import type { ToLost } from "./ownership.ts"

const lost: ToLost = (lock, { cause, reason }, held) =>
  new LockLost({ lock, fencingToken: held?.fencingToken, reason, heldFor: held?.heldFor, cause })

export const errors = {
  held: (lock: string, holder: Holder | undefined) => new LockHeld({ lock, holder }),
  timeout: (lock: string, waited: Duration.Duration, holder: Holder | undefined) =>
    new LockTimeout({ lock, waited, holder }),
  lost,
  selfWait: (lock: string) =>
    new Error(
      `Lock '${lock}' is already held by this fiber: it would wait for itself. Leave out the inner acquire, since the ` +
        "body runs under the lock already (its handle is Lock.Current), or use another name."
    ),
  conflict: (lock: string, foreign: ForeignEntry) => {
    const { key, kind } = conflictOf(foreign)
    return new LockNameConflict({ lock, key, kind })
  }
}
