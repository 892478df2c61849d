/** What `etcd-lock watch` shows of a lock of any kind. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import * as Line from "../../src/cli/line.ts"
import * as Ls from "../../src/cli/ls.ts"
import { fork, pass, provideMemory, seconds, session, stop } from "../support/inMemory.ts"

const shown = ({ holders, queue }: Line.Line) =>
  [...holders.map(({ claim }) => claim), ...queue.map(({ claim }) => `waits: ${claim}`)].join(", ")

const sections = {
  "a semaphore": [Semaphore.withPermits(Effect.never, "job", { of: 2 }), "1 of 2"],
  "a lock": [Lock.withLock(Effect.never, "job"), "exclusive"],
  "a reader": [ReadWriteLock.withReadLock(Effect.never, "job"), "shared"],
  "a writer": [ReadWriteLock.withWriteLock(Effect.never, "job"), "exclusive"],
  "a single key": [Lock.withLock(Effect.never, "job", { layout: "single-key" }), "single key"]
} as const

describe("the line of a lock", () => {
  it.effect.each(Object.entries(sections))(
    "shows %s, and no state that never was",
    ([, [section, claim]]) =>
      provideMemory(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const seen: Array<string> = []
        yield* fork(Stream.runForEach(Line.linesOf("job"), (line) => Effect.sync(() => seen.push(shown(line)))))
        yield* pass("1 second")
        for (const { run } of [a, b]) {
          const holding = yield* fork(run(section))
          yield* pass("1 second")
          assert.strictEqual(shown(yield* Line.lineOf("job")), claim)
          yield* stop(holding)
          yield* pass("1 second")
        }
        assert.deepStrictEqual(seen, ["", claim, "", claim, ""])
      }))
  )

  it.effect("counts those that wait inside of a process, in no line", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      for (const { run } of [a, a, a, b, b]) yield* fork(run(Lock.withLock(Effect.never, "job")))
      yield* seconds(3)
      const line = yield* Line.lineOf("job")
      assert.strictEqual(shown(line), "exclusive, waits: exclusive")
      assert.match(Line.summary(line), /^'job' is held by .*; 4 wait, 3 of them inside of a process$/)
      const [listed] = yield* Lock.list("job")
      assert.match(Ls.summary(listed!), /; 3 wait, 2 of them inside of a process$/)
    })))

  it.effect("shows readers and writers in their order", () =>
    provideMemory(Effect.gen(function*() {
      for (const name of ["a reader", "a writer", "a reader"] as const) {
        const { run } = yield* session()
        yield* fork(run(sections[name][0]))
        yield* pass("1 second")
      }
      assert.strictEqual(shown(yield* Line.lineOf("job")), "shared, waits: exclusive, waits: shared")
    })))
})
