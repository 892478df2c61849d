/**
 * What an entry says of its holder: a JSON object in the value of its key. Other clients
 * ignore it, and the entries of others have no such value.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import { hostname } from "node:os"
import { Holder } from "../../Holder.ts"
import type { ForeignEntry } from "../line/entry.ts"
import { type EntryKeyValue, keyOf } from "../line/entryKey.ts"
import { isTooDeep } from "../options.ts"

// Every entry of this library has the first three: a value without them is somebody's own, whatever else it says.
const Description = Schema.Struct({
  host: Schema.String,
  pid: Schema.Int,
  since: Schema.DateTimeUtcFromString,
  heldSince: Schema.optional(Schema.DateTimeUtcFromString),
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json)),
  trace: Schema.optional(Schema.Struct({ traceId: Schema.String, spanId: Schema.String })),
  behind: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)))
})

/** What differs from one entry of the process to the next. */
export interface Own {
  /** When the caller asked, in milliseconds of the wall clock. */
  readonly since: number
  /** As JSON. */
  readonly metadata: string | undefined
  /** Sets the entry apart from others under the same key. */
  readonly id: string | undefined
  /** Where the caller waits, if its program traces. */
  readonly span: Tracer.Span | undefined
}

export const host = hostname()

// The same in every entry of the process, so that it is written once.
const who = JSON.stringify({ host, pid: process.pid }).slice(0, -1)

export const encode = ({ id, metadata, since, span }: Own): Uint8Array => {
  const described = metadata === undefined ? "" : `,"metadata":${metadata}`
  const identified = id === undefined ? "" : `,"id":${JSON.stringify(id)}`
  const traced = span?.sampled === true ? `,"trace":${JSON.stringify(traceOf(span))}` : ""
  return Buffer.from(`${who},"since":"${new Date(since).toISOString()}"${described}${traced}${identified}}`)
}

const traceOf = ({ spanId, traceId }: Tracer.Span) => ({ traceId, spanId })

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Description))

/** How long a lease lives still, and since when it has not been renewed. */
export type Renewal = Pick<Holder, "remaining" | "notRenewedFor">

/** Describes the client that an entry belongs to, as far as its value says. */
export const describe = (kv: EntryKeyValue, renewal?: Renewal): Holder => {
  const text = Buffer.from(kv.value).toString()
  const description = read(text)
  const { since: askedAt = undefined, ...said } = description ?? {}
  return new Holder({
    key: keyOf(kv),
    leaseId: kv.lease,
    createRevision: kv.createRevision,
    ...said,
    askedAt,
    value: description !== undefined || text === "" ? undefined : text,
    ...renewal
  })
}

const read = (text: string) => isTooDeep(text) ? undefined : Option.getOrUndefined(decode(text))

/** A key in the range of a line that is no entry of it. */
export interface Conflicting {
  readonly key: string
  readonly kind: "NestedLock" | "PlainKey"
}

/** Only a key with a lease can be another lock's entry. */
export const conflictOf = ({ isOnLease, kv }: ForeignEntry): Conflicting => ({
  key: keyOf(kv),
  kind: isOnLease ? "NestedLock" : "PlainKey"
})
