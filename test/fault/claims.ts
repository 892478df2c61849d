/**
 * Which claims may be held at once. It says so by itself, and not by the library's own words.
 */
import type { Claim } from "./history.ts"

/** More permits than there can be readers. */
const all = 1_000_000_000

/** How much of a lock a claim takes, and how much there is of it. */
export const weigh = (claim: Claim): { readonly permits: number; readonly of: number } => {
  switch (claim.kind) {
    case "permits": {
      return claim
    }
    case "read": {
      return { permits: 1, of: all }
    }
    case "lock":
    case "election":
    case "write": {
      return { permits: all, of: all }
    }
  }
}

/** Whether all of them may be held at once. */
export const fit = (claims: ReadonlyArray<Claim>): boolean => {
  const weights = claims.map(weigh)
  return weights.reduce((sum, { permits }) => sum + permits, 0) <= Math.min(...weights.map(({ of }) => of))
}

export const exclude = (a: Claim, b: Claim): boolean => !fit([a, b])

/** The greatest values of those that a claim excludes. */
export class Greatest<A> {
  readonly #byClaim = new Map<string, { readonly claim: Claim; readonly value: bigint; readonly of: A }>()

  set(claim: Claim, value: bigint, of: A) {
    const id = JSON.stringify(claim)
    const known = this.#byClaim.get(id)
    if (known === undefined || known.value < value) this.#byClaim.set(id, { claim, value, of })
  }

  excludedBy(claim: Claim): { readonly value: bigint; readonly of: A } | undefined {
    let greatest: { readonly value: bigint; readonly of: A } | undefined
    for (const one of this.#byClaim.values()) {
      if (exclude(claim, one.claim) && one.value > (greatest?.value ?? 0n)) greatest = one
    }
    return greatest
  }
}
