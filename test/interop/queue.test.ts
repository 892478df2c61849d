import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { inject } from "vitest"
import { failureOf } from "../support/exits.ts"
import { holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { etcdctl, go, goMutex, heldOf, type Kind, ours } from "./contenders.ts"
import { need } from "./need.ts"
import * as Tools from "./tools.ts"

const kinds: Record<string, Kind> = { "etcdctl lock": etcdctl, "Go's mutex": go, ours }

/** Has the contenders stand in one line, in this order, and lets each in turn hold and release. */
const inLine = Effect.fnUntraced(function*(...line: ReadonlyArray<Kind>) {
  const world = yield* World.make()
  const contenders = []
  for (const kind of line) {
    contenders.push(yield* kind(world, "a/job"))
    yield* world.untilLine("a/job", contenders.length)
  }
  const tokens: Array<bigint> = []
  for (const { held, release } of contenders) {
    const [first] = yield* world.line("a/job")
    const { key, token } = yield* held
    assert.strictEqual(key, String(first?.key), "the first in line holds")
    tokens.push(token)
    yield* release
  }
  assert.isTrue(tokens.every((token, i) => i === 0 || tokens[i - 1]! < token), `tokens increase: ${tokens}`)
})

describe.runIf(inject("interop"))("in one line", () => {
  need(Tools.etcdctl, Tools.go("mutex"))

  for (const name of ["etcdctl lock", "Go's mutex"]) {
    it.live(`${name} waits for us, and we for it`, () =>
      Effect.gen(function*() {
        yield* inLine(ours, kinds[name]!)
        yield* inLine(kinds[name]!, ours)
      }))
  }

  it.live("everybody is served in order, with tokens that increase from one to the other", () =>
    inLine(ours, go, etcdctl, ours, go, ours, etcdctl, go, ours))

  it.live("they are served in order also where the line is long", () =>
    inLine(
      go,
      ...Array.from({ length: 12 }, () => ours),
      etcdctl,
      ...Array.from({ length: 12 }, () => ours),
      go,
      ours,
      etcdctl,
      ours
    ))

  it.live("a Go waiter that dies is not taken for a holder that left", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const first = yield* ours(world, "job")
      yield* first.held
      const dying = yield* goMutex(world, "job")
      yield* dying.write("lock")
      yield* world.untilLine("job", 2)
      const last = yield* holdIn(yield* world.process(), "job")
      yield* world.untilLine("job", 3)
      yield* dying.kill
      yield* world.untilLine("job", 2)
      assert.isFalse(yield* last.isHeld)
      yield* first.release
      yield* last.held
      yield* last.release
    }))
})

