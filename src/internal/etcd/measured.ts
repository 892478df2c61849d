/** Measures each attempt at a request. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { EtcdError } from "../../EtcdError.ts"
import * as Metrics from "../metrics.ts"
import { monotonicMillis } from "../monotonic.ts"
import type { Transport } from "./transport.ts"

export const measured = (transport: Transport, context: Context.Context<never>): Transport => {
  const record = Metrics.etcdRequests(context)
  const measure = <A>(method: EtcdError["method"], attempt: Effect.Effect<A, EtcdError>): Effect.Effect<A, EtcdError> =>
    Clock.clockWith((clock) => {
      const sent = monotonicMillis(clock)
      return Effect.onExit(attempt, (exit) => {
        record(method, outcomeOf(exit), monotonicMillis(clock) - sent)
        return Effect.void
      })
    })
  return {
    txn: (request, timeout) => measure("txn", transport.txn(request, timeout)),
    range: (request, timeout) => measure("range", transport.range(request, timeout)),
    leaseGrant: (id, seconds, timeout) => measure("leaseGrant", transport.leaseGrant(id, seconds, timeout)),
    leaseRevoke: (id, timeout) => measure("leaseRevoke", transport.leaseRevoke(id, timeout)),
    leaseKeepAlive: (id, timeout) => measure("leaseKeepAlive", transport.leaseKeepAlive(id, timeout)),
    leaseTimeToLive: (id, withKeys, timeout) =>
      measure("leaseTimeToLive", transport.leaseTimeToLive(id, withKeys, timeout)),
    watch: (options, timeout, subscriber) => measure("watch", transport.watch(options, timeout, subscriber))
  }
}

const outcomeOf = (exit: Exit.Exit<unknown, EtcdError>) =>
  Exit.isSuccess(exit)
    ? "ok"
    : Option.match(Cause.findErrorOption(exit.cause), {
      onSome: ({ reason }) => reason,
      onNone: () => "interrupted" as const
    })
