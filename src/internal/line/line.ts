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
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Etcd from "../../Etcd.ts"
import type { Lease } from "../../Lease.ts"
import type { Background } from "../background.ts"
import * as Batch from "../etcd/batch.ts"
import type { Done } from "../etcd/batch.ts"
import { Watcher } from "../etcd/watcher.ts"
import { monotonicMillis } from "../monotonic.ts"
import * as Cleanup from "./cleanup.ts"
import {
  Entry,
  type EntryError,
  EntryLost,
  ForeignEntry,
  giveAway,
  guard,
  idOf,
  isEntry,
  isOwn,
  keyOf,
  putOf,
  removalOf,
  type Ticket
} from "./entry.ts"

export interface Line {
  readonly prefix: string
  readonly range: Etcd.Range
  readonly entries: Map<string, Entry>
  /** When each key was last deleted, as far as the watch has reported since there are answers to come. */
  deletes: Map<string, bigint> | undefined
  /** Joins and reads whose answer is still to come. */
  pending: number
  /** Somebody was before us when it was last joined or tried. */
  isTaken: boolean
  idleSince: number
  watcher: Watcher | undefined
  /** Opens the watch. */
  opening: Fiber.Fiber<void> | undefined
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
  readonly join: (prefix: string, ticket: Ticket, done: Done<Entry | Occupied, EntryError>) => void
  readonly tryJoin: (prefix: string, ticket: Ticket, done: Done<Entry | Etcd.KeyValue, EntryError>) => void
  /**
   * Leaves with one entry and joins with another in one commit, where there is a line to join. When that fails,
   * the first is left all the same.
   */
  readonly handOver: ((entry: Entry, ticket: Ticket, done: Done<Entry, EntryError>) => void) | undefined
  readonly leave: (entry: Entry, done: () => void) => void
  /** Changes what the entry says of its holder, unless others are told apart from it by that. */
  readonly describe: ((entry: Entry, value: Uint8Array) => void) | undefined
  /** Takes back all entries that do not end with the session's leases. */
  readonly end: Effect.Effect<void>
  /** Ends what it watches. */
  readonly close: () => void
}

/** How long an entry is held before the watch for its own deletion is opened; and how often that is looked at. */
const watchHoldsAfter = 250

/** In milliseconds. */
const retryAfter = 200

/** How many watches of held locks are opened at once: with thousands, none would stand in time. */
const openAtOnce = 64

