import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { format, parse } from "./results.ts"

const directory = Path.join(import.meta.dirname, "results")

describe("the benchmark's committed results", () => {
  it.each(Fs.readdirSync(directory).filter((file) => file.endsWith(".json")))("%s is as a run writes it", (file) => {
    const written = Fs.readFileSync(Path.join(directory, file), "utf8")
    const results = parse(written)
    assert.strictEqual(format(results), written)
    // What was written over many lines is read as well.
    assert.strictEqual(format(parse(JSON.stringify(results, undefined, 1))), written)
    const contenders = results.environments.flatMap(({ cases }) => cases.flatMap(({ samples }) => Object.keys(samples)))
    assert.isAtLeast(written.split("\n").length, contenders.length)
  })
})
