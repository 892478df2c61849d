/** A member whose disk hangs: it keeps its connections, passes renewals on to the leader, and hears of nothing any more. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, Layer, Schedule } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { failureOf } from "../support/exits.ts"
import * as FrozenDisk from "../support/FrozenDisk.ts"

const ask = (endpoint: string, path: string, body: object = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`http://${endpoint}/v3/maintenance/${path}`, {
      method: "POST",
      body: JSON.stringify(body)
    })
    return await response.json() as { readonly leader: string; readonly header: { readonly member_id: string } }
  })

/** Makes another member the leader, if the first one is. */
const demote = ([first, second]: ReadonlyArray<EtcdServer.EtcdServer>) =>
  Effect.gen(function*() {
    const status = yield* ask(first!.endpoint, "status")
    if (status.leader !== status.header.member_id) return true
    const other = yield* ask(second!.endpoint, "status")
    yield* ask(first!.endpoint, "transfer-leadership", { targetID: other.header.member_id })
    return false
  }).pipe(Effect.repeat({ until: (isDone) => isDone, schedule: Schedule.spaced(200) }))

const processOn = Effect.fnUntraced(function*(hosts: ReadonlyArray<string>) {
  const etcd = yield* connect({ hosts })
  const session = yield* Layer.build(Layer.fresh(Session.layer({ ttl: "8 seconds" }))).pipe(
    Effect.provideService(Etcd.Etcd, etcd)
  )
  return { etcd, run: Effect.provide(session) }
})

const isPossible = process.env.ETCD_FROM !== "docker" && FrozenDisk.isAvailable()

describe.skipIf(!isPossible)("a member whose disk hangs", () => {
  it.live("keeps no lock from its clients, and hides no loss from them", () =>
    Effect.gen(function*() {
      const disk = yield* FrozenDisk.start
      const members = yield* EtcdServer.startCluster(3, { firstDataDir: disk.directory })
      yield* Effect.addFinalizer(() => disk.thaw)
      yield* demote(members)
      const [first, ...others] = members.map(({ endpoint }) => endpoint)
      const a = yield* processOn([first!, ...others])
      const b = yield* processOn(others)
      const leave = yield* Latch.make()
      const held = yield* Deferred.make<void>()
      const holding = yield* Effect.forkChild(
        b.run(Lock.withLock(Effect.andThen(Deferred.succeed(held, undefined), leave.await), "waited-for"))
      )
      yield* Deferred.await(held)
      const waiting = yield* Effect.forkChild(a.run(Lock.withLock(Effect.succeed("served"), "waited-for")))
      const deleted = yield* Effect.forkChild(a.run(Lock.withLock(Effect.never, "deleted")))
      const kept = yield* Effect.forkChild(a.run(Lock.withLock(Effect.never, "kept")))
      // All watches are open by then, on the first member.
      yield* Effect.sleep("3 seconds")
      yield* disk.freeze
      yield* Effect.sleep("1 second")
      yield* leave.open
      yield* Fiber.join(holding)
      yield* b.etcd.txn({ then: [Etcd.removePrefix("deleted/")], idempotent: true })
      assert.strictEqual(yield* Effect.timeout(Fiber.join(waiting), "15 seconds"), "served")
      const loss = failureOf(yield* Effect.timeout(Fiber.await(deleted), "15 seconds")) as Lock.LockLost
      assert.deepStrictEqual([loss._tag, loss.reason], ["LockLost", "KeyDeleted"])
      assert.isUndefined(kept.pollUnsafe())
      // The watches are another member's by now.
      yield* b.etcd.txn({ then: [Etcd.removePrefix("kept/")], idempotent: true })
      yield* Effect.timeout(Fiber.await(kept), "15 seconds")
    }).pipe(Effect.scoped))
})
