import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"

/** A process's own way to an etcd that it shares with others. */
export interface Connection {
  readonly etcd: Etcd.Etcd["Service"]
  /**
   * While it is set, requests and events get lost: a request that is sent fails after a while
   * without having been applied, one that was on its way may have been, and watches end with
   * their next event.
   */
  isIsolated: boolean
  /** The leases that this process asked to revoke. */
  readonly revoked: ReadonlySet<bigint>
  /** The requests that wait for their answers, and the watches that wait for events. */
  readonly underWay: ReadonlyArray<string>
}

/**
 * The same etcd, from which a process can be cut off. Calls back when a request is sent; what that returns is called when the
 * request has ended.
 */
export const isolable = (
  etcd: Etcd.Etcd["Service"],
  onSent: (method: Etcd.Method) => () => void = () => noop
): Connection => {
  const revoked = new Set<bigint>()
  const underWay: Array<string> = []
  const lost = (method: Etcd.Method, outcome: "Refused" | "Unknown") =>
    new Etcd.EtcdError({ reason: "Unavailable", method, outcome, description: "the process is isolated" })

  const through = <A, E, R>(
    method: Etcd.Method,
    request: Effect.Effect<A, E, R>,
    timeout = 400
  ): Effect.Effect<A, E | Etcd.EtcdError, R> => {
    const answered = Effect.filterOrFail(request, () => !connection.isIsolated, () => lost(method, "Unknown"))
    const sent = Effect.suspend(() => Effect.ensuring(answered, Effect.sync(onSent(method))))
    return Effect.suspend(() => {
      underWay.push(method)
      return connection.isIsolated
        ? Effect.andThen(
          Effect.sleep(Math.min(timeout, 400)),
          Effect.suspend(() => connection.isIsolated ? Effect.fail(lost(method, "Refused")) : sent)
        )
        : sent
    }).pipe(Effect.ensuring(Effect.sync(() => underWay.splice(underWay.indexOf(method), 1))))
  }

  const connection: Connection = {
    isIsolated: false,
    revoked,
    underWay,
    etcd: Etcd.Etcd.of({
      requestTimeout: etcd.requestTimeout,
      txn: (request) => through("txn", etcd.txn(request)),
      range: (range) => through("range", etcd.range(range)),
      leaseGrant: (id, seconds) => through("leaseGrant", etcd.leaseGrant(id, seconds)),
      leaseRevoke: (id) =>
        Effect.suspend(() => {
          revoked.add(id)
          return through("leaseRevoke", etcd.leaseRevoke(id))
        }),
      leaseKeepAlive: (id, timeout) =>
        // all of it, also where the process is reconnected in the middle
        Effect.timeoutOrElse(through("leaseKeepAlive", etcd.leaseKeepAlive(id, timeout), timeout), {
          duration: timeout,
          orElse: () => Effect.fail(lost("leaseKeepAlive", "Unknown"))
        }),
      leaseTimeToLive: (id, options) => through("leaseTimeToLive", etcd.leaseTimeToLive(id, options)),
      watch: (options) =>
        Effect.map(through("watch", etcd.watch(options)), ({ next, revision }) => ({
          revision,
          next: through("watch", next)
        })),
      subscribe: (options, { onEnd, onEvents }) =>
        Effect.suspend(() => {
          const name = "watch" as const
          underWay.push(name)
          let isOver = false
          let inner: Etcd.Subscription | undefined
          const close = () => {
            if (!isOver) underWay.splice(underWay.indexOf(name), 1)
            isOver = true
            inner?.close()
          }
          const end = (error: Etcd.EtcdError) => {
            if (isOver) return
            close()
            onEnd(error)
          }
          const subscribed = etcd.subscribe(options, {
            onEvents: (events) => {
              if (isOver) return
              // It ends with the next event.
              if (connection.isIsolated) end(lost(name, "Unknown"))
              else onEvents(events)
            },
            onEnd: (error) => end(connection.isIsolated ? lost(name, "Unknown") : error)
          }).pipe(
            Effect.tap((subscription) => {
              inner = subscription
              if (isOver) inner.close()
              return Effect.void
            })
          )
          return through(name, subscribed).pipe(
            Effect.map(({ revision }) => ({ revision, close })),
            Effect.onError(() => Effect.sync(close))
          )
        })
    })
  }
  return connection
}

const noop = () => {}
