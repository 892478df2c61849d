import type { Program } from "./programs.ts"
import { type Deviation, type Length, type Run, run } from "./World.ts"

/** A run that can be played again. */
export interface Schedule {
  readonly program: string
  readonly length: Length
  readonly deviations: ReadonlyArray<Deviation>
}

/**
 * Goes through the schedules of a program in the order of how many deviations from the default order they have, as
 * delay-bounded search does: most faults need few. A state that was seen with as few deviations or fewer is not entered
 * again, so of runs that differ only in the order of what does not matter to each other, one is run to its end.
 */
export class Explorer {
  readonly program: Program
  readonly length: Length
  /** How many schedules were run, by their number of deviations. */
  readonly schedules: Array<number> = []
  counterExample: { readonly schedule: Schedule; readonly violations: ReadonlyArray<string> } | undefined
  /** Whether all schedules up to so many deviations were run. */
  isComplete = true
  readonly #states = new Set<number>()
  /** What leads to the schedules of the next level: each of `others` is one deviation more. */
  #next: Array<{ readonly deviations: Schedule["deviations"]; readonly others: Run["others"] }> = []

  constructor(program: Program, length: Length) {
    this.program = program
    this.length = length
  }

  get states(): number {
    return this.#states.size
  }

  /** Runs the schedules of one more deviation, so many at most, until a moment of `performance`'s clock. */
  deepen(until = Infinity, most = Infinity) {
    const level = this.#next
    this.#next = []
    this.schedules.push(0)
    if (this.schedules.length === 1) return this.#run([])
    // The beginning of a program, in which nothing is held yet, matters least.
    for (const { deviations, others } of level.toReversed()) {
      for (const other of others) {
        if (performance.now() > until || this.schedules.at(-1)! >= most) this.isComplete = false
        if (!this.isComplete) return
        this.#run([...deviations, other])
      }
    }
  }

  #run(deviations: Schedule["deviations"]) {
    const { others, violations } = run({ ...this, deviations, isNew: this.#isNew })
    this.schedules[deviations.length]!++
    if (others.length > 0) this.#next.push({ deviations, others })
    if (violations.length === 0) return
    this.isComplete = false
    this.counterExample = { schedule: { program: this.program.name, length: this.length, deviations }, violations }
  }

  readonly #isNew = (state: number): boolean => {
    const { size } = this.#states
    return this.#states.add(state).size > size
  }
}
