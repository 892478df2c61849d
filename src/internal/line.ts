/**
 * The waiting line under a prefix.
 *
 * Every contender puts an entry, a key of its own that hangs on its lease; their
 * order is that of the create revisions. A rule over the earlier entries says
 * whose turn it is. The keys are those of Go's `concurrency` package, so that its
 * programs stand in the same line.
 *
 * One watch for deletes under the prefix tells of the end of earlier entries and
 * of one's own. It is opened "from now", since etcd serves a watch with a past
 * revision from a loop that runs every 100 ms, and whatever happened before it is
 * read once it stands. It stays open while this process has entries here.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Etcd from "../Etcd.ts"
import type { Lease } from "../Lease.ts"
import type { Background } from "./background.ts"
import * as Batch from "./batch.ts"

/** Says whether it is an entry's turn, from the entries that are before it. */
export type Rule = (ahead: ReadonlyMap<string, Etcd.KeyValue>) => boolean

/** What hangs an entry on a lease and takes it off again. */
export interface Hold {
  readonly lease: Lease
  readonly leave: () => void
  /** The outcome of a write on this lease stays unknown: nothing else may hang on it. */
  readonly retire: () => void
}

/** Why an entry came to nothing. */
export type EntryError = EntryLost | ForeignEntry | Etcd.EtcdError

export class EntryLost {
  readonly _tag = "EntryLost"
  readonly reason: "LeaseExpired" | "KeyDeleted" | "Released"
  constructor(reason: EntryLost["reason"]) {
    this.reason = reason
  }
}

/** A key under the prefix that can be no entry, and would be waited for for ever. */
export class ForeignEntry {
  readonly _tag = "ForeignEntry"
  readonly key: string
  constructor(key: string) {
    this.key = key
  }
}

export interface Entry {
  readonly line: Line
  readonly hold: Hold
  readonly key: string
  readonly value: Uint8Array
  readonly rule: Rule
  createRevision: bigint
  /** The revision at which its turn came. */
  fencingToken: bigint
  state: "Waiting" | "Held" | "Left"
  heldSince: number
  /** The earlier entries, in order, as far as they are known. */
  ahead: Map<string, Etcd.KeyValue>
  readonly turn: Deferred.Deferred<void, EntryError>
  readonly lost: Deferred.Deferred<never, EntryLost>
  loss: EntryLost | undefined
  unsubscribe: () => void
  /** A put of it may come late, or its removal failed. */
  mayRemain: boolean
}

/** What etcd tells about an entry. */
export type EntryKey = Pick<Etcd.KeyValue, "key" | "value" | "lease" | "createRevision">

export interface Line {
  readonly prefix: string
  readonly range: Etcd.Range
  readonly entries: Map<string, Entry>
  /** When each key was last deleted, as far as the watch told while there are entries. */
  readonly deletes: Map<string, bigint>
  /** Joins whose answer is still to come. */
  joining: number
  idleSince: number
  watcher: Fiber.Fiber<void> | undefined
  /** The revision after which the watch tells of everything; undefined while it does not stand. */
  watchedFrom: bigint | undefined
}

/** Somebody is in the way, and there is no line to stand in. */
export class Occupied {
  readonly _tag = "Occupied"
  readonly holder: Etcd.KeyValue
  readonly untilLeft: Effect.Effect<void, Etcd.EtcdError>
  constructor(holder: Etcd.KeyValue, untilLeft: Occupied["untilLeft"]) {
    this.holder = holder
    this.untilLeft = untilLeft
  }
}

/** Which keys make a line. */
export interface Layout {
  readonly range: (prefix: string) => Etcd.Range
  /** The key of a new entry. Where others use the same key, each entry must have a value of its own. */
  readonly key: (prefix: string, lease: Lease) => string
}

/** Whatever does not end in an entry leaves its hold. */
export interface Lines {
  readonly range: Layout["range"]
  readonly join: (
    prefix: string,
    options: { readonly hold: Hold; readonly value: Uint8Array; readonly rule: Rule }
  ) => Effect.Effect<Entry | Occupied, EntryError>
  readonly tryJoin: (
    prefix: string,
    options: { readonly hold: Hold; readonly value: Uint8Array }
  ) => Effect.Effect<Entry | Etcd.KeyValue, EntryError>
  /**
   * Leaves with one entry and joins with another in one commit, where there is a line to join. When that fails,
   * the first is left all the same.
   */
  readonly handOver:
    | ((
      entry: Entry,
      options: { readonly hold: Hold; readonly value: Uint8Array; readonly rule: Rule }
    ) => Effect.Effect<Entry, EntryError>)
    | undefined
  readonly leave: (entry: Entry) => Effect.Effect<void>
}

