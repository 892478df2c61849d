import type { CallOptions, Interceptor } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import { EtcdError } from "../../EtcdError.ts"
import { toEtcdError } from "./errors.ts"
import { InterceptingCall } from "./packages.ts"

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
 * writes as if nothing had happened afterwards: only these events report the end.
 */
export const open = <Request, Response>(options: {
  readonly method: string
  readonly connect: (options: CallOptions) => Promise<Duplex<Request, Response>>
  /** Returns why the stream is given up, if nothing that it brings can be believed. */
  readonly onData: (response: Response) => EtcdError | undefined
  readonly onOver: (error: EtcdError) => void
}): Effect.Effect<Stream<Request>, EtcdError, Scope.Scope> =>
  Effect.gen(function*() {
    let over = false
    const finish = (error: EtcdError) => {
      if (over) return
      over = true
      options.onOver(error)
    }
    // `cancel` alone would make the client reset all of the host's channels; `end` alone would leave a watch running
    const close = (duplex: Duplex<Request, Response>) => {
      duplex.end()
      duplex.cancel()
    }

    let opened: Duplex<Request, Response> | undefined
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        over = true
        if (opened) close(opened)
      })
    )
    // With authentication this waits for the token, so it can take a while.
    const duplex = yield* Effect.callback<Duplex<Request, Response>, EtcdError>((resume) => {
      options.connect({ interceptors: [requireLeader] }).then(
        (duplex) => {
          if (over) return close(duplex)
          opened = duplex
          duplex.on("data", (response) => {
            const error = over ? undefined : options.onData(response)
            if (error === undefined) return
            finish(error)
            close(duplex)
          })
          duplex.on("error", (cause) => finish(toEtcdError(options.method, cause)))
          duplex.on("end", () => finish(ended(options.method)))
          resume(Effect.succeed(duplex))
        },
        (cause) => {
          const error = toEtcdError(options.method, cause)
          finish(error)
          resume(Effect.fail(error))
        }
      )
      return Effect.sync(() => finish(timedOut(options.method)))
    })
    return {
      write: (request) => {
        duplex.write(request)
      },
      abandon: (error) => {
        finish(error)
        duplex.cancel()
      }
    }
  })

export const ended = (method: string): EtcdError =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description: "the stream ended" })

export const moved = (method: string): EtcdError =>
  new EtcdError({
    reason: "Unavailable",
    method,
    outcome: "Unknown",
    description: "the stream was given up, since its member does not answer requests"
  })

export const timedOut = (method: string, outcome: EtcdError["outcome"] = "Refused"): EtcdError =>
  new EtcdError({ reason: "Timeout", method, outcome, description: "no answer in time" })

// A member that lost its quorum fails such a stream; without it, it would stay silent for ever.
const requireLeader: Interceptor = (options, next) =>
  new InterceptingCall(next(options), {
    start: (metadata, listener, start) => {
      // With authentication the client shares one metadata object between all calls.
      const own = metadata.clone()
      own.set("hasleader", "true")
      start(own, listener)
    }
  })

/**
 * Shares one stream between all who need one at a time, replaces it when it is
 * over, and closes it when none has needed it for a while.
 */
export const shared = Effect.fnUntraced(function*<S extends { readonly isOver: () => boolean }>(
  method: string,
  open: Effect.Effect<S, EtcdError, Scope.Scope>
) {
  let latest: S | undefined
  const ref = yield* RcRef.make({
    acquire: Effect.tap(open, (stream) => {
      latest = stream
      return Effect.void
    }),
    idleTimeToLive: "10 seconds"
  })
  const get: Effect.Effect<S, EtcdError, Scope.Scope> = Effect.filterOrElse(
    RcRef.get(ref),
    (stream) => !stream.isOver(),
    (stream) => Effect.andThen(replace(stream), get)
  )
  // An interruption in the middle would leave the stream in the reference for ever.
  const replace = (stream: S) =>
    Effect.uninterruptible(Effect.suspend(() => {
      if (stream !== latest) return Effect.void
      latest = undefined
      return RcRef.invalidate(ref)
    }))

  /** Uses the stream in an attempt of at most `timeout` milliseconds, and says how many of them are left for it. */
  return <A, R>(
    timeout: number,
    use: (stream: S, left: number) => Effect.Effect<A, EtcdError, R>
  ): Effect.Effect<A, EtcdError, R | Scope.Scope> =>
    Clock.clockWith((clock) => {
      const started = clock.monotonicTimeNanosUnsafe()
      return get.pipe(
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(timedOut(method)) }),
        Effect.flatMap((stream) => use(stream, timeout - Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6))
      )
    })
})
