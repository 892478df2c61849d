/** What those say who want something of an etcd that cannot be reached. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Layer, Logger } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { heap, keeping } from "../support/heap.ts"
import { fork, pass, provideMemory, seconds, session, sessionThrough, stop } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

const candidates = {
  whileLeader: Election.whileLeader(Effect.never, "job"),
  layer: Layer.launch(Election.layer("job", Layer.empty))
}

const lock = Lock.withLock(Effect.never, "job")
const singleKey = Lock.withLock(Effect.never, "job", { layout: "single-key" })

/** Those that want something of etcd for an hour, and what another process has meanwhile. */
const lasting = {
  "a holder": { ttl: "2 hours", caller: lock, another: undefined },
  "a waiter": { ttl: "2 hours", caller: lock, another: lock },
  "a waiter for a single key": { ttl: "2 hours", caller: singleKey, another: singleKey },
  "a candidate of Election.whileLeader": { ttl: "30 seconds", caller: candidates.whileLeader, another: undefined }
} as const

/** A process that holds three locks, and another that waits for them. */
const holdersAndWaiters = (layout: "queue" | "single-key", ttl: Duration.Input) =>
  Effect.gen(function*() {
    const names = ["one", "two", "three"]
    const take = (name: string) => fork(Lock.withLock(Effect.never, name, { layout }))
    const [a, b] = yield* Effect.all([session({ ttl }), session({ ttl })])
    const held = yield* Effect.forEach(names, (name) => a.run(take(name)))
    yield* pass("1 second")
    const waiting = yield* Effect.forEach(names, (name) => b.run(take(name)))
    yield* pass("1 second")
    return [...held, ...waiting]
  })

