import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Chart from "./report/chart.ts"
import * as Markdown from "./report/markdown.ts"
import { format, parse } from "./results.ts"

const directory = Path.join(import.meta.dirname, "results")

const files = Fs.readdirSync(directory).filter((file) => file.endsWith(".json"))

const read = (file: string) => Fs.readFileSync(Path.join(directory, file), "utf8")

describe("the benchmark's committed results", () => {
  it.each(files)("%s is as a run writes it", (file) => {
    const written = read(file)
    const results = parse(written)
    assert.strictEqual(format(results), written)
    // What was written over many lines is read as well.
    assert.strictEqual(format(parse(JSON.stringify(results, undefined, 1))), written)
    const contenders = results.environments.flatMap(({ cases }) => cases.flatMap(({ samples }) => Object.keys(samples)))
    assert.isAtLeast(written.split("\n").length, contenders.length)
  })

  it.each(files)("the tables and the picture beside %s show its figures", (file) => {
    const results = parse(read(file))
    assert.strictEqual(read(file.replace("json", "md")), Markdown.render(results))
    assert.strictEqual(read(file.replace("json", "svg")), Chart.render(results))
  })
})
