/**
 * The waiting line under a prefix.
 *
 * Every contender puts an entry, a key of its own that hangs on its lease; their
 * order is that of the create revisions. A discipline says who may hold beside
 * whom. The keys are those of Go's `concurrency` package, so that its programs
 * stand in the same line.
 *
 * In a short line, one watch for deletes under the prefix reports the end of all
 * earlier entries and of one's own. In a long line that would wake every waiter at
 * every hand-over, so an entry watches only its guards: the nearest entries ahead
 * that cannot all stay if its turn is to come. When a guard ends, the entry reads
 * what is ahead of it now, and takes its turn or the next guards.
 *
 * Watches stay open while this process has entries here.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import * as Batch from "../etcd/batch.ts"
import type { Done } from "../etcd/batch.ts"
import { monotonicMillis } from "../monotonic.ts"
import * as Cleanup from "./cleanup.ts"
import { admits, type Discipline, mutex } from "./discipline.ts"
import {
  Entry,
  type EntryError,
  type EntryKey,
  type EntryLease,
  EntryLost,
  type EntryOptions,
  ForeignEntry,
  giveAway,
  guard,
  idOf,
  isOwn,
  putOf,
  removalOf
} from "./entry.ts"
import { type Layout, queue, releaseKey } from "./layout.ts"
import { follow, type Guarded, onDelete, type Place, settle, type Step, unplaced } from "./view.ts"
import { DeletionWatch, type Host, persistently } from "./watch.ts"

export interface Line {
  readonly prefix: string
  readonly range: Etcd.Range
  readonly entries: Map<string, Entry>
  /** When each key was last deleted, as far as the watch has reported since there are answers to come. */
  deletes: Map<string, bigint> | undefined
  /** Joins and reads whose answer is still to come. */
  pending: number
  /** Another client was ahead when it was last joined or tried. */
  isTaken: boolean
  /** How many entries it had when it was last joined. */
  length: number
  idleSince: number
  /** Reports the end of all its entries, while it is short. */
  whole: DeletionWatch<Line | Single>
  /** Report the end of guards, and of our own entries where the whole line is not watched, by their `idOf`. */
  singles: Map<string, Single> | undefined
  /** The last guards. Their watches are kept, since they often guard again. */
  lastGuards: ReadonlySet<string>
}

/** One key of a line that is watched by itself. */
class Single {
  readonly line: Line
  readonly id: string
  readonly key: Uint8Array
  readonly watch: DeletionWatch<Line | Single>
  /** When its watch last reported its end. */
  deletedAt = 0n

  constructor(host: Host<Line | Single>, line: Line, id: string, key: Uint8Array) {
    this.line = line
    this.id = id
    this.key = key
    this.watch = new DeletionWatch<Line | Single>(host, Etcd.get(key), this)
  }
}

/**
 * Up to how many entries a line is watched as a whole, and from more than how many by guards. Between the two, what is
 * watched stays: a line around the limit changes nobody's watches.
 */
export const Lengths = Context.Reference("effect-etcd-lock/internal/line/Lengths", {
  defaultValue: () => ({ short: 8, long: 16 })
})

/** Another client holds the lock. */
export class Refused {
  readonly _tag = "Refused"
  readonly holder: EntryKey | undefined
  /** Ends when that client has released it. There is none where a line can be joined instead. */
  readonly untilReleased: Effect.Effect<void, Etcd.EtcdError> | undefined
  constructor(holder: EntryKey | undefined, untilReleased?: Refused["untilReleased"]) {
    this.holder = holder
    this.untilReleased = untilReleased
  }
}

