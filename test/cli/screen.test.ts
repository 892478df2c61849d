/** How the views of the command are laid out, as pure functions. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration } from "effect"
import { Lock } from "effect-etcd-lock"
import { CliOutput } from "effect/cli"
import * as Client from "../../src/cli/client.ts"
import type { Line } from "../../src/cli/line.ts"
import * as Screen from "../../src/cli/screen.ts"
import { cut, shortened, table } from "../../src/cli/table.ts"

const plain = { columns: Infinity, cell: Infinity, canColor: false }

const noon = Date.parse("2026-11-30T12:00:00.500Z")

const seconds = Duration.seconds

/** A client on a lease of its own, which asked and holds since so many seconds before noon. */
const client = (lease: number, asked?: number, held?: number, more?: Partial<Lock.Holder>) => {
  const ago = (seconds: number | undefined) =>
    seconds === undefined ? undefined : DateTime.makeUnsafe(noon - seconds * 1000)
  return new Lock.Holder({
    key: `job/${lease}-1`,
    leaseId: BigInt(lease),
    createRevision: BigInt(lease),
    host: "vm",
    pid: lease,
    askedAt: ago(asked),
    heldSince: ago(held),
    ...more
  })
}

describe("a time", () => {
  it.each([
    [-5000, "0s"],
    [999, "0s"],
    [8999, "8s"],
    [63_000, "1m 3s"],
    [3_600_000, "1h"],
    [7_399_000, "2h 3m"],
    [277_200_000, "3d 5h"]
  ])("of %d ms is %s", (millis, text) => {
    assert.strictEqual(Client.spanOf(millis), text)
  })

  it("of a hold is since when it holds, or says that it is since when it asked", () => {
    assert.strictEqual(Client.holdOf(client(1, 100, 8), noon), "8s")
    assert.strictEqual(Client.holdOf(client(1, 100), noon), "asked 1m 40s ago")
    assert.strictEqual(Client.holdOf(client(1), noon), "")
  })
})

describe("a lease", () => {
  it.each([
    [5, 10, "renewed 5s ago"],
    [7, 8, "renewed 7s ago"],
    [8, 7, "not renewed for 8s, ends in 7s"],
    [2, 1, "renewed 2s ago"],
    [3, 0, "not renewed for 3s, ends in 0s"],
    [1, 1, "renewed 1s ago"],
    [2, 0, "not renewed for 2s, ends in 0s"],
    [22, 38, "renewed 22s ago"],
    [23, 37, "not renewed for 23s, ends in 37s"]
  ])("that was renewed %d s ago and has %d s left: %s", (age, left, text) => {
    const renewal = { notRenewedFor: seconds(age), remaining: seconds(left) }
    assert.strictEqual(Client.leaseOf(renewal), text)
    assert.strictEqual(Client.isLate(renewal), text.startsWith("not"))
  })

  it("of which nothing is known is not told of, and one that is over is", () => {
    assert.strictEqual(Client.leaseOf({}), "")
    assert.strictEqual(Client.leaseOf({ remaining: seconds(0) }), "is over")
  })
})

