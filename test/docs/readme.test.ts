import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../..")
const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")

describe("the commands in the documentation", () => {
  it("are scripts of the package", () => {
    const { scripts } = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8"))
    const mentioned = [...readme.matchAll(/npm run ([\w:-]+)/g)].map(([, script]) => script!)
    assert.isNotEmpty(mentioned)
    for (const script of mentioned) assert.property(scripts, script)
  })
})
