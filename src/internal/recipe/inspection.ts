/**
 * What operators see of a line, and what they can do to it. It needs no session: it reads
 * etcd, and takes no part in the line.
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Etcd from "../../Etcd.ts"
import type { Holder } from "../../Holder.ts"
import { toText } from "../etcd/bytes.ts"
import { type Claim, metAmong } from "../line/discipline.ts"
import { ForeignEntry } from "../line/entry.ts"
import { idOf, keyOf } from "../line/entryKey.ts"
import { type Layout, queue, singleKey, withoutCompanions, withoutFolder } from "../line/layout.ts"
import * as Log from "../log.ts"
import * as Check from "../options.ts"
import { changes } from "./changes.ts"
import { type Conflicting, conflictOf, describe, type Renewal } from "./description.ts"
import { isTooLarge, readAll } from "./pages.ts"

type Service = Etcd.Etcd["Service"]

/** Where the entries of a line are. */
export interface Place {
  readonly layout: Layout
  readonly prefix: string
}

/** What operators can do to the lines of a recipe. */
export const make = <O, A>({ module, placeOf, show }: {
  /** The module that takes the options, as messages name it. */
  readonly module: string
  /** Checks the name and the options that choose the place. */
  readonly placeOf: (name: string, options: O | undefined) => Place
  readonly show: (name: string, line: Inspected) => A
}) => {
  const look = (etcd: Service, name: string, place: Place, leases?: number) =>
    Effect.map(inspect(etcd, place, leases), (seen) => ({ ...seen, shown: show(name, seen.shown) }))
  return {
    inspect: (name: string, options?: O) =>
      Effect.flatMap(Etcd.Etcd, (etcd) => Effect.map(look(etcd, name, placeOf(name, options)), ({ shown }) => shown)),
    changes: (name: string, options?: O) =>
      Stream.unwrap(
        Effect.map(Etcd.Etcd, (etcd) => {
          const place = placeOf(name, options)
          const range = place.layout.range(place.prefix)
          // A look follows every hand-over, so it asks for one lease, however long the line is.
          return changes(etcd, { subject: `The line of '${name}'`, range, look: look(etcd, name, place, 1) })
        })
      ),
    forceRelease: (name: string, options: O & { readonly createRevision: bigint }) =>
      Effect.flatMap(Etcd.Etcd, (etcd) => {
        const place = placeOf(name, options)
        Check.revision(module, "createRevision", options?.createRevision)
        return forceRelease(etcd, name, place, options.createRevision)
      })
  }
}

/** A client in a line, and what it claims. */
export interface Claimant {
  readonly claim: Claim
  readonly client: Holder
}

interface Inspected {
  readonly holders: ReadonlyArray<Claimant>
  readonly queue: ReadonlyArray<Claimant>
  readonly conflicts: ReadonlyArray<Conflicting>
}

/** Reads the line under a prefix, and how long the leases of so many clients last. Those whose claims are met hold. */
const inspect = Effect.fnUntraced(function*(etcd: Service, { layout, prefix }: Place, leases = Infinity) {
  const read = yield* readLine(etcd, layout.range(prefix))
  const { kvs } = read
  const isEntry = (kv: Etcd.KeyValue) => kv.lease !== 0n && layout.isEntry(prefix, kv)
  const entries = withoutCompanions(prefix, kvs.filter(isEntry))
  const renewals = yield* renewalsOf(etcd, entries.slice(0, leases))
  const clients = entries.map((kv): Claimant => ({
    claim: layout.claimIn(prefix, kv),
    client: describe(kv, renewals.get(kv.lease))
  }))
  const holding = metAmong(clients.map(({ claim }) => claim))
  const shown: Inspected = {
    holders: clients.slice(0, holding),
    queue: clients.slice(holding),
    conflicts: kvs.filter((kv) => !isEntry(kv)).map((kv) => conflictOf(new ForeignEntry(kv, kv.lease !== 0n)))
  }
  return { ...read, shown }
})

/** Returns the locks of both layouts whose names begin with a prefix, in the order of their names. */
export const list = (etcd: Service, prefix: string) => Effect.map(seeAll(etcd, prefix, Infinity), ({ shown }) => shown)

