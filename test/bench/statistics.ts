/** The middle of some measurements, with the quarter below and above it. */
export interface Spread {
  readonly median: number
  readonly q1: number
  readonly q3: number
}

/** The value below which so much of the values lies, between 0 and 1. */
export const quantile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  if (sorted.length === 0) return NaN
  const at = share * (sorted.length - 1)
  const below = sorted[Math.floor(at)]!
  return below + (sorted[Math.ceil(at)]! - below) * (at % 1)
}

export const spread = (values: ReadonlyArray<number>): Spread => ({
  median: quantile(values, 0.5),
  q1: quantile(values, 0.25),
  q3: quantile(values, 0.75)
})

export const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** How even the shares are: the smallest as part of the mean. */
export const fairness = (counts: ReadonlyArray<number>): number => Math.min(...counts) / (sum(counts) / counts.length)
