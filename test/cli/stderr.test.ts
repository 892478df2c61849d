/** What is printed while a lock is held, in front of a reader that stands still. */
import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Layer } from "effect"
import { afterAll, vi } from "vitest"

const cat = { waiting: 0, printed: [] as Array<string> }

const start = () => ({
  on: (_: string, ended: () => void) => ended(),
  stdin: {
    on: () => {},
    end: () => {},
    get writableLength() {
      return cat.waiting
    },
    write: (text: string) => {
      cat.printed.push(text)
      cat.waiting += text.length
    }
  }
})

// Other files of the same worker have loaded these modules, or will.
vi.resetModules()
vi.doMock("../../src/cli/aside.ts", () => ({ start }))
const Stderr = await import("../../src/cli/stderr.ts")
const Words = await import("../../src/cli/words.ts")
afterAll(() => {
  vi.doUnmock("../../src/cli/aside.ts")
  vi.resetModules()
})

describe("what nobody reads in time", () => {
  it.effect.each<[json: boolean, quiet: boolean, missing: RegExp]>([
    [false, false, /^etcd-lock: warning: 2 messages are missing here: nobody read them in time$/],
    [true, false, /^\{"message":"2 messages are missing here: nobody read them in time","level":"WARN",.*\}$/],
    [false, true, /^etcd-lock: warning: 2 messages are missing here/]
  ])(
    "is counted in the form of all messages (--json: %s, --quiet: %s)",
    ([json, quiet, missing]) =>
      Effect.gen(function*() {
        cat.printed = []
        for (const [waiting, message] of [[0, "first"], [1 << 16, "x"], [1 << 16, "y"], [0, "last"]] as const) {
          cat.waiting = waiting
          yield* Effect.logError(message)
        }
        const lines = cat.printed.join("").split("\n").slice(0, -1)
        assert.lengthOf(lines, 3)
        assert.include(lines[0], "first")
        assert.match(lines[1]!, missing)
        assert.include(lines[2], "last")
      }).pipe(
        Effect.provide(Layer.provideMerge(
          Stderr.layer,
          Layer.merge(Words.layer({ json, quiet, verbose: false }), Layer.succeed(Console.Console, console))
        ))
      )
  )
})