/** How long an entry is held before the watch for its own deletion is opened; and how often that is looked at. */
const watchHoldsAfter = 250

/** How long a line stays, with its watch, when it has no entries. */
const keepLineFor = 1000

/** The mutex's rule: any earlier entry blocks. */
export const noneAhead: Rule = (ahead) => ahead.size === 0

/**
 * A key for each entry, as Go's `concurrency` package has them: the lease's, and a number since it may have several.
 *
 * The smallest number that is free, since etcd keeps every key that ever was until it is compacted, and walks over
 * all of them to read the line.
 */
export const queue: Layout = {
  range: Etcd.getPrefix,
  key: (prefix, lease) => {
    let number = 1
    let key: string
    do {
      key = `${prefix}${lease.id.toString(16)}-${number++}`
    } while (lease.entries.has(key))
    lease.entries.add(key)
    return key
  }
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  layout: Layout = queue
) => {
  const batch = Batch.make(etcd, background)
  const lines = new Map<string, Line>()
  let caretaker: Fiber.Fiber<void> | undefined

  const lineOf = (prefix: string): Line => {
    const found = lines.get(prefix)
    if (found !== undefined) return found
    const line: Line = {
      prefix,
      range: layout.range(prefix),
      entries: new Map(),
      deletes: new Map(),
      joining: 0,
      idleSince: 0,
      watcher: undefined,
      watchedFrom: undefined
    }
    lines.set(prefix, line)
    takeCare()
    return line
  }

  // ---------------------------------------------------------------------------
  // joining
  // ---------------------------------------------------------------------------

  const join = (prefix: string, options: Parameters<Lines["join"]>[1]) =>
    Effect.suspend(() => {
      const entry = makeEntry(layout, lineOf(prefix), options)
      return sendJoin(
        entry,
        batch.txn(entry.line.prefix, {
          compare: [Etcd.compareCreateRevision(entry.key, "=", 0n)],
          then: [Etcd.put(entry.key, entry.value, { lease: entry.hold.lease.id }), newestTwo(entry.line)],
          else: [Etcd.get(entry.key)]
        })
      )
    })

  const handOver: NonNullable<Lines["handOver"]> = (entry, options) =>
    Effect.suspend(() => {
      forget(entry)
      const next = makeEntry(layout, entry.line, options)
      return sendJoin(
        next,
        batch.txn(entry.line.prefix, {
          compare: [guard(entry)],
          then: [
            Etcd.remove(entry.key),
            Etcd.put(next.key, next.value, { lease: next.hold.lease.id }),
            newestTwo(entry.line)
          ],
          else: [Etcd.get(next.key)]
        }).pipe(
          Effect.map((result) =>
            result.succeeded
              ? { ...result, responses: [result.responses[1], result.responses[2]] as const }
              : result
          ),
          Effect.onExit((exit) => Effect.sync(() => left(entry, exit)))
        )
      )
    })

  type Joined =
    & Etcd.TxnHeader
    & (
      | { readonly succeeded: true; readonly responses: readonly [Etcd.PutResult, Etcd.RangeResult] }
      | { readonly succeeded: false; readonly responses: readonly [Etcd.RangeResult] }
    )

  const sendJoin = (entry: Entry, txn: Effect.Effect<Joined, Etcd.EtcdError>): Effect.Effect<Entry, EntryError> => {
    entry.line.joining++
    return txn.pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          entry.line.joining--
          if (Exit.isFailure(exit)) tidy(entry.line)
        })
      ),
      Effect.tapError((error) => Effect.sync(() => refused(entry, error))),
      Effect.flatMap((result) => {
        if (result.repeated) mayRemain(entry)
        if (result.succeeded) {
          const [, range] = result.responses
          enter(entry, result.revision)
          // more entries than were read: which of them are before ours is not known yet
          const complete = range.count === range.kvs.length
          const ahead = range.kvs.filter((kv) => kv.createRevision < result.revision)
          settleOrLook(entry, complete, ahead, result.revision)
          return Effect.succeed(entry)
        }
        const own = result.responses[0].kvs[0]
        if (own === undefined) {
          // the entry to hand over was gone
          forget(entry)
          left(entry)
          return Effect.fail(new EntryLost("KeyDeleted"))
        }
        // our own put, whose answer was lost
        enter(entry, own.createRevision)
        settleOrLook(entry, false, [], result.revision)
        return Effect.succeed(entry)
      })
    )
  }

  const settleOrLook = (
    entry: Entry,
    complete: boolean,
    ahead: ReadonlyArray<Etcd.KeyValue>,
    revision: bigint
  ) => {
    const { line } = entry
    if (complete && entry.rule(index(ahead))) {
      takeTurn(entry, revision)
    } else if (line.watchedFrom === undefined) {
      // looks as soon as it stands
      watchLine(line)
    } else if (complete && line.watchedFrom < entry.createRevision) {
      settle(entry, ahead, revision)
    } else {
      background(forEntries(line, look(line)))
    }
  }

  const tryJoin: Lines["tryJoin"] = (prefix, options) =>
    Effect.suspend(() => {
      const line = lineOf(prefix)
      const entry = makeEntry(layout, line, { ...options, rule: noneAhead })
      line.joining++
      return batch.txn(prefix, {
        compare: [allFree(line.range)],
        then: [Etcd.put(entry.key, entry.value, { lease: entry.hold.lease.id })],
        else: [{ ...line.range, limit: 1, sort: "CreateAscending" }]
      }).pipe(
        Effect.onExit(() => Effect.sync(() => line.joining--)),
        Effect.tapError((error) => Effect.sync(() => refused(entry, error))),
        Effect.map((result) => {
          if (result.repeated) mayRemain(entry)
          const first = result.succeeded ? undefined : result.responses[0].kvs[0]
          if (first !== undefined && !isOwn(entry, first)) {
            forget(entry)
            left(entry)
            return first
          }
          enter(entry, first?.createRevision ?? result.revision)
          takeTurn(entry, entry.createRevision)
          return entry
        })
      )
    })

  // ---------------------------------------------------------------------------
  // waiting for the turn
  // ---------------------------------------------------------------------------

  const enter = (entry: Entry, createRevision: bigint) => {
    entry.createRevision = createRevision
    entry.line.entries.set(entry.key, entry)
    entry.unsubscribe = entry.hold.lease.onLoss(() => lose(entry, "LeaseExpired"))
    // the watch may have told of its end before the answer told of its beginning
    if ((entry.line.deletes.get(entry.key) ?? 0n) > createRevision) lose(entry, "KeyDeleted")
  }

  /** Takes note of the entries before ours, as they were at `revision`. */
  const settle = (entry: Entry, ahead: ReadonlyArray<Etcd.KeyValue>, revision: bigint) => {
    if (entry.state !== "Waiting") return
    const foreign = ahead.find((kv) => !isEntry(entry.line.prefix, kv))
    if (foreign !== undefined) {
      Deferred.doneUnsafe(entry.turn, Exit.fail(new ForeignEntry(keyOf(foreign))))
      return
    }
    entry.ahead = index(ahead)
    let latest = revision
    for (const kv of ahead) {
      const deleted = entry.line.deletes.get(keyOf(kv))
      if (deleted !== undefined && deleted > kv.createRevision) {
        entry.ahead.delete(keyOf(kv))
        if (deleted > latest) latest = deleted
      }
    }
    if (entry.rule(entry.ahead)) takeTurn(entry, latest)
  }

  const takeTurn = (entry: Entry, revision: bigint) => {
    if (entry.state !== "Waiting" || entry.loss !== undefined) return
    // the lease tells its listeners, of which the entry is one
    if (!entry.hold.lease.isAlive()) return
    entry.state = "Held"
    entry.fencingToken = revision
    entry.heldSince = clock.currentTimeMillisUnsafe()
    Deferred.doneUnsafe(entry.turn, Exit.void)
  }

  const onDeletes = (line: Line, events: ReadonlyArray<Etcd.WatchEvent>) => {
    for (const { kv } of events) {
      const key = keyOf(kv)
      if (line.entries.size > 0 || line.joining > 0) line.deletes.set(key, kv.modRevision)
      const own = line.entries.get(key)
      if (own !== undefined && kv.modRevision > own.createRevision) lose(own, "KeyDeleted")
    }
    // only when all that happened at this revision is known, since one's own key may be among it
    for (const entry of line.entries.values()) {
      if (entry.state !== "Waiting") continue
      for (const { kv } of events) {
        const key = keyOf(kv)
        const earlier = entry.ahead.get(key)
        if (earlier === undefined || kv.modRevision < earlier.createRevision) continue
        entry.ahead.delete(key)
        if (entry.rule(entry.ahead)) takeTurn(entry, kv.modRevision)
      }
    }
  }

  /** Reads the line, and takes note of the end of any of our entries and of what is before those that wait. */
  const look = (line: Line): Effect.Effect<void, Etcd.EtcdError> =>
    Effect.suspend(() => {
      const ours = [...line.entries.values()]
      if (ours.length === 0) return Effect.void
      const maxCreateRevision = ours.reduce(
        (max, { createRevision }) => createRevision > max ? createRevision : max,
        0n
      )
      return Effect.map(
        etcd.range({ ...line.range, sort: "CreateAscending", maxCreateRevision }),
        ({ kvs, revision }) => {
          for (const entry of ours) {
            if (!kvs.some((kv) => kv.createRevision === entry.createRevision && keyOf(kv) === entry.key)) {
              lose(entry, "KeyDeleted")
            } else {
              settle(entry, kvs.filter((kv) => kv.createRevision < entry.createRevision), revision)
            }
          }
        }
      )
    })

  const watchLine = (line: Line) => {
    if (line.watcher !== undefined) return
    const watching = Effect.scoped(Effect.gen(function*() {
      const watch = yield* etcd.watch({ key: line.range.key, rangeEnd: line.range.rangeEnd, only: "Delete" })
      // whoever joins from here on settles by itself, and everybody else by the look
      line.watchedFrom = watch.revision
      yield* look(line)
      while (true) onDeletes(line, yield* watch.next)
    })).pipe(Effect.ensuring(Effect.sync(() => {
      line.watchedFrom = undefined
    })))
    line.watcher = background(Effect.onExit(forEntries(line, watching), () =>
      Effect.sync(() => {
        line.watcher = undefined
      })))
  }

  /** Unless etcd will never allow it, for as long as the leases live. */
  const forEntries = (line: Line, effect: Effect.Effect<void, Etcd.EtcdError>): Effect.Effect<void> =>
    effect.pipe(
      persistently,
      Effect.catch((error) =>
        Effect.sync(() => {
          for (const entry of line.entries.values()) Deferred.doneUnsafe(entry.turn, Exit.fail(error))
        })
      )
    )

  // ---------------------------------------------------------------------------
  // leaving
  // ---------------------------------------------------------------------------

  const leave: Lines["leave"] = (entry) =>
    Effect.suspend(() => {
      if (entry.state === "Left") return Effect.void
      forget(entry)
      if (entry.loss !== undefined) return Effect.sync(() => left(entry))
      return batch.txn(entry.line.prefix, { compare: [guard(entry)], then: [Etcd.remove(entry.key)] }).pipe(
        Effect.onExit((exit) => Effect.sync(() => left(entry, exit))),
        Effect.ignore
      )
    })

  /** From here on the entry's end is ours, and none that befell it. */
  const forget = (entry: Entry) => {
    entry.state = "Left"
    entry.unsubscribe()
    entry.line.entries.delete(entry.key)
  }

  /** The entry is over, and its key free for the next unless something of it may remain. */
  const left = (entry: Entry, removed: Exit.Exit<unknown, unknown> = Exit.void) => {
    if (Exit.isFailure(removed)) mayRemain(entry)
    if (entry.mayRemain) {
      background(removeAgain(entry))
    } else {
      entry.hold.lease.entries.delete(entry.key)
    }
    entry.hold.leave()
    tidy(entry.line)
  }

  /** The join was answered with an error: there is no entry, or there may be one, or yet be one. */
  const refused = (entry: Entry, error: Etcd.EtcdError) => {
    forget(entry)
    if (error.reason === "LeaseNotFound") entry.hold.lease.notFound()
    if (error.outcome === "Unknown") mayRemain(entry)
    left(entry)
  }

  /** An entry that nobody knows of would block the line. With its lease retired it cannot outlive the lease's holders. */
  const mayRemain = (entry: Entry) => {
    entry.mayRemain = true
    entry.hold.retire()
  }

  /** Until its lease is gone, since a put that is late may come at any time. */
  const removeAgain = (entry: Entry) =>
    Effect.raceFirst(
      Effect.exit(entry.hold.lease.awaitLoss),
      Effect.repeat(
        Effect.exit(batch.txn(entry.line.prefix, { compare: own(entry), then: [Etcd.remove(entry.key)] })),
        Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("5 seconds")])
      )
    )

  // ---------------------------------------------------------------------------
  // taking care of what is there
  // ---------------------------------------------------------------------------

  /** A line without entries is kept for a while, with its watch, since the next one often comes at once. */
  const tidy = (line: Line) => {
    if (line.entries.size > 0 || line.joining > 0) return
    line.deletes.clear()
    line.idleSince = clock.currentTimeMillisUnsafe()
  }

  const takeCare = () => {
    caretaker ??= background(Effect.andThen(Effect.sleep(watchHoldsAfter), care))
  }

  // one fiber for all lines, since a fiber and a timer for each hold would cost short ones more than their watch
  const care: Effect.Effect<void> = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    for (const line of lines.values()) {
      if (line.entries.size > 0 || line.joining > 0) {
        for (const entry of line.entries.values()) {
          if (now - entry.heldSince >= watchHoldsAfter) watchLine(line)
        }
      } else if (now - line.idleSince >= keepLineFor) {
        line.watcher?.interruptUnsafe()
        lines.delete(line.prefix)
      }
    }
    if (lines.size > 0) return Effect.andThen(Effect.sleep(watchHoldsAfter), care)
    caretaker = undefined
    return Effect.void
  })

  return { range: layout.range, join, tryJoin, handOver, leave } satisfies Lines
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const makeEntry = (
  layout: Layout,
  line: Line,
  { hold, rule, value }: { readonly hold: Hold; readonly value: Uint8Array; readonly rule: Rule }
): Entry => ({
  line,
  hold,
  rule,
  value,
  key: layout.key(line.prefix, hold.lease),
  createRevision: 0n,
  fencingToken: 0n,
  state: "Waiting",
  heldSince: Infinity,
  ahead: new Map(),
  turn: Deferred.makeUnsafe(),
  lost: Deferred.makeUnsafe(),
  loss: undefined,
  unsubscribe: () => {},
  mayRemain: false
})