describe("an etcd that cannot be reached", () => {
  for (const timeout of ["10 millis", "2 seconds", "4 seconds"] as const) {
    it.effect(`is what a wait of ${timeout} fails with, and why`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        yield* faults.unreachable
        const waiting = yield* fork(run(Lock.withLock(Effect.void, "job", { timeout })))
        yield* Effect.repeat(pass("500 millis"), { times: 10 })
        const error = failureOf(waiting.pollUnsafe()) as Etcd.EtcdError
        assert.include(error, { _tag: "EtcdError", reason: "Unavailable" })
        assert.include(error.message, "time to wait for lock 'job' is up: No connection established")
      })))
  }

  it.effect("is not to blame for a silence that came later", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      yield* faults.unreachable
      const waiting = yield* fork(run(Lock.withLock(Effect.void, "job", { timeout: "3 seconds" })))
      yield* pass("1 second")
      yield* faults.reachable
      yield* faults.stall
      yield* Effect.repeat(pass("500 millis"), { times: 10 })
      assert.include(failureOf(waiting.pollUnsafe()) as Etcd.EtcdError, { _tag: "EtcdError", reason: "Timeout" })
    })))

  for (const [name, candidate] of Object.entries(candidates)) {
    it.effect(`is told of by a candidate of Election.${name}, at once and every minute`, () =>
      Effect.suspend(() => {
        const { logged, logger } = logs()
        return provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const { run } = yield* session()
          yield* faults.unreachable
          const standing = yield* fork(run(candidate))
          yield* seconds(10)
          assert.lengthOf(logged, 1)
          assert.match(logged[0]!, /^This process cannot stand in election 'job': etcd .*: No connection established$/)
          yield* seconds(100)
          assert.lengthOf(logged, 2)
          yield* faults.reachable
          yield* seconds(10)
          assert.isDefined(yield* Election.leader("job"))
          yield* stop(standing)
        })).pipe(Effect.provide(logger))
      }))

    it.effect(`ends no candidate of Election.${name} whose logger throws`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        yield* faults.unreachable
        const standing = yield* fork(run(candidate))
        yield* seconds(10)
        yield* faults.reachable
        yield* seconds(10)
        assert.isUndefined(standing.pollUnsafe())
        assert.strictEqual((yield* Election.leader("job"))._tag, "Some")
        yield* stop(standing)
        yield* pass("1 second")
      })).pipe(Effect.provide(Logger.layer([
        Logger.make(() => {
          throw new Error("no disk")
        })
      ]))))
  }

  for (const layout of ["queue", "single-key"] as const) {
    it.effect(`is told of by each process that has locks of the layout ${layout}, at once and every minute`, () =>
      Effect.suspend(() => {
        const { logged, logger } = logs()
        return provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const callers = yield* holdersAndWaiters(layout, "5 minutes")
          const told = () => logged.filter((line) => line.startsWith("The lines of this session cannot be seen: "))
          yield* faults.unreachable
          yield* seconds(15)
          assert.lengthOf(told(), 2)
          assert.include(told()[0], "failed (Unavailable): ")
          yield* seconds(75)
          assert.lengthOf(told(), 4)
          yield* faults.reachable
          yield* seconds(10)
          yield* Effect.forEach(callers, stop)
          yield* seconds(5)
        })).pipe(Effect.provide(logger))
      }))

    it.effect(`is told of again, with the layout ${layout}, when it comes again within a minute`, () =>
      Effect.suspend(() => {
        const { logged, logger } = logs()
        return provideMemory(Effect.gen(function*() {
          const faults = yield* Etcd.Faults
          const callers = yield* holdersAndWaiters(layout, "5 minutes")
          for (const outages of [1, 2, 3]) {
            yield* faults.unreachable
            yield* faults.cut
            yield* seconds(15)
            const told = logged.filter((line) => line.startsWith("The lines of this session cannot be seen: "))
            assert.lengthOf(told, 2 * outages)
            yield* faults.reachable
            yield* seconds(10)
          }
          yield* Effect.forEach(callers, stop)
          yield* seconds(5)
        })).pipe(Effect.provide(logger))
      }))
  }

  for (const [what, { another, caller, ttl }] of Object.entries(lasting)) {
    it.effect(`leaves nothing in an hour with ${what}`, () =>
      provideMemory(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        let isOut = false
        let attempts = 0
        const unlessOut = <A>(request: Effect.Effect<A, Etcd.EtcdError>) =>
          Effect.withFiber<A, Etcd.EtcdError>(({ context }) => {
            if (!isOut) return request
            attempts++
            return Effect.fail(keeping(context))
          })
        const [other, { run }] = yield* Effect.all([
          session({ ttl }),
          sessionThrough((etcd) => ({
            txn: (request) => unlessOut(etcd.txn(request)),
            range: (range) => unlessOut(etcd.range(range)),
            subscribe: (options, listener) => unlessOut(etcd.subscribe(options, listener)),
            leaseGrant: (id, seconds) => unlessOut(etcd.leaseGrant(id, seconds)),
            leaseKeepAlive: (id, timeout) => unlessOut(etcd.leaseKeepAlive(id, timeout)),
            leaseTimeToLive: (id, options) => unlessOut(etcd.leaseTimeToLive(id, options))
          }), { ttl })
        ])
        if (another !== undefined) yield* fork(other.run(another))
        yield* pass("1 second")
        const lasting = yield* fork(run(caller))
        yield* seconds(5)
        isOut = true
        yield* faults.cut
        yield* Effect.repeat(pass("1 minute"), { times: 4 })
        const before = heap()
        yield* Effect.repeat(pass("1 minute"), { times: 54 })
        assert.isUndefined(lasting.pollUnsafe())
        // An outage that lasts is asked about no more often.
        assert.isAbove(attempts, 1000)
        assert.isBelow(attempts, 50_000)
        assert.isBelow(heap() - before, 3)
        isOut = false
        yield* stop(lasting)
        yield* seconds(5)
      })).pipe(Effect.provide(Logger.layer([]))), 60_000)
  }
})
