/** A sequence of dice that a seed decides, so that a run can be repeated (mulberry32). */
export interface Dice {
  /** At least 0 and less than 1. */
  readonly next: () => number
  /** A whole number of both ends or between. */
  readonly between: (least: number, most: number) => number
  readonly pick: <A>(some: ReadonlyArray<A>) => A
  /** True so often of a hundred times. */
  readonly percent: (chance: number) => boolean
}

export const dice = (seed: number): Dice => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (least: number, most: number) => least + Math.floor(next() * (most - least + 1))
  return {
    next,
    between,
    pick: (some) => some[between(0, some.length - 1)]!,
    percent: (chance) => next() * 100 < chance
  }
}
