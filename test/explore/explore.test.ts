/**
 * The schedules of some of the small programs with at most one deviation from the default order, for lines that are watched
 * as a whole or by guards in turn. `npm run explore` has all programs, in both kinds of lines, and more deviations.
 */
import { assert, describe, it } from "@effect/vitest"
import { ReadWriteLock } from "effect-etcd-lock"
import { Explorer } from "./Explorer.ts"
import { type Program, programs, type Role } from "./programs.ts"
import { type Length, run } from "./World.ts"

const explore = (program: Program, length: Length, bound: number) => {
  const explorer = new Explorer(program, length)
  for (let count = 0; count <= bound; count++) explorer.deepen()
  return explorer
}

/** They take long, and others have most of what they have. */
const left = new Set(["three", "again", "lasting", "readWrite"])

describe("every schedule of one deviation keeps the promises", () => {
  for (const [index, program] of programs.filter(({ name }) => !left.has(name)).entries()) {
    const length = index % 2 === 0 ? "long" : "short"
    it(`of '${program.name}', in a ${length} line`, () => {
      assert.isUndefined(explore(program, length, 1).counterExample)
    })
  }
})

const reader = (client: number): Role => ({
  client,
  names: ["a"],
  patience: "all",
  run: (body, options) => ReadWriteLock.withReadLock(body(["lock"]), "a", options)
})

/** Readers that take themselves for the only ones. */
const broken: Program = { name: "broken", roles: [reader(0), reader(1)] }

it("a broken promise is found, and its schedule plays again", () => {
  const { counterExample } = explore(broken, "short", 0)
  assert.include(counterExample?.violations[0], "P2: task 1 starts under entry 3 of task 1 in B with token 3")
  const { deviations } = counterExample!.schedule
  assert.deepStrictEqual(run({ program: broken, length: "short", deviations }).violations, counterExample!.violations)
})

it("a run is the same each time", () => {
  const play = () => {
    const trace: Array<string> = []
    run({
      program: programs.find(({ name }) => name === "several")!,
      length: "long",
      deviations: [[9, "isolate B"]],
      trace: (line) => trace.push(line)
    })
    return trace
  }
  assert.deepStrictEqual(play(), play())
})
