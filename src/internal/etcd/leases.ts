/** How leases are granted and revoked, whatever they are for. */
import * as Effect from "effect/Effect"
import type { Etcd } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import * as Log from "../log.ts"
import { randomId } from "./randomId.ts"

type Service = Etcd["Service"]

export interface Granted {
  readonly id: bigint
  /** The TTL that etcd granted; undefined where an attempt has granted it whose answer was lost. */
  readonly seconds: number | undefined
}

/**
 * Grants a lease under an ID of our own, which makes the grant repeatable. A lease that may have been granted although this
 * fails has nobody to wait for it, so it is revoked.
 */
export const grant = (etcd: Service, seconds: number): Effect.Effect<Granted, EtcdError> =>
  Effect.suspend(() => {
    const id = randomId()
    return Effect.catch(
      Effect.map(etcd.leaseGrant(id, seconds), (seconds): Granted => ({ id, seconds })).pipe(
        Effect.onInterrupt(() => abandon(etcd, id))
      ),
      (error) => {
        if (error.reason === "LeaseExists") {
          // If the very first attempt has found it, another process has the same random numbers, such as a copy of this
          // machine.
          return error.outcome === "Unknown" ? Effect.succeed({ id, seconds: undefined }) : grant(etcd, seconds)
        }
        return error.outcome === "Unknown" ? Effect.andThen(abandon(etcd, id), Effect.fail(error)) : Effect.fail(error)
      }
    )
  })

/** Revokes a lease, for which nobody waits. */
export const abandon = (etcd: Service, id: bigint): Effect.Effect<void> =>
  Effect.asVoid(Effect.forkDetach(orLeftToExpire(id, revoke(etcd, id))))

// A lease that etcd does not have is as good as revoked.
export const revoke = (etcd: Service, id: bigint): Effect.Effect<void, EtcdError> =>
  Effect.catchIf(etcd.leaseRevoke(id), ({ reason }) => reason === "LeaseNotFound", () => Effect.void)

export const orLeftToExpire = (id: bigint, revoke: Effect.Effect<void, EtcdError>): Effect.Effect<void> =>
  Effect.catch(
    revoke,
    (error) =>
      Log.warning(`Lease ${id.toString(16)} could not be revoked and is left to expire: ${error.message}`, {
        lease: id.toString(16)
      })
  )
