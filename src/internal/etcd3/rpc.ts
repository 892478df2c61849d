/**
 * etcd's methods, from the definitions that come with npm's etcd3, for the calls that
 * callers who want a lock wait for.
 *
 * The client by itself takes each message through a second object on its way in and
 * out, with numbers as text. That costs more than the encoding, and several times as
 * much after a pause.
 */
import type { Method as Definition, Type } from "protobufjs"
import { definitionsFile, protobuf } from "./packages.ts"

export type Service = "KV" | "Watch"

/** A method with the messages that it takes and returns. A response's prototype has the defaults of what is absent. */
export interface Method<Request, Response> {
  readonly service: Service
  readonly path: string
  readonly serialize: (request: Request) => Buffer
  readonly deserialize: (bytes: Uint8Array) => Response
}

/** A 64-bit number in two halves. */
export interface Int64 {
  readonly low: number
  readonly high: number
}

export interface Keys {
  readonly key: Buffer
  readonly range_end?: Buffer
}

export interface Compare extends Keys {
  readonly result: number
  readonly target: number
  readonly version?: Int64
  readonly create_revision?: Int64
  readonly mod_revision?: Int64
  readonly value?: Buffer
  readonly lease?: Int64
}

export interface RangeRequest extends Keys {
  readonly limit?: number
  readonly keys_only?: boolean
  readonly sort_target?: number
  readonly sort_order?: number
  readonly max_create_revision?: Int64
}

export interface RequestOp {
  readonly request_range?: RangeRequest
  readonly request_put?: { readonly key: Buffer; readonly value: Buffer; readonly lease?: Int64 }
  readonly request_delete_range?: Keys
  readonly request_txn?: TxnRequest
}

export interface TxnRequest {
  readonly compare: ReadonlyArray<Compare>
  readonly success: ReadonlyArray<RequestOp>
  readonly failure: ReadonlyArray<RequestOp>
}

/** Bytes that are absent are an empty array. */
export type Bytes = Buffer | readonly []

export interface KeyValue {
  readonly key: Bytes
  readonly value: Bytes
  readonly create_revision: Int64
  readonly mod_revision: Int64
  readonly version: Int64
  readonly lease: Int64
}

export interface Header {
  readonly cluster_id: Int64
  readonly revision: Int64
  readonly raft_term: Int64
}

export interface RangeResponse {
  readonly header: Header | null
  readonly kvs: ReadonlyArray<KeyValue>
  readonly count: Int64
}

export interface ResponseOp {
  readonly response_range: RangeResponse | null
  readonly response_put: object | null
  readonly response_delete_range: { readonly deleted: Int64 } | null
  readonly response_txn: TxnResponse | null
}

export interface TxnResponse {
  readonly header: Header | null
  readonly succeeded: boolean
  readonly responses: ReadonlyArray<ResponseOp>
}

export interface WatchRequest {
  readonly create_request?: Keys & { readonly watch_id: Int64; readonly filters: ReadonlyArray<number> }
  readonly cancel_request?: { readonly watch_id: Int64 }
}

export interface WatchResponse {
  readonly header: Header | null
  readonly watch_id: Int64
  readonly created: boolean
  readonly canceled: boolean
  readonly cancel_reason: string
  /** Above 0 when etcd has compacted what the watch would have reported. */
  readonly compact_revision: Int64
  /** Others of the same revision follow, which happens only where it was asked for. */
  readonly fragment: boolean
  readonly events: ReadonlyArray<{ readonly type: number; readonly kv: KeyValue }>
}

const definitions = new protobuf.Root().loadSync(definitionsFile, { keepCase: true })

const method = <Request extends object, Response extends object>(
  service: Service,
  name: string
): Method<Request, Response> => {
  const { resolvedRequestType, resolvedResponseType } = definitions.lookupService(`etcdserverpb.${service}`)
    .methods[name]!.resolve() as Definition & { resolvedRequestType: Type; resolvedResponseType: Type }
  return {
    service,
    path: `/etcdserverpb.${service}/${name}`,
    serialize: (request) => resolvedRequestType.encode(request).finish() as Buffer,
    deserialize: (bytes) => resolvedResponseType.decode(bytes) as unknown as Response
  }
}

export const txn = method<TxnRequest, TxnResponse>("KV", "Txn")
export const range = method<RangeRequest, RangeResponse>("KV", "Range")
export const watch = method<WatchRequest, WatchResponse>("Watch", "Watch")
