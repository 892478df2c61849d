import { assert, describe, it } from "@effect/vitest"
import type { Claim } from "./history.ts"
import { check, type Operation } from "./linearizability.ts"

type Call = readonly [call: number, end: number | undefined]

const contender = (claim: Claim) => ({
  acquire: (by: string, ...[call, end, token]: readonly [...Call, token?: bigint]): Operation => ({
    kind: "acquire",
    by,
    claim,
    call,
    return: end,
    token
  }),
  release: (by: string, ...[call, end]: Call): Operation => ({ kind: "release", by, claim, call, return: end })
})

const { acquire, release } = contender({ kind: "lock" })
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

describe("a history of readers and writers", () => {
  const reader = contender({ kind: "read" })
  const writer = contender({ kind: "write" })

  it("is linearizable when readers hold beside each other, whatever their tokens, and writers alone", () => {
    assert.isTrue(isLinearizable(
      reader.acquire("a", 0, 1, 5n),
      reader.acquire("b", 0, 2, 4n),
      reader.release("a", 3, 4),
      reader.release("b", 5, 6),
      writer.acquire("w", 1, 7, 6n),
      writer.release("w", 8, 9),
      reader.acquire("c", 8, 10, 7n)
    ))
  })

  it("is not when a writer holds beside a reader", () => {
    assert.isFalse(isLinearizable(reader.acquire("a", 0, 1), writer.acquire("w", 2, 3), reader.release("a", 4, 5)))
    assert.isFalse(isLinearizable(writer.acquire("w", 0, 1), reader.acquire("a", 2, 3), writer.release("w", 4, 5)))
  })

  it("is not when a reader's token is no greater than that of a writer before, or a writer's than a reader's", () => {
    assert.isFalse(
      isLinearizable(writer.acquire("w", 0, 1, 5n), writer.release("w", 2, 3), reader.acquire("a", 4, 5, 5n))
    )
    assert.isFalse(isLinearizable(
      reader.acquire("a", 0, 1, 6n),
      reader.acquire("b", 0, 1, 4n),
      reader.release("a", 2, 3),
      reader.release("b", 2, 3),
      writer.acquire("w", 4, 5, 5n)
    ))
  })

  it("is checked fast, however many readers there are", () => {
    const turns = Array.from({ length: 2000 }, (_, i) => [
      reader.acquire(`r${i}`, Math.max(0, i - 60), i, BigInt(i)),
      reader.release(`r${i}`, i + 1, i + 60)
    ])
    assert.isTrue(isLinearizable(...turns.flat()))
  })
})

describe("a history of permits", () => {
  const permits = (permits: number) => contender({ kind: "permits", permits, of: 3 })
  const [one, two] = [permits(1), permits(2)]

  it("is linearizable when no more are held than there are", () => {
    assert.isTrue(isLinearizable(
      one.acquire("a", 0, 1, 5n),
      two.acquire("b", 0, 2, 4n),
      two.release("b", 3, 9),
      two.acquire("c", 0, 4, 6n)
    ))
  })

  it("is not when more are held", () => {
    assert.isFalse(isLinearizable(one.acquire("a", 0, 1), one.acquire("b", 0, 1), two.acquire("c", 0, 2)))
  })

  it("is not when a token does not grow among claims that exclude each other", () => {
    assert.isFalse(isLinearizable(two.acquire("a", 0, 1, 5n), two.release("a", 2, 3), two.acquire("b", 4, 5, 4n)))
  })
})
