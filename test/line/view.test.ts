/** What follows from each answer and each event, without etcd and without fibers. */
import { assert, describe, it } from "@effect/vitest"
import { admits, type Discipline, mutex } from "../../src/internal/line/discipline.ts"
import { type EntryKey, idOf } from "../../src/internal/line/entryKey.ts"
import { queue } from "../../src/internal/line/layout.ts"
import { follow, onDelete, type Place, settle, unplaced } from "../../src/internal/line/view.ts"

const entry = (name: string, createRevision: bigint, lease = 7n): EntryKey => ({
  key: Buffer.from(`job/${name}`),
  value: new Uint8Array(),
  lease,
  createRevision
})

const a = entry("a", 3n)
const b = entry("b", 5n)
const own = entry("own", 9n)

const ids = (entries: ReadonlyArray<EntryKey>) => entries.map(idOf)

/** Two may hold side by side. */
const pair: Discipline = {
  walk: () => {
    let before = 0
    return () => before++ < 2
  },
  guards: (ahead) => ahead.length < 2 ? undefined : ahead.slice(0, 2),
  guardsAmong: 2
}

const job = { prefix: "job/", layout: queue, discipline: mutex }
const pairs = { ...job, discipline: pair }

const complete = (ahead: ReadonlyArray<EntryKey>): Place => ({
  _tag: "Complete",
  ahead: new Map(ahead.map((kv) => [idOf(kv), kv]))
})

const guarded = (guards: ReadonlyArray<EntryKey>): Place => ({
  _tag: "Guarded",
  guards: new Map(guards.map((kv) => [idOf(kv), kv])),
  seenAt: 10n
})

describe("a discipline", () => {
  it("admits from the head of the line, and none behind one that may not hold", () => {
    assert.isTrue(admits(mutex, [], own))
    assert.isFalse(admits(mutex, [a], own))
    assert.isTrue(admits(pair, [a], own))
    assert.isFalse(admits(pair, [a, b], own))
  })
})

describe("all that is ahead", () => {
  it("is the turn, at the read's revision, when nothing is", () => {
    assert.deepStrictEqual(settle(job, own, [], 20n, undefined), { _tag: "Turn", revision: 20n })
  })

  it("is waited for in its order", () => {
    const step = settle(job, own, [a, b], 20n, undefined)
    assert.deepStrictEqual(step, { _tag: "Wait", place: complete([a, b]) } as never)
  })

  it("leaves out what the watch has reported deleted, whose revision is the token if that was the last", () => {
    const deletes = new Map([[idOf(a), 21n], [idOf(b), 22n]])
    assert.deepStrictEqual(settle(job, own, [a, b], 20n, deletes), { _tag: "Turn", revision: 22n })
    const one = settle(job, own, [a, b], 20n, new Map([[idOf(a), 21n]]))
    assert.deepStrictEqual(one, { _tag: "Wait", place: complete([b]) } as never)
  })

  it("is not shortened by the end of an earlier entry of the same key", () => {
    const step = settle(job, own, [b], 20n, new Map([[idOf(b), 4n]]))
    assert.deepStrictEqual(step, { _tag: "Wait", place: complete([b]) } as never)
  })

  it("names a key that is no entry, and would be waited for in vain", () => {
    const plain = entry("plain", 4n, 0n)
    assert.deepStrictEqual(settle(job, own, [a, plain], 20n, undefined), {
      _tag: "Foreign",
      kv: plain
    })
  })
})

describe("what is nearest ahead", () => {
  it("guards the entry, and is not its turn, since more may be before it", () => {
    const step = follow(job, own, [b], false, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: { ...guarded([b]), seenAt: 20n } } as never)
  })

  it("is the turn, at the read's revision, when nothing is", () => {
    assert.deepStrictEqual(follow(job, own, [], true, 20n), { _tag: "Turn", revision: 20n })
    assert.deepStrictEqual(follow(pairs, own, [a], true, 20n), { _tag: "Turn", revision: 20n })
  })

  it("is no turn when it may not be all that is ahead", () => {
    assert.deepStrictEqual(follow(job, own, [], false, 20n), { _tag: "Look" })
    assert.deepStrictEqual(follow(pairs, own, [b], false, 20n), { _tag: "Look" })
  })

  it("are as many guards as the discipline asks for", () => {
    const step = follow(pairs, own, [b, a], false, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: { ...guarded([b, a]), seenAt: 20n } } as never)
  })

  it("names a key that is no entry", () => {
    const deeper = entry("x/y", 4n)
    assert.deepStrictEqual(follow(job, own, [deeper], false, 20n), { _tag: "Foreign", kv: deeper })
  })
})

describe("a delete", () => {
  const deleted = (kv: EntryKey, revision: bigint) => ({ id: idOf(kv), revision })

  it("of the last entry in the way is the turn, at its revision", () => {
    const place = complete([a, b])
    assert.isUndefined(onDelete(job, own, place, deleted(a, 21n), true))
    assert.deepStrictEqual(onDelete(job, own, place, deleted(b, 22n), true), { _tag: "Turn", revision: 22n })
  })

  it("of one of several is the turn of an entry that may hold beside the others", () => {
    const step = onDelete(pairs, own, complete([a, b]), deleted(a, 21n), true)
    assert.deepStrictEqual(step, { _tag: "Turn", revision: 21n })
  })

  it("that is older than the entry, or of another key, changes nothing", () => {
    const place = complete([b])
    assert.isUndefined(onDelete(job, own, place, deleted(b, 4n), true))
    assert.isUndefined(onDelete(job, own, place, deleted(a, 21n), true))
    assert.deepStrictEqual(place._tag === "Complete" && ids([...place.ahead.values()]), ids([b]))
  })

  it("which the watch of one key reports is never a turn, since it does not tell of one's own in the same revision", () => {
    assert.isUndefined(onDelete(job, own, complete([b]), deleted(b, 21n), false))
  })

  for (const isWhole of [true, false]) {
    it(`of a guard makes the entry look, and is no turn (watch of the ${isWhole ? "line" : "key"})`, () => {
      assert.deepStrictEqual(onDelete(job, own, guarded([b]), deleted(b, 21n), isWhole), { _tag: "Look" })
      assert.isUndefined(onDelete(job, own, guarded([b]), deleted(b, 4n), isWhole))
      assert.isUndefined(onDelete(job, own, guarded([b]), deleted(a, 21n), isWhole))
    })
  }

  it("says nothing while what is ahead is being read", () => {
    assert.isUndefined(onDelete(job, own, unplaced, deleted(a, 21n), true))
  })
})
