/**
 * Whether what the clients of a lock saw can have happened one after the other: each operation at one moment between its
 * call and its return, an acquire only beside claims that its own does not exclude and with a greater token than all
 * before it that its claim excludes, a release only by a holder.
 *
 * The search walks through the calls and returns in their order, and keeps all the states that are possible: who holds
 * the lock, the last tokens, and which of the pending operations have happened. Where an operation returns, only those
 * states stay in which it has happened, or can happen now after others that are pending.
 *
 * A release makes nothing impossible, so it happens as soon as it can. An acquire makes nothing possible but its own
 * release, so it happens when it returns, or just before its release.
 */
import { exclude, fit } from "./claims.ts"
import type { Claim } from "./history.ts"

export interface Operation {
  readonly kind: "acquire" | "release"
  readonly by: string
  readonly claim: Claim
  /** Of an acquire, where it is known. */
  readonly token?: bigint | undefined
  /** Of the acquire of a reader that has been a writer until now, and keeps its token. */
  readonly isDowngrade?: boolean
  readonly call: number
  /** Undefined where the outcome is unknown: it may have happened at any time after its call, or never. */
  readonly return: number | undefined
}

export type Answer =
  | { readonly isLinearizable: true }
  /** The first operation that cannot have happened as it was seen. */
  | { readonly isLinearizable: false; readonly operation: Operation }

interface Token {
  readonly claim: Claim
  readonly token: bigint
}

interface State {
  readonly holders: ReadonlyMap<string, Claim>
  /** The greatest token of each claim. */
  readonly tokens: ReadonlyArray<Token>
  /** Of the pending operations, those that have happened. */
  readonly happened: ReadonlySet<number>
}

export const check = (operations: ReadonlyArray<Operation>): Answer => {
  const pending = new Map<number, Operation>()
  let states: ReadonlyArray<State> = [{ holders: new Map(), tokens: [], happened: new Set() }]
  for (const { index, isReturn } of momentsOf(operations)) {
    const operation = operations[index]!
    if (!isReturn) {
      pending.set(index, operation)
      continue
    }
    states = distinct(states.flatMap((state) => statesAfter(state, index, pending)))
    if (states.length === 0) return { isLinearizable: false, operation }
    // What has happened in all of them can be forgotten, and so what never returns does not pile up.
    const settled = [...states[0]!.happened].filter((other) => states.every(({ happened }) => happened.has(other)))
    for (const other of settled) if (other === index || operations[other]!.return === undefined) pending.delete(other)
    const stillPending = (happened: State["happened"]) => new Set([...happened].filter((other) => pending.has(other)))
    states = distinct(
      states.map(({ happened, holders, tokens }) => ({ holders, tokens, happened: stillPending(happened) }))
    )
  }
  return { isLinearizable: true }
}

/** Calls before returns where they coincide, which allows more. */
const momentsOf = (operations: ReadonlyArray<Operation>) =>
  operations
    .flatMap((operation, index) => [
      { at: operation.call, index, isReturn: false },
      ...operation.return === undefined ? [] : [{ at: operation.return, index, isReturn: true }]
    ])
    .sort((a, b) => a.at - b.at || Number(a.isReturn) - Number(b.isReturn))

/** All states in which an operation has happened, after any of those that are pending. */
const statesAfter = (from: State, index: number, pending: ReadonlyMap<number, Operation>): ReadonlyArray<State> => {
  const releases = [...pending].filter(([, { kind }]) => kind === "release")
  const releasing = new Set(releases.map(([, { by }]) => by))
  const candidates = [...pending].filter(([other, { by, kind }]) =>
    kind === "acquire" && (other === index || releasing.has(by))
  )
  const found: Array<State> = []
  const seen = new Set<string>()
  const search = (reached: State) => {
    const state = releases.reduce(step, reached)
    const id = idOf(state)
    if (seen.has(id)) return
    seen.add(id)
    if (state.happened.has(index)) {
      found.push(state)
      return
    }
    for (const candidate of candidates) {
      const next = step(state, candidate)
      if (next !== state) search(next)
    }
  }
  search(from)
  return found
}

/** The state after an operation, or the same if it has happened, or cannot happen now. */
const step = (state: State, [index, operation]: readonly [number, Operation]): State => {
  if (state.happened.has(index)) return state
  const next = apply(state, operation)
  return next === undefined ? state : { ...next, happened: new Set([...state.happened, index]) }
}

const apply = (
  { holders, tokens }: State,
  { by, claim, isDowngrade = false, kind, token }: Operation
): Omit<State, "happened"> | undefined => {
  if (kind === "release") {
    return holders.has(by) ? { holders: new Map([...holders].filter(([holder]) => holder !== by)), tokens } : undefined
  }
  if (!fit([...holders.values(), claim])) return undefined
  const next = { holders: new Map([...holders, [by, claim]]), tokens }
  if (token === undefined) return next
  const isOvertaken = (last: Token) => last.token > token || (last.token === token && !isDowngrade)
  if (tokens.some((last) => exclude(last.claim, claim) && isOvertaken(last))) return undefined
  const isSame = (last: Token) => JSON.stringify(last.claim) === JSON.stringify(claim)
  if (tokens.some((last) => isSame(last) && last.token >= token)) return next
  return { ...next, tokens: [...tokens.filter((last) => !isSame(last)), { claim, token }] }
}

const idOf = ({ happened, holders, tokens }: State): string =>
  [
    [...holders.keys()].sort().join(),
    tokens.map(({ claim, token }) => `${JSON.stringify(claim)} ${token}`).sort().join(),
    [...happened].sort((a, b) => a - b).join()
  ].join("|")

const distinct = (states: ReadonlyArray<State>): ReadonlyArray<State> => [
  ...new Map(states.map((state) => [idOf(state), state])).values()
]
