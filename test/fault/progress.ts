/**
 * A line that says how far a run is: the same line again on a terminal, and a new one now and then elsewhere.
 */
import { Effect } from "effect"

export interface Progress {
  readonly show: (line: string) => Effect.Effect<void>
  /** Leaves the last line as it is. */
  readonly end: Effect.Effect<void>
}

export const make = (every: number, output: NodeJS.WriteStream = process.stdout): Progress => {
  let last = -Infinity
  return {
    show: (line) =>
      Effect.sync(() => {
        if (output.isTTY) return void output.write(`\r\u001b[2K${line.slice(0, output.columns - 1)}`)
        if (performance.now() < last + every) return
        last = performance.now()
        output.write(`${line}\n`)
      }),
    end: Effect.sync(() => void (output.isTTY && output.write("\n")))
  }
}
