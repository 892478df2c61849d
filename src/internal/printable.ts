/** What other clients have written, made fit for a message: it cannot begin a line of a log, or act on a terminal. */

/** Control characters, those that change the direction of text, those that take no room, and ends of lines. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu

/** More than the longest name of a lock has, with the rest of a key. */
const maxLength = 2000

export const printable = (text: string): string => {
  const cut = text.length <= maxLength ? text : `${text.slice(0, maxLength - 1)}…`
  return cut.replace(unprintable, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)
}
