/** The figures of the guides are those of the committed results. */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { grouped } from "./report/markdown.ts"
import { medianIn, parse } from "./results.ts"
import * as Roster from "./roster.ts"

const root = Path.resolve(import.meta.dirname, "../..")
const read = (file: string) => Fs.readFileSync(Path.join(root, file), "utf8")

const inMemory = parse(read("test/bench/results/etcd-3.5.json")).environments.find(({ disk }) => disk === "tmpfs")!

const median = (name: string, contender: string, metric: string) => medianIn(inMemory, name, contender, metric)!

/** The cells of the row of a table that begins with this one. */
const rowOf = (page: string, first: string) => {
  const rows = read(page).split("\n").map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
  return rows.find(([cell]) => cell === first)?.slice(1)
}

/** In the order of the columns. */
const contenders = [Roster.library, Roster.goMutex, Roster.etcd3Lock, Roster.redlock]

type Figure = readonly [name: string, metric: string, show?: (value: number) => string]

const inMillis = (micros: number) => (micros / 1000).toFixed(1)
const share = (value: number) => value.toFixed(2)

const free: Figure = ["uncontended", "p50"]
const inOneProcess: Figure = ["hand-over-8", "passed"]
const many: Figure = ["many-64", "rate"]
const fairness: Figure = ["hand-over-8", "fairness", share]

const tables: Record<string, Record<string, Figure>> = {
  "README.md": {
    "take and release a free lock, median, µs": free,
    "hand-overs/s, 8 contenders in one process": inOneProcess,
    "hand-overs/s, 4 processes": ["hand-over-4x1", "passed"],
    "64 locks by 64 workers, locks/s": many,
    "fairness: smallest share among 8 (1.00 = equal)": fairness
  },
  "docs/benchmarks.md": {
    "take and release a free lock, p50, µs": free,
    "hand-overs/s, 8 contenders in one process": inOneProcess,
    "hand-overs/s, 4 processes": ["hand-over-4x1", "passed"],
    "hand-overs/s, 4 processes of 8 contenders": ["hand-over-4x8", "passed"],
    "its p90 when each holds for 5 ms, ms": ["section-8", "gap90", inMillis],
    "fairness: smallest share of 8": fairness,
    "64 locks by 64 workers, locks/s": many,
    "a try that is refused, p50, µs": ["try", "p50"]
  }
}

describe.each(Object.entries(tables))("in %s", (page, rows) => {
  it.each(Object.entries(rows))("%s is as measured", (label, [name, metric, show = grouped]) => {
    assert.deepStrictEqual(rowOf(page, label), contenders.map((contender) => show(median(name, contender, metric))))
  })
})

describe("in docs/benchmarks.md", () => {
  it.each([2, 8, 32, 64, 128, 256])("the line of %i processes is as measured", (count) => {
    const shown = ["rate", "serverCpu", "bytes"].flatMap((metric) =>
      [Roster.library, Roster.goMutex].map((contender) => grouped(median(`sessions-${count}`, contender, metric)))
    )
    assert.deepStrictEqual(rowOf("docs/benchmarks.md", String(count)), shown)
  })

  it("what is said of redlock, the raw client and the failover is as measured", () => {
    const text = read("docs/benchmarks.md").replaceAll(/\s+/g, " ")
    const said = [
      `mostly gets it again, ${grouped(median("hand-over-8", Roster.redlock, "rate"))} times a second`,
      `through npm etcd3's client take ${grouped(median("uncontended", Roster.floor, "p50"))} µs`,
      `${median("many-64", Roster.library, "commits").toFixed(2)} commits each`,
      `the next one leads ${
        grouped(median("failover", Roster.library, "terminated"))
      } ms after the leader gets SIGTERM`,
      `(${grouped(median("failover", Roster.goElection, "terminated"))} ms in Go's`
    ]
    for (const sentence of said) assert.include(text, sentence)
  })
})
