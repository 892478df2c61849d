/** Rows of text as columns, as wide as their cells or as the terminal is. */
import { CliOutput } from "effect/cli"
import { printable } from "../internal/printable.ts"

export interface Row {
  readonly cells: ReadonlyArray<string>
  readonly style?: Style | undefined
}

/** The codes of a terminal. */
const styles = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 }

export type Style = keyof typeof styles

export interface Room {
  readonly columns: number
  /** The widest that a cell may be. */
  readonly cell: number
  readonly canColor: boolean
}

const between = "  "

/** Lays out rows under a header, without the columns that would be empty. Cells are made safe for a terminal. */
export const table = (header: ReadonlyArray<string>, rows: ReadonlyArray<Row>, room: Room): ReadonlyArray<string> => {
  const safe = rows.map(({ cells, style }) => ({ style, cells: cells.map((cell) => printable(cell)) }))
  const used = header.flatMap((_, column) => safe.some(({ cells }) => cells[column] !== "") ? [column] : [])
  const all: ReadonlyArray<Row> = [{ cells: header, style: "bold" }, ...safe]
  const lines = all.map(({ cells, style }) => ({ style, cells: used.map((column) => cells[column]!) }))
  const widths = used.map((_, column) => Math.max(...lines.map(({ cells }) => CliOutput.displayWidth(cells[column]!))))
  const isLong = used.map((column) => named.has(header[column]!))
  const most = Math.min(room.cell, mostOfLong(widths, isLong, room.columns))
  return lines.map(({ cells, style }) => {
    const padded = cells.map((cell, column) => {
      const width = isLong[column]! ? Math.min(widths[column]!, most) : widths[column]!
      const text = shortened(cell, width)
      return text + " ".repeat(width - CliOutput.displayWidth(text))
    })
    return styled(cut(padded.join(between).trimEnd(), room.columns), style, room)
  })
}

/** What others have named, which may be long. It is shortened, and what this command says itself is not. */
const named = new Set(["LOCK", "HELD BY", "CLIENT", "VALUE"])

/** The greatest width of a long column with which a row fits: the widest ones give way first. */
const mostOfLong = (widths: ReadonlyArray<number>, isLong: ReadonlyArray<boolean>, columns: number): number => {
  const isFitting = (most: number) =>
    widths.reduce(
      (sum, width, column) => sum + (isLong[column]! ? Math.min(width, most) : width) + between.length,
      -between.length
    ) <= columns
  let most = Math.max(...widths, least)
  while (most > least && !isFitting(most)) most--
  return most
}

/** Less of a cell says nothing. */
const least = 8

/** Cuts what is wider than so many columns. */
export const cut = (text: string, columns: number): string =>
  CliOutput.displayWidth(text) <= columns ? text : `${beginning([...text], columns - 1).join("")}…`

/** Leaves out the middle of what is wider than so many columns: names and processes often differ at the end. */
export const shortened = (text: string, columns: number): string => {
  if (CliOutput.displayWidth(text) <= columns) return text
  const characters = [...text]
  const tail = beginning(characters.toReversed(), (columns - 1) >> 1).toReversed()
  return `${beginning(characters, columns - 1 - CliOutput.displayWidth(tail.join(""))).join("")}…${tail.join("")}`
}

/** As many of the first characters as fit into so many columns. */
const beginning = (characters: ReadonlyArray<string>, columns: number): ReadonlyArray<string> => {
  let width = 0
  const end = characters.findIndex((character) => (width += CliOutput.displayWidth(character)) > columns)
  return characters.slice(0, end)
}

export const styled = (text: string, style: Style | undefined, { canColor }: Pick<Room, "canColor">): string =>
  canColor && style !== undefined ? `\u001b[${styles[style]}m${text}\u001b[0m` : text
