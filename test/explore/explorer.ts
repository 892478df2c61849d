/**
 * Goes through the schedules of a program in the order of how many deviations from the default order they have, as
 * delay-bounded search does: most faults need few. A state that was seen with as few deviations or fewer is not entered
 * again, so runs that differ only in the order of what does not matter to each other are run once.
 */
import type { Program } from "./programs.ts"
import { type Deviation, type Kind, type Length, run } from "./World.ts"

export interface Limits {
  /** The greatest number of deviations. */
  readonly bound: number
  /** What the last deviations may be, by their number; all where nothing is said. */
  readonly kinds?: ((deviations: number) => ReadonlySet<Kind>) | undefined
  /** On the clock of `performance`. */
  readonly until?: number | undefined
}

export interface Exploration {
  /** How many schedules were run, by their number of deviations. */
  readonly schedules: ReadonlyArray<number>
  readonly states: number
  /** Whether all schedules within the bound were run. */
  readonly isComplete: boolean
  readonly counterExample: CounterExample | undefined
}

export interface CounterExample {
  readonly deviations: ReadonlyArray<Deviation>
  readonly violations: ReadonlyArray<string>
}

export const explore = (program: Program, length: Length, { bound, kinds, until = Infinity }: Limits): Exploration => {
  const seen = new Set<number>()
  const isNew = (state: number) => {
    const { size } = seen
    return seen.add(state).size > size
  }
  const schedules: Array<number> = []
  const result = (isComplete: boolean, counterExample?: CounterExample): Exploration => ({
    schedules,
    states: seen.size,
    isComplete,
    counterExample
  })

  let level: Array<ReadonlyArray<Deviation>> = [[]]
  for (let count = 0; count <= bound; count++) {
    const next: typeof level = []
    const allowed = kinds?.(count + 1)
    schedules.push(0)
    for (const deviations of level) {
      if (performance.now() > until) return result(false)
      const { others, violations } = run({ program, length, deviations, isNew })
      schedules[count]!++
      if (violations.length > 0) return result(false, { deviations, violations })
      if (count === bound) continue
      for (const [step, kind, choice] of others) {
        if (allowed === undefined || allowed.has(kind)) next.push([...deviations, [step, choice]])
      }
    }
    level = next
  }
  return result(true)
}
