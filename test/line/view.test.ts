/** What follows from each answer and each event, without etcd and without fibers. */
import { assert, describe, it } from "@effect/vitest"
import { admits, type Claim, guards, lock, read, write } from "../../src/internal/line/discipline.ts"
import { type EntryKey, idOf } from "../../src/internal/line/entryKey.ts"
import { queue } from "../../src/internal/line/layout.ts"
import { follow, onDelete, type Place, settle, unplaced } from "../../src/internal/line/view.ts"

const entry = (name: string, createRevision: bigint): EntryKey => ({ key: Buffer.from(`job/${name}`), createRevision })

const a = entry("a", 3n)
const b = entry("b", 5n)

const ids = (entries: ReadonlyArray<EntryKey>) => entries.map(idOf)

/** Two may hold side by side. */
const oneOfTwo: Claim = { ...lock, permits: 1, of: 2 }

const job = { prefix: "job/", layout: queue }
const pairs = { ...job, layout: { ...queue, claimOf: () => oneOfTwo } }

const complete = (ahead: ReadonlyArray<EntryKey>): Place => ({
  _tag: "Complete",
  ahead: new Map(ahead.map((kv) => [idOf(kv), kv]))
})

const guarded = (guards: ReadonlyArray<EntryKey>): Place => ({
  _tag: "Guarded",
  guards: new Map(guards.map((kv) => [idOf(kv), kv])),
  seenAt: 20n
})

describe("a claim", () => {
  const claim = (permits: number, of: number): Claim => ({ kind: "permits", permits, of })

  it("is met while the permits of all entries ahead leave enough", () => {
    assert.isTrue(admits(lock, []))
    assert.isFalse(admits(lock, [lock]))
    assert.isTrue(admits(read, [read, read]))
    assert.isFalse(admits(read, [read, write]))
    assert.isFalse(admits(write, [read]))
    assert.isTrue(admits(claim(3, 4), [claim(1, 4)]))
    assert.isFalse(admits(claim(3, 4), [claim(2, 4)]))
  })

  it("counts the smaller number of permits where two are known", () => {
    assert.isTrue(admits(claim(1, 8), [claim(2, 8)]))
    assert.isFalse(admits(claim(1, 8), [claim(2, 2)]))
  })

  it("is guarded by the nearest entries that cannot all stay, and by no more than that takes", () => {
    const [c, d] = [entry("c", 6n), entry("d", 7n)]
    const permits = new Map([[d, 1], [c, 1], [b, 3], [a, 1]])
    const guardsOf = (own: Claim, ahead: ReadonlyArray<EntryKey>) =>
      guards(own, ahead, (kv) => claim(permits.get(kv)!, 4))
    assert.deepStrictEqual(guardsOf(claim(1, 4), [d, c, b, a]), [c, b])
    assert.deepStrictEqual(guardsOf(claim(2, 4), [d, c, b, a]), [b])
    assert.deepStrictEqual(guardsOf(claim(4, 4), [d, c, b, a]), [d])
    assert.isUndefined(guardsOf(claim(1, 4), [d, c]))
    assert.deepStrictEqual(guardsOf(claim(3, 8), [d, c]), [d, c], "there are four permits only")
  })
})

describe("an entry's key", () => {
  const key = (name: string) => entry(name, 3n)
  const claimOf = (name: string, own: Claim) => queue.claimOf("job/", key(name), own)
  const permits: Claim = { kind: "permits", permits: 2, of: 8 }

  it("shows what it claims", () => {
    assert.strictEqual(claimOf("7f-1", lock), lock)
    assert.strictEqual(claimOf("read/7f-1", write), read)
    assert.strictEqual(claimOf("write/7f-1", read)?.permits, write.permits)
    assert.include(claimOf("7f-1-3of8", permits), { permits: 3, of: 8 })
    assert.include(claimOf("7f-1-3of8", lock), { permits: lock.permits })
    assert.include(claimOf("7f-1", permits), { permits: 8, of: 8 }, "a mutex takes all permits")
  })

  it("is in no line with one that knows of another number of permits, unless that is accepted", () => {
    assert.isUndefined(claimOf("7f-1-3of9", permits))
    assert.include(claimOf("7f-1-3of9", { ...permits, acceptOf: (of) => of === 9 }), { permits: 3, of: 9 })
    assert.isUndefined(claimOf("7f-1-3of10", { ...permits, acceptOf: (of) => of === 9 }))
  })

  it("is no entry's if it lies deeper", () => {
    assert.isUndefined(claimOf("a/b", lock))
    assert.isUndefined(claimOf("read/a/b", read))
    assert.isUndefined(claimOf("", lock))
  })
})

