import { assert, describe, it } from "@effect/vitest"
import { check, type Operation } from "./linearizability.ts"

const acquire = (by: string, call: number, end: number | undefined, token?: bigint): Operation => ({
  kind: "acquire",
  by,
  call,
  return: end,
  token
})
const release = (by: string, call: number, end: number | undefined): Operation => ({
  kind: "release",
  by,
  call,
  return: end
})
const isLinearizable = (...operations: ReadonlyArray<Operation>) => check(operations).isLinearizable

describe("a history of a mutex is linearizable", () => {
  it("when one holds after the other", () => {
    assert.isTrue(isLinearizable(acquire("a", 0, 1), release("a", 2, 3), acquire("b", 4, 5), release("b", 6, 7)))
  })

  it("when waiters come while it is held, in whatever order they are served", () => {
    assert.isTrue(isLinearizable(
      acquire("a", 0, 1),
      acquire("b", 0, 9),
      acquire("c", 0, 6),
      release("a", 4, 5),
      release("c", 7, 8),
      release("b", 10, 11)
    ))
  })

  it("when the next one begins before the release has returned", () => {
    assert.isTrue(isLinearizable(acquire("a", 0, 1), release("a", 2, 9), acquire("b", 3, 4), release("b", 5, 6)))
  })

  it("when an acquire of unknown outcome explains that another waits, or never happened", () => {
    assert.isTrue(isLinearizable(acquire("a", 0, undefined), acquire("b", 1, 2)))
    assert.isTrue(
      isLinearizable(acquire("a", 0, undefined), release("a", 0, undefined), acquire("b", 1, 9), release("b", 10, 11))
    )
  })

  it("when a release of unknown outcome has happened", () => {
    assert.isTrue(isLinearizable(acquire("a", 0, 1), release("a", 2, undefined), acquire("b", 3, 4)))
  })

  it("when tokens grow", () => {
    assert.isTrue(
      isLinearizable(acquire("a", 0, 1, 5n), release("a", 2, 3), acquire("b", 0, 5, 7n), release("b", 6, undefined))
    )
  })

  it("over many thousand turns of many waiters", () => {
    const turns = Array.from({ length: 4000 }, (_, i) => [
      acquire(`c${i}`, Math.max(0, i * 3 - 60), i * 3 + 1, BigInt(i + 1)),
      release(`c${i}`, i * 3 + 2, i % 50 === 0 ? undefined : i * 3 + 2.5)
    ])
    assert.isTrue(isLinearizable(...turns.flat()))
  })
})

describe("a history of a mutex is not linearizable", () => {
  it("when two hold at once", () => {
    const b = acquire("b", 2, 3)
    const answer = check([acquire("a", 0, 1), b, release("a", 4, 5), release("b", 6, 7)])
    assert.deepStrictEqual(answer, { isLinearizable: false, operation: b })
  })

  it("when two hold at once, though one release is of unknown outcome", () => {
    assert.isFalse(isLinearizable(acquire("a", 0, 1), acquire("b", 2, 3), release("a", 4, undefined)))
  })

  it("when the holder has never released", () => {
    assert.isFalse(isLinearizable(acquire("a", 0, 1), acquire("b", 2, 3)))
  })

  it("when one releases that does not hold", () => {
    assert.isFalse(isLinearizable(acquire("a", 0, 1), release("b", 2, 3)))
    assert.isFalse(isLinearizable(acquire("a", 0, 1), release("a", 2, 3), release("a", 4, 5)))
  })

  it("when a token does not grow", () => {
    assert.isFalse(isLinearizable(acquire("a", 0, 1, 7n), release("a", 2, 3), acquire("b", 4, 5, 7n)))
    assert.isFalse(isLinearizable(acquire("a", 0, 1, 7n), release("a", 2, 3), acquire("b", 4, 5, 6n)))
  })
})
