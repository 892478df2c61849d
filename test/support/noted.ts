import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"

/** A way to etcd that notes the method of each request. */
export const noted = (etcd: Etcd.Etcd["Service"], requests: Array<string>): Etcd.Etcd["Service"] => {
  const note = <A, E, R>(method: string, request: Effect.Effect<A, E, R>) =>
    Effect.andThen(Effect.sync(() => requests.push(method)), request)
  return Etcd.Etcd.of({
    requestTimeout: etcd.requestTimeout,
    txn: (request) => note("txn", etcd.txn(request)),
    range: (range) => note("range", etcd.range(range)),
    watch: (options) => note("watch", etcd.watch(options)),
    subscribe: (options, listener) => note("subscribe", etcd.subscribe(options, listener)),
    leaseGrant: (id, seconds) => note("leaseGrant", etcd.leaseGrant(id, seconds)),
    leaseKeepAlive: (id, timeout) => note("leaseKeepAlive", etcd.leaseKeepAlive(id, timeout)),
    leaseTimeToLive: (id, options) => note("leaseTimeToLive", etcd.leaseTimeToLive(id, options)),
    leaseRevoke: (id) => note("leaseRevoke", etcd.leaseRevoke(id))
  })
}
