import { assert, describe, it } from "@effect/vitest"
import { Exit } from "effect"
import { Etcd } from "effect-etcd-lock"
import { type Sight, Watcher } from "../../src/internal/etcd/watcher.ts"

const nothing: Sight = Exit.succeed([])
const ended: Sight = Exit.fail(
  new Etcd.EtcdError({ reason: "Unavailable", method: "watch", outcome: "Unknown", description: "cut" })
)

const watcher = () => {
  const told: Array<Sight> = []
  const cancelled: Array<Watcher> = []
  const watcher = new Watcher((sight) => told.push(sight))
  watcher.source = { cancel: (watcher) => cancelled.push(watcher) }
  return { watcher, told, cancelled }
}

describe("a watcher", () => {
  it("reports nothing after the end, and does not cancel a watch that has ended", () => {
    const { cancelled, told, watcher: one } = watcher()
    one.tell(nothing)
    one.tell(ended)
    one.tell(nothing)
    one.close()
    assert.deepStrictEqual(told, [nothing, ended])
    assert.deepStrictEqual(cancelled, [])
  })

  it("reports nothing after it was closed, and cancels its watch once", () => {
    const { cancelled, told, watcher: one } = watcher()
    one.close()
    one.close()
    one.tell(nothing)
    one.tell(ended)
    assert.deepStrictEqual(told, [])
    assert.deepStrictEqual(cancelled, [one])
  })
})
