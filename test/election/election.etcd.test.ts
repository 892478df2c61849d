/** What observers are told, and what a leader costs. On a real etcd. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Option, Stream } from "effect"
import { Election, Etcd, type Lease, type Lock } from "effect-etcd-lock"
import { isThere, startEtcd } from "../bench/stores.ts"
import { cite } from "../promises.ts"
import { connect } from "../support/connect.ts"
import { eventually } from "../support/eventually.ts"
import { failureOf } from "../support/exits.ts"
import { hold } from "../support/holdIn.ts"
import { noted } from "../support/noted.ts"
import * as Proxy from "../support/Proxy.ts"
import * as World from "../support/World.ts"

/** Observes the election `job`, and waits until it has been told who leads. */
const observe = Effect.fnUntraced(function*(etcd: Etcd.Etcd["Service"]) {
  const seen: Array<string | undefined> = []
  const told = yield* Latch.make()
  const fiber = yield* Effect.forkScoped(
    Stream.runForEach(Stream.provideService(Election.observe("job"), Etcd.Etcd, etcd), (leader) => {
      seen.push(Option.getOrUndefined(leader)?.value)
      return told.open
    })
  )
  yield* told.await
  return { seen, fiber }
})

const campaign = (value: string) => Election.campaign("job", { value })

/** An etcd that no other test asks for anything. */
const etcdAlone = startEtcd(isThere("tmpfs") ? "tmpfs" : "disk")

describe.concurrent("an observer", () => {
  it.live("names nobody who came and went while it heard nothing (the schedule of etcd-io/etcd#18163)", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const network = yield* Proxy.make(world.endpoint)
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const { seen } = yield* observe(yield* connect({ hosts: network.endpoint, prefix: world.prefix }))
      assert.deepStrictEqual(seen, [undefined])

      yield* network.stall
      const one = yield* hold(a, campaign("one"))
      yield* one.held
      const two = yield* hold(b, campaign("two"))
      yield* world.untilLine("job", 2)
      yield* one.release
      yield* two.held
      yield* network.resume
      yield* eventually(Effect.sync(() => assert.strictEqual(seen.at(-1), "two")))
      assert.deepStrictEqual(seen, [undefined, "two"])

      yield* network.stall
      const three = yield* hold(a, campaign("three"))
      yield* two.release
      yield* three.held
      yield* three.release
      yield* network.resume
      yield* eventually(Effect.sync(() => assert.strictEqual(seen.at(-1), undefined)))
      assert.deepStrictEqual(seen, [undefined, "two", undefined])
    }))

  it.live("sees a thousand proclamations in order, and the last one always", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const process = yield* world.process()
      const candidate = yield* hold(process, campaign("0"))
      const { proclaim } = yield* candidate.held
      const { seen } = yield* observe(yield* connect({ prefix: world.prefix }))
      for (let i = 1; i <= 1000; i++) yield* proclaim(String(i))
      yield* eventually(Effect.sync(() => assert.strictEqual(seen.at(-1), "1000")))
      const numbers = seen.map(Number)
      assert.deepStrictEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b))
      assert.isAbove(numbers.length, 2)
    }))
})