describe("a table", () => {
  const rows = [{ cells: ["a".repeat(30), "", "x".repeat(30)] }, { cells: ["b", "", "1"] }]

  it("is as wide as its cells, without columns that are empty", () => {
    assert.deepStrictEqual(table(["ONE", "TWO", "THREE"], rows, plain), [
      `ONE${" ".repeat(29)}THREE`,
      `${"a".repeat(30)}  ${"x".repeat(30)}`,
      `b${" ".repeat(31)}1`
    ])
  })

  it.each([79, 40, 20, 10, 1])("fits into %d columns, and wide characters do", (columns) => {
    const wide = [...rows, { cells: ["世界".repeat(20), "", "e\u0301".repeat(60)] }]
    for (const line of table(["ONE", "TWO", "THREE"], wide, { ...plain, columns })) {
      assert.isAtMost(CliOutput.displayWidth(line), columns)
    }
  })

  it("cuts what is too wide, and says so", () => {
    assert.strictEqual(cut("abcdef", 4), "abc…")
    assert.strictEqual(cut("abcd", 4), "abcd")
    assert.strictEqual(cut("世界世界", 4), "世…")
    assert.strictEqual(shortened("orders/2026/1493", 9), "orde…1493")
    assert.strictEqual(shortened("世界世界", 6), "世…界")
  })

  it("shortens what others have named, and keeps what the command says itself", () => {
    const lease = "not renewed for 12s, ends in 7s"
    const cells = ["orders/".repeat(9), "web-3.example.org:4711", lease, "x".repeat(40)]
    for (const columns of [79, 70]) {
      const [, row] = table(["LOCK", "HELD BY", "LEASE", "VALUE"], [{ cells }], { ...plain, columns })
      assert.include(row, lease)
      assert.isAtMost(CliOutput.displayWidth(row!), columns)
    }
  })

  it("is coloured where that is allowed, and safe for a terminal", () => {
    const [head, row] = table(["A"], [{ cells: ["\u001b[2J"], style: "green" }], { ...plain, canColor: true })
    assert.strictEqual(head, "\u001b[1mA\u001b[0m")
    assert.strictEqual(row, "\u001b[32m\\u{1b}[2J\u001b[0m")
    assert.notInclude(table(["A"], [{ cells: ["b"], style: "green" }], plain).join(""), "\u001b")
  })
})

const line: Line = {
  lock: "job",
  holders: [{ claim: "exclusive", client: client(1, 60, 50, { metadata: { job: "x" } }) }],
  queue: Array.from({ length: 5 }, (_, i) => ({ claim: "shared", client: client(2 + i, 40 - i) })),
  conflicts: []
}

const heard = <A>(shown: A, more?: Partial<Screen.Heard<A>>): Screen.Heard<A> => ({
  shown,
  at: noon,
  trouble: undefined,
  renewals: new Map(),
  ...more
})

const size = { columns: 79, cell: 60, rows: 24, canColor: false }

const renewed = (age: number, left: number, at = noon) =>
  new Map([[1n, { notRenewedFor: seconds(age), remaining: seconds(left), at }]])

describe("the screen of a lock", () => {
  it("has the time, the holder with its lease, and the waiters with theirs", () => {
    assert.deepStrictEqual(Screen.paint(Screen.ofLock, heard(line, { renewals: renewed(3, 12) }), noon, size), [
      "as of 12:00:00Z  'job' is held by vm:1; 5 wait.",
      "STATE  CLAIM      CLIENT  FOR  LEASE           VALUE",
      "holds  exclusive  vm:1    50s  renewed 3s ago  {\"job\":\"x\"}",
      "waits  shared     vm:2    40s",
      "waits  shared     vm:3    39s",
      "waits  shared     vm:4    38s",
      "waits  shared     vm:5    37s",
      "waits  shared     vm:6    36s"
    ])
  })

  it("says how many do not fit", () => {
    const lines = Screen.paint(Screen.ofLock, heard(line), noon, { ...size, rows: 5 })
    assert.lengthOf(lines, 5)
    assert.strictEqual(lines.at(-1), "and 4 more")
    for (const rows of [1, 2, 3, 4]) {
      assert.isAtMost(Screen.paint(Screen.ofLock, heard(line), noon, { ...size, rows }).length, rows)
    }
  })

  it("fits a terminal that is next to nothing, with what it says itself", () => {
    const conflicts = Array.from({ length: 9 }, (_, i) => ({ key: `job/${i}`, kind: "PlainKey" as const }))
    for (const columns of [1, 5]) {
      for (
        const text of Screen.paint(Screen.ofLock, heard({ ...line, conflicts }), noon, { ...size, columns, rows: 5 })
      ) {
        assert.isAtMost(CliOutput.displayWidth(text), columns)
      }
    }
  })

  it("counts on for a holder that is not renewed, which is not green", () => {
    const late = heard(line, { renewals: renewed(8, 7, noon - 2000) })
    const colour = { ...size, canColor: true }
    const row = (seen: Screen.Heard<Line>, now = noon) => Screen.paint(Screen.ofLock, seen, now, colour)[2]!
    assert.include(row(late), "not renewed for 10s, ends in 5s")
    assert.include(row(late), "\u001b[33m")
    assert.include(row(heard(line, { renewals: renewed(3, 12) })), "\u001b[32m")
    assert.notInclude(row(heard(line)), "\u001b")
  })

  it("is marked as old when etcd is silent or has failed, and none of it is green then", () => {
    const known = { renewals: renewed(3, 12) }
    const colour = { ...size, canColor: true }
    const silent = Screen.paint(Screen.ofLock, heard(line, known), noon + 4000, colour)
    assert.include(silent[0], "as of 12:00:00Z")
    assert.include(silent[1], "etcd has not answered for 4s: what follows is old")
    const failed = Screen.paint(Screen.ofLock, heard(line, { ...known, trouble: "ECONNREFUSED" }), noon + 1000, colour)
    assert.include(failed[2], "ECONNREFUSED")
    for (const lines of [silent, failed]) {
      assert.include(lines.join("\n"), "vm:1")
      assert.notInclude(lines.join("\n"), "\u001b[32m")
    }
    assert.notInclude(Screen.paint(Screen.ofLock, heard(line, known), noon + 2000, size).join("\n"), "not answered")
  })

  it("names what is in the way of a lock", () => {
    const conflicts = Array.from({ length: 9 }, (_, i) => ({ key: `job/${i}`, kind: "PlainKey" as const }))
    const lines = Screen.paint(Screen.ofLock, heard({ ...line, conflicts }), noon, size)
    assert.include(lines[1], "'job/0' is in its place")
    assert.strictEqual(lines[3], "and 7 more")
  })
})

