/**
 * The handle of an election: an entry whose value is what its owner proclaims.
 */
import * as Effect from "effect/Effect"
import type { Leadership as Model } from "../../Election.ts"
import * as Etcd from "../../Etcd.ts"
import type { LockLost } from "../../LockError.ts"
import type { Entry } from "../line/entry.ts"
import * as Check from "../options.ts"
import { Ownership, type OwnershipOptions } from "./ownership.ts"

export class Leadership extends Ownership implements Model {
  readonly #entry: Entry
  /** The revision at which the value was last put, as far as is known. */
  #revision: bigint

  constructor(options: OwnershipOptions) {
    super(options)
    this.#entry = options.entry
    this.#revision = options.entry.createRevision
  }

  get proclaim(): Model["proclaim"] {
    return (value) =>
      Effect.suspend(() => {
        Check.proposal("Election", value)
        return Effect.andThen(this.check, this.#put(value))
      })
  }

  get resign(): Model["resign"] {
    return this.release
  }

  // A proclamation whose outcome is unknown may come late. It follows a revision, so that it replaces no later one.
  #put(value: string): Effect.Effect<void, LockLost | Etcd.EtcdError> {
    return Effect.suspend(() => {
      const { key, leaseId: lease } = this
      return Effect.flatMap(
        this.txn({
          compare: [Etcd.compareModRevision(key, "=", this.#revision)],
          then: [Etcd.put(key, value, { lease })],
          else: [Etcd.get(key)],
          idempotent: true
        }),
        (result) => {
          if (result.succeeded) {
            this.#revision = result.revision
            this.#entry.value = Buffer.from(value)
            return Effect.void
          }
          const [last] = result.responses[0].kvs
          this.#revision = last!.modRevision
          this.#entry.value = last!.value
          return Buffer.from(value).equals(last!.value) ? Effect.void : this.#put(value)
        }
      )
    })
  }
}
