/**
 * What the recipes need of a session: its leases, its lines in etcd and its queues of fibers in front of them, and the
 * order in which all that ends.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Etcd } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Lease } from "../../Lease.ts"
import type { Options, Session } from "../../Session.ts"
import * as Background from "../background.ts"
import { copy, refuseOther } from "../copy.ts"
import * as History from "../etcd/history.ts"
import { type Layout, queue } from "../line/layout.ts"
import type { LeaseRef } from "../line/leaseRef.ts"
import { Lengths } from "../line/line.ts"
import * as Lines from "../line/lines.ts"
import * as SingleKey from "../line/singleKey.ts"
import * as Log from "../log.ts"
import * as Contention from "./contention.ts"
import { validate } from "./lease.ts"
import * as LossLog from "./lossLog.ts"
import * as Leases from "./sharedLease.ts"

const TypeId = "~effect-etcd-lock/Session"

/** A session as recipes see it. */
export interface SessionImpl {
  readonly [TypeId]: typeof TypeId
  readonly [copy]: true
  readonly lease: Effect.Effect<Lease, EtcdError, Scope.Scope>
  readonly etcd: Etcd["Service"]
  readonly clock: Clock.Clock
  readonly logLoss: LossLog.LossLog
  /** Where callers contend for the locks of one layout. */
  readonly contention: (layout: Layout) => Contention.Contention
}

export const make = Effect.fnUntraced(function*(options: Options | undefined) {
  validate(options)
  const clock = yield* Clock.Clock
  const etcd = History.watched(yield* Etcd, clock)
  const lengths = yield* Lengths
  const scope = yield* Scope.make()
  const background = yield* Scope.provide(Background.make, scope)
  const leases = yield* Leases.make(background, options)
  const unsubscribe = History.onChange(etcd, (what, isBack) =>
    void background(Log.warning(
      `${what}: all leases of this session are lost${isBack ? ", and fencing tokens are smaller than before" : ""}`
    )))
  const lines = [
    Lines.make(etcd, clock, background, lengths, queue),
    SingleKey.make(etcd, clock, background, lengths)
  ]
  const contentions = new Map(
    lines.map((some) => [some.layout, Contention.make(etcd, clock, background, leases, some)])
  )
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      for (const { close } of contentions.values()) close()
      // What runs under the locks ends, then the locks.
      yield* Effect.all([...lines.map(({ end }) => end), leases.close], { concurrency: "unbounded", discard: true })
      unsubscribe()
      // No watch is opened any more.
      yield* Scope.close(scope, Exit.void)
      for (const { close } of lines) close()
    })
  )
  const session: SessionImpl = {
    [TypeId]: TypeId,
    [copy]: true,
    lease: Effect.uninterruptibleMask((restore) =>
      Effect.map(
        Effect.acquireRelease(acquireRef(leases, restore), ({ release }) => Effect.sync(release)),
        ({ lease }) => lease
      )
    ),
    etcd,
    clock,
    logLoss: LossLog.make(background),
    contention: (layout) => contentions.get(layout)!
  }
  return session
})

/** What is behind a session that `make` returned. */
export const of = (session: Session["Service"]): SessionImpl => {
  refuseOther("session", session)
  return session as SessionImpl
}

/** To be run uninterruptibly: an interruption after the reference was taken would leave it to nobody. */
const acquireRef = (
  leases: Leases.Leases,
  restore: <A, E>(wait: Effect.Effect<A, E>) => Effect.Effect<A, E>
): Effect.Effect<LeaseRef, EtcdError> =>
  Effect.suspend(() => {
    const ref = leases.acquireRefNow()
    return ref === undefined
      ? Effect.flatMap(restore(leases.granted), () => acquireRef(leases, restore))
      : Effect.succeed(ref)
  })
