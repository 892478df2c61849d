import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { renderTable } from "./report/markdown.ts"
import type { Table } from "./table.ts"

const root = Path.resolve(import.meta.dirname, "../..")
const read = (...path: ReadonlyArray<string>) => Fs.readFileSync(Path.join(root, ...path), "utf8")
const tableOf = (text: string) => text.split("\n").filter((line) => line.startsWith("|"))

describe("the committed results", () => {
  const results: Table = JSON.parse(read("test/fault/report/table.json"))

  it("are as a run writes them", () => {
    assert.strictEqual(read("test/fault/report/table.md"), renderTable(results))
  })

  it("stand in the guide to the guarantees", () => {
    const rows = tableOf(renderTable(results)).slice(2).map((row) => row.replaceAll(/ +/g, " "))
    assert.isAbove(rows.length, 4)
    const guide = tableOf(read("docs/guarantees.md")).map((row) => row.replaceAll(/ +/g, " "))
    for (const row of rows) assert.include(guide, row)
  })
})
