/**
 * What the recipes need of a session: its leases, its lines in etcd and its queues of
 * fibers in front of them, and the order in which all that ends.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Etcd } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Lease, Options } from "../../Lease.ts"
import type { Session } from "../../Session.ts"
import * as Background from "../background.ts"
import type { LeaseRef } from "../line/entry.ts"
import * as Line from "../line/line.ts"
import * as SingleKey from "../line/singleKey.ts"
import * as Contention from "./contention.ts"
import { validate } from "./lease.ts"
import * as Leases from "./sharedLease.ts"

const TypeId = "~effect-etcd-lock/Session"

/** How the keys of a lock are laid out in etcd. */
export type Layout = "queue" | "single-key"

/** A session as recipes see it. */
export interface SessionImpl {
  readonly [TypeId]: typeof TypeId
  readonly lease: Effect.Effect<Lease, EtcdError, Scope.Scope>
  readonly etcd: Etcd["Service"]
  /** Where callers contend for the locks of one layout. */
  readonly contention: Readonly<Record<Layout, Contention.Mutex>>
}

export const make = Effect.fnUntraced(function*(options: Options | undefined) {
  validate(options)
  const etcd = yield* Etcd
  const clock = yield* Clock.Clock
  const lengths = yield* Line.Lengths
  const scope = yield* Scope.make()
  const background = yield* Scope.provide(Background.make, scope)
  const leases = yield* Leases.make(background, options)
  const queues = Line.make(etcd, clock, background, lengths)
  const singleKeys = SingleKey.make(etcd, clock, background, lengths)
  const contention = {
    queue: Contention.make(etcd, background, leases, queues),
    "single-key": Contention.make(etcd, background, leases, singleKeys)
  }
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      for (const { close } of Object.values(contention)) close()
      // What runs under the locks ends, then the locks.
      yield* Effect.all([queues.end, singleKeys.end, leases.close], { concurrency: "unbounded", discard: true })
      // Nothing opens a watch any more.
      yield* Scope.close(scope, Exit.void)
      queues.close()
      singleKeys.close()
    })
  )
  const session: SessionImpl = {
    [TypeId]: TypeId,
    lease: Effect.map(
      Effect.acquireRelease(acquireRef(leases), ({ release }) => Effect.sync(release), { interruptible: true }),
      ({ lease }) => lease
    ),
    etcd,
    contention
  }
  return session
})

/** What is behind a session that `make` returned. */
export const of = (session: Session["Service"]): SessionImpl => session as SessionImpl

const acquireRef = (leases: Leases.Leases): Effect.Effect<LeaseRef, EtcdError> =>
  Effect.callback((resume) => {
    let isAbandoned = false
    leases.acquireRef((exit) => {
      if (isAbandoned && Exit.isSuccess(exit)) exit.value.release()
      resume(exit)
    })
    return Effect.sync(() => {
      isAbandoned = true
    })
  })
