/**
 * A lock that is held, refused to others, released, and lost on purpose.
 *
 *   npm run demo
 */
import { NodeRuntime } from "@effect/platform-node"
import { Duration, Effect, Fiber, Stream } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

const name = "tutorial/nightly-report"

const work = (who: string, seconds: number) =>
  Effect.gen(function*() {
    yield* say(who, `holds the lock and works for ${seconds} s`)
    yield* Effect.sleep(Duration.seconds(seconds))
    yield* say(who, "has done the work")
  }).pipe(
    Effect.onInterrupt(() => say(who, "is interrupted in the middle of the work"))
  )

/** Takes the lock if it is free, works, and releases the lock. */
const turn = (who: string, seconds: number) =>
  work(who, seconds).pipe(
    Lock.tryWithLock(name, { metadata: { who } }),
    Effect.andThen(say(who, "has released the lock")),
    Effect.catchTags({
      LockHeld: ({ holder }) => say(who, `is refused: the lock is held by ${holder?.metadata?.who}, on ${holder}`),
      LockLost: ({ message, reason }) => say(who, `fails with LockLost, ${reason}: ${message}`)
    })
  )

/** Gives each contender a session, and so a lease, of its own, as if it were a process of its own. */
const contender = <E, R>(who: string, turns: Effect.Effect<void, E, R>) =>
  Effect.gen(function*() {
    const lease = yield* (yield* Session.Session).lease
    yield* say(who, `has a lease of ${Duration.toSeconds(lease.ttl)} s`)
    yield* lease.renewals.pipe(
      Stream.runForEach(() => say(who, "has renewed the lease")),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* turns
    return lease.id
  }).pipe(
    Effect.scoped,
    Effect.provide(Session.layer({ ttl: "5 seconds" })),
    // The session has ended here.
    Effect.flatMap((leaseId) => Etcd.Etcd.use((etcd) => etcd.leaseTimeToLive(leaseId))),
    Effect.flatMap(({ remaining }) => say(who, remaining < 0 ? "has revoked the lease" : "has left the lease behind"))
  )

const deleteKey = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  yield* say("Operator", "deletes the lock's key in etcd")
  yield* etcd.txn({ then: [Etcd.removePrefix(`${name}/`)], idempotent: true })
})

const program = Effect.gen(function*() {
  const anna = yield* Effect.forkChild(contender("Anna", turn("Anna", 4)))
  yield* Effect.sleep("1 second")
  yield* contender("Ben", turn("Ben", 4))
  yield* Fiber.join(anna)

  yield* contender("Ben", turn("Ben", 2))

  const dora = yield* Effect.forkChild(contender("Dora", Effect.andThen(turn("Dora", 60), turn("Dora", 1))))
  yield* Effect.sleep("1 second")
  yield* deleteKey
  yield* Fiber.join(dora)
})

program.pipe(Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
