import { assert, describe, it } from "@effect/vitest"
import { check, type Violation } from "./checks.ts"
import type { End, Fault, History, Recorded } from "./history.ts"

const ttl = 4000

interface Turn {
  readonly by: string
  readonly wants: number
  readonly holds?: number
  readonly stopped?: number
  readonly ended?: number
  readonly token?: number
  readonly created?: number
  readonly n?: number
}

/** The reports of one section: times in milliseconds. */
const turn = ({ by, created, ended, holds, n = 0, stopped, token, wants }: Turn): ReadonlyArray<Recorded> => {
  const section = `${by}/0/${n}`
  const identity = token === undefined ? {} : {
    token: String(token),
    createRevision: String(created ?? token),
    key: `lock/${section}`,
    lease: by
  }
  return [
    { _tag: "Wants", contender: by, at: wants, section, lock: "lock" },
    ...holds === undefined ? [] : [{ _tag: "Holds", contender: by, at: holds, section, ...identity } as const],
    ...stopped === undefined ? [] : [{ _tag: "Stopped", contender: by, at: stopped, section } as const],
    ...ended === undefined
      ? []
      : [{ _tag: "Ended", contender: by, at: ended, section, released: holds !== undefined } as const]
  ]
}

const wrote = (
  by: string,
  counter: "fenced" | "plain",
  outcome: "Applied" | "Refused" | "Unknown",
  revision?: number
): Recorded => ({
  _tag: "Wrote",
  contender: by,
  at: 0,
  section: `${by}/0/0`,
  counter,
  mark: `${counter}/${by}`,
  outcome,
  revision: revision === undefined ? undefined : String(revision)
})

const froze = (by: string, from: number, at: number): Recorded => ({ _tag: "Froze", contender: by, from, at })

const goodEnd: End = {
  counted: [],
  exits: ["a", "b"].map((contender) => ({ contender, code: 0, signal: null, millis: 10 })),
  left: { keys: [], leases: 0 }
}

const historyOf = (
  reports: ReadonlyArray<ReadonlyArray<Recorded> | Recorded>,
  some: Partial<History> = {}
): History => ({
  seed: 1,
  etcd: "etcd",
  ttl,
  from: 0,
  to: 100_000,
  locks: [{ name: "lock", isQueue: true }],
  contenders: [{ name: "a", kind: "ours", pid: 1 }, { name: "b", kind: "ours", pid: 2 }],
  reports: reports.flat(),
  faults: [],
  calms: [],
  end: goodEnd,
  ...some
})

const found = (history: History): ReadonlyArray<Violation["check"]> => [
  ...new Set(check(history).violations.map(({ check }) => check))
]

const a = { by: "a", wants: 0, holds: 10, stopped: 1000, ended: 1010, token: 5 }
const b = { by: "b", wants: 5, holds: 1005, stopped: 2000, ended: 2010, token: 8, created: 6 }

