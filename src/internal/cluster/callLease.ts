/**
 * A lease that calls renew, rather than a fiber: a runner that makes no calls loses what is on it, even if its process
 * lives.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { EtcdError } from "../../EtcdError.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import type { Background } from "../background.ts"
import type { LeaseImpl } from "../session/lease.ts"

export interface CallLease {
  /** The last lease that was granted and not revoked, also if it is lost. */
  readonly current: () => LeaseImpl | undefined
  /** Returns the current lease, or grants one where there is none that is alive. */
  readonly granted: Effect.Effect<LeaseImpl, EtcdError>
  /**
   * Renews the current lease, if that is due. It waits for half an interval at most, and then the attempt goes on: a renewal
   * that hangs says nothing about the rest of etcd.
   */
  readonly renewIfDue: Effect.Effect<void, LeaseExpired | EtcdError>
  /** Revokes the current lease; from then on there is none. */
  readonly revoke: Effect.Effect<void, EtcdError>
}

interface Granted {
  readonly lease: LeaseImpl
  readonly scope: Scope.Closeable
}

export const make = (options: {
  readonly grant: Effect.Effect<LeaseImpl, EtcdError, Scope.Scope>
  /** How far apart the runner's calls are, in milliseconds. */
  readonly interval: number
  /** The leases end with it. */
  readonly scope: Scope.Scope
  readonly background: Background
}): CallLease => {
  const { background, interval, scope } = options
  let latest: Granted | undefined
  let granting: Fiber.Fiber<LeaseImpl, EtcdError> | undefined

  const grant = Effect.gen(function*() {
    const own = yield* Scope.fork(scope)
    const lease = yield* options.grant.pipe(Scope.provide(own), Effect.onError(() => Scope.close(own, Exit.void)))
    if (latest !== undefined) background(Scope.close(latest.scope, Exit.void))
    latest = { lease, scope: own }
    return lease
  })

  return {
    current: () => latest?.lease,
    granted: Effect.suspend(() => {
      if (latest?.lease.isAlive()) return Effect.succeed(latest.lease)
      if (granting !== undefined) return Fiber.join(granting)
      // On a fiber of its own: callers give up sooner than a grant that hangs, and the next one may use it.
      const fiber = background(grant)
      granting = fiber
      fiber.addObserver(() => {
        granting = undefined
      })
      return Fiber.join(fiber)
    }),
    renewIfDue: Effect.suspend(() => {
      // A runner confirms the shard of every entity whose reply it stores, so calls may come in quick succession.
      if (latest === undefined || latest.lease.unacknowledgedFor < interval / 4) return Effect.void
      return Effect.timeoutOrElse(latest.lease.renew, { duration: interval / 2, orElse: () => notInTime })
    }),
    revoke: Effect.suspend(() => {
      const revoked = latest
      if (revoked === undefined) return Effect.void
      return Effect.andThen(revoked.lease.revoke, () => {
        if (latest === revoked) latest = undefined
        return Scope.close(revoked.scope, Exit.void)
      })
    })
  }
}

const notInTime = Effect.fail(
  new EtcdError({
    reason: "Timeout",
    method: "leaseKeepAlive",
    outcome: "Unknown",
    description: "no answer within half of the interval at which shard locks are refreshed"
  })
)
