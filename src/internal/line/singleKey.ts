/**
 * A line of one: the key itself is the lock, and the client that creates it holds it.
 *
 * There is no line to wait in, so a caller that finds the key taken waits for its delete and tries again, along with
 * all others that do.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import { watchOfLine } from "../etcd/service.ts"
import { Outage } from "../outage.ts"
import { Entry } from "./entry.ts"
import { singleKey } from "./layout.ts"
import type { Lengths } from "./line.ts"
import * as Lines from "./lines.ts"
import { persistently, retryAfter } from "./watch.ts"

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  lengths: Lengths
): Lines.Lines => {
  const lines = Lines.make(etcd, clock, background, lengths, singleKey)

  const join: Lines.Lines["join"] = (name, options, done) =>
    lines.tryJoin(name, options, (exit) => {
      if (Exit.isFailure(exit) || exit.value instanceof Entry) return done(exit)
      const holder = exit.value.holder!
      const lookEvery = Duration.divideUnsafe(options.ref.lease.ttl, 3)
      done(Exit.succeed(new Lines.Refused(name, holder, untilReleased(name, holder.createRevision, lookEvery))))
    })

  const outage = new Outage()
  const untilReleased = (
    name: string,
    createRevision: bigint,
    lookEvery: Duration.Duration
  ): Effect.Effect<void, Etcd.EtcdError> => {
    const isHeld = Effect.map(
      etcd.range(singleKey.range(name)),
      ({ kvs: [kv] }) => kv?.createRevision === createRevision && kv.lease !== 0n
    )
    const isReleased = Effect.scoped(Effect.gen(function*() {
      const watch = yield* persistently(outage, watchOfLine(etcd, singleKey.range(name)))
      // A put may take the key off its lease, and the watch may be silent.
      while (yield* persistently(outage, isHeld)) {
        const reported = yield* Effect.result(Effect.timeoutOption(watch.next, lookEvery))
        if (Result.isFailure(reported)) return false
      }
      return true
    }))
    return Effect.gen(function*() {
      while (!(yield* isReleased)) yield* Effect.sleep(retryAfter)
    })
  }

  return { ...lines, join }
}
