import * as Effect from "effect/Effect"
import type { ILeaseKeepAliveRequest, ILeaseKeepAliveResponse } from "etcd3"
import type { EtcdError } from "../../EtcdError.ts"
import { type Members, withFreshToken } from "./members.ts"
import { open, shared, timedOut } from "./stream.ts"

const method = "leaseKeepAlive"

/** Renews leases over one stream that all of them share. */
export const make = Effect.fnUntraced(function*(members: Members) {
  const use = yield* shared(method, openStream(members))
  return (leaseId: bigint, timeout: number): Effect.Effect<number, EtcdError> =>
    withFreshToken(
      timeout,
      (timeout) => Effect.scoped(use(timeout, (stream, left) => stream.renew(leaseId.toString(), left)))
    )
})

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  // A lease has at most one renewal under way.
  const waiting = new Map<string, (answer: Effect.Effect<number, EtcdError>) => void>()
  let over: EtcdError | undefined

  const stream = yield* open<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>({
    method,
    connect: (options) => member.leaseClient.leaseKeepAlive(options),
    onData: (response) => waiting.get(response.ID)?.(Effect.succeed(Number(response.TTL))),
    onOver: (error) => {
      over = error
      members.failed(member, error)
      for (const resume of waiting.values()) resume(Effect.fail(error))
    }
  }).pipe(Effect.catch(members.explain(member)))

  const renew = (leaseId: string, timeout: number): Effect.Effect<number, EtcdError> =>
    Effect.callback<number, EtcdError>((resume) => {
      if (over) return resume(Effect.fail(over))
      waiting.set(leaseId, resume)
      stream.write({ ID: leaseId })
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.suspend(() => {
            const error = timedOut(method, "Unknown")
            stream.abandon(error)
            return Effect.fail(error)
          })
      }),
      Effect.ensuring(Effect.sync(() => waiting.delete(leaseId))),
      Effect.catch(members.explain(member))
    )

  return { renew, isOver: () => over !== undefined }
})
