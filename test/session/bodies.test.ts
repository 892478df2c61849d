import { assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import { Bodies } from "../../src/internal/supervise.ts"
import { fork } from "../support/inMemory.ts"

/** How often a map is asked, or a set walked by one step, while `run` runs. */
const steps = (run: () => void) => {
  let count = 0
  const counting = (of: any, name: string) => {
    const original = of[name]
    return vi.spyOn(of, name).mockImplementation(function(this: unknown, ...args: Array<unknown>) {
      count++
      return original.apply(this, args)
    })
  }
  const spies = [
    ...["get", "has", "set", "delete"].map((name) => counting(Map.prototype, name)),
    counting(Object.getPrototypeOf(new Set().values()), "next")
  ]
  run()
  for (const spy of spies) spy.mockRestore()
  return count
}

describe("bodies", () => {
  it("that end one after the other cost each as much, however many there are", () => {
    const ending = (many: number) => {
      const bodies = new Bodies()
      const owners = Array.from({ length: many }, (_, i) => ({ key: String(i) }))
      const ended: Array<string> = []
      for (const owner of owners) bodies.start(owner)
      for (const owner of owners) bodies.onEnd(owner, () => ended.push(owner.key))
      const counted = steps(() => owners.forEach((owner) => bodies.end(owner)))
      assert.deepStrictEqual(ended, owners.map(({ key }) => key))
      return counted / many
    }
    assert.isAtMost(ending(1000), ending(10) + 1)
  })

  it("of one owner end with the last of them, and listeners hear it once", () => {
    const bodies = new Bodies()
    const owner = { key: "a" }
    let heard = 0
    bodies.start(owner)
    bodies.start(owner)
    bodies.onEnd(owner, () => heard++)
    bodies.end(owner)
    assert.strictEqual(heard, 0)
    bodies.end(owner)
    assert.strictEqual(heard, 1)
    bodies.start(owner)
    bodies.end(owner)
    assert.strictEqual(heard, 1)
    bodies.onEnd(owner, () => heard++)
    assert.strictEqual(heard, 2)
  })

  it.effect("have all ended when the last of any owner has", () =>
    Effect.gen(function*() {
      const bodies = new Bodies()
      const [a, b] = [{ key: "a" }, { key: "b" }]
      bodies.start(a)
      bodies.start(b)
      const waiting = yield* fork(bodies.ended)
      bodies.end(b)
      yield* Effect.yieldNow
      assert.isUndefined(waiting.pollUnsafe())
      bodies.end(a)
      yield* Effect.yieldNow
      assert.isDefined(waiting.pollUnsafe())
      yield* bodies.ended
    }))
})
