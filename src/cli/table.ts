/** Rows of text as columns. */
import { CliOutput, TerminalCapabilities } from "effect/cli"
import * as Effect from "effect/Effect"
import { printable } from "../internal/printable.ts"

const maxCell = 60

/** Lays out rows under a header, which is bold where the terminal can do that. Cells are made safe for a terminal. */
export const table = (
  header: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): Effect.Effect<string> =>
  Effect.map(TerminalCapabilities.TerminalCapabilities, ({ canColor }) => {
    const cells = [header, ...rows.map((row) => row.map((cell) => printable(cell, maxCell)))]
    const widths = header.map((_, column) => Math.max(...cells.map((row) => CliOutput.displayWidth(row[column]!))))
    const [head, ...lines] = cells.map((row) =>
      row.map((cell, column) => cell + " ".repeat(widths[column]! - CliOutput.displayWidth(cell))).join("  ").trimEnd()
    )
    return [canColor ? `\u001b[1m${head}\u001b[0m` : head, ...lines].join("\n")
  })
