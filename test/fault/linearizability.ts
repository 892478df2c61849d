/**
 * Whether what the clients of a mutex saw can have happened one after the other: each operation at one moment between its
 * call and its return, an acquire only while the lock is free and with a greater token than all before it, a release only
 * by the holder.
 *
 * The search walks through the calls and returns in their order, and keeps all the states that are possible: who holds
 * the lock, the last token, and which of the pending operations have happened. Where an operation returns, only those
 * states stay in which it has happened, or can happen now after others that are pending.
 */

export interface Operation {
  readonly kind: "acquire" | "release"
  readonly by: string
  /** Of an acquire, where it is known. */
  readonly token?: bigint | undefined
  readonly call: number
  /** Undefined where the outcome is unknown: it may have happened at any time after its call, or never. */
  readonly return: number | undefined
}

export type Answer =
  | { readonly isLinearizable: true }
  /** The first operation that cannot have happened as it was seen. */
  | { readonly isLinearizable: false; readonly operation: Operation }

interface State {
  readonly holder: string | undefined
  readonly token: bigint
  /** Of the pending operations, those that have happened. */
  readonly happened: ReadonlySet<number>
}

export const check = (operations: ReadonlyArray<Operation>): Answer => {
  const pending = new Map<number, Operation>()
  let states: ReadonlyArray<State> = [{ holder: undefined, token: 0n, happened: new Set() }]
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
      states.map(({ happened, holder, token }) => ({ holder, token, happened: stillPending(happened) }))
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
  const found: Array<State> = []
  const seen = new Set<string>()
  const search = (state: State) => {
    const id = idOf(state)
    if (seen.has(id)) return
    seen.add(id)
    if (state.happened.has(index)) {
      found.push(state)
      return
    }
    for (const [other, operation] of pending) {
      if (state.happened.has(other)) continue
      const next = apply(state, operation)
      if (next !== undefined) search({ ...next, happened: new Set([...state.happened, other]) })
    }
  }
  search(from)
  return found
}

const apply = ({ holder, token }: State, operation: Operation): Omit<State, "happened"> | undefined => {
  if (operation.kind === "release") return holder === operation.by ? { holder: undefined, token } : undefined
  if (holder !== undefined) return undefined
  if (operation.token === undefined) return { holder: operation.by, token }
  return operation.token > token ? { holder: operation.by, token: operation.token } : undefined
}

const idOf = ({ happened, holder, token }: State): string =>
  `${holder}|${token}|${[...happened].sort((a, b) => a - b).join()}`

const distinct = (states: ReadonlyArray<State>): ReadonlyArray<State> => [
  ...new Map(states.map((state) => [idOf(state), state])).values()
]
