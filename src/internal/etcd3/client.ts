import type { CallOptions, Client as Stub, Metadata, requestCallback } from "@grpc/grpc-js"
import {
  castGrpcError,
  Etcd3,
  EtcdInvalidAuthTokenError,
  type IRangeRequest,
  type IRangeResponse,
  type ITxnRequest,
  type ITxnResponse
} from "etcd3"

/** The calls that whoever wants a lock waits for. */
interface Calls {
  readonly txn: { readonly request: ITxnRequest; readonly response: ITxnResponse }
  readonly range: { readonly request: IRangeRequest; readonly response: IRangeResponse }
}

/** etcd3's client, with a shorter way for a few calls. */
export class Client extends Etcd3 {
  // shuffles them anew for each call otherwise
  #hosts: Parameters<Client["pool"]["withConnection"]>[2]

  async call<Method extends keyof Calls>(
    method: Method,
    request: Calls[Method]["request"],
    options: CallOptions
  ): Promise<Calls[Method]["response"]> {
    try {
      return await this.pool.withConnection("KV", ({ client, metadata, resource }) => {
        this.#hosts ??= forever(resource)
        return start(client as KV, method, request, metadata, options)
      }, this.#hosts)
    } catch (error) {
      // the pool's own way has a new token fetched
      if (error instanceof EtcdInvalidAuthTokenError) return this.pool.exec("KV", method, request, options)
      throw error
    }
  }
}

const forever = function*<A>(value: A): Generator<A, void> {
  while (true) yield value
}

type KV =
  & Stub
  & Record<
    keyof Calls,
    (request: unknown, metadata: Metadata, options: CallOptions, done: requestCallback<any>) => unknown
  >

const start = (
  stub: KV,
  method: keyof Calls,
  request: unknown,
  metadata: Metadata,
  options: CallOptions
): Promise<any> =>
  new Promise((resolve, reject) => {
    // gRPC records who calls, which takes longer than encoding the call, and would only ever tell of this line
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    try {
      stub[method](request, metadata, options, (error, response) => {
        if (error === null) resolve(response)
        else reject(castGrpcError(error))
      })
    } finally {
      Error.stackTraceLimit = limit
    }
  })
