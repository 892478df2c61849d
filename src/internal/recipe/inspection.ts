/**
 * What operators see of a line, and what they can do to it. It needs no session: it reads
 * etcd, and takes no part in the line.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Etcd from "../../Etcd.ts"
import { Holder } from "../../Holder.ts"
import { toText } from "../etcd/bytes.ts"
import { type Claim, metAmong } from "../line/discipline.ts"
import { ForeignEntry } from "../line/entry.ts"
import { idOf, keyOf } from "../line/entryKey.ts"
import { type Layout, queue, singleKey, withoutCompanions, withoutFolder } from "../line/layout.ts"
import { leaseOf, shownBy } from "../line/requests.ts"
import * as Check from "../options.ts"
import { conflictOf, describe } from "./description.ts"

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
  readonly show: (name: string, found: Effect.Success<ReturnType<typeof inspect>>) => A
}) => {
  const look = (etcd: Service, name: string, options: O | undefined) =>
    Effect.map(inspect(etcd, placeOf(name, options)), (found) => show(name, found))
  return {
    inspect: (name: string, options?: O) => Effect.flatMap(Etcd.Etcd, (etcd) => look(etcd, name, options)),
    changes: (name: string, options?: O) =>
      Stream.unwrap(
        Effect.map(Etcd.Etcd, (etcd) => {
          const { layout, prefix } = placeOf(name, options)
          return changes(etcd, layout.range(prefix), look(etcd, name, options))
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

/** Reads the line under a prefix. The clients whose claims are met are the holders. */
const inspect = Effect.fnUntraced(function*(etcd: Service, { layout, prefix }: Place) {
  const { kvs } = yield* etcd.range({ ...layout.range(prefix), sort: "CreateAscending", keysOnly: true })
  const read = yield* withValues(etcd, kvs.filter((kv) => layout.isEntry(prefix, kv)))
  const entries = withoutCompanions(prefix, read.filter(({ lease }) => lease !== 0n))
  const foreign = [
    ...read.filter(({ lease }) => lease === 0n).map((kv) => new ForeignEntry(kv, false)),
    ...yield* withLeases(etcd, kvs.filter((kv) => !layout.isEntry(prefix, kv)))
  ]
  const conflicts = new Map(foreign.map((foreign) => [idOf(foreign.kv), conflictOf(foreign)]))
  const leases = new Map<bigint, Duration.Duration>()
  yield* Effect.forEach(
    new Set(entries.map(({ lease }) => lease)),
    (lease) =>
      Effect.map(etcd.leaseTimeToLive(lease), ({ remaining }) => {
        leases.set(lease, Duration.seconds(Math.max(0, remaining)))
      }),
    { concurrency: 16 }
  )
  const clients = entries.map((kv): Claimant => ({
    claim: layout.claimIn(prefix, kv),
    client: new Holder({ ...describe(kv), remaining: leases.get(kv.lease) })
  }))
  const holding = metAmong(clients.map(({ claim }) => claim))
  return {
    holders: clients.slice(0, holding),
    queue: clients.slice(holding),
    conflicts: kvs.flatMap((kv) => conflicts.get(idOf(kv)) ?? [])
  }
})

/** Returns the locks of both layouts whose names begin with a prefix, in the order of their names. */
export const list = Effect.fnUntraced(function*(etcd: Service, prefix: string) {
  const range = rangeOf(prefix)
  const { kvs, withoutValues } = yield* etcd.range(range).pipe(
    Effect.map(({ kvs }) => ({ kvs, withoutValues: false })),
    Effect.catchIf(isTooLarge, () => Effect.map(readLeases(etcd, range), (kvs) => ({ kvs, withoutValues: true })))
  )
  const locks = locksOf(kvs, prefix)
  const holders = locks.map(({ entries }) => entries[0]!)
  const described = new Map(
    (withoutValues ? yield* withValues(etcd, holders) : holders).map((kv) => [idOf(kv), describe(kv)])
  )
  return locks.flatMap(({ entries, layout, lock, prefix }, i) => {
    // It has been released since its key was read.
    const holder = described.get(idOf(holders[i]!))
    if (holder === undefined) return []
    const holding = metAmong(entries.map((kv) => layouts[layout].claimIn(prefix, kv)))
    return [{ lock, layout, holder, holding, waiting: entries.length - holding }]
  })
})

