import { isEndOfKeys, toText } from "../etcd/bytes.ts"

/** A key, or the keys of `[key, rangeEnd)`. */
export interface Bounds {
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
}

/** Keys in `[from, to)`, as strings that sort as the bytes do. No `to` means up to the last key. */
export interface Interval {
  readonly from: string
  readonly to: string | undefined
}

export const interval = ({ key, rangeEnd }: Bounds): Interval => {
  const from = toText(key)
  // An empty end is what etcd gets when there is none.
  if (rangeEnd === undefined || rangeEnd.length === 0) return { from, to: `${from}\0` }
  return { from, to: isEndOfKeys(rangeEnd) ? undefined : toText(rangeEnd) }
}

export const contains = ({ from, to }: Interval, key: string): boolean => key >= from && (to === undefined || key < to)