describe("a history", () => {
  it("of one holder after the other is good", () => {
    const { overlaps, violations } = check(historyOf([turn(a), turn(b)]))
    assert.deepStrictEqual([overlaps, violations], [[], []])
  })

  it("of two holders at once is bad", () => {
    const history = historyOf([turn(a), turn({ ...b, holds: 900 })])
    assert.deepStrictEqual(found(history), ["one holder", "linearizable"])
    assert.strictEqual(check(history).overlaps[0]?.millis, 100)
  })

  it("of two holders at once, neither of which has a token, is bad", () => {
    const withoutToken = ({ by, ended, holds, stopped, wants }: Required<Omit<Turn, "created" | "n">>): Turn => ({
      by,
      ended,
      holds,
      stopped,
      wants
    })
    assert.include(found(historyOf([turn(withoutToken(a)), turn({ ...withoutToken(b), holds: 900 })])), "one holder")
  })

  it("in which a peer does not stop is the peer's fault alone", () => {
    const history = historyOf([turn(a), turn({ ...b, holds: 900 })], {
      contenders: [{ name: "a", kind: "go", pid: 1 }, { name: "b", kind: "ours", pid: 2 }]
    })
    assert.deepStrictEqual(check(history).violations.map(({ check, kind }) => [check, kind]), [["one holder", "go"]])
  })

  describe("where the holder stood still", () => {
    const later = { ...b, holds: 6000, stopped: 9500, ended: 9510 }

    it("is good, and says for how long they overlapped, when it stopped at once", () => {
      const { overlaps, violations } = check(
        historyOf([turn({ ...a, stopped: 9030, ended: 9040 }), turn(later), froze("a", 500, 9000)])
      )
      assert.deepStrictEqual(violations, [])
      assert.deepStrictEqual(overlaps.map(({ excuse, millis }) => [millis, excuse?.why, excuse?.since]), [
        [3030, "frozen", 9000]
      ])
    })

    it("is bad when it went on", () => {
      const history = historyOf([
        turn({ ...a, stopped: 13_000, ended: 13_010 }),
        turn({ ...later, stopped: 14_000, ended: 14_010 }),
        froze("a", 500, 9000)
      ])
      assert.include(found(history), "one holder")
    })

    it("is bad when that was over long before, or too short", () => {
      const overstays = turn({ ...a, stopped: 7000, ended: 7010 })
      assert.include(found(historyOf([overstays, turn(later), froze("a", 500, 3000)])), "one holder")
      assert.include(found(historyOf([overstays, turn(later), froze("a", 5900, 6050)])), "one holder")
      assert.include(found(historyOf([overstays, turn(later), froze("b", 500, 6500)])), "one holder")
    })
  })

  describe("where an operator took the lock away", () => {
    const taken: Fault = {
      name: "",
      from: 800,
      to: 810,
      taken: [{ lock: "lock", createRevision: "5", lease: "a", pid: 1 }]
    }

    it("is good when the holder stopped soon", () => {
      const history = historyOf([turn(a), turn({ ...b, holds: 805 })], { faults: [taken] })
      assert.deepStrictEqual(found(history), [])
      assert.strictEqual(check(history).overlaps[0]?.excuse?.why, "operator")
    })

    it("is good when the holder's body began only when the next one's had ended", () => {
      const late = { ...a, holds: 1100, stopped: 1120, ended: 1130 }
      const next = { ...b, holds: 815, stopped: 1000, ended: 1010 }
      const history = historyOf([turn(late), turn(next)], { faults: [taken] })
      assert.deepStrictEqual(found(history), [])
      assert.deepStrictEqual(found(historyOf([turn(late), turn(next)])), ["linearizable", "tokens grow"])
    })

    it("is bad when it was another's, or another lock, or later", () => {
      const overlapping = [turn(a), turn({ ...b, holds: 805 })]
      const [entry] = taken.taken!
      for (
        const other of [
          { ...taken, taken: [{ ...entry!, lease: "b" }] },
          { ...taken, taken: [{ ...entry!, createRevision: "4" }] },
          { ...taken, taken: [{ ...entry!, lock: "other" }] },
          { ...taken, from: 900, to: 910 }
        ]
      ) assert.include(found(historyOf(overlapping, { faults: [other] })), "one holder")
    })

    it("is bad when the holder went on", () => {
      const goesOn = { ...a, stopped: 9000, ended: 9010 }
      const next = { ...b, holds: 805, stopped: 9500, ended: 9510 }
      assert.include(found(historyOf([turn(goesOn), turn(next)], { faults: [taken] })), "one holder")
    })
  })

  describe("where etcd ended the lease", () => {
    const overlapping = [turn(a), turn({ ...b, holds: 900 })]
    const lease = (what: "alive" | "gone" | "revoking", at: number, sent = at - 5): Recorded => ({
      _tag: "Lease",
      contender: "a",
      at,
      lease: "a",
      what,
      sent
    })

    it("is good when that was within the TTL of an acknowledged renewal", () => {
      const history = historyOf([...overlapping, lease("alive", 500), lease("gone", 1800)])
      assert.deepStrictEqual(found(history), [])
      assert.strictEqual(check(history).overlaps[0]?.excuse?.why, "etcd")
    })

    it("is bad when the renewal was too long ago, however late its answer came, or none was acknowledged", () => {
      const late = lease("alive", 500, 900 - ttl - 1)
      assert.include(found(historyOf([...overlapping, late, lease("gone", 1800)])), "one holder")
      assert.include(found(historyOf([...overlapping, lease("gone", 1800)])), "one holder")
    })

    it("is bad when the contender revoked it, or the lease was still there", () => {
      const revoked = [lease("alive", 500), lease("revoking", 890), lease("gone", 1800)]
      assert.include(found(historyOf([...overlapping, ...revoked])), "one holder")
      assert.include(found(historyOf([...overlapping, lease("alive", 500), lease("alive", 1800)])), "one holder")
    })
  })

  it("whose tokens do not grow is bad", () => {
    assert.include(found(historyOf([turn(a), turn({ ...b, token: 5 })])), "tokens grow")
    assert.include(found(historyOf([turn(a), turn({ ...b, token: 4 })])), "tokens grow")
  })

  it("with a token that is older than what the holder before has written is bad", () => {
    assert.deepStrictEqual(found(historyOf([turn(a), turn({ ...b, token: 6 }), wrote("a", "fenced", "Applied", 7)])), [
      "tokens grow"
    ])
  })

  it("served in another order than that of the create revisions is bad", () => {
    assert.deepStrictEqual(found(historyOf([turn(a), turn({ ...b, created: 4 })])), ["order of service"])
  })

  describe("with a counter", () => {
    const counted = (value: number, marks: ReadonlyArray<string>, counter: "fenced" | "plain" = "fenced") => ({
      end: { ...goodEnd, counted: [{ lock: "lock", counter, value, marks }] }
    })
    const writes = [turn(a), turn(b), wrote("a", "fenced", "Applied", 6), wrote("b", "fenced", "Unknown")]

    it("that has what was acknowledged, with or without what is unknown, is good", () => {
      assert.deepStrictEqual(found(historyOf(writes, counted(1, ["fenced/a"]))), [])
      const { counters, violations } = check(historyOf(writes, counted(2, ["fenced/a", "fenced/b"])))
      assert.deepStrictEqual(violations, [])
      assert.deepStrictEqual(counters, [{ lock: "lock", counter: "fenced", value: 2, applied: 2, unknown: 1 }])
    })

    it("that has lost a count, or an acknowledged write, or has a refused one, is bad", () => {
      assert.deepStrictEqual(found(historyOf(writes, counted(1, ["fenced/a", "fenced/b"]))), ["fenced writes"])
      assert.deepStrictEqual(found(historyOf(writes, counted(1, ["fenced/b"]))), ["fenced writes"])
      const refused = [...writes.slice(0, 3), wrote("b", "fenced", "Refused")]
      assert.deepStrictEqual(found(historyOf(refused, counted(2, ["fenced/a", "fenced/b"]))), ["fenced writes"])
    })

    it("that no lock guards may lose counts, but no acknowledged write", () => {
      const plain = [turn(a), turn(b), wrote("a", "plain", "Applied", 6), wrote("b", "plain", "Applied", 9)]
      assert.deepStrictEqual(found(historyOf(plain, counted(1, ["plain/a", "plain/b"], "plain"))), [])
      assert.deepStrictEqual(found(historyOf(plain, counted(1, ["plain/a"], "plain"))), ["fenced writes"])
    })
  })

  describe("in which all is well again", () => {
    const waiter: Turn = { by: "b", wants: 5, holds: 30_000, stopped: 30_010, ended: 30_020, token: 8, created: 6 }
    const calm = { from: 15_000, to: 25_000 }

    it("is good when the lock moves within the TTL and five seconds", () => {
      const history = historyOf([turn(a), turn({ ...waiter, holds: 23_900 })], { calms: [calm] })
      assert.deepStrictEqual(found(history), [])
      assert.deepStrictEqual(check(history).recoveries, [8900])
    })

    it("is bad when it does not", () => {
      assert.deepStrictEqual(found(historyOf([turn(a), turn(waiter)], { calms: [calm] })), ["locks move"])
    })

    it("is good when it does not have the time, or nobody waits", () => {
      assert.deepStrictEqual(found(historyOf([turn(a), turn(waiter)], { calms: [{ ...calm, to: 20_000 }] })), [])
      assert.deepStrictEqual(found(historyOf([turn(a), turn({ ...waiter, wants: 26_000 })], { calms: [calm] })), [])
    })
  })

  it("whose waiter was neither served nor refused is bad, once it is over", () => {
    const reports = [turn(a), turn({ by: "b", wants: 5 })]
    assert.deepStrictEqual(found(historyOf(reports)), ["everyone is served"])
    assert.deepStrictEqual(found(historyOf(reports, { end: undefined })), [])
    assert.deepStrictEqual(found(historyOf([turn(a), turn({ by: "b", wants: 5, ended: 3000 })])), [])
  })

  it("that leaves a key or a lease is bad", () => {
    assert.deepStrictEqual(found(historyOf([], { end: { ...goodEnd, left: { keys: ["lock/x"], leases: 0 } } })), [
      "nothing left"
    ])
    assert.deepStrictEqual(found(historyOf([], { end: { ...goodEnd, left: { keys: [], leases: 1 } } })), [
      "nothing left"
    ])
  })

  it("whose processes do not end by themselves is bad", () => {
    const [exit] = goodEnd.exits
    assert.deepStrictEqual(found(historyOf([], { end: { ...goodEnd, exits: [exit!] } })), ["processes end"])
    const killed = { ...exit!, contender: "b", code: null, signal: "SIGKILL" }
    assert.deepStrictEqual(found(historyOf([], { end: { ...goodEnd, exits: [exit!, killed] } })), ["processes end"])
  })

  it("whose heap or sockets grow is bad", () => {
    const usage = (heap: number, sockets: number) =>
      Array.from({ length: 12 }, (_, i): Recorded => ({
        _tag: "Usage",
        contender: "a",
        at: i,
        heap: 50 * 2 ** 20 + i * heap,
        sockets: 6 + i * sockets
      }))
    assert.deepStrictEqual(found(historyOf(usage(2 ** 20, 0))), [])
    assert.deepStrictEqual(found(historyOf(usage(5 * 2 ** 20, 0))), ["flat"])
    assert.deepStrictEqual(found(historyOf(usage(0, 1))), ["flat"])
  })
})