/** A join that does not end in an entry releases its reference to the lease. */
export interface Lines {
  readonly range: Layout["range"]
  readonly join: (prefix: string, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => void
  readonly tryJoin: (prefix: string, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => void
  /**
   * Leaves with one entry and joins with another in one commit, where there is a line to join. When that fails,
   * the first is left all the same.
   */
  readonly handOver: ((entry: Entry, options: EntryOptions, done: Done<Entry, EntryError>) => void) | undefined
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

/** The same for an entry that waits in a long line, which looks for its own key anyway before its turn. */
const watchWaitsAfter = 2000

/** How many watches of held locks are opened at once: with thousands, none would stand in time. */
const openAtOnce = 64

/** How long a line stays, with its watch, when it has no entries. */
const keepLineFor = 1000

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  lengths: { readonly short: number; readonly long: number },
  layout: Layout = queue,
  discipline: Discipline = mutex
) => {
  const batch = Batch.make(etcd, clock, background)
  const cleanup = Cleanup.make(etcd, clock, background, ({ ref, key }) => releaseKey(ref.lease, key))
  const lines = new Map<string, Line>()
  const leases = new Set<EntryLease>()
  const openingLimit = Semaphore.makeUnsafe(openAtOnce)
  const watches: Host<Line | Single> = {
    etcd,
    background,
    onDeletes: (of, events) => of instanceof Single ? onDeletes(of.line, events, of) : onDeletes(of, events),
    read: (of, from) => of instanceof Single ? verify(of, from) : look(of),
    onError: (of, error) => failWaiting(of instanceof Single ? of.line : of, error),
    isNeeded: (of) =>
      of instanceof Single
        ? of.line.singles?.get(of.id) === of && of.line.entries.size > 0 && isNeeded(of.line, of.id)
        : of.entries.size > 0
  }
  let sweeper: Fiber.Fiber<void> | undefined

  const lineOf = (prefix: string): Line => {
    const found = lines.get(prefix)
    if (found !== undefined) return found
    const range = layout.range(prefix)
    const line: Line = {
      prefix,
      range,
      entries: new Map(),
      deletes: undefined,
      pending: 0,
      isTaken: false,
      length: 0,
      idleSince: 0,
      whole: undefined as never,
      singles: undefined,
      lastGuards: none
    }
    line.whole = new DeletionWatch<Line | Single>(watches, range, line)
    lines.set(prefix, line)
    startSweep()
    return line
  }

  // ---------------------------------------------------------------------------
  // joining
  // ---------------------------------------------------------------------------

  const join = (prefix: string, options: EntryOptions, done: Done<Entry, EntryError>) => {
    const entry = makeEntry(layout, lineOf(prefix), options)
    if (entry.line.isTaken) return joinBehind(entry, done)
    // A free lock is taken without reading the line, which would cost etcd as much again.
    takeFree(entry, (exit) => {
      if (Exit.isFailure(exit) || exit.value instanceof Entry) done(exit as Exit.Exit<Entry, EntryError>)
      else joinBehind(entry, done)
    })
  }

  const joinBehind = (entry: Entry, done: Done<Entry, EntryError>) => {
    // Putting again what is there already changes nothing in the line.
    const txn = Etcd.nested({ then: [putOf(entry), getKey(entry), newest(entry.line)] })
    send(
      entry,
      txn,
      done,
      ({ responses: [, own, newest], revision }) =>
        placeAfterJoin(entry, own!.kvs[0]!.createRevision, newest!, revision)
    )
  }

  const tryJoin: Lines["tryJoin"] = (prefix, options, done) => {
    const line = lineOf(prefix)
    if (!line.isTaken) return tryToJoin(line, options, done)
    // A try that was refused just now will be again, which a read shows without a proposal to all members.
    line.pending++
    batch.send(prefix, Etcd.nested({ then: [first(line)] }), (exit) => {
      answered(line)
      const holder = Exit.map(exit, ({ responses }) => responses[0]?.kvs[0])
      if (Exit.isSuccess(holder) && holder.value === undefined) return tryToJoin(line, options, done)
      options.ref.release()
      markIdle(line)
      done(Exit.map(holder, (kv) => new Refused(kv)))
    })
  }

  const tryToJoin = (line: Line, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => {
    const entry = makeEntry(layout, line, options)
    takeFree(entry, (exit) => {
      if (Exit.isSuccess(exit) && exit.value instanceof Refused) {
        detach(entry)
        finishLeaving(entry)
      }
      done(exit)
    })
  }

  /** Takes the lock if the line is empty. */
  const takeFree = (entry: Entry, done: Done<Entry | Refused, EntryError>) => {
    const { line } = entry
    const txn = Etcd.nested({
      compare: [allFree(line.range)],
      then: [putOf(entry)],
      else: [first(line)]
    })
    send(entry, txn, done, (result): Exit.Exit<Entry | Refused> => {
      const holder = result.succeeded ? undefined : result.responses[0].kvs[0]
      line.isTaken = holder !== undefined && !isOwn(entry, holder)
      return holder !== undefined && line.isTaken
        ? Exit.succeed(new Refused(holder))
        : take(entry, holder?.createRevision ?? result.revision)
    })
  }

  const handOver: NonNullable<Lines["handOver"]> = (entry, options, done) => {
    detach(entry)
    const next = makeEntry(layout, entry.line, options)
    const txn = Etcd.nested({
      compare: [guard(entry)],
      then: [Etcd.remove(entry.key), putOf(next), newest(entry.line)],
      else: [getKey(next)]
    })
    send(next, txn, done, (result) => {
      if (result.succeeded) return placeAfterJoin(next, result.revision, result.responses[2], result.revision)
      const [own] = result.responses[0].kvs
      // It is our own put, whose answer was lost; else the entry to hand over was gone.
      if (own !== undefined) return placeAfterJoin(next, own.createRevision, unread, result.revision)
      detach(next)
      finishLeaving(next)
      return Exit.fail(new EntryLost("KeyDeleted"))
    }, (exit) => finishLeaving(entry, exit))
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
        joinFailed(entry, exit.cause)
        return done(Exit.failCause(exit.cause))
      }
      if (exit.value.repeated) retireAndRemember(entry)
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

  /** As many of the newest as tell what is ahead: all of a short line. */
  const newest = (line: Line) => {
    const { length, range, whole } = line
    const limit = whole.isOpen ? lengths.long : lengths.short
    return {
      ...range,
      limit: length > limit ? 1 + discipline.guardsAmong : limit,
      sort: "CreateDescending",
      keysOnly: true
    } as const
  }

  /** The turn has come with the join. */
  const take = (entry: Entry, createRevision: bigint): Exit.Exit<Entry> => {
    enter(entry, createRevision)
    takeTurn(entry, createRevision)
    return Exit.succeed(entry)
  }

  /** Finds out what is ahead of it, from the newest of the line as they were at `revision`. */
  const placeAfterJoin = (
    entry: Entry,
    createRevision: bigint,
    { count, kvs }: Pick<Etcd.RangeResult, "kvs" | "count">,
    revision: bigint
  ): Exit.Exit<Entry> => {
    const { line } = entry
    const { whole } = line
    enter(entry, createRevision)
    const ahead = kvs.filter((kv) => kv.createRevision < createRevision)
    // If the line has more entries than were read, which of them are ahead is not known yet.
    const isComplete = count === kvs.length
    if (count !== Infinity) line.length = count
    line.isTaken = !isComplete || ahead.length > 0
    if (isComplete && admits(discipline, ahead.toReversed(), ownOf(entry))) {
      takeTurn(entry, revision)
    } else if (count > (whole.isOpen ? lengths.long : lengths.short)) {
      if (count !== Infinity) closeWhole(line, entry)
      // An entry that was put again may be behind more than were read: then none of these is ahead of it, and it looks.
      apply(entry, follow(discipline, line.prefix, ownOf(entry), ahead, isComplete, revision))
    } else if (whole.from === undefined) {
      // It looks as soon as it stands.
      openWatch(line, whole)
    } else if (isComplete && whole.from < createRevision) {
      apply(entry, settle(discipline, line.prefix, ownOf(entry), ahead.toReversed(), revision, line.deletes))
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
    entry.since = monotonicMillis(clock)
    entry.line.entries.set(entry.id, entry)
    followLease(entry.ref.lease)
    // A watch may have reported its end before the answer reported its beginning.
    if (deletedAt(entry.line, entry.id) > createRevision) entry.lose("KeyDeleted")
  }

  // One listener for all entries on a lease: one for each would cost more than the rest of the entry.
  const followLease = (lease: EntryLease) => {
    if (leases.has(lease)) return
    leases.add(lease)
    lease.onLoss(({ reason }) => {
      leases.delete(lease)
      const lost = reason === "Released" ? reason : "LeaseExpired"
      for (const { entries } of lines.values()) {
        for (const entry of entries.values()) if (entry.ref.lease === lease) entry.lose(lost)
      }
    })
  }

  /** Does what follows from an answer or an event. */
  const apply = (entry: Entry, step: Step) => {
    if (entry.state !== "Waiting") return
    switch (step._tag) {
      case "Turn": {
        return takeTurn(entry, step.revision)
      }
      case "Foreign": {
        return entry.decide(Exit.fail(new ForeignEntry(step.key)))
      }
      case "Look": {
        return lookAhead(entry)
      }
      case "Wait": {
        entry.place = step.place
        if (step.place._tag === "Guarded") watchGuards(entry, step.place)
      }
    }
  }

  const takeTurn = (entry: Entry, revision: bigint) => {
    if (entry.state !== "Waiting" || entry.checkLoss() !== undefined) return
    entry.state = "Held"
    entry.since = monotonicMillis(clock)
    entry.place = unplaced
    entry.fencingToken = revision
    entry.decide(Exit.void)
  }

  const onDeletes = (line: Line, events: ReadonlyArray<Etcd.WatchEvent>, single?: Single) => {
    const deleted = events.map(({ kv }) => ({ id: idOf(kv), revision: kv.modRevision }))
    for (const { id, revision } of deleted) {
      if (single !== undefined) single.deletedAt = revision
      else if (line.pending > 0) (line.deletes ??= new Map()).set(id, revision)
      const own = line.entries.get(id)
      if (own !== undefined && revision > own.createRevision) own.lose("KeyDeleted")
    }
    // Only when all that happened at this revision is known, since one's own key may be among it.
    for (const entry of line.entries.values()) {
      for (const event of deleted) {
        if (entry.state !== "Waiting") break
        const step = onDelete(discipline, ownOf(entry), entry.place, event, single === undefined)
        if (step !== undefined) apply(entry, step)
      }
    }
  }

  // ---------------------------------------------------------------------------
  // a long line
  // ---------------------------------------------------------------------------

  /** Reads what is directly ahead of an entry. */
  const lookAhead = (entry: Entry) => {
    const { createRevision, line } = entry
    entry.place = unplaced
    const read = Effect.suspend(() => {
      if (entry.state !== "Waiting") return Effect.void
      line.pending++
      return Effect.map(etcd.range(nearest(entry)), ({ kvs: [own, ...ahead], revision }) => {
        if (own === undefined || own.createRevision !== createRevision || idOf(own) !== entry.id) {
          return entry.lose("KeyDeleted")
        }
        const isComplete = ahead.length < discipline.guardsAmong
        apply(entry, follow(discipline, line.prefix, ownOf(entry), ahead, isComplete, revision))
      }).pipe(Effect.ensuring(Effect.sync(() => answered(line))))
    })
    background(forEntries(line, read))
  }

  const nearest = ({ createRevision, line }: Entry): Etcd.Range => ({
    ...line.range,
    sort: "CreateDescending",
    maxCreateRevision: createRevision,
    limit: 1 + discipline.guardsAmong,
    keysOnly: true
  })

  /** Each guard has to be watched since before it was seen; else it is looked for once its watch stands. */
  const watchGuards = (entry: Entry, { guards, seenAt }: Guarded) => {
    const { line } = entry
    const before = line.lastGuards
    line.lastGuards = new Set(guards.keys())
    for (const id of before) if (!isNeeded(line, id)) closeSingle(line, id)
    for (const [id, guard] of guards) {
      const from = line.whole.from ?? line.singles?.get(id)?.watch.from
      if (from === undefined) openSingle(line, id, guard.key)
      else if (deletedAt(line, id) > guard.createRevision) return lookAhead(entry)
      else if (from > seenAt) background(forEntries(line, verify({ line, id, key: guard.key }, from)))
    }
  }

  /** Looks for a key whose watch reports what happens after `from`. */
  const verify = (
    { id, key, line }: Pick<Single, "line" | "id" | "key">,
    from: bigint
  ): Effect.Effect<void, Etcd.EtcdError> =>
    Effect.suspend(() => {
      const own = line.entries.get(id)
      const guarded = [...line.entries.values()].filter(({ place }) => isGuardedBy(place, id) && place.seenAt < from)
      if (own === undefined && guarded.length === 0) return Effect.void
      return Effect.map(etcd.range({ ...Etcd.get(key), keysOnly: true }), ({ kvs: [kv] }) => {
        if (own !== undefined && own.createRevision !== kv?.createRevision) own.lose("KeyDeleted")
        for (const entry of guarded) {
          const { place } = entry
          if (isGuardedBy(place, id) && place.guards.get(id)!.createRevision !== kv?.createRevision) lookAhead(entry)
        }
      })
    })

  const isGuardedBy = (place: Place, id: string): place is Guarded => place._tag === "Guarded" && place.guards.has(id)

  const isNeeded = (line: Line, id: string): boolean =>
    line.lastGuards.has(id) || line.entries.has(id) ||
    [...line.entries.values()].some(({ place }) => isGuardedBy(place, id))

  const openSingle = (line: Line, id: string, key: Uint8Array) => {
    const singles = line.singles ??= new Map()
    let single = singles.get(id)
    if (single === undefined) singles.set(id, single = new Single(watches, line, id, key))
    openWatch(line, single.watch)
  }

  const closeSingle = (line: Line, id: string) => {
    const single = line.singles?.get(id)
    if (single === undefined) return
    line.singles!.delete(id)
    single.watch.close()
  }

  /** The line has become long: entries that relied on its whole watch need guards. */
  const closeWhole = (line: Line, except: Entry) => {
    if (!line.whole.isOpen) return
    line.whole.close()
    for (const entry of line.entries.values()) if (entry !== except && entry.state === "Waiting") lookAhead(entry)
  }

  /** When a key was last deleted, as far as its watch has reported. */
  const deletedAt = (line: Line, id: string): bigint => {
    const whole = line.deletes?.get(id) ?? 0n
    const single = line.singles?.get(id)?.deletedAt ?? 0n
    return whole > single ? whole : single
  }

  // ---------------------------------------------------------------------------
  // a short line
  // ---------------------------------------------------------------------------

  /** Reads the line, and takes note of the end of any of our entries and of what is ahead of those that wait. */
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
              const ahead = kvs.filter((kv) => kv.createRevision < entry.createRevision)
              apply(entry, settle(discipline, line.prefix, ownOf(entry), ahead, revision, line.deletes))
            }
          }
        }
      ).pipe(Effect.ensuring(Effect.sync(() => answered(line))))
    })

  /** Watches that nobody waits for are opened a few at a time. */
  const openWatch = (line: Line, watch: DeletionWatch<Line | Single>) => {
    const isWaitedFor = [...line.entries.values()].some(({ state }) => state === "Waiting")
    watch.open(isWaitedFor ? undefined : openingLimit)
  }

  const failWaiting = (line: Line, error: Etcd.EtcdError) => {
    for (const entry of line.entries.values()) entry.decide(Exit.fail(error))
  }

  /** Repeats a read until it succeeds. An error that repeating cannot cure fails all that wait. */
  const forEntries = (line: Line, effect: Effect.Effect<void, Etcd.EtcdError>): Effect.Effect<void> =>
    Effect.catch(persistently(effect), (error) => Effect.sync(() => failWaiting(line, error)))

  // ---------------------------------------------------------------------------
  // leaving
  // ---------------------------------------------------------------------------

  const leave: Lines["leave"] = (entry, done) => {
    if (entry.state === "Left") return done()
    detach(entry)
    if (entry.isGone) {
      finishLeaving(entry)
      return done()
    }
    batch.send(entry.line.prefix, removalOf(entry), (exit) => {
      finishLeaving(entry, exit)
      done()
    })
  }

  const describe: NonNullable<Lines["describe"]> = (entry, value) => {
    entry.value = value
    // If it fails, the entry goes on under the former description.
    batch.send(entry.line.prefix, Etcd.nested({ compare: [guard(entry)], then: [putOf(entry)] }), () => {})
  }

  /** From here on the entry is ours to remove; its deletion no longer counts as a loss. */
  const detach = (entry: Entry) => {
    entry.state = "Left"
    entry.line.entries.delete(entry.id)
    closeSingle(entry.line, entry.id)
  }

  /** The entry is over. Its key is free for the next one, unless something of it may remain. */
  const finishLeaving = (entry: Entry, removed: Exit.Exit<unknown, unknown> = Exit.void) => {
    if (Exit.isFailure(removed)) retireAndRemember(entry)
    if (entry.outcomeUnknown) cleanup.add(entry)
    else releaseKey(entry.ref.lease, entry.key)
    entry.ref.release()
    markIdle(entry.line)
  }

  /** The join failed: there is no entry, or there may be one, or yet be one. */
  const joinFailed = (entry: Entry, cause: Cause.Cause<Etcd.EtcdError>) => {
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    detach(entry)
    if (error?.reason === "LeaseNotFound") entry.ref.lease.notFound()
    if (error?.outcome !== "Refused") retireAndRemember(entry)
    finishLeaving(entry)
  }

  /** An entry that no caller knows of would block the line. With its lease retired it goes with the lease's last holder. */
  const retireAndRemember = (entry: Entry) => {
    entry.outcomeUnknown = true
    entry.ref.retire()
  }

  // ---------------------------------------------------------------------------
  // taking care of what is there
  // ---------------------------------------------------------------------------

  /** A line without entries is kept for a while, with its watch, since the next one often comes at once. */
  const markIdle = (line: Line) => {
    if (isInUse(line)) return
    line.idleSince = monotonicMillis(clock)
  }

  const startSweep = () => {
    sweeper ??= background(Effect.andThen(Effect.sleep(watchHoldsAfter), sweep))
  }

  // One fiber for all lines: a fiber and a timer for each hold would cost short ones more than their watch.
  const sweep: Effect.Effect<void> = Effect.suspend(() => {
    const now = monotonicMillis(clock)
    for (const line of lines.values()) {
      if (isInUse(line)) {
        for (const entry of line.entries.values()) {
          const after = entry.state === "Waiting" ? watchWaitsAfter : watchHoldsAfter
          if (now - entry.since >= after) watchOwn(entry)
        }
      } else if (now - line.idleSince >= keepLineFor) {
        unwatch(line)
        lines.delete(line.prefix)
      }
    }
    if (lines.size > 0) return Effect.andThen(Effect.sleep(watchHoldsAfter), sweep)
    sweeper = undefined
    return Effect.void
  })

  /** Where the line is short or was never joined behind others, its whole watch does. */
  const watchOwn = ({ id, key, line }: Entry) => {
    if (line.whole.isOpen) return
    if (line.length > lengths.short) openSingle(line, id, Buffer.from(key))
    else openWatch(line, line.whole)
  }

  const unwatch = ({ singles, whole }: Line) => {
    whole.close()
    for (const { watch } of singles?.values() ?? []) watch.close()
    singles?.clear()
  }

  const end = Effect.suspend(() => {
    const given: Array<Effect.Effect<void>> = []
    for (const { entries } of lines.values()) {
      for (const entry of entries.values()) {
        if (entry.ref.isShared) continue
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

const makeEntry = (layout: Layout, line: Line, options: EntryOptions): Entry =>
  new Entry(line, layout.key(line.prefix, options.ref.lease), options)

const none: ReadonlySet<string> = new Set()

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

const ownOf = ({ key, value }: Entry) => ({ key: Buffer.from(key), value })
