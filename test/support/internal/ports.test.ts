import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { vi } from "vitest"
import { freePort } from "./ports.ts"

/** Has each port drawn twice in a row. */
const drawTwice = Effect.acquireRelease(
  Effect.sync(() => {
    let draws = 0
    return vi.spyOn(Math, "random").mockImplementation(() => Math.floor(draws++ / 2) / 1000)
  }),
  (random) => Effect.sync(() => random.mockRestore())
)

describe("freePort", () => {
  it.live("gives no port twice, though nothing listens on it yet", () =>
    Effect.gen(function*() {
      yield* drawTwice
      const ports = yield* Effect.replicateEffect(freePort, 4)
      assert.lengthOf(new Set(ports), 4)
    }).pipe(Effect.scoped))
})
