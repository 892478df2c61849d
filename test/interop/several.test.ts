import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Lock } from "effect-etcd-lock"
import { inject } from "vitest"
import { hold } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { etcdctl, go } from "./contenders.ts"
import { need } from "./need.ts"
import * as Tools from "./tools.ts"

describe.runIf(inject("interop"))("several locks at once", () => {
  need(Tools.go("mutex"), Tools.etcdctl)

  it.live("wait for Go's Mutex and etcdctl lock on any of their names, and these wait for them", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const process = yield* world.process()
      const [first, second] = [yield* go(world, "b"), yield* etcdctl(world, "c")]
      const before = [yield* first.held, yield* second.held]
      const ours = yield* hold(process, Lock.acquireAll(["a", "b", "c"]))
      for (const [name, length] of [["a", 1], ["b", 2], ["c", 2]] as const) yield* world.untilLine(name, length)
      yield* first.release
      yield* world.untilLine("b", 1)
      assert.isFalse(yield* ours.isHeld)
      yield* second.release
      const { fencingToken } = yield* ours.held
      for (const { token } of before) assert.isTrue(fencingToken > token)

      const [third, fourth] = [yield* etcdctl(world, "a"), yield* go(world, "c")]
      yield* world.untilLine("a", 2)
      yield* world.untilLine("c", 2)
      yield* ours.release
      for (const { held, release } of [third, fourth]) {
        assert.isTrue((yield* held).token > fencingToken)
        yield* release
      }
    }))
})
