/**
 * Where the command line ends and that of the command that it runs begins. effect/cli takes every word in front of the
 * first `--` that looks like an option for one of its own, so this puts the `--` there.
 */
import type { Completions } from "effect/cli"

type Flags = ReadonlyArray<Completions.FlagDescriptor>

/**
 * Returns the words with a `--` before the operands of the last, variadic argument. Short options stand alone then, and
 * have their values beside them: `-nw5` is `-n=true -w=5`. And `help run` is `--help run`.
 */
export const separated = (
  root: Completions.CommandDescriptor,
  words: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const own: Array<string> = []
  let command = root
  let operands = 0
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (word === "--") return [...own, ...words.slice(i)]
    if (word.length > 1 && word.startsWith("-")) {
      const { needsValue, parts } = word.startsWith("--") ? long(command.flags, word) : short(command.flags, word)
      own.push(...parts)
      if (needsValue && i + 1 < words.length) own.push(words[++i]!)
      continue
    }
    if (word === "help" && command === root) {
      const next = words[i + 1]
      // A command that there is not has no help, and is refused.
      if (next === undefined || next.startsWith("-") || named(root, next) !== undefined) own.push("--help")
      continue
    }
    const subcommand = named(command, word)
    if (subcommand !== undefined) command = subcommand
    else if (command.arguments[operands]?.variadic === true) return [...own, "--", ...words.slice(i)]
    else if (command.subcommands.length === 0) operands++
    own.push(word)
  }
  return own
}

const named = (command: Completions.CommandDescriptor, word: string) =>
  command.subcommands.find(({ name }) => name === word)

interface Option {
  readonly parts: ReadonlyArray<string>
  /** Whether the next word is its value. */
  readonly needsValue: boolean
}

const long = (flags: Flags, word: string): Option => {
  const name = word.slice(2)
  return isSwitch(flags, name)
    ? { parts: [`${word}=true`], needsValue: false }
    : { parts: [word], needsValue: takesValue(flags, name) }
}

const short = (flags: Flags, word: string): Option => {
  const names = Array.from(word.slice(1))
  const at = names.findIndex((name) => !isSwitch(flags, name))
  const switches = (at < 0 ? names : names.slice(0, at)).map((name) => `-${name}=true`)
  if (at < 0) return { parts: switches, needsValue: false }
  const [name, ...value] = names.slice(at)
  if (value.length === 0) return { parts: [...switches, `-${name}`], needsValue: takesValue(flags, name!) }
  // `-w5` is `-w=5`.
  return takesValue(flags, name!) && value[0] !== "="
    ? { parts: [...switches, `-${name}=${value.join("")}`], needsValue: false }
    : { parts: [...switches, `-${name}${value.join("")}`], needsValue: false }
}

const find = (flags: Flags, name: string) => flags.find((flag) => flag.name === name || flag.aliases.includes(name))

/** A flag without a value. effect/cli takes the word after it for one if that is `true`, `y` or `1`, which are also names. */
const isSwitch = (flags: Flags, name: string): boolean => find(flags, name)?.type._tag === "Boolean"

const takesValue = (flags: Flags, name: string): boolean => name === "completions" || find(flags, name) !== undefined
