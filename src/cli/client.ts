/** What there is to say of a client of a lock, to a person or to a program. */
import type { Lock } from "effect-etcd-lock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import type { Renewal } from "../internal/recipe/description.ts"

export type Client = Lock.Holder

export const nameOf = ({ host, leaseId, pid }: Client): string =>
  host === undefined ? `lease ${leaseId.toString(16)}` : pid === undefined ? host : `${host}:${pid}`

/** What it says of itself: its metadata, or what a candidate proclaims. */
export const valueOf = ({ metadata, value }: Client): string =>
  metadata === undefined ? value ?? "" : JSON.stringify(metadata)

export const timeOf = (time: DateTime.Utc | undefined): string =>
  time === undefined ? "" : DateTime.formatIso(time).replace(/\.\d+Z$/, "Z")

/** How long ago it was, by a clock that may differ from the client's. */
export const ageOf = (time: DateTime.Utc | undefined, now: number): string =>
  time === undefined ? "" : spanOf(now - DateTime.toEpochMillis(time))

const units = [86_400_000, 3_600_000, 60_000, 1000]

/** A time of that many milliseconds in its two largest units, such as 5m 3s. */
export const spanOf = (millis: number): string => {
  const largest = units.findIndex((unit) => millis >= unit)
  if (largest < 0) return "0s"
  const least = units[largest + 1] ?? 1000
  return Duration.format(Duration.millis(Math.floor(millis / least) * least))
}

/** Since when it holds, or where it does not tell, since when it asks. */
export const holdOf = ({ askedAt, heldSince }: Client, now: number): string =>
  heldSince !== undefined
    ? ageOf(heldSince, now)
    : askedAt === undefined
    ? ""
    : `asked ${ageOf(askedAt, now)} ago`

/**
 * A client renews its lease every third of the TTL. Whole seconds and a slow network are no reason to doubt it, as far as the TTL
 * has room for them.
 */
export const isLate = ({ notRenewedFor, remaining }: Renewal): boolean => {
  if (notRenewedFor === undefined || remaining === undefined) return false
  const ttl = Duration.toSeconds(Duration.sum(notRenewedFor, remaining))
  return Duration.toSeconds(notRenewedFor) > Math.min(ttl / 3 + 2, ttl * 2 / 3)
}

export const leaseOf = (renewal: Renewal): string => {
  const { notRenewedFor, remaining } = renewal
  if (remaining === undefined) return ""
  if (notRenewedFor === undefined) return "is over"
  const age = spanOf(Duration.toMillis(notRenewedFor))
  return isLate(renewal)
    ? `not renewed for ${age}, ends in ${spanOf(Duration.toMillis(remaining))}`
    : `renewed ${age} ago`
}

/** Leases are hexadecimal, as etcdctl prints them. Times are those of the client's clock, and durations milliseconds. */
export const toData = (client: Client) => ({
  key: client.key,
  lease: client.leaseId.toString(16),
  createRevision: Number(client.createRevision),
  host: client.host,
  pid: client.pid,
  askedAt: client.askedAt && DateTime.formatIso(client.askedAt),
  heldSince: client.heldSince && DateTime.formatIso(client.heldSince),
  remaining: client.remaining && Duration.toMillis(client.remaining),
  notRenewedFor: client.notRenewedFor && Duration.toMillis(client.notRenewedFor),
  value: client.value,
  metadata: client.metadata,
  behind: client.behind
})
