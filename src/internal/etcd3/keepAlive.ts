import * as Effect from "effect/Effect"
import type { ILeaseKeepAliveRequest, ILeaseKeepAliveResponse } from "etcd3"
import type { Header, LeaseKeepAlive } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import { textHeaderOf } from "./codec.ts"
import { type Members, withFreshToken } from "./members.ts"
import { moved, open, shared, timedOut } from "./stream.ts"

const method = "leaseKeepAlive"

/** Renews leases over one stream that all of them share. */
export const make = Effect.fnUntraced(function*(members: Members) {
  const use = yield* shared(method, openStream(members))
  return (leaseId: bigint, timeout: number): Effect.Effect<Renewed, EtcdError> =>
    withFreshToken(
      members,
      timeout,
      (timeout) => Effect.scoped(use(timeout, (stream, left) => stream.renew(leaseId.toString(), left)))
    )
})

type Renewed = LeaseKeepAlive & Header

interface Renewing {
  /** Undefined once no caller waits for it any more. */
  resume: ((answer: Effect.Effect<Renewed, EtcdError>) => void) | undefined
}

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  // Etcd answers the renewals of a lease in the order in which they were asked for, also those that no caller waits for any
  // more. An answer says nothing about a later one: etcd may never have seen that.
  const renewing = new Map<string, Array<Renewing>>()
  let over: EtcdError | undefined

  const stream = yield* open<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>({
    method,
    connect: (options) => member.leaseClient.leaseKeepAlive(options),
    onData: ({ header, ID, TTL }) => {
      const known = textHeaderOf(header)
      const wrong = members.checkCluster(member, known.clusterId, method)
      if (wrong !== undefined) return wrong
      const ofLease = renewing.get(ID)
      const answered = ofLease?.shift()
      if (ofLease?.length === 0) renewing.delete(ID)
      // Etcd answers 0 for a lease that is gone, its gRPC proxy -1.
      answered?.resume?.(Effect.succeed({ ttl: Math.max(0, Number(TTL)), ...known }))
      return undefined
    },
    onOver: (error) => {
      over = error
      members.failed(member, error)
      for (const { resume } of [...renewing.values()].flat()) resume?.(Effect.fail(error))
    }
  }).pipe(Effect.catch(members.explain(member)))
  yield* members.onMove(member, () => stream.abandon(moved(method)))

  const renew = (leaseId: string, timeout: number): Effect.Effect<Renewed, EtcdError> =>
    Effect.callback<Renewed, EtcdError>((resume) => {
      if (over) return resume(Effect.fail(over))
      const entry: Renewing = { resume }
      const ofLease = renewing.get(leaseId)
      if (ofLease === undefined) renewing.set(leaseId, [entry])
      else ofLease.push(entry)
      stream.write({ ID: leaseId })
      return Effect.sync(() => {
        entry.resume = undefined
      })
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
      Effect.catch(members.explain(member))
    )

  return { renew, isOver: () => over !== undefined }
})