/** How long a line stays, with its watch, when it has no entries. */
const keepLineFor = 1000

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
      key = `${prefix}${lease.hex}-${number++}`
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
  const batch = Batch.make(etcd, clock, background)
  const cleanup = Cleanup.make(etcd, clock, background, ({ hold, key }) => hold.lease.entries.delete(key))
  const lines = new Map<string, Line>()
  const leases = new Set<Lease>()
  const pace = Semaphore.makeUnsafe(openAtOnce)
  let caretaker: Fiber.Fiber<void> | undefined

  const lineOf = (prefix: string): Line => {
    const found = lines.get(prefix)
    if (found !== undefined) return found
    const line: Line = {
      prefix,
      range: layout.range(prefix),
      entries: new Map(),
      deletes: undefined,
      pending: 0,
      isTaken: false,
      idleSince: 0,
      watcher: undefined,
      opening: undefined,
      watchedFrom: undefined
    }
    lines.set(prefix, line)
    takeCare()
    return line
  }

  // ---------------------------------------------------------------------------
  // joining
  // ---------------------------------------------------------------------------

  const join = (prefix: string, ticket: Ticket, done: Done<Entry, EntryError>) => {
    const entry = makeEntry(layout, lineOf(prefix), ticket)
    if (entry.line.isTaken) return joinBehind(entry, done)
    // a free lock is taken without reading the line, which would cost etcd as much again
    takeFree(entry, (exit) => {
      if (Exit.isFailure(exit) || exit.value === entry) return done(exit as Exit.Exit<Entry, EntryError>)
      joinBehind(entry, done)
    })
  }

  const joinBehind = (entry: Entry, done: Done<Entry, EntryError>) => {
    // putting again what is there already changes nothing in the line
    const txn = Etcd.nested({ then: [putOf(entry), getKey(entry), newestTwo(entry.line)] })
    send(
      entry,
      txn,
      done,
      ({ responses: [, own, newest], revision }) => stand(entry, own!.kvs[0]!.createRevision, newest!, revision)
    )
  }

  const tryJoin: Lines["tryJoin"] = (prefix, ticket, done) => {
    const line = lineOf(prefix)
    if (!line.isTaken) return tryToJoin(line, ticket, done)
    // whoever was refused just now will be again, which a read tells without a proposal to all members
    line.pending++
    batch.send(prefix, Etcd.nested({ then: [first(line)] }), (exit) => {
      answered(line)
      const holder = Exit.map(exit, ({ responses }) => responses[0]?.kvs[0])
      if (Exit.isSuccess(holder) && holder.value === undefined) return tryToJoin(line, ticket, done)
      ticket.hold.leave()
      tidy(line)
      done(holder as Exit.Exit<Etcd.KeyValue, EntryError>)
    })
  }

  const tryToJoin = (line: Line, ticket: Ticket, done: Done<Entry | Etcd.KeyValue, EntryError>) => {
    const entry = makeEntry(layout, line, ticket)
    takeFree(entry, (exit) => {
      if (Exit.isSuccess(exit) && exit.value !== entry) {
        forget(entry)
        left(entry)
      }
      done(exit)
    })
  }

  /** Takes the lock if there is nobody in the line; else answers who is first. */
  const takeFree = (entry: Entry, done: Done<Entry | Etcd.KeyValue, EntryError>) => {
    const { line } = entry
    const txn = Etcd.nested({
      compare: [allFree(line.range)],
      then: [putOf(entry)],
      else: [first(line)]
    })
    send(entry, txn, done, (result): Exit.Exit<Entry | Etcd.KeyValue> => {
      const holder = result.succeeded ? undefined : result.responses[0].kvs[0]
      line.isTaken = holder !== undefined && !isOwn(entry, holder)
      return holder !== undefined && line.isTaken
        ? Exit.succeed(holder)
        : take(entry, holder?.createRevision ?? result.revision)
    })
  }

  const handOver: NonNullable<Lines["handOver"]> = (entry, ticket, done) => {
    forget(entry)
    const next = makeEntry(layout, entry.line, ticket)
    const txn = Etcd.nested({
      compare: [guard(entry)],
      then: [Etcd.remove(entry.key), putOf(next), newestTwo(entry.line)],
      else: [getKey(next)]
    })
    send(next, txn, done, (result) => {
      if (result.succeeded) return stand(next, result.revision, result.responses[2], result.revision)
      const [own] = result.responses[0].kvs
      // our own put, whose answer was lost; else the entry to hand over was gone
      if (own !== undefined) return stand(next, own.createRevision, unread, result.revision)
      forget(next)
      left(next)
      return Exit.fail(new EntryLost("KeyDeleted"))
    }, (exit) => left(entry, exit))
  }

  const send = <const Then extends ReadonlyArray<Etcd.Op>, const Else extends ReadonlyArray<Etcd.Op>, A>(
    entry: Entry,
    txn: Etcd.Txn<Then, Else>,
    done: Done<A, EntryError>,
    onAnswer: (answer: Batch.Answer<Then, Else>) => Exit.Exit<A, EntryError>,
    onExit?: (exit: Exit.Exit<unknown, unknown>) => void
  ) => {
    const { line } = entry
    line.pending++
    batch.send(line.prefix, txn, (exit) => {
      onExit?.(exit)
      if (Exit.isFailure(exit)) {
        answered(line)
        refused(entry, exit.cause)
        return done(Exit.failCause(exit.cause))
      }
      if (exit.value.repeated) mayRemain(entry)
      const outcome = onAnswer(exit.value)
      answered(line)
      done(outcome)
    })
  }

  /** What was deleted before matters to answers that were under way then, and to no later ones. */
  const answered = (line: Line) => {
    line.pending--
    if (line.pending === 0) line.deletes = undefined
  }

  /** Its turn has come with its join. */
  const take = (entry: Entry, createRevision: bigint): Exit.Exit<Entry> => {
    enter(entry, createRevision)
    takeTurn(entry, createRevision)
    return Exit.succeed(entry)
  }

  /** Finds out what is before it, from the newest two of the line as they were at `revision`. */
  const stand = (
    entry: Entry,
    createRevision: bigint,
    { count, kvs }: Pick<Etcd.RangeResult, "kvs" | "count">,
    revision: bigint
  ): Exit.Exit<Entry> => {
    const { line } = entry
    enter(entry, createRevision)
    const ahead = kvs.filter((kv) => kv.createRevision < createRevision)
    // more entries than were read: which of them are before ours is not known yet
    const complete = count === kvs.length
    line.isTaken = !complete || ahead.length > 0
    if (complete && entry.rule(index(ahead))) {
      takeTurn(entry, revision)
    } else if (line.watchedFrom === undefined) {
      // looks as soon as it stands
      watchLine(line)
    } else if (complete && line.watchedFrom < createRevision) {
      settle(entry, ahead, revision)
    } else {
      background(forEntries(line, look(line)))
    }
    return Exit.succeed(entry)
  }

  // ---------------------------------------------------------------------------
  // waiting for the turn
  // ---------------------------------------------------------------------------

  const enter = (entry: Entry, createRevision: bigint) => {
    entry.createRevision = createRevision
    entry.line.entries.set(entry.id, entry)
    followLease(entry.hold.lease)
    // the watch may have told of its end before the answer told of its beginning
    if ((entry.line.deletes?.get(entry.id) ?? 0n) > createRevision) entry.lose("KeyDeleted")
  }

  // once for all entries on a lease: a listener for each that comes and goes would cost more than all else of it
  const followLease = (lease: Lease) => {
    if (leases.has(lease)) return
    leases.add(lease)
    lease.onLoss(({ reason }) => {
      leases.delete(lease)
      const lost = reason === "Released" ? reason : "LeaseExpired"
      for (const { entries } of lines.values()) {
        for (const entry of entries.values()) if (entry.hold.lease === lease) entry.lose(lost)
      }
    })
  }

  /** Takes note of the entries before ours, as they were at `revision`. */
  const settle = (entry: Entry, ahead: ReadonlyArray<Etcd.KeyValue>, revision: bigint) => {
    if (entry.state !== "Waiting") return
    const foreign = ahead.find((kv) => !isEntry(entry.line.prefix, kv))
    if (foreign !== undefined) {
      entry.decide(Exit.fail(new ForeignEntry(keyOf(foreign))))
      return
    }
    const before = entry.ahead = index(ahead)
    let latest = revision
    for (const kv of ahead) {
      const deleted = entry.line.deletes?.get(idOf(kv))
      if (deleted !== undefined && deleted > kv.createRevision) {
        before.delete(idOf(kv))
        if (deleted > latest) latest = deleted
      }
    }
    if (entry.rule(before)) takeTurn(entry, latest)
  }

  const takeTurn = (entry: Entry, revision: bigint) => {
    if (entry.state !== "Waiting" || entry.look() !== undefined) return
    entry.state = "Held"
    entry.fencingToken = revision
    entry.heldSince = monotonicMillis(clock)
    entry.decide(Exit.void)
  }

  const onDeletes = (line: Line, events: ReadonlyArray<Etcd.WatchEvent>) => {
    for (const { kv } of events) {
      const id = idOf(kv)
      if (line.pending > 0) (line.deletes ??= new Map()).set(id, kv.modRevision)
      const own = line.entries.get(id)
      if (own !== undefined && kv.modRevision > own.createRevision) own.lose("KeyDeleted")
    }
    // only when all that happened at this revision is known, since one's own key may be among it
    for (const entry of line.entries.values()) {
      const { ahead } = entry
      if (entry.state !== "Waiting" || ahead === undefined) continue
      for (const { kv } of events) {
        const id = idOf(kv)
        const earlier = ahead.get(id)
        if (earlier === undefined || kv.modRevision < earlier.createRevision) continue
        ahead.delete(id)
        if (entry.rule(ahead)) takeTurn(entry, kv.modRevision)
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
      line.pending++
      return Effect.map(
        etcd.range({ ...line.range, sort: "CreateAscending", maxCreateRevision, keysOnly: true }),
        ({ kvs, revision }) => {
          for (const entry of ours) {
            if (!kvs.some((kv) => kv.createRevision === entry.createRevision && idOf(kv) === entry.id)) {
              entry.lose("KeyDeleted")
            } else {
              settle(entry, kvs.filter((kv) => kv.createRevision < entry.createRevision), revision)
            }
          }
        }
      ).pipe(Effect.ensuring(Effect.sync(() => answered(line))))
    })

  const watchLine = (line: Line) => {
    if (line.watcher !== undefined || line.opening !== undefined) return
    const isWaitedFor = [...line.entries.values()].some(({ state }) => state === "Waiting")
    const open = forEntries(line, openWatch(line))
    const opening = line.opening = background(isWaitedFor ? open : pace.withPermits(1)(open))
    opening.addObserver(() => {
      line.opening = undefined
    })
  }

  const openWatch = (line: Line): Effect.Effect<void, Etcd.EtcdError> =>
    Effect.suspend(() => {
      const unwatched = () => {
        line.watcher = undefined
        line.watchedFrom = undefined
      }
      const watcher = line.watcher = new Watcher((sight) => {
        if (Exit.isSuccess(sight)) return onDeletes(line, sight.value)
        unwatched()
        // While it is being opened, that goes on.
        if (line.opening !== undefined) return
        background(Effect.delay(Effect.sync(() => line.entries.size > 0 && watchLine(line)), retryAfter))
      })
      const { key, rangeEnd } = line.range
      return etcd.subscribe({ key, rangeEnd, only: "Delete" }, watcher).pipe(
        Effect.flatMap((revision) => {
          // whoever joins from here on settles by itself, and everybody else by the look
          if (!watcher.isClosed) line.watchedFrom = revision
          return look(line)
        }),
        Effect.flatMap(() => watcher.isClosed ? Effect.delay(openWatch(line), retryAfter) : Effect.void),
        Effect.onError(() =>
          Effect.sync(() => {
            watcher.close()
            unwatched()
          })
        )
      )
    })

  /** Unless etcd will never allow it, for as long as the leases live. */
  const forEntries = (line: Line, effect: Effect.Effect<void, Etcd.EtcdError>): Effect.Effect<void> =>
    effect.pipe(
      persistently,
      Effect.catch((error) =>
        Effect.sync(() => {
          for (const entry of line.entries.values()) entry.decide(Exit.fail(error))
        })
      )
    )

  // ---------------------------------------------------------------------------
  // leaving
  // ---------------------------------------------------------------------------

  const leave: Lines["leave"] = (entry, done) => {
    if (entry.state === "Left") return done()
    forget(entry)
    if (entry.isGone) {
      left(entry)
      return done()
    }
    batch.send(entry.line.prefix, removalOf(entry), (exit) => {
      left(entry, exit)
      done()
    })
  }

  const describe: NonNullable<Lines["describe"]> = (entry, value) => {
    entry.value = value
    // If it fails, the entry goes on under the former description.
    batch.send(entry.line.prefix, Etcd.nested({ compare: [guard(entry)], then: [putOf(entry)] }), () => {})
  }

  /** From here on the entry's end is ours, and none that befell it. */
  const forget = (entry: Entry) => {
    entry.state = "Left"
    entry.line.entries.delete(entry.id)
  }

  /** The entry is over, and its key free for the next unless something of it may remain. */
  const left = (entry: Entry, removed: Exit.Exit<unknown, unknown> = Exit.void) => {
    if (Exit.isFailure(removed)) mayRemain(entry)
    if (entry.mayRemain) cleanup.add(entry)
    else entry.hold.lease.entries.delete(entry.key)
    entry.hold.leave()
    tidy(entry.line)
  }

  /** The join was answered with an error: there is no entry, or there may be one, or yet be one. */
  const refused = (entry: Entry, cause: Cause.Cause<Etcd.EtcdError>) => {
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    forget(entry)
    if (error?.reason === "LeaseNotFound") entry.hold.lease.notFound()
    if (error?.outcome !== "Refused") mayRemain(entry)
    left(entry)
  }

  /** An entry that nobody knows of would block the line. With its lease retired it cannot outlive the lease's holders. */
  const mayRemain = (entry: Entry) => {
    entry.mayRemain = true
    entry.hold.retire()
  }

  // ---------------------------------------------------------------------------
  // taking care of what is there
  // ---------------------------------------------------------------------------

  /** A line without entries is kept for a while, with its watch, since the next one often comes at once. */
  const tidy = (line: Line) => {
    if (isInUse(line)) return
    line.idleSince = monotonicMillis(clock)
  }

  const takeCare = () => {
    caretaker ??= background(Effect.andThen(Effect.sleep(watchHoldsAfter), care))
  }

  // one fiber for all lines, since a fiber and a timer for each hold would cost short ones more than their watch
  const care: Effect.Effect<void> = Effect.suspend(() => {
    const now = monotonicMillis(clock)
    for (const line of lines.values()) {
      if (isInUse(line)) {
        for (const entry of line.entries.values()) {
          if (now - entry.heldSince >= watchHoldsAfter) watchLine(line)
        }
      } else if (now - line.idleSince >= keepLineFor) {
        unwatch(line)
        lines.delete(line.prefix)
      }
    }
    if (lines.size > 0) return Effect.andThen(Effect.sleep(watchHoldsAfter), care)
    caretaker = undefined
    return Effect.void
  })

  const unwatch = ({ opening, watcher }: Line) => {
    opening?.interruptUnsafe()
    watcher?.close()
  }

  const end = Effect.suspend(() => {
    const given: Array<Effect.Effect<void>> = []
    for (const { entries } of lines.values()) {
      for (const entry of entries.values()) {
        if (entry.hold.isShared) continue
        entry.lose("Released")
        given.push(giveAway(entry, (done) => leave(entry, done)))
      }
    }
    return Effect.andThen(Effect.all(given, { concurrency: "unbounded", discard: true }), batch.idle)
  })

  const close = () => lines.forEach(unwatch)

  return { range: layout.range, join, tryJoin, handOver, leave, describe, end, close } satisfies Lines
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const makeEntry = (layout: Layout, line: Line, ticket: Ticket): Entry =>
  new Entry(line, layout.key(line.prefix, ticket.hold.lease), ticket)

const isInUse = ({ entries, pending }: Line): boolean => entries.size > 0 || pending > 0

const getKey = ({ key }: Entry) => ({ ...Etcd.get(key), keysOnly: true }) as const

const allFree = ({ key, rangeEnd }: Etcd.Range): Etcd.Compare => ({
  key,
  rangeEnd,
  target: "CreateRevision",
  operator: "=",
  value: 0n
})

const unread: Pick<Etcd.RangeResult, "kvs" | "count"> = { kvs: [], count: Infinity }

const first = (line: Line) => ({ ...line.range, limit: 1, sort: "CreateAscending" }) as const

const newestTwo = (line: Line) => ({ ...line.range, limit: 2, sort: "CreateDescending", keysOnly: true }) as const

const index = (kvs: ReadonlyArray<Etcd.KeyValue>) => new Map(kvs.map((kv) => [idOf(kv), kv]))

/** What failed to be seen says nothing about what is there: look again, unless etcd will never allow it. */
export const persistently: <A>(effect: Effect.Effect<A, Etcd.EtcdError>) => Effect.Effect<A, Etcd.EtcdError> = Effect
  .retry({ while: (error) => isPassing(error), schedule: Schedule.spaced(retryAfter) })

const isPassing = (error: Etcd.EtcdError): boolean =>
  error.reason !== "PermissionDenied" && error.reason !== "Unauthenticated" && error.reason !== "InvalidArgument"