describe.concurrent(`a candidate that has lost its place (${cite("P1")})`, () => {
  /** Two candidates, of which the second one is cut off while its lease is revoked and the first one resigns. */
  const losePlace = Effect.fnUntraced(function*<A, E>(
    world: World.World,
    stand: (process: World.Process) => Effect.Effect<A, E>
  ) {
    const network = yield* Proxy.make(world.endpoint)
    const [a, b] = yield* Effect.all([world.process(), world.process({ endpoint: network.endpoint })])
    const first = yield* hold(a, campaign("first"))
    yield* first.held
    const waiting = yield* Effect.forkChild(stand(b))
    yield* world.untilLine("job", 2)
    // Its watch stands, which etcd does not show.
    yield* Effect.sleep(300)
    yield* network.stall
    const { createRevision, lease } = (yield* world.line("job"))[1]!
    yield* world.etcd.leaseRevoke(lease)
    yield* first.release
    yield* world.untilLine("job", 0)
    yield* network.resume
    return { waiting, lostAt: createRevision }
  })

  it.live("does not lead when its turn would come", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      let led = false
      const leading = Election.withLeadership(Effect.sync(() => (led = true)), "job")
      const { waiting } = yield* losePlace(world, ({ run }) => run(leading))
      const exit = yield* Fiber.await(waiting)
      assert.include(failureOf(exit) as Lock.LockLost, { _tag: "LockLost", fencingToken: undefined })
      assert.isFalse(led)
    }))

  it.live("stands again, and leads with a new one", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const terms: Array<bigint> = []
      const leading = Effect.gen(function*() {
        const { createRevision, verify } = yield* Election.Current
        terms.push(createRevision)
        yield* verify
      }).pipe(Election.whileLeader("job"))
      const { lostAt, waiting } = yield* losePlace(world, ({ run }) => run(leading))
      yield* Fiber.join(waiting)
      assert.lengthOf(terms, 1)
      assert.isTrue(terms[0]! > lostAt)
    }))
})

describe("a leader", () => {
  /** One that has asked for what it needs, and what it asks for from then on. */
  const lead = Effect.fnUntraced(function*(world: World.World, ttl: Lease.Options["ttl"]) {
    const requests: Array<string> = []
    const process = yield* world.process({ ttl, through: (etcd) => noted(etcd, requests) })
    const leadership = yield* (yield* hold(process, campaign("one"))).held
    yield* Effect.sleep("3 seconds")
    requests.length = 0
    return { leadership, requests }
  })

  it.live("that does nothing costs etcd one heartbeat for each third of its TTL, and writes nothing", () =>
    Effect.gen(function*() {
      const { endpoint, meter } = yield* etcdAlone
      const world = yield* World.make({ endpoint })
      const { leadership, requests } = yield* lead(world, "6 seconds")
      const before = yield* meter
      const [passed] = yield* Effect.timed(Effect.sleep("12 seconds"))
      const after = yield* meter
      const renewals = Duration.toSeconds(passed) / 2 + 1
      assert.sameMembers([...new Set(requests)], ["leaseKeepAlive", "leaseTimeToLive", "txn"])
      assert.isAtMost(requests.length, 3 * renewals)
      assert.isAtMost(after.renewals! - before.renewals!, renewals)
      for (const what of ["commits", "writes", "watchRequests", "watches"] as const) {
        assert.strictEqual(after[what], before[what], what)
      }
      yield* leadership.verify
    }))

  it.live("is not asked for anything by a thousand observers of it", () =>
    Effect.gen(function*() {
      const { endpoint, meter } = yield* etcdAlone
      const world = yield* World.make({ endpoint })
      const { leadership, requests } = yield* lead(world, "600 seconds")
      const before = yield* meter
      const client = yield* connect({ hosts: endpoint, prefix: world.prefix })
      const observers = yield* Effect.forEach(Array.from({ length: 1000 }), () => observe(client), {
        concurrency: "unbounded"
      })
      // A stream that a busy machine has cut is opened again.
      const observed = yield* eventually(
        Effect.tap(meter, ({ watches }) => Effect.sync(() => assert.strictEqual(watches! - before.watches!, 1000))),
        20_000
      )
      assert.deepStrictEqual([observed.commits, observed.writes], [before.commits, before.writes])
      assert.deepStrictEqual(requests, [])
      yield* leadership.proclaim("two")
      for (const { seen } of observers) {
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(seen, ["one", "two"])), 20_000)
      }
      assert.deepStrictEqual(requests, ["txn"])
      yield* Effect.forEach(observers, ({ fiber }) => Fiber.interrupt(fiber), { concurrency: "unbounded" })
      yield* eventually(Effect.map(meter, ({ watches }) => assert.strictEqual(watches, before.watches)))
    }))
})
