import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber } from "effect"
import { Lock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { eventually } from "../support/eventually.ts"
import { failureOf } from "../support/exits.ts"
import * as Proxy from "../support/Proxy.ts"
import * as World from "../support/World.ts"

describe.concurrent(`an etcd that stops (${cite("P1")})`, () => {
  it.live("and the body is interrupted before etcd could give the lock to anybody else", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const world = yield* World.make({ endpoint: server.endpoint })
      const a = yield* world.process({ ttl: "3 seconds", requestTimeout: "2 seconds" })
      const b = yield* world.process({ ttl: "3 seconds" })
      const holding = yield* Deferred.make<bigint>()
      const fiber = yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job")
        yield* Deferred.succeed(holding, lock.fencingToken)
        return yield* lock.whileHeld(Effect.never)
      })).pipe(a.run, Effect.forkChild)
      const token = yield* Deferred.await(holding)
      // long enough for a renewal, so that the loss counts from it and not from the grant
      yield* Effect.sleep(1500)
      const paused = performance.now()
      yield* server.pause
      // the scope's own release cannot reach etcd, so the loss is what the body sees
      const waiting = yield* Effect.forkChild(b.run(Lock.withLock(Effect.sync(() => performance.now()), "job")))
      const exit = yield* Fiber.await(fiber)
      const lost = performance.now()
      yield* server.resume
      const { cause, ...loss } = failureOf(exit) as Lock.LockLost
      assert.include(loss, { _tag: "LockLost", reason: "LeaseExpired", fencingToken: token })
      // what happened: with a margin of 300 ms etcd was silent for the rest of the TTL
      assert.deepStrictEqual([cause?.reason, cause?.cause?.method], ["Expired", "leaseKeepAlive"])
      assert.isAtLeast(Duration.toMillis(cause!.unacknowledgedFor!), 2700)
      // the release may take one request timeout on top of what was left of the lease
      assert.isBelow(lost - paused, 3000 + 2000)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Fiber.join(waiting))))
    }), 30_000)

  it.live(
    "and the loss comes before the server's own expiry, counted from the last renewal",
    () =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const world = yield* World.make({ endpoint: server.endpoint })
        const a = yield* world.process({ ttl: "3 seconds", requestTimeout: "2 seconds" })
        yield* a.run(Effect.scoped(Effect.gen(function*() {
          const lock = yield* Lock.acquire("job")
          yield* Effect.sleep(1500)
          const paused = performance.now()
          yield* server.pause
          const left = Duration.toMillis(yield* lock.remaining)
          yield* Effect.flip(lock.awaitLoss)
          const lost = performance.now() - paused
          assert.isBelow(lost, 3000)
          assert.isAtMost(left, 2700)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(lock.check)))
          yield* server.resume
        })))
      }),
    30_000
  )

  it.live("and starts again: who held the lock goes on holding it", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const world = yield* World.make({ endpoint: server.endpoint })
      const [a, b] = yield* Effect.all([world.process({ ttl: "30 seconds" }), world.process({ ttl: "30 seconds" })])
      const holding = yield* Deferred.make<Lock.Handle>()
      const release = yield* Deferred.make<void>()
      const holder = yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("job")
        yield* Deferred.succeed(holding, lock)
        yield* lock.whileHeld(Deferred.await(release))
      })).pipe(a.run, Effect.forkChild)
      yield* Deferred.await(holding)
      const waiting = yield* Effect.forkChild(b.run(Lock.withLock(Effect.void, "job")))
      yield* world.untilLine("job", 2)
      yield* server.kill
      yield* Effect.sleep(500)
      yield* server.restart
      yield* Effect.sleep(1000)
      assert.isUndefined(waiting.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(holder)
      yield* Fiber.join(waiting)
    }), 60_000)
})

const disturbances = {
  "drops the replies": (proxy: Proxy.Proxy) => proxy.dropReplies,
  "stalls": (proxy: Proxy.Proxy) => proxy.stall,
  "cuts the connections": (proxy: Proxy.Proxy) => proxy.cut,
  "cuts and refuses connections": (proxy: Proxy.Proxy) => Effect.andThen(proxy.refuse, proxy.cut)
}

const calm = (proxy: Proxy.Proxy) => Effect.andThen(proxy.resume, proxy.accept)

// All of them at once, since each sleeps most of its time.
describe.concurrent("a network that", () => {
  for (const [what, disturb] of Object.entries(disturbances)) {
    // shorter and longer than what a request is repeated for
    const runs = [
      ["for a moment", 300, "queue"],
      ["for longer than requests last", 2500, "queue"],
      ["for longer than requests last", 2500, "single-key"]
    ] as const
    for (const [how, lasting, layout] of runs) {
      const scenario = Effect.gen(function*() {
        const world = yield* World.make()
        const proxy = yield* Proxy.make(world.endpoint)
        const a = yield* world.process({ ttl: "4 seconds", requestTimeout: 1500, endpoint: proxy.endpoint })
        const b = yield* world.process({ ttl: "4 seconds" })
        const tokens: Array<bigint> = []
        let inside = 0
        let violations = 0
        const body = (lock: Lock.Handle) =>
          lock.whileHeld(Effect.acquireUseRelease(
            Effect.sync(() => {
              if (++inside > 1) violations++
              tokens.push(lock.fencingToken)
            }),
            () => Effect.sleep(20),
            () => Effect.sync(() => inside--)
          ))
        const enter = Effect.scoped(Effect.flatMap(Lock.acquire("job", { layout }), body))
        const during = <A, E>(effect: Effect.Effect<A, E>, survivors = [a, b]) =>
          Effect.gen(function*() {
            yield* disturb(proxy)
            const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
            const others = yield* Effect.forkChild(Effect.exit(b.run(enter)), { startImmediately: true })
            yield* Effect.sleep(lasting)
            yield* calm(proxy)
            yield* Fiber.join(fiber)
            yield* Fiber.join(others)
            // afterwards the lock can be had from both sides
            yield* Effect.forEach(survivors, (process) => eventually(process.run(enter), 8000))
            const { holder, queue } = yield* b.run(Lock.inspect("job", { layout }))
            assert.deepStrictEqual([holder, ...queue], [undefined])
          })
        // the grant, and the join after it
        yield* during(a.run(enter))
        // the join alone
        yield* during(a.run(enter))
        // the join, hand-overs and leaves of several fibers
        yield* during(a.run(Effect.all([enter, enter, enter], { concurrency: "unbounded" })))
        // the leave, or the hand-over if somebody waits
        for (const waiters of [0, 1]) {
          yield* a.run(Effect.scoped(Effect.gen(function*() {
            // A busy machine may need more than one request's time to connect again.
            const lock = yield* Effect.retry(Lock.acquire("job", { layout }), { times: 3 })
            const waiting = yield* Effect.forkChild(
              Effect.forEach(Array.from({ length: waiters }), () => Effect.exit(enter)),
              { startImmediately: true }
            )
            yield* during(Effect.andThen(lock.release, Fiber.join(waiting)))
          })))
        }
        // the revoke
        yield* during(a.close, [b])
        assert.strictEqual(violations, 0)
        assert.deepStrictEqual(tokens, [...tokens].sort((x, y) => x < y ? -1 : 1))
        assert.strictEqual(new Set(tokens).size, tokens.length)
      })
      it.live(`${what} ${how} never gives a ${layout} two holders, and leaves nothing`, () => scenario, 90_000)
    }
  }
})
