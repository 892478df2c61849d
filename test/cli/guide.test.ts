/** The guide to the command speaks of the commands, options and exit codes that there are. */
import { assert, describe, it } from "@effect/vitest"
import { Completions } from "effect/cli"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { codes } from "../../src/cli/ending.ts"
import { command } from "../../src/cli/main.ts"

const guide = Fs.readFileSync(Path.resolve(import.meta.dirname, "../../docs/command.md"), "utf8")
const root = Completions.fromCommand(command)

/** The part of the guide under a heading. */
const section = (heading: string) => {
  const found = guide.split(/^##+ /m).find((part) => part.startsWith(`${heading}\n`))
  assert.isDefined(found, heading)
  return found!
}

/** The options in the first column of a table, with their aliases. */
const optionsIn = (text: string) =>
  [...text.matchAll(/^\| (`-[^|]*)\|/gm)].flatMap(([, cell]) =>
    [...cell!.matchAll(/(?<![\w-])--?[a-zA-Z][\w-]*/g)].map(String)
  )

const optionsOf = (flags: ReadonlyArray<Completions.FlagDescriptor>) =>
  flags.flatMap(({ aliases, name }) => [`--${name}`, ...aliases.map((alias) => `-${alias}`)])

const shared = optionsOf(root.flags)
const subcommand = (name: string) => root.subcommands.find((subcommand) => subcommand.name === name)!

describe("the guide to the command", () => {
  it("has every subcommand, and no others", () => {
    const shown = [...guide.matchAll(/^ {4}etcd-lock (\w+)/gm)].map(([, name]) => name)
    assert.sameMembers([...new Set(shown)], root.subcommands.map(({ name }) => name))
  })

  it("has the options of all commands", () => {
    const others = ["--help", "-h", "--version", "-V", "--completions"]
    assert.sameMembers(optionsIn(section("Options of all commands")), [...shared, ...others])
  })

  it("has the options of run", () => {
    const own = optionsOf(subcommand("run").flags).filter((option) => !shared.includes(option))
    assert.sameMembers(optionsIn(section("run")), own)
  })

  it.each(["elect", "release"])("has the options of %s", (name) => {
    const own = subcommand(name).flags.map(({ name }) => `--${name}`).filter((option) => !shared.includes(option))
    const shown = new Set([...section(name).matchAll(/--[a-z][\w-]*/g)].map(String))
    assert.sameMembers([...shown], own)
  })

  it("has every exit code", () => {
    const shown = [...section("Exit codes").matchAll(/^\| (\d[\d, ]*?) *\|/gm)].flatMap(([, cell]) => cell!.split(", "))
    assert.sameMembers(shown.map(Number), Object.values(codes))
  })

  it("has every completion that is not hidden", () => {
    for (const shell of ["bash", "zsh", "fish"] as const) {
      const script = Completions.generate("etcd-lock", shell, root)
      for (const { name } of root.subcommands) assert.include(script, name)
    }
  })
})
