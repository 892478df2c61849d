import type * as Random from "effect/Random"
import * as Result from "effect/Result"
import type {
  Compare,
  Delete,
  Header,
  KeyValue,
  LeaseKeepAlive,
  LeaseTimeToLive,
  Op,
  OpResult,
  Put,
  Range,
  RangeResult,
  Txn,
  WatchEvent,
  WatchOptions
} from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import { toText } from "../etcd/bytes.ts"
import { randomId } from "../etcd/randomId.ts"
import type { TransportTxnResult } from "../etcd/transport.ts"
import { checkAnswer, checkRange, checkTxn, refuse } from "./check.ts"
import { type Bounds, contains, type Interval, interval } from "./interval.ts"

type Answer<A> = Result.Result<A, EtcdError>

interface Lease {
  readonly granted: number
  /** On the monotonic clock, in nanoseconds. */
  readonly expiresAt: bigint
  readonly keys: Set<string>
}

/** All that etcd keeps on its disk. */
export interface Snapshot {
  readonly revision: bigint
  readonly kvs: ReadonlyArray<KeyValue>
  /** The granted TTLs, in seconds. */
  readonly leases: ReadonlyMap<bigint, number>
}

export interface RestoreOptions {
  readonly addRevisions: bigint
  readonly isAnotherCluster: boolean
}

/** Called with the events of one revision. */
export type Listener = (events: ReadonlyArray<WatchEvent>) => void

/**
 * The data of an etcd: keys, revisions, leases and who watches them. It never
 * waits; `now` is the caller's clock, and leases expire when the caller says so.
 */
