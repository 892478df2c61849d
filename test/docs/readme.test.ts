import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promises } from "../promises.ts"

const root = Path.resolve(import.meta.dirname, "../..")
const read = (file: string) => Fs.readFileSync(Path.join(root, file), "utf8")
const readme = read("README.md")
const pages = [
  ...Fs.readdirSync(root).filter((file) => file.endsWith(".md")),
  ...Fs.readdirSync(Path.join(root, "docs")).map((file) => `docs/${file}`)
]
const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8"))

describe("the commands in the documentation", () => {
  it("are scripts of the package", () => {
    const mentioned = pages.flatMap((page) => [...read(page).matchAll(/npm run ([a-z][\w:-]*)/g)])
    assert.isNotEmpty(mentioned)
    for (const [, script] of mentioned) assert.property(manifest.scripts, script!)
  })

  it("install all dependencies of the package beside a bundle", () => {
    const [, named = ""] = /^## Bundling\n[^]*?^npm install (.*)$/m.exec(read("docs/connecting.md")) ?? []
    const specifiers = Object.entries(manifest.dependencies).map(([name, range]) => `${name}@${range}`)
    assert.sameMembers(named.split(" "), specifiers)
  })
})

describe("the README", () => {
  it("has at most 2000 words", () => {
    assert.isAtMost(readme.split(/\s+/).length, 2000)
  })

  it("has a table of contents with all of its headings", () => {
    const headings = [...readme.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading)
    const contents = [...readme.slice(0, readme.indexOf("\n## ")).matchAll(/\[([^\]]+)\]\(#[\w-]+\)/g)]
    assert.deepStrictEqual(
      contents.map(([, heading]) => heading!.replace(/^what/, "What")),
      headings
    )
  })
})

describe("the pages", () => {
  const headings = (text: string) =>
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!.toLowerCase().replaceAll(/[^\w -]/g, "").replaceAll(" ", "-")
    )

  it.each(pages)("link to what there is: %s", (page) => {
    for (const [link, file, heading] of read(page).matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)) {
      const target = file === "" ? page : Path.join(Path.dirname(page), file!)
      assert.isTrue(Fs.existsSync(Path.join(root, target)), `${page}: ${link}`)
      if (heading !== "") assert.include(headings(read(target)), heading)
    }
  })
})

describe("what the documentation promises", () => {
  it("is the table of promises, in its order", () => {
    const [, section = ""] = /^## What it promises\n([^]*?)\n## /m.exec(readme) ?? []
    const listed = [...section.matchAll(/^(\d+)\. \*\*(.+?)\.\*\* /gm)].map(([, number, name]) => [`P${number}`, name])
    assert.deepStrictEqual(listed, Object.entries(promises).map(([id, { name }]) => [id, name]))
  })
})
