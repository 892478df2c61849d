import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Option } from "effect"
import { Etcd, ReadWriteLock } from "effect-etcd-lock"
import { inject } from "vitest"
import { hold, holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { go } from "./contenders.ts"
import { need } from "./need.ts"
import * as Peer from "./Peer.ts"
import * as Tools from "./tools.ts"

/** A process with Go's `recipe.RWMutex`. */
const goReadWrite = Effect.fnUntraced(function*(world: World.World, name: string) {
  const peer = yield* Peer.start(yield* Tools.go("rwmutex"), [world.endpoint, world.prefix + name, "2"])
  yield* peer.heard
  const isNext = (answer: string) => Effect.map(peer.heard, (line) => assert.strictEqual(line, answer))
  return {
    ask: (command: "rlock" | "lock" | "runlock" | "unlock") => peer.write(command),
    done: (command: string) => isNext(`done ${command}`),
    close: Effect.andThen(peer.hangUp, peer.ended)
  }
})

describe.runIf(inject("interop"))("a read-write lock", () => {
  need(Tools.go("rwmutex"), Tools.go("mutex"))

  it.live("is shared with readers of Go's RWMutex, and excludes its writers, in one line", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const [reader, writer] = [yield* goReadWrite(world, "job"), yield* goReadWrite(world, "job")]
      yield* reader.ask("rlock")
      yield* reader.done("rlock")
      const first = yield* hold(a, ReadWriteLock.acquireRead("job"))
      yield* first.held
      yield* writer.ask("lock")
      yield* world.untilLine("job", 3)
      const second = yield* hold(b, ReadWriteLock.acquireRead("job"))
      yield* world.untilLine("job", 4)
      assert.isTrue(Option.isNone(yield* a.run(ReadWriteLock.withReadLockIfAvailable(Effect.void, "job"))))

      yield* reader.ask("runlock")
      yield* reader.done("runlock")
      yield* first.release
      yield* writer.done("lock")
      assert.isFalse(yield* second.isHeld)
      yield* writer.ask("unlock")
      yield* writer.done("unlock")
      const { fencingToken } = yield* second.held
      assert.isTrue(fencingToken > (yield* first.held).fencingToken)
      yield* second.release
      yield* reader.close
      yield* writer.close
    }))

  it.live("keeps Go's readers and writers out while our writer holds, and serves them in order", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const [reader, writer] = [yield* goReadWrite(world, "job"), yield* goReadWrite(world, "job")]
      const first = yield* hold(a, ReadWriteLock.acquireWrite("job"))
      yield* first.held
      yield* reader.ask("rlock")
      yield* world.untilLine("job", 2)
      yield* writer.ask("lock")
      yield* world.untilLine("job", 3)
      const last = yield* hold(a, ReadWriteLock.acquireWrite("job"))
      yield* first.release
      yield* reader.done("rlock")
      yield* world.untilLine("job", 3)
      assert.isFalse(yield* last.isHeld)
      yield* reader.ask("runlock")
      yield* reader.done("runlock")
      yield* writer.done("lock")
      yield* writer.ask("unlock")
      yield* writer.done("unlock")
      yield* last.held
      yield* last.release
      yield* reader.close
      yield* writer.close
    }))

  it.live("lets Go's reader in once our writer becomes a reader, and Go's writer once both have left", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const [reader, writer] = [yield* goReadWrite(world, "job"), yield* goReadWrite(world, "job")]
      const downgrading = yield* Deferred.make<void>()
      const becoming = Effect.gen(function*() {
        const writing = yield* ReadWriteLock.acquireWrite("job", { downgradable: true })
        yield* Deferred.await(downgrading)
        return yield* writing.downgrade
      })
      const ours = yield* hold(a, becoming)
      yield* world.untilLine("job", 2)
      yield* reader.ask("rlock")
      yield* world.untilLine("job", 3)
      yield* writer.ask("lock")
      yield* world.untilLine("job", 4)
      yield* Deferred.succeed(downgrading, undefined)
      yield* ours.held
      yield* reader.done("rlock")
      yield* reader.ask("runlock")
      yield* reader.done("runlock")
      yield* world.untilLine("job", 2)
      yield* ours.release
      yield* writer.done("lock")
      yield* writer.ask("unlock")
      yield* writer.done("unlock")
      yield* reader.close
      yield* writer.close
    }))

  it.live("has Go's Mutex and our Lock of the same name among its writers", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const reading = yield* hold(a, ReadWriteLock.acquireRead("job"))
      yield* reading.held
      const mutex = yield* go(world, "job")
      yield* world.untilLine("job", 2)
      const ours = yield* holdIn(b, "job")
      yield* world.untilLine("job", 3)
      const late = yield* hold(a, ReadWriteLock.acquireRead("job"))
      yield* world.untilLine("job", 4)
      yield* reading.release
      yield* mutex.held
      assert.isFalse(yield* ours.isHeld)
      yield* mutex.release
      yield* ours.held
      assert.isFalse(yield* late.isHeld)
      const { holders, queue } = yield* a.run(ReadWriteLock.inspect("job"))
      assert.deepStrictEqual([holders, queue].map((some) => some.map(({ mode }) => mode)), [["write"], ["read"]])
      yield* ours.release
      yield* late.held
      yield* late.release
    }))

  it.live("leaves a line in which a reader's key was deleted by an operator, and Go's writer is next", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const a = yield* world.process()
      const reading = yield* hold(a, ReadWriteLock.acquireRead("job"))
      const { key } = yield* reading.held
      const writer = yield* goReadWrite(world, "job")
      yield* writer.ask("lock")
      yield* world.untilLine("job", 2)
      yield* world.etcd.txn({ then: [Etcd.remove(key)] })
      yield* writer.done("lock")
      yield* writer.ask("unlock")
      yield* writer.done("unlock")
      yield* writer.close
      yield* reading.release
    }))
})
