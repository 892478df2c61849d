/**
 * Names made of a program's own text and of values that may come from its users: a value stays in its place, whatever
 * is in it, and different values make different names.
 */
import { createHash } from "node:crypto"
import * as Check from "../options.ts"

export const make = (module: string, text: ReadonlyArray<string>, values: ReadonlyArray<unknown>): string => {
  // What is between two values has to end the first one.
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
  const name = text.reduce((name, text, i) => name + encode(module, values[i - 1]) + text)
  Check.name(module, name)
  return name
}

/** What no encoded value has. */
const separator = /[^\w.~%-]/

const encode = (module: string, value: unknown): string => {
  const text = textOf(module, value)
  // A percent sign comes before two digits elsewhere.
  if (text === "") return "%empty"
  if (/^\.+$/.test(text)) return text.replaceAll(".", "%2E")
  const encoded = text.replaceAll(/[^\w.~-]/gu, encodeCharacter)
  return encoded.length <= maxLength ? encoded : `%sha256-${createHash("sha256").update(encoded).digest("hex")}`
}

/** As long as the hash that replaces what is longer. */
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
