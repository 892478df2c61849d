import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, Layer, Scope, Stream } from "effect"
import { Etcd, Lease, Lock, Session } from "effect-etcd-lock"
import * as Auth from "../support/Auth.ts"
import { eventually } from "../support/eventually.ts"
import { defectOf, failureOf } from "../support/exits.ts"

const asAnn = Auth.user("ann", "secret")

describe.concurrent("a user whose role allows one prefix", () => {
  const name = "shop/locks/stock"

  const processOf = (endpoint: string, user: Pick<Etcd.Options, "username" | "password">) =>
    Effect.map(
      Layer.build(
        Session.layer({ ttl: "3 seconds" }).pipe(
          Layer.provideMerge(Etcd.layer({ hosts: endpoint, ...user })),
          Layer.fresh
        )
      ),
      (context) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.provide(self, context)
    )

  // Ann's role has the keys of her application, the other one those of the lock alone.
  for (const [layout, prefix] of [["queue", `${name}/`], ["single-key", name]] as const) {
    it.live(`can do all that there is to a lock (${layout})`, () =>
      Effect.gen(function*() {
        const { endpoint } = yield* Auth.start({
          users: { ann: { password: "secret", prefix: "shop/" }, locker: { password: "secret", prefix } }
        })
        const root = yield* processOf(endpoint, Auth.user("root", "root"))
        const leases: Array<bigint> = []
        yield* Effect.scoped(Effect.gen(function*() {
          const ann = yield* processOf(endpoint, asAnn)
          const locker = yield* processOf(endpoint, Auth.user("locker", "secret"))

          for (const process of [ann, locker]) {
            yield* process(Lock.withLock(Effect.void, name, { layout }))
            yield* process(Lock.tryWithLock(Effect.void, name, { layout }))
            leases.push(yield* process(Effect.scoped(Effect.map(Lock.acquire(name, { layout }), (_) => _.leaseId))))
          }

          // What is held for longer than the TTL is renewed, and what is waited for is watched and handed over.
          for (const [holder, waiter] of [[ann, locker], [locker, ann]] as const) {
            const order: Array<string> = []
            const isHeld = yield* Latch.make()
            const body = Effect.gen(function*() {
              yield* isHeld.open
              yield* Effect.sleep("4 seconds")
              order.push("holder")
            })
            const holding = yield* Effect.forkChild(holder(Lock.withLock(body, name, { layout })))
            yield* isHeld.await
            const held = yield* Effect.flip(waiter(Lock.tryWithLock(Effect.void, name, { layout })))
            assert.strictEqual(held._tag, "LockHeld")
            const freed = yield* Lock.changes(name, { layout }).pipe(
              Stream.filter((line) => line.holder === undefined && line.queue.length === 0),
              Stream.runHead,
              waiter,
              Effect.forkChild
            )
            yield* waiter(Lock.withLock(Effect.sync(() => order.push("waiter")), name, { layout }))
            yield* Fiber.join(holding)
            assert.deepStrictEqual(order, ["holder", "waiter"])
            assert.strictEqual((yield* Fiber.join(freed))._tag, "Some")
          }

          // A fenced write, and a release by an operator.
          yield* Effect.scoped(Effect.gen(function*() {
            const handle = yield* ann(Lock.acquire(name, { layout }))
            yield* handle.verify
            yield* handle.txn({ then: [Etcd.put("shop/stock", "7"), Etcd.get("shop/stock")] })
            const { holder } = yield* locker(Lock.inspect(name, { layout }))
            assert.strictEqual(holder?.createRevision, handle.createRevision)
            assert.isTrue(
              yield* locker(Lock.forceRelease(name, { layout, createRevision: handle.createRevision }))
            )
            assert.strictEqual((yield* Effect.flip(handle.awaitLoss)).reason, "KeyDeleted")
          }))
        }))
        // Their sessions have revoked their leases.
        const etcd = yield* root(Etcd.Etcd)
        assert.lengthOf(new Set(leases), 2)
        for (const lease of leases) assert.strictEqual((yield* etcd.leaseTimeToLive(lease)).remaining, -1)
        assert.strictEqual((yield* etcd.range(Etcd.getPrefix(name))).count, 0)
      }))
  }

  /** Before CVE-2026-33343 was fixed, etcd checked no permission for what is inside of a nested transaction. */
  const checksNested = (version: string) => {
    const [major, minor, patch] = version.split(".").map(Number) as [number, number, number]
    const fixedIn: { readonly [minor: number]: number } = { 4: 42, 5: 28, 6: 9 }
    return major > 3 || minor > 6 || patch >= (fixedIn[minor] ?? Infinity)
  }

  it.live("can do nothing else", () =>
    Effect.gen(function*() {
      const { endpoint, version } = yield* Auth.start({ users: { ann: { password: "secret", prefix: "shop/" } } })
      const ann = yield* processOf(endpoint, asAnn)
      const root = yield* processOf(endpoint, Auth.user("root", "root"))
      const [etcd, all] = yield* Effect.all([ann(Etcd.Etcd), root(Etcd.Etcd)])
      yield* all.txn({ then: [Etcd.put("bank/secret", "42")] })

      const denied: Array<Effect.Effect<unknown, unknown>> = [
        etcd.range(Etcd.get("bank/secret")),
        // A range that begins inside and ends outside.
        etcd.range({ ...Etcd.getPrefix("shop/"), rangeEnd: Buffer.from("\0") }),
        etcd.txn({ then: [Etcd.put("bank/a", "")] }),
        etcd.txn({ compare: [Etcd.compareValue("bank/secret", "=", "42")], then: [] }),
        Effect.scoped(etcd.watch({ key: Buffer.from("bank/secret") }))
      ]
      for (const layout of ["queue", "single-key"] as const) {
        denied.push(
          ann(Lock.withLock(Effect.void, "bank/job", { layout })),
          ann(Lock.tryWithLock(Effect.void, "bank/job", { layout })),
          ann(Lock.inspect("bank/job", { layout })),
          ann(Stream.runHead(Lock.changes("bank/job", { layout }))),
          ann(Lock.forceRelease("bank/job", { layout, createRevision: 1n }))
        )
      }
      for (const [i, call] of denied.entries()) {
        const error = yield* Effect.flip(call)
        assert.instanceOf(error, Etcd.EtcdError, `${i}`)
        assert.deepStrictEqual([error.reason, error.outcome], ["PermissionDenied", "Refused"], `${i}: ${error.message}`)
      }

      // Neither through a lock of its own, whose writes are nested, nor beside another transaction.
      const nested = (inside: string, outside: string) =>
        etcd.txn({ then: [Etcd.put(inside, ""), Etcd.put(outside, "")].map((put) => Etcd.nested({ then: [put] })) })
      const attempts: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>]> = [
        [
          "bank/fenced",
          ann(Effect.scoped(Effect.flatMap(
            Lock.acquire(name),
            (handle) => handle.txn({ then: [Etcd.put("shop/fenced", ""), Etcd.put("bank/fenced", "")] })
          )))
        ],
        ["bank/nested", nested("shop/nested", "bank/nested")]
      ]
      for (const [key, attempt] of attempts) {
        const exit = yield* Effect.exit(attempt)
        const { count: outside } = yield* all.range(Etcd.get(key))
        const { count: inside } = yield* all.range(Etcd.get(key.replace("bank", "shop")))
        if (checksNested(version)) {
          const error = defectOf(exit)
          assert.instanceOf(error, Etcd.EtcdError, key)
          assert.deepStrictEqual([error.reason, error.outcome], ["PermissionDenied", "Refused"], key)
          assert.deepStrictEqual([inside, outside], [0, 0], key)
        } else {
          // The hole is etcd's. Only a newer version closes it.
          assert.isTrue(Exit.isSuccess(exit), key)
          assert.deepStrictEqual([inside, outside], [1, 1], key)
        }
      }
      // Which has done no harm to what is allowed.
      yield* ann(Lock.withLock(Effect.void, name))
    }))

  it.live("keeps its locks under another prefix when it loses that one, whatever it holds there", () =>
    Effect.gen(function*() {
      const { allow, disallow, endpoint } = yield* Auth.start({
        users: { ann: { password: "secret", prefix: "orders/" } }
      })
      yield* allow("ann", "billing/")
      const root = yield* processOf(endpoint, Auth.user("root", "root"))
      const run = yield* processOf(endpoint, asAnn)
      const etcd = yield* root(Etcd.Etcd)
      const isHeld = yield* Latch.make()
      const leave = yield* Latch.make()
      const holding = yield* Effect.forkChild(
        run(Lock.withLock(Effect.andThen(isHeld.open, leave.await), "billing/1"))
      )
      yield* isHeld.await
      const leaseOf = (name: string) => run(Effect.scoped(Effect.map(Lock.acquire(name), ({ leaseId }) => leaseId)))
      const lease = yield* leaseOf("orders/0")
      const ownScope = yield* Scope.fork(yield* Effect.scope)
      const own = yield* run(Lease.make({ ttl: "2 seconds" })).pipe(Scope.provide(ownScope))
      yield* run(Lock.acquire("billing/own", { lease: own })).pipe(Scope.provide(ownScope))
      yield* disallow("ann", "billing/")

      // On etcd, all keys on a lease have to be the user's to write, and the one that is held is not any more.
      const beside = yield* leaseOf("orders/1")
      for (let i = 0; i < 5; i++) {
        const denied = yield* Effect.flip(run(Lock.withLock(Effect.void, "billing/2")))
        assert.include(denied, { reason: "PermissionDenied", outcome: "Refused" })
        assert.include(denied.message, "billing/2/")
      }
      // Old versions do not look at what else is on the lease of a transaction's put.
      const onOwn = yield* Effect.exit(run(Lock.withLock(Effect.void, "orders/own", { lease: own })))
      if (Exit.isFailure(onOwn)) {
        const error = failureOf(onOwn) as Etcd.EtcdError
        assert.include(error, { reason: "PermissionDenied", outcome: "Refused" })
        assert.include(error.message, `a key that is on lease ${own.id.toString(16)} already; use another lease`)
      }
      yield* Scope.close(ownScope, Exit.void)
      // Those that are denied for their own sake cost the session no lease.
      assert.strictEqual(yield* leaseOf("orders/2"), beside)
      const several = yield* run(
        Effect.scoped(Effect.map(Lock.acquireAll(["orders/3", "orders/4"]), (all) => all.leaseId))
      )
      assert.strictEqual(several, beside)

      // It cannot be released, and dies with its lease.
      yield* leave.open
      yield* Fiber.join(holding)
      yield* leaseOf("orders/5")
      yield* eventually(Effect.map(etcd.range(Etcd.getPrefix("billing/")), ({ count }) => assert.strictEqual(count, 0)))
      assert.strictEqual((yield* etcd.leaseTimeToLive(lease)).remaining, -1)
    }))
})
