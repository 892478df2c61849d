/**
 * Three cashiers move money between accounts in etcd. Each transfer takes the locks of both accounts at once, whichever way
 * the money goes, and one cashier loses a lock in the middle.
 *
 *   npm run example -- examples/transfer.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

const accounts = ["anna", "ben", "cleo"]

const keyOf = (account: string) => `transfer/balance/${account}`

const balanceOf = Effect.fnUntraced(function*(account: string) {
  const etcd = yield* Etcd.Etcd
  const { kvs: [kv] } = yield* etcd.range(Etcd.get(keyOf(account)))
  return kv === undefined ? 100 : Number(Buffer.from(kv.value).toString())
})

// -----------------------------------------------------------------------------
// a transfer: two balances that are read, and written in one transaction
// -----------------------------------------------------------------------------

const transfer = (who: string, amount: number, from: string, to: string, pause: Effect.Effect<unknown> = Effect.void) =>
  Effect.gen(function*() {
    const locks = yield* Lock.Current
    const balances = { from: yield* balanceOf(from), to: yield* balanceOf(to) }
    yield* pause
    // etcd applies it only if both locks are still owned.
    yield* locks.txn({
      then: [
        Etcd.put(keyOf(from), String(balances.from - amount)),
        Etcd.put(keyOf(to), String(balances.to + amount))
      ]
    })
    yield* say(who, `moves ${amount} from ${from} to ${to}`)
  }).pipe(
    // No order of the names can make two transfers wait for each other.
    Lock.withLocks([Lock.name`transfer/${from}`, Lock.name`transfer/${to}`], { timeout: "15 seconds" }),
    Effect.catchTag("LockLost", ({ reason }) => say(who, `moves nothing from ${from} to ${to}: LockLost, ${reason}`))
  )

const cashier = (who: string, transfers: Effect.Effect<void, Lock.AcquireError, Session.Session | Etcd.Etcd>) =>
  Effect.andThen(transfers, say(who, "is done")).pipe(Effect.provide(Session.layer()))

const around = (who: string, ring: ReadonlyArray<string>) =>
  Effect.forEach(ring, (from, i) => transfer(who, 5, from, ring[(i + 1) % ring.length]!), { discard: true })

/** An operator deletes a lock's key. */
const takeAway = (account: string) =>
  Effect.gen(function*() {
    const name = `transfer/${account}`
    const { holder } = yield* Lock.inspect(name)
    yield* say("Operator", `takes the lock of ${account} away`)
    if (holder !== undefined) yield* Lock.forceRelease(name, holder)
    // Its holder is notified within a moment.
    yield* Effect.sleep("2 seconds")
  })

const program = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  const late = Effect.provideService(Effect.orDie(takeAway("ben")), Etcd.Etcd, etcd)
  yield* cashier("Dora", transfer("Dora", 50, "anna", "ben", late))
  yield* Effect.all([
    cashier("Ada", around("Ada", accounts)),
    cashier("Bob", around("Bob", accounts.toReversed())),
    cashier("Eve", around("Eve", accounts))
  ], { concurrency: "unbounded" })
  const balances = yield* Effect.forEach(accounts, balanceOf)
  yield* say("Bank", `has ${balances.join(" + ")} = ${balances.reduce((sum, balance) => sum + balance, 0)}`)
  yield* etcd.txn({ then: accounts.map((account) => Etcd.remove(keyOf(account))) })
})

program.pipe(Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
