import { assert, describe, it } from "@effect/vitest"
import type { Completions } from "effect/cli"
import { separated } from "../../src/cli/operands.ts"

const flag = (name: string, alias: string, tag: "Boolean" | "String"): Completions.FlagDescriptor => ({
  name,
  aliases: [alias],
  description: undefined,
  type: { _tag: tag }
})

const argument = (name: string, variadic: boolean): Completions.ArgumentDescriptor => ({
  name,
  description: undefined,
  required: !variadic,
  variadic,
  type: { _tag: "String" }
})

const flags = [flag("quiet", "q", "Boolean"), flag("wait", "w", "String")]

const root: Completions.CommandDescriptor = {
  name: "etcd-lock",
  description: undefined,
  flags,
  arguments: [],
  subcommands: [
    {
      name: "run",
      description: undefined,
      flags,
      arguments: [argument("name", false), argument("command", true)],
      subcommands: []
    },
    { name: "inspect", description: undefined, flags, arguments: [argument("name", false)], subcommands: [] }
  ]
}

describe("the words of the command line", () => {
  it.each([
    ["leaves a command's own options to it", "run job make -q -w5", "run job -- make -q -w5"],
    ["has options before the name", "run -q -w 5 job make", "run -q=true -w 5 job -- make"],
    ["has options between the name and the command", "run job -w 5 make -w 6", "run job -w 5 -- make -w 6"],
    ["has options before the subcommand", "-q --wait 5 run job make", "-q=true --wait 5 run job -- make"],
    ["does not take the value of an option for the command", "run --wait 5 job", "run --wait 5 job"],
    ["does not take a name or a command for the value of a switch", "run -q y true", "run -q=true y -- true"],
    ["does so for a long one", "run --quiet y true", "run --quiet=true y -- true"],
    ["takes short options apart", "run -qw5 job make", "run -q=true -w=5 job -- make"],
    ["takes the next word as the value of the last one", "run -qw 5 job make", "run -q=true -w 5 job -- make"],
    ["keeps a value after an equals sign", "run -w=5 --wait=6 job make", "run -w=5 --wait=6 job -- make"],
    ["keeps the value of a switch", "run --quiet=false job make", "run --quiet=false job -- make"],
    ["keeps the first -- as it is", "run job -- make -- -q", "run job -- make -- -q"],
    ["keeps a -- before the name", "run -- job make -q", "run -- job make -q"],
    ["takes a lone - for an operand", "run job -", "run job -- -"],
    ["takes a subcommand's name for a command behind a name", "run job run -q", "run job -- run -q"],
    ["leaves unknown options to the parser", "run -x job make", "run -x job -- make"],
    ["adds nothing where no command is run", "inspect -q job more", "inspect -q=true job more"]
  ])("%s", (_, words, expected) => {
    assert.deepStrictEqual(separated(root, words.split(" ")), expected.split(" "))
  })
})