/** Emits what `list` returns, now and after every change under the prefix. */
export const listChanges = (etcd: Service, prefix: string) => changes(etcd, rangeOf(prefix), list(etcd, prefix))

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
  Check.isName(name) && idOf(kv).startsWith(toText(Buffer.from(name)))

/** Looks now, and again after every change in the range, or after those that matter. */
export const changes = <A>(
  etcd: Service,
  { key, rangeEnd }: Etcd.Range,
  look: Effect.Effect<A, Etcd.EtcdError>,
  matters: (event: Etcd.WatchEvent) => boolean = () => true
): Stream.Stream<A, Etcd.EtcdError> =>
  Stream.suspend(() => {
    let hasEnded = false
    return Stream.unwrap(Effect.gen(function*() {
      hasEnded = false
      // However much happens between two looks, the second one sees the latest state.
      const changed = yield* Queue.sliding<void, Etcd.EtcdError>(1)
      const subscribed = etcd.subscribe({ key, rangeEnd }, {
        onEvents: (events) => void (events.some(matters) && Queue.offerUnsafe(changed, undefined)),
        onEnd: (error) => {
          hasEnded = true
          Queue.failCauseUnsafe(changed, Cause.fail(error))
        }
      })
      yield* Effect.acquireRelease(subscribed, ({ close }) => Effect.sync(close), { interruptible: true })
      return Stream.concat(Stream.fromEffect(look), Stream.fromEffectRepeat(Effect.andThen(Queue.take(changed), look)))
    })).pipe(
      // A watch that was open is opened again, whatever ended it: etcd may have compacted what it had to report. If it
      // cannot be opened, that error decides.
      Stream.retry(
        Schedule.while(
          Schedule.spaced("200 millis"),
          ({ input }) => hasEnded || (input as Etcd.EtcdError).isTransient
        )
      )
    )
  })

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
    yield* Effect.annotateLogs(Effect.logWarning(`Lock '${lock}' was taken away from '${keyOf(entry)}'`), {
      lock,
      lease: entry.lease.toString(16)
    })
  }
  return succeeded
})

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** Reads the keys of a range with their leases, in as many replies as they need, and keeps no values. */
const readLeases = (
  etcd: Service,
  range: Etcd.Range,
  limit = 1024
): Effect.Effect<ReadonlyArray<Etcd.KeyValue>, Etcd.EtcdError> =>
  etcd.range({ ...range, limit }).pipe(
    Effect.flatMap(({ count, kvs }) => {
      const read = kvs.map((kv) => ({ ...kv, value: nothing }))
      return count === kvs.length
        ? Effect.succeed(read)
        // The key right after the last one.
        : Effect.map(
          readLeases(etcd, { ...range, key: Buffer.concat([kvs.at(-1)!.key, Buffer.of(0)]) }, limit),
          (rest) => [...read, ...rest]
        )
    }),
    Effect.catchIf((error) => isTooLarge(error) && limit > 1, () => readLeases(etcd, range, limit >> 1))
  )

const nothing = new Uint8Array()

/** A reply of etcd was too large to receive. */
const isTooLarge = ({ reason }: Etcd.EtcdError): boolean => reason === "InvalidArgument"

/** Reads the values of entries, those that are still there. */
const withValues = (etcd: Service, entries: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(
    askAll(etcd, entries.map(({ key }) => Etcd.get(key))),
    (answers) => answers.flatMap(({ kvs: [kv] }, i) => kv?.createRevision === entries[i]!.createRevision ? [kv] : [])
  )

/** Asks which of some keys are on a lease, and leaves out those that have gone. */
const withLeases = (etcd: Service, kvs: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(askAll(etcd, kvs.map(leaseOf)), (answers) =>
    kvs.flatMap((kv, i) => {
      const shown = shownBy(kv, answers[i]!)
      return shown === "Gone" ? [] : [new ForeignEntry(kv, shown === "OnLease")]
    }))

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
