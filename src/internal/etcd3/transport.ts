import type { CallOptions } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { IResponseHeader } from "etcd3"
import type { Options } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Transport } from "../etcd/transport.ts"
import type { Naming } from "../options.ts"
import type { Client } from "./client.ts"
import { decodeRange, decodeTxn, encodeRange, encodeTxn, headerOf, textHeaderOf } from "./codec.ts"
import { foreign, isForeign, isOfMember, otherLease, toEtcdError } from "./errors.ts"
import * as KeepAlive from "./keepAlive.ts"
import * as Members from "./members.ts"
import type { Subject } from "./plainer.ts"
import * as Rpc from "./rpc.ts"
import { timedOut } from "./stream.ts"
import * as Watch from "./watch.ts"

/** Speaks to a real etcd through the raw clients of npm's etcd3. */
export const make = Effect.fnUntraced(function*(options: Options, requestTimeout: number, naming: Naming | undefined) {
  const members = yield* Members.make(options, requestTimeout, naming)
  const leaseKeepAlive = yield* KeepAlive.make(members)
  const watch = yield* Watch.make(members)
  const watchOfLine = yield* Watch.make(members)

  // An interrupted call is not cancelled, since that would reset all of the host's channels; its deadline ends it.
  const call = <Response, A>(
    method: string,
    timeout: number,
    send: (member: Client, options: CallOptions) => Promise<Response>,
    decode: (response: Response) => A,
    subject?: Subject,
    /** What is wrong with an answer. */
    check?: (response: Response, member: Client) => EtcdError | undefined
  ): Effect.Effect<A, EtcdError> => {
    const attempt = (timeout: number) =>
      Effect.callback<A, EtcdError>((resume) => {
        const member = members.current()
        const failed = (error: EtcdError) => {
          if (isOfMember(error) || members.isTokenRefused(error)) members.failed(member, error)
          return members.explain(member, subject)(error)
        }
        // What throws here would end the process; within an effect, it is a defect of the call.
        const answered = (response: Response) =>
          Effect.suspend(() => {
            const wrong = check?.(response, member)
            if (wrong !== undefined) return failed(wrong)
            members.succeeded(member)
            return Effect.succeed(decode(response))
          })
        send(member, { deadline: Date.now() + timeout }).then(
          (response) => resume(answered(response)),
          (cause) => resume(failed(toEtcdError(method, cause)))
        )
      })
    if (options.username === undefined) return attempt(timeout)
    return Members.withFreshToken(members, timeout, (timeout) =>
      // The deadline does not cover the wait for a token.
      Effect.timeoutOrElse(attempt(timeout), {
        duration: timeout,
        orElse: () => Effect.fail(timedOut(method, "Unknown"))
      }))
  }

  const checked = (method: string) => ({ header }: { readonly header: Rpc.Header | null }, member: Client) =>
    isForeign(header) ? foreign(method) : members.checkCluster(member, headerOf(header!).clusterId, method)

  const ofCluster = (method: string) => ({ header }: { readonly header: IResponseHeader | null }, member: Client) =>
    members.checkCluster(member, textHeaderOf(header).clusterId, method)

  const transport: Transport = {
    txn: (txn, timeout) =>
      call(
        "txn",
        timeout,
        (member, options) => member.call(Rpc.txn, encodeTxn(txn), options),
        (response) => ({ ...decodeTxn(response), ...headerOf(response.header!) }),
        txn,
        checked("txn")
      ),
    range: (range, timeout) =>
      call(
        "range",
        timeout,
        (member, options) => member.call(Rpc.range, encodeRange(range), options),
        (response) => ({ ...decodeRange(response), ...headerOf(response.header!) }),
        range,
        checked("range")
      ),
    leaseGrant: (leaseId, seconds, timeout) =>
      call(
        "leaseGrant",
        timeout,
        (member, options) => member.leaseClient.leaseGrant({ ID: leaseId.toString(), TTL: seconds }, options),
        (response) => Number(response.TTL),
        undefined,
        (response, member) =>
          ofCluster("leaseGrant")(response, member) ??
            (BigInt(response.ID) === leaseId ? undefined : otherLease(leaseId, BigInt(response.ID), seconds))
      ),
    leaseRevoke: (leaseId, timeout) =>
      call(
        "leaseRevoke",
        timeout,
        (member, options) => member.leaseClient.leaseRevoke({ ID: leaseId.toString() }, options),
        () => undefined,
        undefined,
        ofCluster("leaseRevoke")
      ),
    leaseTimeToLive: (leaseId, withKeys, timeout) =>
      call(
        "leaseTimeToLive",
        timeout,
        (member, options) => member.leaseClient.leaseTimeToLive({ ID: leaseId.toString(), keys: withKeys }, options),
        ({ grantedTTL, header, keys, TTL }) => ({
          remaining: Number(TTL),
          granted: Number(grantedTTL),
          keys,
          ...textHeaderOf(header)
        }),
        undefined,
        ofCluster("leaseTimeToLive")
      ),
    leaseKeepAlive,
    watch: (options, timeout, subscriber) => (options.isOfLine ? watchOfLine : watch)(options, timeout, subscriber)
  }
  return transport
})
