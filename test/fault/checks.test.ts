import { assert, describe, it } from "@effect/vitest"
import { ofHistories } from "../support/excuses.ts"
import { check, type Violation } from "./checks.ts"
import type { Claim, Counter, End, Fault, History, Recorded, Restored } from "./history.ts"

const ttl = 4000

interface Turn {
  readonly by: string
  readonly wants: number
  readonly holds?: number
  readonly stopped?: number
  readonly ended?: number
  readonly error?: string
  readonly token?: number
  readonly created?: number
  readonly n?: number
  readonly claim?: Claim
  readonly downgrades?: string
}

/** The reports of one section: times in milliseconds. */
const turn = (
  { by, claim, created, downgrades, ended, error, holds, n = 0, stopped, token, wants }: Turn
): ReadonlyArray<Recorded> => {
  const section = `${by}/0/${n}`
  const identity = token === undefined ? {} : {
    token: String(token),
    createRevision: String(created ?? token),
    key: `lock/${section}`,
    lease: by
  }
  return [
    { _tag: "Wants", contender: by, at: wants, section, lock: "lock", claim, downgrades },
    ...holds === undefined ? [] : [{ _tag: "Holds", contender: by, at: holds, section, ...identity } as const],
    ...stopped === undefined ? [] : [{ _tag: "Stopped", contender: by, at: stopped, section } as const],
    ...ended === undefined
      ? []
      : [{ _tag: "Ended", contender: by, at: ended, section, error, released: holds !== undefined } as const]
  ]
}

const wrote = (
  by: string,
  counter: Counter,
  outcome: "Applied" | "Refused" | "Unknown",
  revision?: number,
  n = 0
): Recorded => ({
  _tag: "Wrote",
  contender: by,
  at: 0,
  section: `${by}/0/${n}`,
  counter,
  mark: `${counter}/${by}`,
  outcome,
  revision: revision === undefined ? undefined : String(revision)
})