const summary = (lock: string, holder: Lock.Holder, more?: Partial<Lock.Summary>) => ({
  lock,
  layout: "queue" as const,
  holder,
  holding: 1,
  waiting: 0,
  next: undefined,
  ...more
})

describe("the screen of many locks", () => {
  it("has the longest waits first, and then the longest holds", () => {
    const locks = [
      summary("short hold", client(1, 5, 5)),
      summary("long hold", client(2, 500, 500, { value: "w1" })),
      summary("short wait", client(3, 90, 80), { waiting: 1, next: client(4, 9) }),
      summary("unknown wait", client(5), { waiting: 1, next: client(6) }),
      summary("long wait", client(7, 900), { holding: 2, waiting: 3, next: client(8, 63) })
    ]
    assert.deepStrictEqual(Screen.paint(Screen.ofLocks(""), heard(locks), noon, size), [
      "as of 12:00:00Z  5 locks are held; 5 wait.",
      "LOCK          HELD BY          FOR            WAIT  FOR    VALUE",
      "long wait     vm:7 and 1 more  asked 15m ago  3     1m 3s",
      "short wait    vm:3             1m 20s         1     9s",
      "unknown wait  vm:5                            1",
      "long hold     vm:2             8m 20s                      w1",
      "short hold    vm:1             5s"
    ])
  })

  it("fits the terminal, whatever there is", () => {
    const locks = Array.from({ length: 500 }, (_, i) => summary(`orders/${i}/${"x".repeat(100)}`, client(i, i, i)))
    const lines = Screen.paint(Screen.ofLocks(""), heard(locks), noon, size)
    assert.lengthOf(lines, 24)
    assert.strictEqual(lines.at(-1), "and 479 more")
    for (const line of lines) assert.isAtMost(CliOutput.displayWidth(line), 79)
    assert.include(Screen.paint(Screen.ofLocks(""), heard([]), noon, size)[0], "No lock is held.")
    assert.include(
      Screen.paint(Screen.ofLocks("orders/"), heard([]), noon, size)[0],
      "No lock under 'orders/' is held."
    )
  })

  it("overwrites what is there, and scrolls nothing", () => {
    assert.strictEqual(Screen.overwrite(["a", "b"]), "\u001b[Ha\u001b[K\nb\u001b[K\u001b[J")
  })

  it("is of a common size where the terminal does not tell its own", () => {
    assert.deepInclude(Screen.sizeOf({ columns: 0, rows: 0 }, false), { columns: 79, rows: 24 })
  })
})
