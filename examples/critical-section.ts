/**
 * The ways to write a critical section, and what can happen in each.
 *
 *   npm run example -- examples/critical-section.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { type Duration, Effect, Layer, Option, Ref } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

// -----------------------------------------------------------------------------
// withLock: wait for the turn, run, release
// -----------------------------------------------------------------------------

const account = "critical-section/account"

const deposit = (who: string, balance: Ref.Ref<number>, amount: number, timeout: Duration.Input) =>
  Effect.gen(function*() {
    const before = yield* Ref.get(balance)
    // Without the lock, the others would read the same balance meanwhile.
    yield* Effect.sleep("100 millis")
    yield* Ref.set(balance, before + amount)
    yield* say(who, `deposits ${amount}, which makes ${before + amount}`)
  }).pipe(
    Lock.withLock(account, { timeout, metadata: { who } }),
    Effect.catchTags({
      LockTimeout: ({ holder }) => say(who, `has waited long enough: ${holder?.metadata?.who} holds the lock`),
      LockLost: ({ reason }) => say(who, `has lost the lock (${reason}) and does not know how far it came`),
      LockNameConflict: ({ message }) => say(who, `cannot have a lock of this name: ${message}`),
      EtcdError: ({ message }) => say(who, `cannot reach etcd: ${message}`)
    })
  )

const deposits = Effect.gen(function*() {
  const balance = yield* Ref.make(0)
  yield* Effect.all([
    deposit("Anna", balance, 10, "5 seconds"),
    deposit("Ben", balance, 20, "5 seconds"),
    deposit("Dora", balance, 30, "5 seconds")
  ], { concurrency: "unbounded" })
  const audit = say("Auditor", "takes the lock for longer than Anna waits for it").pipe(
    Effect.andThen(Effect.sleep("1 second")),
    Lock.withLock(account, { metadata: { who: "Auditor" } })
  )
  const late = Effect.delay(deposit("Anna", balance, 40, "200 millis"), "300 millis")
  yield* Effect.all([audit, late], { concurrency: "unbounded" })
  yield* say("Account", `has ${yield* Ref.get(balance)}`)
})

// -----------------------------------------------------------------------------
// withLockIfAvailable: run, or do something else
// -----------------------------------------------------------------------------

const cleanUp = (who: string) =>
  say(who, "cleans up").pipe(
    Effect.andThen(Effect.sleep("100 millis")),
    Lock.withLockIfAvailable("critical-section/clean-up"),
    Effect.flatMap(Option.match({
      onSome: () => say(who, "is done"),
      onNone: () => say(who, "leaves it, since another client cleans up already")
    }))
  )

const cleanUps = Effect.all([cleanUp("Anna"), cleanUp("Ben")], { concurrency: "unbounded" })

// -----------------------------------------------------------------------------
// acquire: a handle, held until the scope closes
// -----------------------------------------------------------------------------

const publisher = "critical-section/publisher"

/** A store outside etcd, such as a table: UPDATE edition SET body = $1, token = $2 WHERE token <= $2 */
const makeStore = Effect.map(Ref.make({ body: "", token: 0n }), (row) => ({
  write: (body: string, token: bigint) =>
    Ref.modify(row, (current) => current.token <= token ? [true, { body, token }] : [false, current])
}))

const publish = (
  who: string,
  store: Effect.Success<typeof makeStore>,
  beforeWriting: Effect.Effect<void, Lock.AcquireError, Etcd.Etcd>
) =>
  Effect.gen(function*() {
    const lock = yield* Lock.acquire(publisher, { metadata: { who } })
    yield* say(who, "holds the lock")
    // A loss interrupts this. But a process that was frozen goes on to write before it can be interrupted.
    yield* lock.whileHeld(say(who, "prepares the edition"))
    yield* beforeWriting

    const accepted = yield* store.write(`${who}'s edition`, lock.fencingToken)
    yield* say(who, accepted ? "writes to the store" : "is refused by the store, which has seen a greater token")

    // etcd applies this only if the lock is still owned. The lease deletes the key when the session ends.
    yield* lock.txn({ then: [Etcd.put("critical-section/edition", who, { lease: lock.leaseId })] })
    yield* say(who, "writes to etcd")
  }).pipe(
    Effect.scoped,
    Effect.catchTag("LockLost", ({ reason }) => say(who, `is refused by etcd: LockLost, ${reason}`)),
    // A session of its own, as if it were another process.
    Effect.provide(Session.layer())
  )

const editions = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  const store = yield* makeStore
  const meanwhile = Effect.gen(function*() {
    yield* say("Operator", "deletes the lock's key in etcd")
    yield* etcd.txn({ then: [Etcd.removePrefix(`${publisher}/`)], idempotent: true })
    yield* publish("Ben", store, Effect.void)
  })
  yield* publish("Anna", store, meanwhile)
})

const program = Effect.gen(function*() {
  yield* deposits
  yield* cleanUps
  yield* editions
})

program.pipe(
  Effect.provide(Layer.provideMerge(Session.layer(), EtcdLive)),
  explained,
  NodeRuntime.runMain
)
