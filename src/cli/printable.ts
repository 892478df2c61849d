/** Text of other clients, which may be hostile, made safe for a terminal. */

/** Control characters, those that change the direction of text, and those that take no room. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu

const maxLength = 1000

/** Replaces what a terminal would act on by its code, and cuts what is too long. */
export const printable = (text: string, max = maxLength): string => {
  const cut = text.length <= max ? text : `${text.slice(0, max - 1)}…`
  return cut.replace(unprintable, escaped)
}

const escaped = (character: string) => `\\u{${character.codePointAt(0)!.toString(16)}}`

/** JSON in one line of printable characters, which parses to the same value. */
export const json = (value: unknown): string =>
  JSON.stringify(value).replace(
    unprintable,
    (character) =>
      Array.from({ length: character.length }, (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`)
        .join("")
  )
