/** What the checks make of an etcd that is restored from a backup, in which the writes since then are not. */
import { assert, describe, it } from "@effect/vitest"
import { check } from "./checks.ts"
import type { Fault, History, Recorded, Restored } from "./history.ts"

/** Backed up at second 10, down at second 15, and back at second 20. */
const restored = (how: Partial<Restored> = {}): Fault => ({
  name: "restored",
  from: 10_000,
  to: 20_000,
  restored: { at: 15_000, leaps: false, isSoon: false, ...how }
})

const held = (by: string, holds: number, stopped: number, token: number): ReadonlyArray<Recorded> => {
  const of = { contender: by, section: `${by}/${holds}` }
  return [
    { _tag: "Wants", at: holds - 10, lock: "lock", ...of },
    { _tag: "Holds", at: holds, token: String(token), createRevision: String(token), key: by, lease: by, ...of },
    { _tag: "Stopped", at: stopped, ...of },
    { _tag: "Ended", at: stopped, released: true, ...of }
  ]
}

const wrote = (by: string, holds: number, at: number): Recorded => ({
  _tag: "Wrote",
  at,
  contender: by,
  section: `${by}/${holds}`,
  counter: "fenced",
  mark: `${by}/${at}`,
  outcome: "Applied",
  revision: "7"
})

const violations = (
  fault: Fault,
  reports: ReadonlyArray<ReadonlyArray<Recorded> | Recorded>,
  { marks = [], value = marks.length }: { readonly marks?: ReadonlyArray<string>; readonly value?: number } = {}
) => {
  const history: History = {
    seed: 1,
    etcd: "etcd",
    ttl: 4000,
    from: 0,
    to: 60_000,
    locks: [{ name: "lock", isQueue: true }],
    contenders: ["a", "b"].map((name, pid) => ({ name, kind: "ours", pid })),
    reports: reports.flat(),
    faults: [fault],
    calms: [],
    end: {
      counted: [{ lock: "lock", counter: "fenced", value, marks }],
      exits: ["a", "b"].map((contender) => ({ contender, code: 0, signal: null, millis: 10 })),
      left: { keys: [], leases: 0 }
    }
  }
  return [...new Set(check(history).violations.map(({ check }) => check))]
}

describe("a history of etcd that was restored", () => {
  const falling = [held("a", 14_000, 14_500, 9), held("b", 21_000, 22_000, 5)]

  it("has tokens that grow from its beginning, and may be smaller than those before", () => {
    assert.deepStrictEqual(violations(restored(), falling), [])
    assert.include(violations(restored(), [...falling, held("a", 23_000, 24_000, 4)]), "tokens grow")
    assert.include(violations(restored(), [held("b", 9000, 9500, 10), ...falling]), "tokens grow")
  })

  it("goes on with the tokens of the one before where revisions have leapt", () => {
    assert.include(violations(restored({ leaps: true }), falling), "tokens grow")
  })

  it("has what was acknowledged before the backup, and may not have what came after", () => {
    const writes = (at: number) => violations(restored(), [held("a", 9000, 14_500, 5), wrote("a", 9000, at)])
    assert.deepStrictEqual(writes(10_001), [])
    assert.deepStrictEqual(writes(9999), ["fenced writes"])
    assert.deepStrictEqual(violations(restored(), [...falling, wrote("b", 21_000, 21_500)]), ["fenced writes"])
  })

  it("may count on from what was lost, where a holder wrote through a restore within the TTL", () => {
    const counted = (how: Partial<Restored>, at: number) =>
      violations(restored(how), [held("a", 14_000, 21_400, 5), wrote("a", 14_000, at)], {
        marks: [`a/${at}`],
        value: 4
      })
    assert.deepStrictEqual(counted({ isSoon: true }, 20_500), [])
    assert.deepStrictEqual(counted({ isSoon: false }, 20_500), ["fenced writes"])
    assert.deepStrictEqual(counted({ isSoon: true }, 14_500), ["fenced writes"])
  })

  it("excuses a holder that it does not know, for as long as that takes to hear of it, where it came within the TTL", () => {
    const beside = (stopped: number, holds = 14_000) => [held("a", holds, stopped, 9), held("b", 21_000, 21_500, 12)]
    assert.deepStrictEqual(violations(restored({ isSoon: true }), beside(21_400)), [])
    assert.include(violations(restored(), beside(21_400)), "one holder")
    assert.include(violations(restored({ isSoon: true }), beside(30_000)), "one holder")
    assert.include(violations(restored({ isSoon: true }), beside(21_400, 16_000)), "one holder")
  })
})