export const make = (random: Random.Random) => {
  let revision = 1n
  let clusterId = randomId()
  const keys: Array<string> = []
  const kvs = new Map<string, KeyValue>()
  const leases = new Map<bigint, Lease>()
  const header = (): Header => ({ revision, clusterId, term: 1n })
  const watchers = new Set<Watcher>()

  // --- reading ---

  const lowerBound = (key: string): number => {
    let low = 0
    let high = keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (keys[middle]! < key) low = middle + 1
      else high = middle
    }
    return low
  }

  const select = (bounds: Bounds): ReadonlyArray<KeyValue> => {
    const { from, to } = interval(bounds)
    return keys.slice(lowerBound(from), to === undefined ? undefined : lowerBound(to)).map((key) => kvs.get(key)!)
  }

  const read = (range: Range): RangeResult => {
    const { keysOnly, limit, maxCreateRevision, sort } = range
    const found = select(range)
    // As on the wire, zero is as good as none.
    const filtered = maxCreateRevision ? found.filter((kv) => kv.createRevision <= maxCreateRevision) : found
    const sorted = sort === undefined ? filtered : filtered.toSorted(order[sort])
    const limited = limit && limit > 0 ? sorted.slice(0, limit) : sorted
    const kvs = keysOnly ? limited.map((kv) => ({ ...kv, value: missing.value, lease: missing.lease })) : limited
    return { _tag: "Range", kvs, count: found.length }
  }

  const holds = (compare: Compare): boolean => {
    const found = select(compare)
    if (found.length > 0) return found.every((kv) => matches(compare, kv))
    return compare.target !== "Value" && matches(compare, missing)
  }

  // --- writing ---

  /** Gives all that `write` does one revision, if it does anything. */
  const commit = <A>(write: (transaction: Transaction) => A): A => {
    const transaction: Transaction = { revision: revision + 1n, events: [] }
    const result = write(transaction)
    if (transaction.events.length > 0) {
      revision = transaction.revision
      tell(transaction.events)
    }
    return result
  }

  const put = (transaction: Transaction, { key, lease = 0n, value }: Put): void => {
    const text = toText(key)
    const previous = kvs.get(text)
    if (previous === undefined) keys.splice(lowerBound(text), 0, text)
    else leases.get(previous.lease)?.keys.delete(text)
    leases.get(lease)?.keys.add(text)
    const kv: KeyValue = {
      // The caller may write to its own bytes again.
      key: previous?.key ?? Buffer.from(key),
      value: Buffer.from(value),
      createRevision: previous?.createRevision ?? transaction.revision,
      modRevision: transaction.revision,
      version: (previous?.version ?? 0n) + 1n,
      lease
    }
    kvs.set(text, kv)
    transaction.events.push({ _tag: "Put", kv })
  }

  const remove = (transaction: Transaction, bounds: Bounds): number => {
    const { from, to } = interval(bounds)
    const start = lowerBound(from)
    const end = to === undefined ? keys.length : lowerBound(to)
    const removed = keys.splice(start, Math.max(0, end - start))
    for (const text of removed) {
      const { key, lease } = kvs.get(text)!
      kvs.delete(text)
      leases.get(lease)?.keys.delete(text)
      transaction.events.push({ _tag: "Delete", kv: { ...missing, key, modRevision: transaction.revision } })
    }
    return removed.length
  }

  // --- transactions ---

  // All conditions are evaluated before anything is written, those of nested transactions too.
  const choose = (txn: Txn): Chosen => {
    const succeeded = txn.compare.every(holds)
    const ops: ReadonlyArray<Op> = succeeded ? txn.then : txn.else
    return { _tag: "Chosen", succeeded, ops: ops.map((op) => op._tag === "Txn" ? choose(op) : op) }
  }

  const wantsUnknownLease = ({ ops }: Chosen): boolean =>
    ops.some((op) => {
      if (op._tag === "Chosen") return wantsUnknownLease(op)
      return op._tag === "Put" && op.lease !== undefined && op.lease !== 0n && !leases.has(op.lease)
    })

  const run = (transaction: Transaction, op: Chosen["ops"][number]): OpResult<Op> => {
    switch (op._tag) {
      case "Put": {
        put(transaction, op)
        return { _tag: "Put" }
      }
      case "Range": {
        return read(op)
      }
      case "Delete": {
        return { _tag: "Delete", deleted: remove(transaction, op) }
      }
      case "Chosen": {
        return { _tag: "Txn", succeeded: op.succeeded, responses: op.ops.map((op) => run(transaction, op)) }
      }
    }
  }

  const txn = (txn: Txn): Answer<TransportTxnResult> =>
    Result.gen(function*() {
      yield* checkTxn(txn)
      const chosen = choose(txn)
      if (wantsUnknownLease(chosen)) return yield* leaseNotFound("txn")
      const result = commit((transaction) => run(transaction, chosen)) as OpResult<Txn>
      yield* checkAnswer("txn", result.responses)
      return { ...result, ...header() }
    })

  const range = (range: Range): Answer<RangeResult & Header> =>
    Result.gen(function*() {
      yield* checkRange(range)
      const result = read(range)
      yield* checkAnswer("range", [result])
      return { ...result, ...header() }
    })

  // --- leases ---

  const grant = (leaseId: bigint, seconds: number, now: bigint): Answer<number> => {
    if (seconds > maxTtl) return refuse("leaseGrant", "InvalidArgument", "etcdserver: too large lease TTL")
    if (leases.has(leaseId)) return refuse("leaseGrant", "LeaseExists", "etcdserver: lease already exists")
    const granted = Math.max(Math.trunc(seconds), minTtl)
    leases.set(leaseId, { granted, expiresAt: after(granted, now), keys: new Set() })
    return Result.succeed(granted)
  }

  /** Deletes the lease, and its keys in one revision. Answers whether there was such a lease. */
  const dropLease = (leaseId: bigint): boolean => {
    const lease = leases.get(leaseId)
    if (lease === undefined) return false
    // Before its keys, whose watchers may look at the leases at once.
    leases.delete(leaseId)
    commit((transaction) => {
      for (const key of [...lease.keys].sort()) remove(transaction, { key: Buffer.from(key, "latin1") })
    })
    return true
  }

  const revoke = (leaseId: bigint): Answer<void> => dropLease(leaseId) ? Result.void : leaseNotFound("leaseRevoke")

  const keepAlive = (leaseId: bigint, now: bigint): Answer<LeaseKeepAlive & Header> => {
    const lease = leases.get(leaseId)
    // A lease whose time is up cannot be renewed any more, even if its keys are still there.
    if (lease === undefined || lease.expiresAt <= now) return Result.succeed({ ttl: 0, ...header() })
    leases.set(leaseId, { ...lease, expiresAt: after(lease.granted, now) })
    return Result.succeed({ ttl: lease.granted, ...header() })
  }

  const timeToLive = (leaseId: bigint, withKeys: boolean, now: bigint): Answer<LeaseTimeToLive & Header> => {
    const lease = leases.get(leaseId)
    if (lease === undefined) return Result.succeed({ remaining: -1, granted: 0, keys: [], ...header() })
    return Result.succeed({
      remaining: Number((lease.expiresAt - now) / nanosPerSecond),
      granted: lease.granted,
      keys: withKeys ? Array.from(lease.keys, (key) => kvs.get(key)!.key) : [],
      ...header()
    })
  }

  // --- backups ---

  const snapshot = (): Snapshot => ({ revision, kvs: [...kvs.values()], leases: leaseTtls() })

  const leaseTtls = () => new Map(Array.from(leases, ([id, { granted }]) => [id, granted]))

  /** Becomes what a snapshot shows, as if a member were started on it. Its leases have all of their time again. */
  const restore = (snapshot: Snapshot, { addRevisions, isAnotherCluster }: RestoreOptions, now: bigint) => {
    watchers.clear()
    leases.clear()
    kvs.clear()
    for (const [id, granted] of snapshot.leases) {
      leases.set(id, { granted, expiresAt: after(granted, now), keys: new Set() })
    }
    for (const kv of snapshot.kvs) {
      kvs.set(toText(kv.key), kv)
      leases.get(kv.lease)?.keys.add(toText(kv.key))
    }
    keys.splice(0, keys.length, ...[...kvs.keys()].sort())
    revision = snapshot.revision + addRevisions
    if (isAnotherCluster) clusterId = randomId()
  }

  // --- watches ---

  // Etcd serves the watches of one revision in any order.
  const tell = (events: ReadonlyArray<WatchEvent>) => {
    const reports: Array<() => void> = []
    for (const watcher of watchers) {
      const seen = seenBy(watcher, events)
      // Another's listener may have closed it by then.
      if (seen.length > 0) reports.push(() => watchers.has(watcher) && watcher.listener(seen))
    }
    while (reports.length > 0) reports.splice(Math.floor(random.nextDoubleUnsafe() * reports.length), 1)[0]!()
  }

  /** Calls `listener` with what happens from now on, until the returned function is called. */
  const watch = (options: WatchOptions, listener: Listener): Answer<{ revision: bigint; stop: () => void }> => {
    // Unlike elsewhere, no key means the smallest one.
    const watched = interval(options.key.length === 0 ? { ...options, key: Buffer.of(0) } : options)
    if (watched.to !== undefined && watched.from >= watched.to) {
      return Result.fail(emptyWatch)
    }
    const watcher: Watcher = { watched, only: options.only, listener }
    watchers.add(watcher)
    return Result.succeed({ revision, stop: () => void watchers.delete(watcher) })
  }

  return {
    txn,
    range,
    grant,
    revoke,
    keepAlive,
    timeToLive,
    watch,
    snapshot,
    restore,
    dropLease,
    expiresAt: (leaseId: bigint) => leases.get(leaseId)?.expiresAt,
    removeKeys: (bounds: Bounds) => commit((transaction) => remove(transaction, bounds)),
    leaseIds: (): ReadonlyArray<bigint> => [...leases.keys()],
    keyValues: (): ReadonlyArray<KeyValue> => keys.map((key) => kvs.get(key)!)
  }
}

