/**
 * The metrics of locks, and of the leases and requests beneath them. This package updates them; exporting them is up to
 * the program, as with all metrics of Effect.
 *
 * **Details**
 *
 * Metrics of locks have the attribute `recipe`: `lock`, `read`, `write`, `semaphore` or `election`. A process leads if
 * its `held` of the recipe `election` is not 0. A lock's name is not an attribute, since there may be a million names;
 * a caller that passes the option `label` adds it as the attribute `lock`.
 *
 * Timers count milliseconds. Gauges are those of this process; add them up over all processes.
 *
 * **Example** (Reading how many locks this process holds)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { LockMetrics } from "effect-etcd-lock"
 *
 * export const howMany = Effect.map(
 *   Metric.value(Metric.withAttributes(LockMetrics.held, { recipe: "lock" })),
 *   ({ value }) => value
 * )
 * ```
 *
 * @since 0.1.0
 * @module
 */
import * as metrics from "./internal/metrics.ts"

// -----------------------------------------------------------------------------
// locks
// -----------------------------------------------------------------------------

/**
 * How many locks this process holds. All permits of a semaphore that one caller holds
 * count as one lock.
 *
 * @category locks
 * @since 0.1.0
 */
export const held = metrics.held()

/**
 * How many callers wait for a lock. One that asks for several locks at once counts for each.
 *
 * @category locks
 * @since 0.1.0
 */
export const waiting = metrics.waiting()

/**
 * How many milliseconds the longest waiting caller has waited so far.
 *
 * @category locks
 * @since 0.1.0
 */
export const oldestWait = metrics.oldestWait()

/**
 * How many locks were asked for, by `result`: `acquired`, `refused` to a try, `timeout`, `lost` before the turn came,
 * `interrupted`, or `failed` for another reason.
 *
 * @category locks
 * @since 0.1.0
 */
export const acquisitions = metrics.acquisitions()

/**
 * How many of these locks were not free, so that the caller had to wait or was refused.
 *
 * @category locks
 * @since 0.1.0
 */
export const contended = metrics.contended()

/**
 * How many locks were lost while they were held, by `reason`: `LeaseExpired` or `KeyDeleted`.
 *
 * @category locks
 * @since 0.1.0
 */
export const losses = metrics.losses()

/**
 * How long callers that acquired had waited.
 *
 * @category locks
 * @since 0.1.0
 */
export const wait = metrics.wait()

/**
 * How long locks were held, until they were released or lost.
 *
 * @category locks
 * @since 0.1.0
 */
export const hold = metrics.hold()

/**
 * How long it took what ran under a lock to stop after the lock was lost. It should be less than the lease's safety
 * margin, which is what is left then until etcd gives the lock away.
 *
 * @category locks
 * @since 0.1.0
 */
export const stop = metrics.stop()

// -----------------------------------------------------------------------------
// leases
// -----------------------------------------------------------------------------

/**
 * How many attempts to renew a lease were made, by `result`: `acknowledged`; `failed`, which another attempt follows;
 * `revoked`, when etcd has no such lease; or `too_late`, when the time of the lease was over first.
 *
 * @category leases
 * @since 0.1.0
 */
export const renewals = metrics.renewals()

/**
 * How long etcd took to acknowledge renewals.
 *
 * @category leases
 * @since 0.1.0
 */
export const renewal = metrics.renewal()

/**
 * How much of the TTL was left when a renewal was acknowledged, in percent. It is normally about 67; when its lowest
 * values come down, locks will be lost soon.
 *
 * @category leases
 * @since 0.1.0
 */
export const leaseMargin = metrics.margin()

/**
 * How many leases were given no more locks, because the outcome of a request on them is unknown, such as one that etcd
 * did not answer in time.
 *
 * @category leases
 * @since 0.1.0
 */
export const leasesRetired = metrics.leasesRetired()

/**
 * How many entries of lines had to be removed for the same reason, if they were there.
 *
 * @category leases
 * @since 0.1.0
 */
export const entriesReaped = metrics.entriesReaped()

// -----------------------------------------------------------------------------
// requests
// -----------------------------------------------------------------------------

/**
 * How many requests were sent to etcd, by `method` and by `outcome`: `ok`, the `reason` of an `EtcdError`, or
 * `interrupted`. Each attempt counts.
 *
 * @category requests
 * @since 0.1.0
 */
export const requests = metrics.requests()

/**
 * How long they took, by the same attributes.
 *
 * @category requests
 * @since 0.1.0
 */
export const request = metrics.request()

/**
 * How many transactions travelled in one request.
 *
 * @category requests
 * @since 0.1.0
 */
export const batchSize = metrics.batchSize()
