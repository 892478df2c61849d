import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Lock } from "effect-etcd-lock"
import { Etcd3, EtcdLockFailedError } from "etcd3"
import { inject } from "vitest"
import { failureOf } from "../support/exits.ts"
import { holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { heldOf } from "./contenders.ts"
import { need } from "./need.ts"
import * as Peer from "./Peer.ts"
import * as Tools from "./tools.ts"

const layout = "single-key"

/** The program `go/tutorial.go`, and the first line that it tells. */
const tutorial = Effect.fnUntraced(function*(world: World.World, name: string) {
  const peer = yield* Peer.start(yield* Tools.go("tutorial"), [world.endpoint, world.prefix + name, "somebody"])
  return { ...peer, told: yield* peer.heard, close: Effect.andThen(peer.hangUp, peer.ended) }
})

describe.runIf(inject("interop"))("the tutorial's program", () => {
  need(Tools.go("tutorial"))

  it.live("is refused while we hold, and gets the lock when we have left", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const holder = yield* holdIn(yield* world.process(), "a/job", { layout })
      const { fencingToken } = yield* holder.held
      assert.match((yield* tutorial(world, "a/job")).told, /^held by \{.*"pid":/)
      yield* holder.release
      const peer = yield* tutorial(world, "a/job")
      assert.isTrue(heldOf(world)(peer.told).token > fencingToken)
      yield* peer.close
    }))

  it.live("makes us wait until it has left, or died", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      for (const end of ["close", "kill"] as const) {
        const peer = yield* tutorial(world, "job")
        const { token } = heldOf(world)(peer.told)
        const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, "job", { layout })))
        assert.instanceOf(refused, Lock.LockHeld)
        assert.strictEqual(refused.holder?.key, "job")
        assert.isUndefined(refused.holder?.host)
        const next = yield* holdIn(b, "job", { layout })
        yield* Effect.sleep(200)
        assert.isFalse(yield* next.isHeld)
        yield* peer[end]
        assert.isTrue((yield* next.held).fencingToken > token)
        yield* next.release
      }
    }))

  it.live("gets the lock that we lose, and we are told", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const holder = yield* holdIn(a, "job", { layout })
      const { createRevision } = yield* holder.held
      assert.isTrue(yield* a.run(Lock.forceRelease("job", { layout, createRevision })))
      const peer = yield* tutorial(world, "job")
      assert.isTrue(heldOf(world)(peer.told).token > createRevision)
      assert.include(failureOf(yield* Fiber.await(holder.fiber)) as Lock.LockLost, { reason: "KeyDeleted" })
      // and what we have lost we do not release
      yield* a.run(Effect.flip(Lock.tryWithLock(Effect.void, "job", { layout })))
      yield* peer.close
    }))
})

describe("npm etcd3's lock", () => {
  const clientOf = (world: World.World) =>
    Effect.acquireRelease(
      Effect.sync(() => new Etcd3({ hosts: world.endpoint })),
      (client) => Effect.sync(() => client.close())
    ).pipe(Effect.map((client) => client.namespace(world.prefix)))

  it.live("is refused while we hold, and gets the lock when we have left", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const client = yield* clientOf(world)
      const holder = yield* holdIn(yield* world.process(), "job", { layout })
      yield* holder.held
      const acquire = () => client.lock("job").acquire()
      const refused = yield* Effect.promise(() => acquire().then(() => "got it", (error: unknown) => error))
      assert.instanceOf(refused, EtcdLockFailedError)
      yield* holder.release
      const lock = yield* Effect.promise(acquire)
      yield* Effect.promise(() => lock.release())
    }))

  it.live("makes us wait until it has left, or lost its lease", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const client = yield* clientOf(world)
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const ends = {
        released: (lock: ReturnType<typeof client.lock>) => Effect.promise(() => lock.release()),
        revoked: (lock: ReturnType<typeof client.lock>) =>
          Effect.flatMap(Effect.promise(() => lock.leaseId()), (id) => world.etcd.leaseRevoke(BigInt(id!)))
      }
      for (const end of Object.values(ends)) {
        const lock = client.lock("job").ttl(10)
        yield* Effect.promise(() => lock.acquire())
        const { holder } = yield* a.run(Lock.inspect("job", { layout }))
        assert.strictEqual(String(holder?.leaseId), yield* Effect.promise(() => lock.leaseId()))
        const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, "job", { layout })))
        assert.strictEqual((refused as Lock.LockHeld).holder?.createRevision, holder?.createRevision)
        const next = yield* holdIn(b, "job", { layout })
        yield* Effect.sleep(200)
        assert.isFalse(yield* next.isHeld)
        yield* end(lock)
        assert.isTrue((yield* next.held).fencingToken > holder!.createRevision)
        yield* next.release
      }
    }))
})
