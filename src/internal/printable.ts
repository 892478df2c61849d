/** Text of other clients, which may be hostile, made fit for a message: it cannot begin a line of a log, or act on a terminal. */

/** Control characters, those that change the direction of text, those that take no room, and ends of lines. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu

/** More than the longest name of a lock has, with the rest of a key. */
const maxLength = 2000

/** Replaces what a terminal would act on by its code, and cuts what is too long. */
export const printable = (text: string, max = maxLength): string => {
  const cut = text.length <= max ? text : `${text.slice(0, max - 1)}…`
  return cut.replace(unprintable, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)
}

/** JSON in one line of printable characters, which parses to the same value. */
export const json = (value: unknown): string =>
  JSON.stringify(value).replace(
    unprintable,
    (character) =>
      Array.from({ length: character.length }, (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`)
        .join("")
  )