describe.runIf(inject("interop"))("Go's mutex", () => {
  need(Tools.go("mutex"))

  it.live("refuses our try, and ours refuses its", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const peer = yield* goMutex(world, "job")
      const { key } = heldOf(world)(yield* peer.ask("trylock"))
      const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, "job")))
      assert.instanceOf(refused, Lock.LockHeld)
      assert.strictEqual(refused.holder?.key, key)
      assert.isUndefined(refused.holder?.host)
      assert.strictEqual(refused.holder?.leaseId.toString(16), key.slice("job/".length))
      assert.include(refused.message, `held by lease ${refused.holder?.leaseId.toString(16)}`)
      assert.isTrue(Option.isNone(yield* a.run(Lock.withLockIfAvailable(Effect.void, "job"))))
      const timeout = yield* Effect.flip(a.run(Lock.withLock(Effect.void, "job", { timeout: 200 })))
      assert.strictEqual((timeout as Lock.LockTimeout).holder?.key, key)
      yield* world.untilLine("job", 1)
      assert.strictEqual(yield* peer.ask("owner"), "owner true")
      yield* peer.ask("unlock")

      yield* a.run(Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.tryAcquire("job", { metadata: { team: "blue" } })
        assert.match(yield* peer.ask("trylock"), /^refused: mutex: Locked by another session/)
        yield* world.untilLine("job", 1)
        yield* lock.verify
      })))
      assert.match(yield* peer.ask("trylock"), /^locked /)
      yield* peer.ask("unlock")
      yield* peer.close
    }))

  it.live("is seen holding and waiting", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const [first, second] = [yield* go(world, "job"), yield* goMutex(world, "job")]
      const { key } = yield* first.held
      yield* second.write("lock")
      yield* world.untilLine("job", 2)
      const { conflicts, holder, queue } = yield* a.run(Lock.inspect("job"))
      assert.strictEqual(holder?.key, key)
      assert.isUndefined(holder?.host)
      assert.isAtMost(Duration.toSeconds(holder!.remaining!), 2)
      assert.lengthOf(queue, 1)
      assert.deepStrictEqual(conflicts, [])
      yield* first.release
      assert.strictEqual(heldOf(world)(yield* second.heard).key, queue[0]?.key)
      yield* second.close
    }))

  it.live("that dies leaves the lock to us when its lease has expired", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const peer = yield* goMutex(world, "job")
      const { token } = heldOf(world)(yield* peer.ask("lock"))
      const next = yield* ours(world, "job")
      yield* world.untilLine("job", 2)
      yield* peer.kill
      const [waited, held] = yield* Effect.timed(next.held)
      assert.isAbove(Duration.toMillis(waited), 500)
      assert.isTrue(held.token > token)
      yield* next.release
    }))

  it.live("gets the lock that we lose, and we are told", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const losses = {
        "its key is deleted": (lock: Lock.Handle) => Effect.asVoid(world.etcd.txn({ then: [Etcd.remove(lock.key)] })),
        "its lease is revoked": (lock: Lock.Handle) => world.etcd.leaseRevoke(lock.leaseId)
      }
      for (const [what, lose] of Object.entries(losses)) {
        const holder = yield* holdIn(a, "job")
        const lock = yield* holder.held
        const peer = yield* goMutex(world, "job")
        yield* peer.write("lock")
        yield* world.untilLine("job", 2)
        yield* lose(lock)
        const next = heldOf(world)(yield* peer.heard)
        assert.isTrue(next.token > lock.fencingToken, what)
        const lost = failureOf(yield* Fiber.await(holder.fiber))
        assert.include(lost as Lock.LockLost, { _tag: "LockLost", fencingToken: lock.fencingToken }, what)
        assert.strictEqual(yield* peer.ask("owner"), "owner true")
        yield* peer.ask("unlock")
        yield* peer.close
      }
    }))

  it.live("whose key an operator deletes leaves the lock to us", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const peer = yield* goMutex(world, "job")
      const { token } = heldOf(world)(yield* peer.ask("lock"))
      const next = yield* ours(world, "job")
      yield* world.untilLine("job", 2)
      const { holder } = yield* a.run(Lock.inspect("job"))
      assert.isTrue(yield* a.run(Lock.forceRelease("job", { createRevision: holder!.createRevision })))
      assert.isTrue((yield* next.held).token > token)
      // nobody tells it, but its condition fails
      assert.strictEqual(yield* peer.ask("owner"), "owner false")
      yield* next.release
      yield* peer.close
    }))

  it.live("waits for a lock nested under its name, which we report instead", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const nested = yield* ours(world, "a/b")
      yield* nested.held
      const peer = yield* goMutex(world, "a")
      assert.match(yield* peer.ask("trylock"), /^refused/)
      assert.include((yield* Effect.flip(a.run(Lock.withLock(Effect.void, "a")))) as Lock.LockNameConflict, {
        _tag: "LockNameConflict",
        kind: "NestedLock"
      })
      yield* peer.write("lock")
      yield* world.untilLine("a", 2)
      yield* nested.release
      assert.match(yield* peer.heard, /^locked/)
      // and the other way round nobody is in the way
      yield* a.run(Lock.tryWithLock(Effect.void, "a/b"))
      yield* peer.close
    }))
})