/** What etcd said of the lease of `a`, to a request that was sent then. */
const lease = (what: "alive" | "gone" | "revoking", at: number, sent = at - 5): Recorded => ({
  _tag: "Lease",
  contender: "a",
  at,
  lease: "a",
  what,
  sent
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

  it("of a body that began twice is bad, also when nothing else held meanwhile", () => {
    const again: Recorded = { _tag: "Holds", contender: "a", at: 500, section: "a/0/0" }
    const late: Recorded = { ...again, at: 3000 }
    for (const twice of [again, late]) {
      const { overlaps, violations } = check(historyOf([turn(a), twice, turn(b)]))
      assert.deepStrictEqual([overlaps, violations.map(({ check }) => check)], [[], ["held once"]])
    }
  })

  it("of two holders at once, neither of which has a token, is bad", () => {
    const withoutToken = (
      { by, ended, holds, stopped, wants }: Required<Omit<Turn, "claim" | "error" | "created" | "downgrades" | "n">>
    ): Turn => ({
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

  it("in which a peer has a later token before its turn is the peer's fault alone", () => {
    const history = historyOf([turn({ ...a, token: 9 }), turn(b)], {
      contenders: [{ name: "a", kind: "go", pid: 1 }, { name: "b", kind: "ours", pid: 2 }]
    })
    assert.deepStrictEqual(
      check(history).violations.map(({ check, kind }) => [check, kind]),
      [["tokens grow", "go"]]
    )
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

    it("is bad when its lease cannot have expired by then, as etcd had renewed it", () => {
      const reports = [turn({ ...a, stopped: 9030, ended: 9040 }), turn(later), froze("a", 500, 9000)]
      const renewed = (sent: number, lease = "a"): Recorded => ({
        _tag: "Lease",
        contender: "a",
        at: 8999,
        lease,
        what: "alive",
        sent
      })
      assert.deepStrictEqual(found(historyOf([...reports, renewed(6000 - ttl)])), [])
      assert.include(found(historyOf([...reports, renewed(6001 - ttl)])), "one holder")
      assert.deepStrictEqual(found(historyOf([...reports, renewed(6001 - ttl, "other")])), [])
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

    it("is bad when it was taken after the next one's turn, or before its own", () => {
      const overlapping = [turn(a), turn({ ...b, holds: 805 })]
      const at = (revision: string): Fault => ({ ...taken, taken: [{ ...taken.taken![0]!, revision }] })
      for (const revision of ["6", "8"]) {
        assert.deepStrictEqual(found(historyOf(overlapping, { faults: [at(revision)] })), [], revision)
      }
      for (const revision of ["5", "9"]) {
        assert.include(found(historyOf(overlapping, { faults: [at(revision)] })), "one holder", revision)
      }
    })

    it("is bad when both had one token, or the holder that had gone had the later one, though both ended in order", () => {
      const late = { ...a, holds: 1100, stopped: 1120, ended: 1130 }
      const next = { ...b, holds: 815, stopped: 1000, ended: 1010 }
      for (const token of [8, 9]) {
        const history = historyOf([turn({ ...late, token, created: 5 }), turn(next)], { faults: [taken] })
        assert.include(found(history), token === 8 ? "tokens grow" : "order of service")
      }
      const behind = { ...next, created: 4 }
      assert.include(found(historyOf([turn(late), turn(behind)], { faults: [taken] })), "tokens grow")
    })

    it("is bad when the holder went on", () => {
      const goesOn = { ...a, stopped: 9000, ended: 9010 }
      const next = { ...b, holds: 805, stopped: 9500, ended: 9510 }
      assert.include(found(historyOf([turn(goesOn), turn(next)], { faults: [taken] })), "one holder")
    })
  })

  describe("where etcd ended the lease", () => {
    const overlapping = [turn(a), turn({ ...b, holds: 900 })]

    it("is good when that was within the TTL of an acknowledged renewal", () => {
      const history = historyOf([...overlapping, lease("alive", 500), lease("gone", 1800)])
      assert.deepStrictEqual(found(history), [])
      assert.strictEqual(check(history).overlaps[0]?.excuse?.why, "etcd")
    })

    it("is good when the contender found that by its own revoke, which came after another one held", () => {
      const reports = [lease("alive", 500), lease("revoking", 1790), lease("gone", 1800)]
      assert.deepStrictEqual(found(historyOf([...overlapping, ...reports])), [])
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
    const counted = (value: number, marks: ReadonlyArray<string>, counter: Counter = "fenced") => ({
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

    it("that is written by claims beside each other may lose counts, but no acknowledged write", () => {
      const shared = [turn(a), turn(b), wrote("a", "shared", "Applied", 6), wrote("b", "shared", "Refused")]
      assert.deepStrictEqual(found(historyOf(shared, counted(0, ["shared/a"], "shared"))), [])
      assert.deepStrictEqual(found(historyOf(shared, counted(1, [], "shared"))), ["fenced writes"])
      assert.deepStrictEqual(found(historyOf(shared, counted(1, ["shared/a", "shared/b"], "shared"))), [
        "fenced writes"
      ])
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
    const fault: Fault = { name: "", from: 14_000, to: 14_960 }
    /** Its entry may be in the way until its lease has expired. */
    const stray = turn({ by: "a", n: 1, wants: 12_000, ended: 14_950, error: "LockTimeout" })

    it("is good when the lock moves within the TTL and five seconds", () => {
      const history = historyOf([turn(a), stray, turn({ ...waiter, holds: 23_900 })], {
        calms: [calm],
        faults: [fault]
      })
      assert.deepStrictEqual(found(history), [])
      assert.deepStrictEqual(check(history).recoveries, [8900])
    })

    it("is bad when it does not", () => {
      const reports = [turn(a), stray, turn(waiter)]
      assert.deepStrictEqual(found(historyOf(reports, { calms: [calm], faults: [fault] })), ["locks move"])
    })

    it("is bad when a waiter waits in the seconds after, unless a fault has left an entry that is to expire", () => {
      const calms = [calm]
      const history = (holds: number, more: ReadonlyArray<Recorded>, faults: ReadonlyArray<Fault>) =>
        found(historyOf([turn({ ...a, created: 4 }), more, turn({ ...waiter, holds })], { calms, faults }))
      assert.deepStrictEqual(history(20_300, [], [fault]), [])
      assert.deepStrictEqual(history(20_400, [], [fault]), ["room is used"])
      assert.deepStrictEqual(history(20_400, stray, [fault]), [])
      assert.deepStrictEqual(history(20_400, stray, [{ ...fault, from: 14_955 }]), ["room is used"])
      assert.deepStrictEqual(history(20_400, stray, [{ ...fault, from: 11_000, to: 11_990 }]), ["room is used"])
      const left = turn({
        by: "a",
        n: 1,
        wants: 12_000,
        holds: 12_010,
        stopped: 14_940,
        ended: 14_950,
        token: 7,
        created: 5
      })
      assert.deepStrictEqual(history(20_400, left, [fault]), ["room is used"])
    })

    it("is good when it does not have the time, or nobody waits", () => {
      assert.deepStrictEqual(found(historyOf([turn(a), turn(waiter)], { calms: [{ ...calm, to: 20_300 }] })), [])
      assert.deepStrictEqual(found(historyOf([turn(a), turn({ ...waiter, wants: 26_000 })], { calms: [calm] })), [])
    })
  })

  describe("of readers and writers", () => {
    const read: Claim = { kind: "read" }
    const write: Claim = { kind: "write" }
    const beside = { ...b, holds: 500 }

    it("is good when readers run beside each other, in whatever order", () => {
      const reports = [turn({ ...a, claim: read }), turn({ ...beside, claim: read, token: 4, created: 4 })]
      const { overlaps, violations } = check(historyOf([...reports, wrote("a", "shared", "Applied", 7)]))
      assert.deepStrictEqual([overlaps, violations], [[], []])
    })

    it("is bad when a writer runs beside a reader or a writer, whichever came first", () => {
      for (const [first, second] of [[read, write], [write, read], [write, write]] as const) {
        assert.deepStrictEqual(
          found(historyOf([turn({ ...a, claim: first }), turn({ ...beside, claim: second })])),
          ["one holder", "linearizable"]
        )
      }
    })

    it("is bad when a reader's token is no greater than that of a writer before, with a reader between", () => {
      const writer = turn({ ...a, claim: write })
      const between = turn({ ...b, claim: read })
      const late = { by: "a", n: 1, wants: 100, holds: 1500, stopped: 1600, ended: 1610, claim: read }
      assert.deepStrictEqual(found(historyOf([writer, between, turn({ ...late, token: 7, created: 7 })])), [])
      const behind = historyOf([writer, between, turn({ ...late, token: 5, created: 7 })])
      assert.include(found(behind), "tokens grow")
      const behindWrite = historyOf([writer, between, wrote("a", "fenced", "Applied", 7), turn({ ...late, token: 7 })])
      assert.deepStrictEqual(found(behindWrite), ["tokens grow"])
    })

    it("is bad when a writer's token is older than what a reader before it has written", () => {
      const reports = [turn({ ...a, claim: read }), turn({ ...b, claim: write })]
      assert.deepStrictEqual(found(historyOf([...reports, wrote("a", "shared", "Applied", 7)])), [])
      assert.deepStrictEqual(found(historyOf([...reports, wrote("a", "shared", "Applied", 9)])), ["tokens grow"])
    })

    it("is bad when a reader overtakes a writer that came earlier", () => {
      const writer = turn({ ...b, claim: write, created: 6 })
      const reader = { by: "a", n: 1, wants: 100, holds: 2020, stopped: 2030, ended: 2040, token: 9, claim: read }
      assert.deepStrictEqual(found(historyOf([writer, turn({ ...reader, created: 7 })])), [])
      assert.deepStrictEqual(found(historyOf([writer, turn({ ...reader, created: 5 })])), ["order of service"])
    })

    describe("of which a writer goes on as a reader", () => {
      const writer = { ...a, claim: write }
      const reader: Turn = {
        by: "a",
        n: 1,
        wants: 1010,
        holds: 1012,
        stopped: 3000,
        ended: 3010,
        token: 5,
        claim: read,
        downgrades: "a/0/0"
      }
      it("is good, also beside a reader that waited behind it, and when both have written", () => {
        const beside = { ...b, holds: 1015, claim: read }
        const writes = [wrote("a", "fenced", "Applied", 7), wrote("a", "shared", "Applied", 9, 1)]
        for (const first of [writer, { ...writer, token: 6, created: 5 }]) {
          const { token } = first
          const reports = [turn(first), turn({ ...reader, token, created: 5 }), turn(beside), ...writes]
          assert.deepStrictEqual(check(historyOf(reports)).violations, [])
        }
      })

      it("is bad when another writer came between, or runs beside it", () => {
        const between = { ...b, claim: write, holds: 1002, stopped: 1004, ended: 1005 }
        assert.deepStrictEqual(
          found(historyOf([turn({ ...writer, stopped: 1000, ended: 1001 }), turn(between), turn(reader)])),
          ["linearizable", "tokens grow"]
        )
        const beside = { ...b, claim: write, holds: 1500 }
        assert.deepStrictEqual(found(historyOf([turn(writer), turn(reader), turn(beside)])), [
          "one holder",
          "linearizable"
        ])
      })

      it("is bad when it is another's token that it has", () => {
        const { downgrades: _, ...other } = { ...reader, by: "b" }
        assert.deepStrictEqual(found(historyOf([turn(writer), turn(other)])), [
          "linearizable",
          "tokens grow",
          "order of service"
        ])
      })

      it("is good when an operator took it away before it went on, and it stopped soon", () => {
        const taken: Fault = {
          name: "",
          from: 800,
          to: 810,
          taken: [{ lock: "lock", createRevision: "5", lease: "a", pid: 1 }]
        }
        const next = turn({ ...b, claim: write, holds: 1500 })
        assert.deepStrictEqual(found(historyOf([turn(writer), turn(reader), next], { faults: [taken] })), [])
      })

      it("is bad when a waiter waits behind the reader though there is room", () => {
        const stays = { ...reader, stopped: 29_000, ended: 29_010 }
        const waiter = (claim: Claim, holds: number) =>
          turn({ by: "b", wants: 0, holds, stopped: holds + 10, ended: holds + 20, token: 9, claim })
        const calms = [{ from: 5000, to: 30_000 }]
        const history = (claim: Claim, holds: number) =>
          historyOf([turn(writer), turn(stays), waiter(claim, holds)], { calms })
        assert.deepStrictEqual(found(history(write, 29_020)), [])
        assert.deepStrictEqual(found(history(read, 10_400)), ["room is used"])
      })
    })

    it("is good when a writer that stood still ran beside a reader, and bad when it did not stand still", () => {
      const reports = [
        turn({ ...a, stopped: 9030, ended: 9040, claim: write }),
        turn({ ...b, holds: 6000, stopped: 9500, ended: 9510, claim: read })
      ]
      assert.deepStrictEqual(found(historyOf([...reports, froze("a", 500, 9000)])), [])
      assert.include(found(historyOf(reports)), "one holder")
    })
  })

  describe("of permits", () => {
    const permits = (permits: number): Claim => ({ kind: "permits", permits, of: 3 })
    const one = permits(1)
    const at = (by: string, n: number, holds: number, stopped: number, token: number, created = token) => ({
      by,
      n,
      wants: 0,
      holds,
      stopped,
      ended: stopped + 10,
      token,
      created
    })

    it("is good when no more are held than there are", () => {
      const reports = [
        turn({ ...at("a", 0, 10, 1000, 5), claim: one }),
        turn({ ...at("a", 1, 20, 900, 6), claim: one }),
        turn({ ...at("b", 0, 15, 1500, 4), claim: one }),
        turn({ ...at("b", 1, 1020, 1600, 8), claim: permits(2) })
      ]
      assert.deepStrictEqual(check(historyOf(reports)).violations, [])
    })

    const tooMany = [
      turn({ ...at("a", 0, 10, 1000, 5), claim: one }),
      turn({ ...at("a", 1, 20, 900, 6), claim: one }),
      turn({ ...at("b", 0, 500, 1500, 7), claim: permits(2) })
    ]

    it("is bad when more are held, though each two would fit", () => {
      assert.deepStrictEqual(found(historyOf(tooMany)), ["permits", "linearizable"])
      assert.deepStrictEqual(check(historyOf(tooMany)).overlaps.map(({ at, check }) => [at, check]), [[500, "permits"]])
    })

    it("is good when etcd ended the leases of two, one after the other, and the last holder said so first", () => {
      const lease = (of: string, what: "alive" | "gone", at: number): Recorded => ({
        _tag: "Lease",
        contender: of,
        at,
        lease: of,
        what,
        sent: at - 5
      })
      const turns = [
        turn({ ...at("a", 0, 10, 1030, 5), claim: permits(2) }),
        turn({ ...at("b", 0, 1004, 1028, 10, 6), claim: permits(3) }),
        turn({ ...at("a", 1, 1003, 1090, 14, 7), claim: one })
      ]
      const alive = [lease("a", "alive", 900), lease("b", "alive", 950)]
      const gone = [lease("a", "gone", 1200), lease("b", "gone", 1300)]
      assert.deepStrictEqual(found(historyOf([...turns, ...alive, ...gone])), [])
      assert.include(found(historyOf([...turns, ...alive, gone[0]!])), "linearizable")
    })

    it("is bad when two exclude each other", () => {
      const reports = [
        turn({ ...at("a", 0, 10, 1000, 5), claim: permits(2) }),
        turn({ ...at("b", 0, 500, 1500, 7), claim: permits(2) })
      ]
      assert.include(found(historyOf(reports)), "one holder")
    })

    it("is good when one of them was taken away and stopped soon, and bad when that is not enough", () => {
      const taken = (createRevision: string): Fault => ({
        name: "",
        from: 480,
        to: 490,
        taken: [{ lock: "lock", lease: "a", createRevision, pid: 1 }]
      })
      assert.deepStrictEqual(found(historyOf(tooMany, { faults: [taken("6")] })), [])
      assert.deepStrictEqual(found(historyOf(tooMany, { faults: [taken("5")] })), [])
      const two = [...tooMany, turn({ ...at("b", 1, 510, 1500, 8), claim: one })]
      assert.include(found(historyOf(two, { faults: [taken("6")] })), "permits")
      assert.deepStrictEqual(found(historyOf(two, { faults: [taken("6"), taken("5")] })), [])
    })

    it("is bad when one that was taken away went on", () => {
      const [first, second, third] = tooMany
      const goesOn = turn({ ...at("a", 1, 20, 9000, 6), claim: one })
      const taken = { name: "", from: 480, to: 490, taken: [{ lock: "lock", lease: "a", createRevision: "6", pid: 1 }] }
      assert.deepStrictEqual(found(historyOf([first!, second!, third!], { faults: [taken] })), [])
      assert.include(found(historyOf([first!, goesOn, third!], { faults: [taken] })), "permits")
    })

    it("is bad when a claim overtakes one that waits and would not fit beside it", () => {
      const holder = turn({ ...at("a", 0, 10, 1000, 5), claim: permits(2) })
      const waiter = turn({ ...at("a", 1, 1020, 2000, 9, 6), claim: permits(2) })
      assert.deepStrictEqual(
        found(historyOf([holder, waiter, turn({ ...at("b", 0, 1030, 1100, 8, 7), claim: one })])),
        []
      )
      assert.deepStrictEqual(
        found(historyOf([holder, waiter, turn({ ...at("b", 0, 500, 600, 8, 7), claim: one })])),
        ["order of service"]
      )
    })

    it("is good when a claim begins before one that waited longer and fits beside it, now that the holder has lost its own", () => {
      const holder = turn({ ...at("a", 0, 10, 520, 5), claim: permits(2) })
      const waiter = turn({ ...at("a", 1, 505, 2000, 9, 6), claim: permits(2) })
      const next = turn({ ...at("b", 0, 500, 600, 8, 7), claim: one })
      const taken = { name: "", from: 480, to: 490, taken: [{ lock: "lock", lease: "a", createRevision: "5", pid: 1 }] }
      assert.deepStrictEqual(found(historyOf([holder, waiter, next], { faults: [taken] })), [])
    })

    it("is bad when a waiter waits though there is room, once all is well", () => {
      const holder = turn({ ...at("a", 0, 10, 29_000, 5), claim: one })
      const waiter = (holds: number) => turn({ ...at("b", 0, holds, holds + 10, 9), claim: permits(2) })
      const calms = [{ from: 5000, to: 30_000 }]
      assert.deepStrictEqual(found(historyOf([holder, waiter(10_300)], { calms })), [])
      assert.deepStrictEqual(found(historyOf([holder, waiter(10_400)], { calms })), ["room is used"])
      assert.deepStrictEqual(found(historyOf([holder, waiter(10_400), froze("b", 9000, 10_000)], { calms })), [])
      const full = turn({ ...at("a", 0, 10, 16_000, 5), claim: permits(3) })
      assert.deepStrictEqual(found(historyOf([full, waiter(17_900)], { calms })), [])
      assert.deepStrictEqual(found(historyOf([full, waiter(18_100)], { calms })), ["room is used"])
    })
  })

  it("whose waiter was neither served nor refused is bad, once it is over", () => {
    const reports = [turn(a), turn({ by: "b", wants: 5 })]
    assert.deepStrictEqual(found(historyOf(reports)), ["everyone is served"])
    assert.deepStrictEqual(found(historyOf(reports, { end: undefined })), [])
    assert.deepStrictEqual(found(historyOf([turn(a), turn({ by: "b", wants: 5, ended: 3000 })])), [])
  })

  describe("with a lock that is to be held throughout", () => {
    const locks = [{ name: "lock", isQueue: true, isHeldThroughout: true }]
    const faults = [{ name: "", from: 100, to: 200 }, { name: "", from: 50_000, to: 60_000 }]
    const of = (holder: Turn) => found(historyOf([turn(holder)], { locks, faults }))
    const whole = { by: "a", wants: 0, holds: 10, stopped: 70_000, ended: 70_010, token: 5 }

    it("is good when one body has outlasted all faults", () => {
      assert.deepStrictEqual(of(whole), [])
    })

    it("is bad when none has", () => {
      assert.deepStrictEqual(of({ ...whole, holds: 101 }), ["held throughout"])
      assert.deepStrictEqual(of({ ...whole, stopped: 59_999, ended: 60_010 }), ["held throughout"])
      assert.deepStrictEqual(of({ ...whole, error: "LockLost LeaseExpired" }), ["held throughout"])
    })

    it("is good though it does not move while others wait", () => {
      const waiter = turn({ by: "b", wants: 20, ended: 80_000 })
      const calms = [{ from: 300, to: 40_000 }]
      assert.deepStrictEqual(found(historyOf([turn(whole), waiter], { locks, faults, calms })), [])
    })
  })

  describe("whose section failed", () => {
    const failed = (error: string, some: Partial<History> = {}, more: ReadonlyArray<Recorded> = []) =>
      found(historyOf([turn({ by: "b", wants: 20_000, ended: 30_000, error }), more], some))
    const fault: Fault = { name: "", from: 29_990, to: 40_000 }

    it.each<readonly [string, ReadonlyArray<Violation["check"]>]>([
      ["EtcdError Unavailable etcd txn failed", []],
      ["LockLost KeyDeleted", []],
      ["LockLost Released", []],
      ["LockTimeout", []],
      ["EtcdError Internal etcd leaseGrant failed", ["errors are explained"]],
      ["LockNameConflict PlainKey", ["errors are explained"]],
      ["Die TypeError", ["errors are explained"]]
    ])("with %s in a fault has violations: %j", (error, violations) => {
      assert.deepStrictEqual(failed(error, { faults: [fault] }), violations)
    })

    it.each(["EtcdError Unavailable etcd txn failed", "LockLost KeyDeleted", "LockLost LeaseExpired"])(
      "with %s is bad where there was no fault by then, or one too long ago",
      (error) => {
        const at = (from: number, to: number) => failed(error, { faults: [{ name: "", from, to }] })
        assert.deepStrictEqual(failed(error), ["errors are explained"])
        assert.deepStrictEqual(at(30_001, 31_000), ["errors are explained"])
        assert.deepStrictEqual(at(0, 16_999), ["errors are explained"])
        assert.deepStrictEqual(at(0, 17_000), [])
        assert.deepStrictEqual(failed(error, {}, [froze("b", 25_000, 26_000)]), [])
        assert.deepStrictEqual(failed(error, {}, [froze("a", 25_000, 26_000)]), ["errors are explained"])
      }
    )
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

describe("a history of etcd that was restored", () => {
  const restored = (leaps: boolean) => ({
    faults: [{ name: "", from: 10_000, to: 20_000, restored: { at: 15_000, leaps, isSoon: false } }]
  })
  const held = (by: string, holds: number, token: number) =>
    turn({ by, n: holds, wants: holds - 10, holds, stopped: holds + 500, ended: holds + 510, token })
  const falling = [held("a", 14_000, 9), held("b", 21_000, 5)]

  it("has tokens that grow from its beginning, and may be smaller than those before", () => {
    assert.deepStrictEqual(found(historyOf(falling, restored(false))), [])
    assert.include(found(historyOf([...falling, held("a", 23_000, 4)], restored(false))), "tokens grow")
    assert.include(found(historyOf([held("b", 9000, 10), ...falling], restored(false))), "tokens grow")
  })

  it("goes on with the tokens of the one before where revisions have leapt", () => {
    assert.include(found(historyOf(falling, restored(true))), "tokens grow")
  })
})

/** Of each excuse, a history that it excuses, and others that it does not. */
interface Excused {
  readonly good: History
  readonly bad: { readonly [why: string]: History }
}

const excused: { readonly [K in keyof typeof ofHistories]: Excused } = (() => {
  const overlapping = [turn(a), turn({ ...b, holds: 805 })]
  const deleted = (revision: string, from = 800): Partial<History> => ({
    faults: [{ name: "", from, to: from, taken: [{ lock: "lock", createRevision: "5", lease: "a", pid: 1, revision }] }]
  })
  const late = [turn({ ...a, stopped: 6030, ended: 6040 }), turn({ ...b, holds: 6000, stopped: 9000, ended: 9010 })]
  const frozen = (...more: ReadonlyArray<Recorded>) => historyOf([...late, ...more])
  const fault: Fault = { name: "", from: 14_000, to: 14_960 }
  const calms = [{ from: 15_000, to: 40_000 }]
  const waiter = (holds: number) =>
    turn({ by: "b", wants: 5, holds, stopped: holds + 10, ended: holds + 20, token: 8, created: 6 })
  const stray = (ended: number) => turn({ by: "a", n: 1, wants: 12_000, ended, error: "LockTimeout" })
  const waiting = (holds: number, more: ReadonlyArray<Recorded>, faults = [fault]) =>
    historyOf([turn(a), more, waiter(holds)], { calms, faults })
  const failing = (error: string, faults: ReadonlyArray<Fault>) =>
    historyOf([turn({ by: "b", wants: 12_000, ended: 14_970, error })], { faults })
  const go = (kind: "go" | "ours", holds: number) =>
    historyOf([turn(a), turn({ ...b, holds })], {
      contenders: [{ name: "a", kind, pid: 1 }, { name: "b", kind: "ours", pid: 2 }]
    })
  const restored = (how: Partial<Restored> = {}): Pick<History, "faults"> => ({
    faults: [{ name: "", from: 600, to: 802, restored: { at: 790, leaps: false, isSoon: true, ...how } }]
  })
  const counted = (at: number, value: number, marks: ReadonlyArray<string>, how: Partial<Restored>) =>
    historyOf([turn(a), { ...wrote("a", "fenced", "Applied", 6), at }], {
      ...restored(how),
      end: { ...goodEnd, counted: [{ lock: "lock", counter: "fenced", value, marks }] }
    })
  return {
    restored: {
      good: historyOf(overlapping, restored()),
      bad: {
        "restored after the TTL": historyOf(overlapping, restored({ isSoon: false })),
        "its turn came after the restore": historyOf([turn({ ...a, holds: 795 }), overlapping[1]!], restored()),
        "it went on for too long": historyOf(
          [turn({ ...a, stopped: 9000, ended: 9010 }), turn({ ...b, holds: 805, stopped: 9500, ended: 9510 })],
          restored()
        )
      }
    },
    rolledBack: {
      good: counted(700, 0, [], { isSoon: false }),
      bad: {
        "written before the backup": counted(500, 0, [], { isSoon: false }),
        "written after the restore": counted(795, 0, [], { isSoon: false })
      }
    },
    broughtBack: {
      good: counted(795, 4, ["fenced/a"], {}),
      bad: {
        "restored after the TTL": counted(795, 4, ["fenced/a"], { isSoon: false }),
        "written before the restore": counted(700, 4, ["fenced/a"], {})
      }
    },
    operator: {
      good: historyOf(overlapping, deleted("7")),
      bad: {
        "deleted before its turn": historyOf(overlapping, deleted("5")),
        "deleted after the next one's turn": historyOf(overlapping, deleted("9")),
        "deleted later": historyOf(overlapping, deleted("7", 900))
      }
    },
    frozen: {
      good: frozen(froze("a", 500, 6010), lease("alive", 505, 500)),
      bad: {
        "another stood still": frozen(froze("b", 500, 6010), lease("alive", 505, 500)),
        "its lease cannot have expired": frozen(froze("a", 500, 6010), lease("alive", 2005, 2001)),
        "it was awake again long before": frozen(froze("a", 500, 3000), lease("alive", 505, 500))
      }
    },
    etcd: {
      good: historyOf([...overlapping, lease("alive", 500, 495), lease("gone", 1800, 1790)]),
      bad: {
        "it revoked the lease": historyOf([
          ...overlapping,
          lease("alive", 500, 495),
          lease("revoking", 700, 700),
          lease("gone", 1800, 1790)
        ]),
        "the lease was not gone": historyOf([...overlapping, lease("alive", 500, 495)])
      }
    },
    stray: {
      good: waiting(23_900, stray(14_950)),
      bad: {
        "a TTL later": waiting(26_100, stray(14_950)),
        "it left in time": waiting(23_900, stray(13_990)),
        "there was none": waiting(23_900, [])
      }
    },
    unheard: { good: waiting(20_300, []), bad: { "after the heartbeat": waiting(20_400, []) } },
    faulty: {
      good: failing("EtcdError Timeout", [fault]),
      bad: {
        "no fault": failing("EtcdError Timeout", []),
        "a fault of later": failing("EtcdError Timeout", [{ ...fault, from: 14_971, to: 15_000 }]),
        "a fault of long ago": failing("LockLost KeyDeleted", [{ ...fault, from: 0, to: 1900 }])
      }
    },
    peer: { good: go("go", 1005), bad: { "a peer's overlap": go("go", 900), "one of ours": go("ours", 900) } }
  }
})()

describe.each(Object.entries(ofHistories))("the excuse %s", (id, { ends, names }) => {
  const { bad, good } = excused[id as keyof typeof excused]

  it(`excuses what has what it names: ${names}`, () => {
    assert.deepStrictEqual(found(good), [])
  })

  it.each(Object.keys(bad))(`does not excuse: %s (${ends})`, (why) => {
    assert.notDeepEqual(found(bad[why]!), [])
  })
})
