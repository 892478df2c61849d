import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promises } from "../promises.ts"

const root = Path.resolve(import.meta.dirname, "../..")
const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")
const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8"))

describe("the commands in the documentation", () => {
  it("are scripts of the package", () => {
    const mentioned = [...readme.matchAll(/npm run ([\w:-]+)/g)].map(([, script]) => script!)
    assert.isNotEmpty(mentioned)
    for (const script of mentioned) assert.property(manifest.scripts, script)
  })

  it("install all dependencies of the package beside a bundle", () => {
    const [, named = ""] = /^## Bundling\n[^]*?^npm install (.*)$/m.exec(readme) ?? []
    const specifiers = Object.entries(manifest.dependencies).map(([name, range]) => `${name}@${range}`)
    assert.sameMembers(named.split(" "), specifiers)
  })
})

describe("what the documentation promises", () => {
  it("is the table of promises, in its order", () => {
    const [, section = ""] = /^## What it promises\n([^]*?)\n## /m.exec(readme) ?? []
    const listed = [...section.matchAll(/^(\d+)\. \*\*(.+?)\.\*\* /gm)].map(([, number, name]) => [`P${number}`, name])
    assert.deepStrictEqual(listed, Object.entries(promises).map(([id, { name }]) => [id, name]))
  })
})