/** Emits the same, now and after every change under the prefix, and asks for no lease. */
export const listChanges = (etcd: Service, prefix: string) =>
  changes(etcd, {
    subject: prefix === "" ? "The locks" : `The locks under '${prefix}'`,
    range: rangeOf(prefix),
    look: seeAll(etcd, prefix, 0)
  })

const seeAll = Effect.fnUntraced(function*(etcd: Service, prefix: string, leases: number) {
  const range = rangeOf(prefix)
  const { withoutValues, ...read } = yield* etcd.range(range).pipe(
    Effect.map((read) => ({ ...read, withoutValues: false })),
    Effect.catchIf(isTooLarge, () => Effect.map(readLeases(etcd, range), (read) => ({ ...read, withoutValues: true })))
  )
  const locks = locksOf(read.kvs, prefix).map(({ entries, layout, lock, prefix }) => {
    const holding = metAmong(entries.map((kv) => layouts[layout].claimIn(prefix, kv)))
    return { lock, layout, first: entries[0]!, next: entries[holding], holding, waiting: entries.length - holding }
  })
  const renewals = yield* renewalsOf(etcd, locks.map(({ first }) => first).slice(0, leases))
  const clients = locks.flatMap(({ first, next }) => next === undefined ? [first] : [first, next])
  const values = new Map((withoutValues ? yield* withValues(etcd, clients) : clients).map((kv) => [idOf(kv), kv]))
  const describeNow = (kv: Etcd.KeyValue): Holder | undefined => {
    const found = values.get(idOf(kv))
    return found === undefined ? undefined : describe(found, renewals.get(kv.lease))
  }
  const shown = locks.flatMap(({ first, next, ...lock }) => {
    const holder = describeNow(first)
    // It has been released since its key was read.
    return holder === undefined ? [] : [{ ...lock, holder, next: next === undefined ? undefined : describeNow(next) }]
  })
  return { ...read, shown }
})

// etcd takes an empty key for none.
const rangeOf = (prefix: string) => ({ ...Etcd.getPrefix(prefix), key: Buffer.from(prefix || "\0") })

const layouts = { queue, "single-key": singleKey }

interface ListedLock extends Pick<Place, "prefix"> {
  readonly lock: string
  readonly layout: keyof typeof layouts
  /** Oldest first. */
  entries: Array<Etcd.KeyValue>
}

const locksOf = (kvs: ReadonlyArray<Etcd.KeyValue>, prefix: string): ReadonlyArray<ListedLock> => {
  const locks = new Map<string, ListedLock>()
  for (const kv of kvs) {
    const place = placeIn(kv)
    // The prefix may end within an entry's key.
    if (kv.lease === 0n || !isNameIn(kv, place.lock) || !place.lock.startsWith(prefix)) continue
    const id = `${place.layout} ${place.lock}`
    const found = locks.get(id)
    if (found === undefined) locks.set(id, { ...place, entries: [kv] })
    else found.entries.push(kv)
  }
  for (const lock of locks.values()) {
    lock.entries.sort((a, b) => Number(a.createRevision - b.createRevision))
    lock.entries = withoutCompanions(lock.prefix, lock.entries)
  }
  return [...locks.values()].sort((a, b) => a.lock < b.lock ? -1 : a.lock > b.lock ? 1 : 0)
}

/** Returns the lock that a key belongs to. */
const placeIn = (kv: Etcd.KeyValue): Omit<ListedLock, "entries"> => {
  const key = keyOf(kv)
  const end = key.lastIndexOf("/")
  // The last part of an entry's key is the ID of its lease, and maybe a number.
  const isEntry = end > 0 && `${key.slice(end + 1)}-`.startsWith(`${kv.lease.toString(16)}-`)
  if (!isEntry) return { lock: key, layout: "single-key", prefix: key }
  const lock = withoutFolder(key.slice(0, end))
  return { lock, layout: "queue", prefix: `${lock}/` }
}

/** Whether a key begins with a name that a lock can have. A key that is not UTF-8 is shown as a different text. */
const isNameIn = (kv: Etcd.KeyValue, name: string): boolean =>
  Check.isName(name) && !Check.isFolder(name) && idOf(kv).startsWith(toText(Buffer.from(name)))

