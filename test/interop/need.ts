import { Effect } from "effect"
import { beforeAll } from "vitest"
import type { ToolMissing } from "./tools.ts"

/** Has the tests of a `describe` fail at once where a tool is missing. What is built for the first time may take minutes. */
export const need = (...tools: ReadonlyArray<Effect.Effect<string, ToolMissing>>) =>
  beforeAll(() => Effect.runPromise(Effect.all(tools, { discard: true })), 300_000)