interface Watcher {
  readonly watched: Interval
  readonly only: WatchOptions["only"]
  readonly listener: Listener
}

const seenBy = ({ only, watched }: Watcher, events: ReadonlyArray<WatchEvent>): ReadonlyArray<WatchEvent> =>
  events.filter(({ _tag, kv }) => (only === undefined || only === _tag) && contains(watched, toText(kv.key)))

interface Transaction {
  readonly revision: bigint
  readonly events: Array<WatchEvent>
}

/** A transaction whose branches have been decided. */
interface Chosen {
  readonly _tag: "Chosen"
  readonly succeeded: boolean
  readonly ops: ReadonlyArray<Put | Range | Delete | Chosen>
}

// This is one and a half times the election timeout, which is a second by default.
const minTtl = 2
const maxTtl = 9_000_000_000
const nanosPerSecond = 1_000_000_000n

const after = (seconds: number, now: bigint): bigint => now + BigInt(seconds) * nanosPerSecond

const leaseNotFound = (method: string) => refuse(method, "LeaseNotFound", "the lease has expired or was revoked")

// Etcd cancels such a watch with a text and no code, hence the outcome.
const emptyWatch = new EtcdError({
  reason: "Internal",
  method: "watch",
  outcome: "Unknown",
  description: "mvcc: watcher range is empty"
})

/** What a missing key is compared as, and what is left of a deleted one. */
const missing: KeyValue = {
  key: Buffer.alloc(0),
  value: Buffer.alloc(0),
  createRevision: 0n,
  modRevision: 0n,
  version: 0n,
  lease: 0n
}

const fields = {
  CreateRevision: "createRevision",
  ModRevision: "modRevision",
  Version: "version",
  Lease: "lease"
} as const

const matches = (compare: Compare, kv: KeyValue): boolean => {
  const sign = compare.target === "Value"
    ? Buffer.compare(kv.value, compare.value)
    : Number(kv[fields[compare.target]] - compare.value)
  switch (compare.operator) {
    case "=": {
      return sign === 0
    }
    case "!=": {
      return sign !== 0
    }
    case "<": {
      return sign < 0
    }
    case ">": {
      return sign > 0
    }
  }
}

// Keys of one revision stay in the order of their bytes, both ways.
const order = {
  CreateAscending: (a: KeyValue, b: KeyValue) => Number(a.createRevision - b.createRevision),
  CreateDescending: (a: KeyValue, b: KeyValue) => Number(b.createRevision - a.createRevision)
}