/** Deletes the entry that was created at a revision. Returns whether it was still there. */
const forceRelease = Effect.fnUntraced(function*(
  etcd: Service,
  lock: string,
  { layout, prefix }: Place,
  createRevision: bigint
) {
  const { kvs } = yield* etcd.range({ ...layout.range(prefix), keysOnly: true })
  const found = yield* withValues(etcd, kvs.filter((kv) => kv.createRevision === createRevision))
  // Readers of one process may also have joined at one revision: of these, the first one is deleted.
  const [entry, ...others] = withoutCompanions(prefix, found)
  if (entry === undefined) return false
  const { succeeded } = yield* etcd.txn({
    compare: [Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)],
    then: found.filter((kv) => !others.includes(kv)).map(({ key }) => Etcd.remove(key))
  })
  if (succeeded) {
    yield* Log.warning(`Lock '${lock}' was taken away from '${keyOf(entry)}'`, {
      lock,
      lease: entry.lease.toString(16)
    })
  }
  return succeeded
})

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** All keys of a line, oldest first, in one reply unless they do not fit into one. */
export const readLine = (etcd: Service, range: Etcd.Range) => {
  const oldestFirst = { ...range, sort: "CreateAscending" } as const
  return Effect.catchIf(etcd.range(oldestFirst), isTooLarge, () =>
    Effect.flatMap(
      etcd.range({ ...oldestFirst, keysOnly: true }),
      (read) => Effect.map(withValues(etcd, read.kvs), (kvs) => ({ ...read, kvs }))
    ))
}

/** How long leases last. Several entries may be on one. */
const renewalsOf = (etcd: Service, entries: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(
    Effect.forEach(
      new Set(entries.map(({ lease }) => lease)),
      (lease) => Effect.map(renewalOf(etcd, lease), (renewal) => [lease, renewal] as const),
      { concurrency: 16 }
    ),
    (renewals) => new Map(renewals)
  )

/** Asks etcd how long a lease lives still. It may be over since the entry on it was read. */
export const renewalOf = (etcd: Service, lease: bigint): Effect.Effect<Renewal, Etcd.EtcdError> =>
  Effect.map(etcd.leaseTimeToLive(lease), ({ granted, remaining }) => ({
    remaining: Duration.seconds(Math.max(0, remaining)),
    notRenewedFor: remaining < 0 ? undefined : Duration.seconds(Math.max(0, granted - remaining))
  }))

/** Reads the keys of a range with their leases, and keeps no values. */
const readLeases = (etcd: Service, range: Etcd.Range) => readAll(etcd, range, (kv) => ({ ...kv, value: nothing }))

const nothing = new Uint8Array()

/** Reads the values of entries, those that are still there. */
const withValues = (etcd: Service, entries: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(
    askAll(etcd, entries.map(({ key }) => Etcd.get(key))),
    (answers) => answers.flatMap(({ kvs: [kv] }, i) => kv?.createRevision === entries[i]!.createRevision ? [kv] : [])
  )

/** Sends operations that change nothing, in as many transactions as they need. */
const askAll = <A extends Etcd.Op>(
  etcd: Service,
  operations: ReadonlyArray<A>
): Effect.Effect<ReadonlyArray<Etcd.OpResult<A>>, Etcd.EtcdError> =>
  Effect.map(
    Effect.forEach(Arr.chunksOf(operations, 64), (chunk) => askTogether(etcd, chunk)),
    (answers) => answers.flat()
  )

const askTogether = <A extends Etcd.Op>(
  etcd: Service,
  operations: ReadonlyArray<A>
): Effect.Effect<ReadonlyArray<Etcd.OpResult<A>>, Etcd.EtcdError> =>
  Effect.map(etcd.txn({ then: operations }), ({ responses }) => responses as ReadonlyArray<Etcd.OpResult<A>>).pipe(
    Effect.catchIf(
      (error) => isTooLarge(error) && operations.length > 1,
      () => {
        const half = operations.length >> 1
        const halves = [operations.slice(0, half), operations.slice(half)]
        return Effect.map(Effect.forEach(halves, (some) => askTogether(etcd, some)), (answers) => answers.flat())
      }
    )
  )
