import { type CallOptions, InterceptingCall, type Interceptor } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import { EtcdError } from "../etcdError.ts"
import { toEtcdError } from "./errors.ts"

/** What the client's duplex streams have in common. */
interface Duplex<Request, Response> {
  on(event: "data", listener: (response: Response) => void): unknown
  on(event: "error", listener: (error: Error) => void): unknown
  on(event: "end", listener: () => void): unknown
  write(request: Request): unknown
  end(): unknown
  cancel(): unknown
}

export interface Stream<Request> {
  readonly write: (request: Request) => void
  /** Gives the stream up because its connection is suspect: the next one gets a fresh connection. */
  readonly abandon: (error: EtcdError) => void
}

/**
 * Opens a stream and closes it with the scope. `onOver` is called once, when the
 * stream ended for any other reason.
 *
 * The client's stream reports its end as `error`, as `end`, or as both, and takes
 * writes as if nothing had happened afterwards: only these events tell.
 */
export const open = <Request, Response>(options: {
  readonly method: string
  readonly connect: (options: CallOptions) => Promise<Duplex<Request, Response>>
  readonly onData: (response: Response) => void
  readonly onOver: (error: EtcdError) => void
}): Effect.Effect<Stream<Request>, EtcdError, Scope.Scope> => {
  let over = false
  const finish = (error: EtcdError) => {
    if (over) return
    over = true
    options.onOver(error)
  }
  return Effect.acquireRelease(
    Effect.map(
      Effect.tryPromise({
        try: () => options.connect({ interceptors: [requireLeader] }),
        catch: (cause) => toEtcdError(options.method, cause)
      }),
      (duplex) => {
        duplex.on("data", (response) => {
          if (!over) options.onData(response)
        })
        duplex.on("error", (cause) => finish(toEtcdError(options.method, cause)))
        duplex.on("end", () => finish(ended(options.method)))
        return duplex
      }
    ),
    (duplex) =>
      Effect.sync(() => {
        over = true
        // `cancel` alone would make the client reset all of the host's channels; `end` alone would leave a watch running
        duplex.end()
        duplex.cancel()
      })
  ).pipe(Effect.map((duplex) => ({
    write: (request) => {
      duplex.write(request)
    },
    abandon: (error) => {
      finish(error)
      duplex.cancel()
    }
  })))
}

export const ended = (method: string): EtcdError =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description: "the stream ended" })

// A member that lost its quorum fails such a stream; without it, it would stay silent for ever.
const requireLeader: Interceptor = (options, next) =>
  new InterceptingCall(next(options), {
    start: (metadata, listener, start) => {
      // with authentication the client shares one metadata object between all calls
      const own = metadata.clone()
      own.set("hasleader", "true")
      start(own, listener)
    }
  })

/**
 * Shares one stream between all who need one at a time, replaces it when it is
 * over, and closes it when nobody has needed it for a while.
 */
export const shared = Effect.fnUntraced(function*<S extends { readonly isOver: () => boolean }, E>(
  open: Effect.Effect<S, E, Scope.Scope>
) {
  let latest: S | undefined
  const ref = yield* RcRef.make({
    acquire: Effect.tap(open, (stream) => {
      latest = stream
      return Effect.void
    }),
    idleTimeToLive: "10 seconds"
  })
  const get: Effect.Effect<S, E, Scope.Scope> = Effect.flatMap(RcRef.get(ref), (stream) => {
    if (!stream.isOver()) return Effect.succeed(stream)
    if (stream !== latest) return get
    latest = undefined
    return Effect.andThen(RcRef.invalidate(ref), get)
  })
  return { get }
})