/** Tells whoever waits for the entry's turn, or holds, that it came to nothing. */
export const lose = (entry: Entry, reason: EntryLost["reason"]) => {
  if (entry.loss !== undefined || entry.state === "Left") return
  entry.loss = new EntryLost(reason)
  Deferred.doneUnsafe(entry.turn, Exit.fail(entry.loss))
  Deferred.doneUnsafe(entry.lost, Exit.fail(entry.loss))
}

/** The condition that an entry is still there, and none that came after it under the same key. */
export const guard = (entry: Entry): Etcd.Compare => Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)

/** The condition that a key is there that was put for this entry. */
const own = (entry: Entry): ReadonlyArray<Etcd.Compare> => [
  { key: Buffer.from(entry.key), target: "Lease", operator: "=", value: entry.hold.lease.id },
  Etcd.compareValue(entry.key, "=", entry.value)
]

const isOwn = (entry: Entry, kv: Etcd.KeyValue): boolean =>
  keyOf(kv) === entry.key && kv.lease === entry.hold.lease.id && Buffer.compare(kv.value, entry.value) === 0

const allFree = ({ key, rangeEnd }: Etcd.Range): Etcd.Compare => ({
  key,
  rangeEnd,
  target: "CreateRevision",
  operator: "=",
  value: 0n
})

const newestTwo = (line: Line) => ({ ...line.range, limit: 2, sort: "CreateDescending" }) as const

const index = (kvs: ReadonlyArray<Etcd.KeyValue>) => new Map(kvs.map((kv) => [keyOf(kv), kv]))

export const keyOf = (kv: Pick<Etcd.KeyValue, "key">): string => Buffer.from(kv.key).toString()

/** An entry is a direct child of the prefix, or the key itself, and hangs on a lease; anything else might stay for ever. */
export const isEntry = (prefix: string, kv: EntryKey): boolean =>
  kv.lease !== 0n && !keyOf(kv).slice(prefix.length).includes("/")

/** What failed to be seen says nothing about what is there: look again, unless etcd will never allow it. */
export const persistently: <A>(effect: Effect.Effect<A, Etcd.EtcdError>) => Effect.Effect<A, Etcd.EtcdError> = Effect
  .retry({ while: (error) => isPassing(error), schedule: Schedule.spaced("200 millis") })

const isPassing = (error: Etcd.EtcdError): boolean =>
  error.reason !== "PermissionDenied" && error.reason !== "Unauthenticated" && error.reason !== "InvalidArgument"