describe("all that is ahead", () => {
  it("is the turn, at the read's revision, when nothing is", () => {
    assert.deepStrictEqual(settle(job, lock, [], 20n, undefined), { _tag: "Turn", revision: 20n })
  })

  it("is waited for in its order", () => {
    const step = settle(job, lock, [a, b], 20n, undefined)
    assert.deepStrictEqual(step, { _tag: "Wait", place: complete([a, b]) } as never)
  })

  it("leaves out what the watch has reported deleted, whose revision is the token if that was the last", () => {
    const deletes = new Map([[idOf(a), 21n], [idOf(b), 22n]])
    assert.deepStrictEqual(settle(job, lock, [a, b], 20n, deletes), { _tag: "Turn", revision: 22n })
    const one = settle(job, lock, [a, b], 20n, new Map([[idOf(a), 21n]]))
    assert.deepStrictEqual(one, { _tag: "Wait", place: complete([b]) } as never)
  })

  it("is not shortened by the end of an earlier entry of the same key", () => {
    const step = settle(job, lock, [b], 20n, new Map([[idOf(b), 4n]]))
    assert.deepStrictEqual(step, { _tag: "Wait", place: complete([b]) } as never)
  })

  it("names a key that is no entry, and would be waited for in vain", () => {
    const nested = entry("part/7f-1", 4n)
    assert.deepStrictEqual(settle(job, lock, [a, nested], 20n, undefined), { _tag: "Foreign", kv: nested })
  })
})

describe("what is nearest ahead", () => {
  it("guards the entry, and is not its turn, since more may be before it", () => {
    const step = follow(job, lock, [b], false, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: guarded([b]) } as never)
  })

  it("guards the entry also when nothing else is ahead", () => {
    const step = follow(job, lock, [b], true, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: guarded([b]) } as never)
  })

  it("guards an entry that holds alone by the nearest one only", () => {
    const step = follow(job, lock, [b, a], true, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: guarded([b]) } as never)
  })

  it("is the turn, at the read's revision, when nothing is", () => {
    assert.deepStrictEqual(follow(job, lock, [], true, 20n), { _tag: "Turn", revision: 20n })
    assert.deepStrictEqual(follow(pairs, oneOfTwo, [a], true, 20n), { _tag: "Turn", revision: 20n })
  })

  it("is no turn when it may not be all that is ahead", () => {
    assert.deepStrictEqual(follow(job, lock, [], false, 20n), { _tag: "Look" })
    assert.deepStrictEqual(follow(pairs, oneOfTwo, [b], false, 20n), { _tag: "Look" })
  })

  it("are as many guards as the discipline asks for", () => {
    const step = follow(pairs, oneOfTwo, [b, a], false, 20n)
    assert.deepStrictEqual(step, { _tag: "Wait", place: guarded([b, a]) } as never)
  })

  it("names a key that is no entry", () => {
    const deeper = entry("x/y", 4n)
    assert.deepStrictEqual(follow(job, lock, [deeper], false, 20n), { _tag: "Foreign", kv: deeper })
  })
})

describe("a delete", () => {
  const deleted = (kv: EntryKey, revision: bigint) => ({ id: idOf(kv), revision })

  it("of the last entry in the way is the turn, at its revision", () => {
    const place = complete([a, b])
    assert.isUndefined(onDelete(job, lock, place, deleted(a, 21n), true))
    assert.deepStrictEqual(onDelete(job, lock, place, deleted(b, 22n), true), { _tag: "Turn", revision: 22n })
  })

  it("of one of several is the turn of an entry that may hold beside the others", () => {
    const step = onDelete(pairs, oneOfTwo, complete([a, b]), deleted(a, 21n), true)
    assert.deepStrictEqual(step, { _tag: "Turn", revision: 21n })
  })

  it("that is older than the entry, or of another key, changes nothing", () => {
    const place = complete([b])
    assert.isUndefined(onDelete(job, lock, place, deleted(b, 4n), true))
    assert.isUndefined(onDelete(job, lock, place, deleted(a, 21n), true))
    assert.deepStrictEqual(place._tag === "Complete" && ids([...place.ahead.values()]), ids([b]))
  })

  it("which the watch of one key reports is never a turn, since it does not tell of one's own in the same revision", () => {
    assert.isUndefined(onDelete(job, lock, complete([b]), deleted(b, 21n), false))
  })

  for (const isWhole of [true, false]) {
    it(`of a guard makes the entry look, and is no turn (watch of the ${isWhole ? "line" : "key"})`, () => {
      assert.deepStrictEqual(onDelete(job, lock, guarded([b]), deleted(b, 21n), isWhole), { _tag: "Look" })
      assert.isUndefined(onDelete(job, lock, guarded([b]), deleted(b, 4n), isWhole))
      assert.isUndefined(onDelete(job, lock, guarded([b]), deleted(a, 21n), isWhole))
    })
  }

  it("says nothing while what is ahead is being read", () => {
    assert.isUndefined(onDelete(job, lock, unplaced, deleted(a, 21n), true))
  })
})
