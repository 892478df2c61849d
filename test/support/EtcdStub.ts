import { Clock, Duration, Effect } from "effect"
import { Etcd } from "effect-etcd-lock"

export interface Call {
  readonly method: "grant" | "renew" | "revoke"
  readonly leaseId: bigint
  /** When it was sent, in milliseconds of the monotonic clock. */
  readonly at: number
}

/** What etcd answers; the argument says how many calls of the kind there were, this one included. */
export interface Answers {
  readonly grant?: ((seconds: number) => Effect.Effect<number, Etcd.EtcdError>) | undefined
  readonly renew?: ((n: number) => Effect.Effect<number, Etcd.EtcdError>) | undefined
  /** To the read that follows a renewal: by default, at once, that there is nothing. */
  readonly read?: (() => Effect.Effect<never, Etcd.EtcdError>) | undefined
  readonly revoke?: ((n: number) => Effect.Effect<void, Etcd.EtcdError>) | undefined
}

export interface EtcdStub {
  readonly etcd: Etcd.Etcd["Service"]
  /** All calls so far, oldest first. */
  readonly calls: ReadonlyArray<Call>
  /** When the calls of one kind were sent. */
  readonly times: (method: Call["method"]) => ReadonlyArray<number>
}

export const header: Etcd.Header = { revision: 1n, clusterId: 1n, term: 1n }

/** How long a call may take in all, as the service promises. */
export const requestTimeout = 5000

/**
 * An etcd of leases and of no keys, which answers as the test says: by default at once, with 15 seconds. It ends every call in
 * time, as the real one does.
 */
export const make = (answers: Answers = {}): EtcdStub => {
  const calls: Array<Call> = []
  const times = (method: Call["method"]) => calls.filter((call) => call.method === method).map(({ at }) => at)
  const call = <A>(
    method: Call["method"],
    leaseId: bigint,
    timeout: number,
    answer: (n: number) => Effect.Effect<A, Etcd.EtcdError>
  ) =>
    Clock.clockWith((clock) => {
      calls.push({ method, leaseId, at: Number(clock.monotonicTimeNanosUnsafe()) / 1e6 })
      return Effect.timeoutOrElse(answer(times(method).length), {
        duration: timeout,
        orElse: () => failing("Timeout", "Unknown")
      })
    })
  const none = () => Effect.die(new Error("the stub knows leases only"))
  const txn = ({ then }: Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, ReadonlyArray<Etcd.Op>>) =>
    answers.read?.() ?? Effect.succeed({
      _tag: "Txn",
      succeeded: true,
      repeated: false,
      responses: then.map(() => ({ _tag: "Range", kvs: [], count: 0 })),
      ...header
    })
  const etcd = Etcd.Etcd.of({
    requestTimeout: Duration.millis(requestTimeout),
    txn: txn as Etcd.Etcd["Service"]["txn"],
    range: none,
    watch: none,
    subscribe: none,
    leaseTimeToLive: none,
    leaseGrant: (leaseId, seconds) =>
      call("grant", leaseId, requestTimeout, () => (answers.grant ?? (() => Effect.succeed(15)))(seconds)),
    leaseKeepAlive: (leaseId, timeout) =>
      Effect.map(
        call("renew", leaseId, timeout, answers.renew ?? (() => Effect.succeed(15))),
        (ttl) => ({ ttl, ...header })
      ),
    leaseRevoke: (leaseId) => call("revoke", leaseId, requestTimeout, answers.revoke ?? (() => Effect.void))
  })
  return { etcd, calls, times }
}

/** A call that fails, as the test says. */
export const failing = (
  reason: Etcd.EtcdErrorReason,
  outcome: "Refused" | "Unknown" = "Refused"
): Effect.Effect<never, Etcd.EtcdError> =>
  Effect.fail(new Etcd.EtcdError({ reason, outcome, method: "scripted", description: "as the test says" }))
