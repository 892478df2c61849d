/**
 * Names made of a program's own text and of values that may come from its users: a value stays in its place, whatever
 * is in it, and different values make different names.
 */
import { createHash } from "node:crypto"
import * as Check from "../options.ts"

export const make = (module: string, text: ReadonlyArray<string>, values: ReadonlyArray<unknown>): string => {
  // The text between two values has to show where the first one ends.
  const joined = text.slice(1, -1).find((between) => !separator.test(between))
  if (joined !== undefined) {
    throw new Check.InvalidOption({
      module,
      option: "name",
      problem: (name) =>
        `cannot use the template of a ${name("name")} with two values and ${Check.show(joined)} between them`,
      cure: () => "Write a character between them that no encoded value has, such as \"/\" or \":\"."
    })
  }
  const encoded = values.map((value) => encode(module, value))
  const joinedWith = (values: ReadonlyArray<string>) => text.reduce((name, text, i) => name + values[i - 1] + text)
  const made = joinedWith(encoded)
  // No value makes the name of a read-write lock's folder. Text that does so is the program's own mistake.
  const last = encoded.at(-1)
  const name = last !== undefined && !text.at(-1)!.includes("/") && Check.isFolder(made)
    ? joinedWith(encoded.with(encoded.length - 1, encodeCharacter(last[0]!) + last.slice(1)))
    : made
  Check.name(module, name)
  return name
}

/** A character that no encoded value has. */
const separator = /[^\w.~%-]/

const encode = (module: string, value: unknown): string => {
  const text = textOf(module, value)
  // No other value is encoded like this: elsewhere, `%` comes before two hexadecimal digits, `u` or `sha256`.
  if (text === "") return "%empty"
  if (/^\.+$/.test(text)) return text.replaceAll(".", "%2E")
  const encoded = text.replaceAll(/[^\w.~-]/gu, encodeCharacter)
  return encoded.length <= maxLength ? encoded : `%sha256-${createHash("sha256").update(encoded).digest("hex")}`
}

/** The length of the hash that replaces longer values. */
const maxLength = 72

const encodeCharacter = (character: string): string =>
  character.isWellFormed()
    ? Buffer.from(character).toString("hex").toUpperCase().replaceAll(/../g, "%$&")
    : `%u${character.charCodeAt(0).toString(16).toUpperCase()}`

const textOf = (module: string, value: unknown): string => {
  if (typeof value === "string" || typeof value === "bigint" || Number.isFinite(value)) return String(value)
  throw new Check.InvalidOption({
    module,
    option: "name",
    problem: (name) => `a value in a ${name("name")} must be text, a number or a bigint, got ${Check.show(value)}`
  })
}
