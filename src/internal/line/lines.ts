/**
 * All waiting lines of a session that have one layout and one discipline: entries join them, hand over and leave.
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import type * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import * as Batch from "../etcd/batch.ts"
import type { Done } from "../etcd/batch.ts"
import { monotonicMillis } from "../monotonic.ts"
import { Outage } from "../outage.ts"
import * as Cleanup from "./cleanup.ts"
import { admits, type Claim } from "./discipline.ts"
import {
  endOf,
  Entry,
  type EntryError,
  EntryLost,
  type EntryOptions,
  ForeignEntry,
  giveAway,
  keyDeleted,
  worthTelling
} from "./entry.ts"
import { type EntryKey, type EntryKeyValue, idOf } from "./entryKey.ts"
import { isDescribable, type Layout, releaseKey } from "./layout.ts"
import { type Lengths, Line, type LineHost, type Newest } from "./line.ts"
import * as Requests from "./requests.ts"

/** Another client holds the lock, and the entry has not joined. */
export class Refused {
  readonly _tag = "Refused"
  /** The line's prefix. */
  readonly prefix: string
  readonly holder: EntryKeyValue | undefined
  /** Ends when that client has released it. Undefined where a line can be joined instead. */
  readonly untilReleased: Effect.Effect<void, Etcd.EtcdError> | undefined
  /** How many permits were left, where some can be. */
  readonly available: number
  constructor(
    prefix: string,
    holder: EntryKeyValue | undefined,
    untilReleased?: Refused["untilReleased"],
    available = 0
  ) {
    this.prefix = prefix
    this.holder = holder
    this.untilReleased = untilReleased
    this.available = available
  }
}

/** What a claim is told that is not to wait behind the first key in its way. */
export const refusedBy = (
  layout: Layout,
  prefix: string,
  claim: Claim,
  holder: EntryKeyValue | undefined
): Exit.Exit<Refused, ForeignEntry> => {
  if (holder === undefined) return Exit.succeed(new Refused(prefix, holder))
  const isOnLease = holder.lease !== 0n
  return isOnLease && layout.claimOf(prefix, holder, claim) !== undefined
    ? Exit.succeed(new Refused(prefix, holder))
    : Exit.fail(new ForeignEntry(holder, isOnLease))
}

/** One entry of several, and the line that it is to join. */
export interface Wanted extends EntryOptions {
  readonly prefix: string
}

/** Called once an entry has left the line, with whether etcd has said for certain that it had been lost before. */
export interface Left {
  (wasGone: boolean): void
}

/** A request that does not end in an entry releases its reference to the lease. */
export interface Lines {
  readonly layout: Layout
  readonly join: (prefix: string, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => void
  /** Joins only if the entry holds at once. */
  readonly tryJoin: (prefix: string, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => void
  /** Joins with several entries at one revision. */
  readonly joinAll: (wanted: ReadonlyArray<Wanted>, done: Done<ReadonlyArray<Entry> | Refused, EntryError>) => void
  /** The same, but only if all hold at once. */
  readonly tryJoinAll: Lines["joinAll"]
  /**
   * Leaves with one entry and joins with another in one commit. When that fails, the first leaves all the same. `left` is
   * called after `done`.
   */
  readonly handOver: (entry: Entry, options: EntryOptions, left: Left, done: Done<Entry, EntryError>) => void
  readonly leave: (entry: Entry, left: Left) => void
  /** Changes what the entry says of its holder. */
  readonly describe: (entry: Entry, value: Uint8Array) => void
  /**
   * Lets the oldest entry of this process in a line say how many requests wait behind it that have no entries, if it may be
   * put again, and has been there for long enough.
   */
  readonly tellOfWaiting: (prefix: string, behind: number) => void
  /** Whether the user may put entries such as these, on whatever lease. */
  readonly mayJoin: (wanted: ReadonlyArray<Wanted>) => Effect.Effect<boolean>
  /** Refuses a claim that can be met beside others, by what all who stand in the line leave to it. */
  readonly refuse: (prefix: string, claim: Claim) => Effect.Effect<Refused, EntryError>
  /** Where the entries are that can be in the way of a claim. */
  readonly ahead: (prefix: string, claim: Claim) => ReadonlyArray<Etcd.Range>
  /** An entry of ours that holds. */
  readonly held: (prefix: string) => EntryKeyValue | undefined
  /** Gives away all entries that do not end with the session's leases. */
  readonly end: Effect.Effect<void>
  /** Closes all watches. */
  readonly close: () => void
}

/** How many watches are opened at once, by whether waiters need them: with thousands, none would be open in time. */
const openAtOnce = { waited: 256, others: 64 }

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  lengths: Lengths,
  layout: Layout
): Lines => {
  const batch = Batch.make(etcd, clock, background)
  const cleanup = Cleanup.make(etcd, clock, background, ({ ref, key }) => releaseKey(ref.lease, key))
  const openingLimits = {
    waited: Semaphore.makeUnsafe(openAtOnce.waited),
    others: Semaphore.makeUnsafe(openAtOnce.others)
  }
  const leaseOf: LineHost["leaseOf"] = (kv) =>
    Effect.map(
      Effect.callback<Batch.Answer<readonly [Etcd.Range], readonly [Etcd.Range]>, Etcd.EtcdError>((resume) =>
        batch.send(idOf(kv), Requests.leaseOf(kv), resume)
      ),
      (answer) => Requests.shownBy(kv, answer)
    )
  const host: LineHost = {
    etcd,
    clock,
    background,
    outage: new Outage(),
    lengths,
    layout,
    leaseOf,
    openingLimits
  }
  const lines = new Map<string, Line>()
  let sweeper: Fiber.Fiber<void> | undefined
  let isEnding = false

  // ---------------------------------------------------------------------------
  // joining
  // ---------------------------------------------------------------------------

  const join = (prefix: string, options: EntryOptions, done: Done<Entry, EntryError>) => {
    const entry = new Entry(lineOf(prefix), options)
    if (entry.line.isTaken || layout.sharesWithAhead(options.claim)) return joinBehind(entry, done)
    takeFree(entry, (exit) => {
      if (Exit.isSuccess(exit) && exit.value instanceof Refused) joinBehind(entry, done)
      else done(exit as Exit.Exit<Entry, EntryError>)
    })
  }

  const joinBehind = (entry: Entry, done: Done<Entry, EntryError>) =>
    send([entry], Requests.join(entry), done, ({ repeated, responses, revision }) => {
      const [, { kvs: [own] }, ...newest] = responses as Requests.Joined
      // Where an entry is put only once, a key of its name stays as it was.
      if (!Requests.isOwn(entry, own!)) return foreign([entry], own!)
      // It is older than this request, so that no attempt at it has put it.
      if (!repeated && own!.createRevision !== revision) return lostBeforehand([entry])
      enter(entry, own!.createRevision)
      entry.line.place(entry, { ...Requests.together(newest), revision })
      return Exit.succeed(entry)
    })

  const tryJoin: Lines["tryJoin"] = (prefix, options, done) => {
    const line = lineOf(prefix)
    if (layout.sharesWithAhead(options.claim)) {
      background(Effect.uninterruptible(inUse(line, tryToShare(line, options)))).addObserver(done)
      return
    }
    if (!line.isTaken) return tryToTake(line, options, done)
    // A try that was refused just now will be again, which a read shows without a proposal to all members.
    const answered = line.expectAnswer()
    batch.send(prefix, Requests.heads(line.ahead(options.claim)), (exit) => {
      answered()
      const holder = Exit.map(exit, ({ responses }) => Requests.headOf(responses as ReadonlyArray<Etcd.RangeResult>))
      if (Exit.isSuccess(holder) && holder.value === undefined) return tryToTake(line, options, done)
      options.ref.release()
      markIdle(line)
      if (Exit.isFailure(holder)) done(Exit.failCause(holder.cause))
      else done(refusedBy(layout, prefix, options.claim, holder.value))
    })
  }

  /**
   * Joins, and leaves again unless it is met beside what was ahead when it joined. So of tries at the same moment, the
   * first ones that fit succeed. One that comes between the join and the leaving of another counts that one.
   */
  const tryToShare = Effect.fnUntraced(function*(line: Line, options: EntryOptions) {
    const { claim, ref } = options
    // As above.
    if (line.isTaken) {
      const seen = yield* Effect.onError(look(line, claim), () => Effect.sync(ref.release))
      if (!isMetBehind(line, claim, seen.ahead)) {
        ref.release()
        return refusal(line, claim, seen)
      }
    }
    const entry = new Entry(line, options)
    const joined = yield* joinAndLook(entry)
    const seen = yield* Effect.exit(joined)
    line.isTaken = Exit.isFailure(seen) || !isMetBehind(line, claim, seen.value.ahead)
    if (Exit.isSuccess(seen) && !line.isTaken) {
      entry.takeTurn(seen.value.revision, monotonicMillis(clock))
      return entry
    }
    yield* Effect.callback<void>((resume) => leave(entry, () => resume(Effect.void)))
    return refusal(line, claim, yield* seen)
  })

  /** Returns what the entry found ahead, once etcd was asked about it. */
  const joinAndLook = (entry: Entry) =>
    Effect.callback<Effect.Effect<Beginning, EntryError>, EntryError>((resume) =>
      send([entry], Requests.joinAndLook(entry), resume, ({ repeated, responses, revision }) => {
        const [, { kvs: [own] }, ...beginning] = responses as Requests.JoinedAndLooked
        if (!Requests.isOwn(entry, own!)) return foreign([entry], own!)
        if (!repeated && own!.createRevision !== revision) return lostBeforehand([entry])
        enter(entry, own!.createRevision)
        return Exit.succeed(examined(entry.line, entry.claim, beginning, revision, entry))
      })
    )

  const refuse: Lines["refuse"] = (prefix, claim) =>
    Effect.suspend(() => {
      const line = lineOf(prefix)
      return Effect.map(inUse(line, look(line, claim)), (seen) => refusal(line, claim, seen))
    })

  /** Reads what a claim, or that of an entry, can be met beside. */
  const look = (line: Line, claim: Claim, entry?: Entry): Effect.Effect<Beginning, EntryError> =>
    Effect.flatMap(
      Effect.callback<Batch.Answer<readonly [Etcd.Range, Etcd.Range], readonly []>, Etcd.EtcdError>((resume) =>
        batch.send(line.prefix, Requests.beginning(claim, line.range), resume)
      ),
      ({ responses, revision }) => examined(line, claim, responses as Requests.Looked, revision, entry)
    )

  /**
   * What is ahead of a claim, or of an entry, where all of it are entries that can stand beside it. If one of those about
   * which etcd has to be asked has gone since, a later revision decides.
   */
  const examined = (
    line: Line,
    claim: Claim,
    [{ kvs }, { kvs: [head] }]: Requests.Looked,
    revision: bigint,
    entry: Entry | undefined
  ): Effect.Effect<Beginning, EntryError> => {
    const { prefix } = line
    if (head?.lease === 0n) return Effect.fail(new ForeignEntry(head, false))
    const isForeign = (kv: EntryKey) => layout.claimOf(prefix, kv, claim) === undefined
    const ahead = entry === undefined ? kvs : kvs.filter(({ createRevision }) => createRevision < entry.createRevision)
    // With more entries ahead than there are permits, its own key may be farther behind than what was read.
    const isBeyond = ahead.length === kvs.length && kvs.length > claim.of
    const isThere = (entry: Entry) =>
      kvs.some((kv) => kv.createRevision === entry.createRevision && idOf(kv) === entry.id)
    if (entry !== undefined && !isBeyond && !isThere(entry)) entry.lose(keyDeleted)
    const asked = Effect.forEach(
      ahead.filter((kv) => isForeign(kv) || !layout.namesLease(prefix, kv)),
      (kv) =>
        Effect.filterOrFail(
          leaseOf(kv),
          (shown) => shown === "Gone" || (shown === "OnLease" && !isForeign(kv)),
          (shown) => new ForeignEntry(kv, shown === "OnLease")
        ),
      { concurrency: "unbounded" }
    )
    return Effect.flatMap(
      asked,
      (shown) => shown.includes("Gone") ? look(line, claim, entry) : Effect.succeed({ ahead, head, revision })
    )
  }

  /** Keeps the line until the effect has ended: what joins a line that was given up would be notified of nothing. */
  const inUse = <A, E>(line: Line, self: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      const answered = line.expectAnswer()
      return Effect.ensuring(
        self,
        Effect.sync(() => {
          answered()
          markIdle(line)
        })
      )
    })

  const tryToTake = (line: Line, options: EntryOptions, done: Done<Entry | Refused, EntryError>) => {
    const entry = new Entry(line, options)
    takeFree(entry, (exit) => {
      if (Exit.isFailure(exit) || exit.value instanceof Entry) return done(exit)
      withdraw(entry)
      done(refusedBy(layout, line.prefix, options.claim, exit.value.holder))
    })
  }

  /** Takes the lock if nothing is in the way. */
  const takeFree = (entry: Entry, done: Done<Entry | Refused, EntryError>) => {
    tellOfFree(entry)
    send([entry], Requests.takeFree(entry), done, (result) => {
      const { line } = entry
      const [ownKey, ...heads] = result.succeeded ? [] : result.responses
      // A key of its name that it has not put is in its way as well.
      const holder = Requests.headOf(heads) ?? ownKey?.kvs[0]
      const own = earlierAttempt(entry, result, ownKey)
      line.isTaken = !result.succeeded && own === undefined
      if (line.isTaken) {
        entry.heldSince = undefined
        return Exit.succeed(new Refused(line.prefix, holder))
      }
      enter(entry, own?.createRevision ?? result.revision)
      line.hold(entry)
      return Exit.succeed(entry)
    })
  }

  /** What is put only where nothing is in its way holds from then on. The value of a candidate is its own. */
  const tellOfFree = (entry: Entry) => {
    if (entry.claim.kind !== "election") entry.heldSince = clock.currentTimeMillisUnsafe()
  }

  const joinAll: Lines["joinAll"] = (wanted, done) => {
    const entries = entriesOf(wanted)
    send(entries, Requests.joinAll(entries), done, ({ repeated, responses, revision, succeeded }) => {
      const own = succeeded ? [] : responses.map(({ kvs }) => kvs[0])
      const createRevisions = succeeded
        ? entries.map(() => revision)
        : entries.map((entry, i) => earlierAttempt(entry, { repeated }, responses[i])?.createRevision)
      if (createRevisions.includes(undefined)) {
        const other = own.find((kv, i) => kv !== undefined && !Requests.isOwn(entries[i]!, kv))
        return other === undefined ? lostBeforehand(entries) : foreign(entries, other)
      }
      entries.forEach((entry, i) => enter(entry, createRevisions[i]!))
      entries.forEach((entry, i) => {
        const newest = succeeded
          ? Requests.together(responses[i]!.responses.slice(1) as ReadonlyArray<Etcd.RangeResult>)
          : unread
        entry.line.place(entry, { ...newest, revision })
      })
      return Exit.succeed(entries)
    })
  }

  const tryJoinAll: Lines["tryJoinAll"] = (wanted, done) => {
    const entries = entriesOf(wanted)
    entries.forEach(tellOfFree)
    send(entries, Requests.takeAllFree(entries), done, (result) => {
      const seen = result.succeeded ? [] : result.responses.map(({ responses: [own, ...heads] }) => ({
        own,
        holder: Requests.headOf(heads)
      }))
      const createRevisions = result.succeeded
        ? entries.map(() => result.revision)
        : entries.map((entry, i) => earlierAttempt(entry, result, seen[i]!.own)?.createRevision)
      if (createRevisions.every((revision) => revision === undefined)) {
        // What was in the way may have gone with another request of the same batch.
        const taken = Math.max(0, seen.findIndex(({ holder }) => holder !== undefined))
        const { claim, line: { prefix } } = entries[taken]!
        entries.forEach(withdraw)
        return refusedBy(layout, prefix, claim, seen[taken]!.holder)
      }
      if (createRevisions.includes(undefined)) return lostBeforehand(entries)
      entries.forEach((entry, i) => {
        enter(entry, createRevisions[i]!)
        entry.line.hold(entry)
      })
      return Exit.succeed(entries)
    })
  }

  const mayJoin: Lines["mayJoin"] = (wanted) =>
    Effect.suspend(() => {
      const keys = wanted.map(({ claim, prefix, ref }) => layout.key(prefix, ref.lease, claim))
      wanted.forEach(({ ref }, i) => releaseKey(ref.lease, keys[i]!))
      const read = wanted.flatMap(({ claim, prefix }) => ahead(prefix, claim))
      return Effect.isSuccess(etcd.txn({ ...Requests.mayJoin(keys, read), idempotent: true }))
    })

  const entriesOf = (wanted: ReadonlyArray<Wanted>) =>
    wanted.map(({ prefix, ...options }) => new Entry(lineOf(prefix), options))

  /** A key lies where the key of an entry would, and another client has put it. */
  const foreign = (entries: ReadonlyArray<Entry>, kv: EntryKeyValue) => {
    entries.forEach(withdraw)
    return Exit.fail(new ForeignEntry(kv, kv.lease !== 0n))
  }

  /** Of entries that were put together, one is gone already: the others are worth nothing. */
  const lostBeforehand = (entries: ReadonlyArray<Entry>) => {
    const loss = endOf(entries[0]!.ref.lease) ?? keyDeleted
    for (const entry of entries) {
      retireAndRemember(entry)
      withdraw(entry)
    }
    return Exit.fail(loss)
  }

  const handOver: Lines["handOver"] = (entry, options, left, done) => {
    const { line } = entry
    detach(entry)
    const next = new Entry(line, options)
    next.hasWaited = true
    let isGone = false
    const finish: typeof done = (exit) => {
      done(exit)
      left(isGone)
    }
    send([next], Requests.handOver(entry, next), finish, (result) => {
      const { revision } = result
      const createRevision = result.succeeded
        ? revision
        : earlierAttempt(next, result, result.responses[0])?.createRevision
      if (createRevision === undefined) {
        withdraw(next)
        return Exit.fail(keyDeleted)
      }
      enter(next, createRevision)
      const newest = result.succeeded
        ? Requests.together((result.responses as Requests.HandedOver).slice(2) as ReadonlyArray<Etcd.RangeResult>)
        : unread
      line.place(next, { ...newest, revision })
      return Exit.succeed(next)
    }, (exit) => {
      isGone = wasGone(entry, exit)
      finishLeaving(entry, exit)
    })
  }

  /** Sends the request of entries that are to join. */
  const send = <const Then extends ReadonlyArray<Etcd.Op>, const Else extends ReadonlyArray<Etcd.Op>, A>(
    entries: ReadonlyArray<Entry>,
    txn: Etcd.Txn<Then, Else>,
    done: Done<A, EntryError>,
    onAnswer: (answer: Batch.Answer<Then, Else>) => Exit.Exit<A, EntryError>,
    onExit?: Done<Batch.Answer<Then, Else>, unknown>
  ) => {
    const answered = entries.map(({ line }) => line.expectAnswer())
    batch.send(entries.map(laneOf), txn, (exit) => {
      onExit?.(exit)
      if (Exit.isFailure(exit)) { for (const entry of entries) joinFailed(entry, exit.cause) }
      else if (exit.value.repeated) entries.forEach(retireAndRemember)
      const outcome = Exit.isFailure(exit) ? Exit.failCause(exit.cause) : onAnswer(exit.value)
      for (const end of answered) end()
      done(outcome)
    })
  }

  /** etcd has created the entry's key. */
  const enter = (entry: Entry, createRevision: bigint) => {
    const { lease } = entry.ref
    lease.entries.add(entry)
    entry.line.enter(entry, createRevision)
    const loss = endOf(lease)
    if (loss !== undefined) entry.lose(loss)
    // Its join was under way when all others were told.
    if (isEnding && !entry.ref.isShared) entry.lose(new EntryLost("Released"))
  }

  /** The join failed: there is no entry, or there may be one, or one may still come. */
  const joinFailed = (entry: Entry, cause: Cause.Cause<Etcd.EtcdError>) => {
    const error = Option.getOrUndefined(Exit.findErrorOption(Exit.failCause(cause)))
    if (error?.reason === "LeaseNotFound") entry.ref.lease.notFound()
    if (error?.outcome !== "Refused") retireAndRemember(entry)
    withdraw(entry)
  }

  // ---------------------------------------------------------------------------
  // leaving
  // ---------------------------------------------------------------------------

  const leave: Lines["leave"] = (entry, left) => {
    if (entry.state === "Left") return left(false)
    // A key that was deleted may be there again, restored from a backup, and its lease as well.
    if (entry.loss?.reason === "LeaseExpired") {
      withdraw(entry)
      return left(false)
    }
    detach(entry)
    batch.send(laneOf(entry), Requests.leave(entry), (exit) => {
      // Asked before its lease may end with its last entry.
      const isGone = wasGone(entry, exit)
      finishLeaving(entry, exit)
      left(isGone)
    })
  }

  const describe: Lines["describe"] = (entry, value) => {
    entry.value = value
    putAgain(entry)
  }

  const tellOfWaiting: Lines["tellOfWaiting"] = (prefix, behind) => {
    const entry: Entry | undefined = lines.get(prefix)?.entries.values().next().value
    if (entry === undefined || !isDescribable(layout, entry.claim)) return
    if (entry.behind === behind && !entry.isBehindInDoubt) return
    // One that may be over soon is not worth a commit.
    if (entry.behind === 0 && monotonicMillis(clock) - entry.since < attendAfter.Held) return
    entry.behind = behind
    putAgain(entry)
  }

  /** Puts the description of an entry that is there. If it fails, the entry goes on under the former one. */
  const putAgain = (entry: Entry) => {
    const isToTell = entry.tellAt < Infinity
    if (isToTell) entry.heldSince = clock.currentTimeMillisUnsafe() - Math.round(monotonicMillis(clock) - entry.since)
    entry.tellAt = Infinity
    entry.isBehindInDoubt = false
    batch.send(laneOf(entry), Requests.describe(entry), (exit) => {
      if (Exit.isSuccess(exit)) return
      entry.isBehindInDoubt = true
      if (isToTell) entry.tellAt = monotonicMillis(clock) + worthTelling
    })
  }

  /** The entry is over, and there is nothing of it to remove now. */
  const withdraw = (entry: Entry) => {
    detach(entry)
    finishLeaving(entry)
  }

  /** From here on the entry is ours to remove; its deletion no longer counts as a loss. */
  const detach = (entry: Entry) => {
    entry.state = "Left"
    entry.line.remove(entry)
    entry.ref.lease.entries.delete(entry)
  }

  /** Its key is free for the next entry, unless something of this one may remain. */
  const finishLeaving = (entry: Entry, removed: Exit.Exit<unknown, unknown> = Exit.void) => {
    if (Exit.isFailure(removed)) retireAndRemember(entry)
    forgetKey(entry)
    entry.ref.release()
    markIdle(entry.line)
  }

  const forgetKey = (entry: Entry) => {
    if (entry.outcomeUnknown) cleanup.add(entry)
    else releaseKey(entry.ref.lease, entry.key, entry.createRevision)
  }

  /** An entry without an owner would block the line. With its lease retired, it ends with that lease at the latest. */
  const retireAndRemember = (entry: Entry) => {
    entry.outcomeUnknown = true
    entry.ref.retire()
  }

  // ---------------------------------------------------------------------------
  // the lines
  // ---------------------------------------------------------------------------

  const lineOf = (prefix: string): Line => {
    let line = lines.get(prefix)
    if (line === undefined) lines.set(prefix, line = new Line(host, prefix))
    sweeper ??= background(Effect.andThen(Effect.sleep(sweepEvery), sweep))
    return line
  }

  /** A line without entries is kept for a while, with its watch, since the next entry often comes at once. */
  const markIdle = (line: Line) => {
    if (!line.isInUse) line.idleSince = monotonicMillis(clock)
  }

  // One fiber for all lines: a fiber and a timer for each hold would cost short ones more than their watch.
  const sweep: Effect.Effect<void> = Effect.suspend(() => {
    const now = monotonicMillis(clock)
    for (const line of lines.values()) {
      if (line.isInUse) {
        for (const entry of line.entries.values()) {
          if (now - entry.since >= attendAfter[entry.state]) line.attend(entry)
          if (now >= entry.tellAt && isDescribable(layout, entry.claim)) putAgain(entry)
        }
      } else if (now - line.idleSince >= keepLineFor) {
        line.unwatch()
        lines.delete(line.prefix)
      }
    }
    if (lines.size > 0) return Effect.andThen(Effect.sleep(sweepEvery), sweep)
    sweeper = undefined
    return Effect.void
  })

  const ahead: Lines["ahead"] = (prefix, claim) => lineOf(prefix).ahead(claim)

  const held: Lines["held"] = (prefix) => {
    for (const entry of lines.get(prefix)?.entries.values() ?? []) {
      const { createRevision, key, ref, state } = entry
      if (state === "Held" && entry.checkLoss() === undefined) {
        return { key: Buffer.from(key), value: Requests.valueOf(entry), lease: ref.lease.id, createRevision }
      }
    }
    return undefined
  }

  const endOwn = Effect.suspend(() => {
    isEnding = true
    const own = [...lines.values()].flatMap(({ entries }) => [...entries.values()].filter(({ ref }) => !ref.isShared))
    for (const entry of own) entry.lose(new EntryLost("Released"))
    const given = own.map((entry) => giveAway<never>(entry, (done) => leave(entry, () => done(Exit.void))))
    return Effect.andThen(Effect.all(given, { concurrency: "unbounded", discard: true }), batch.idle)
  })

  // Joins that were under way have been answered by then, and have left entries that nothing else would end.
  const end = Effect.andThen(endOwn, endOwn)

  const close = () => lines.forEach((line) => line.unwatch())

  return {
    layout,
    join,
    tryJoin,
    joinAll,
    tryJoinAll,
    handOver,
    leave,
    describe,
    tellOfWaiting,
    mayJoin,
    refuse,
    ahead,
    held,
    end,
    close
  }
}

const unread: Pick<Newest, "kvs" | "count"> = { kvs: [], count: undefined }

/** The key that an earlier attempt of the same request has put, whose answer was lost. */
const earlierAttempt = (
  entry: Entry,
  { repeated }: Pick<Etcd.TxnHeader, "repeated">,
  own: Etcd.RangeResult | undefined
): EntryKeyValue | undefined => repeated ? own?.kvs.find((kv) => Requests.isOwn(entry, kv)) : undefined

/**
 * A request that was sent again may have found what it has done itself, and a lease that its owner ends takes its keys along.
 */
const wasGone = (
  { ref }: Entry,
  exit: Exit.Exit<Pick<Etcd.TxnHeader, "repeated"> & { readonly succeeded: boolean }, unknown>
): boolean =>
  Exit.isSuccess(exit) && !exit.value.succeeded && !exit.value.repeated && endOf(ref.lease)?.reason !== "Released"

const laneOf = ({ claim, key, line: { layout, prefix } }: Entry): string => layout.lane(prefix, key, claim)

const isMetBehind = ({ layout, prefix }: Line, claim: Claim, ahead: ReadonlyArray<EntryKey>): boolean =>
  admits(claim, ahead.map((kv) => layout.claimOf(prefix, kv, claim)!))

/** What was ahead of a claim at a revision. */
interface Beginning {
  /** The oldest entries, oldest first, which are all if the claim is met beside them. */
  readonly ahead: ReadonlyArray<EntryKey>
  readonly head: EntryKeyValue | undefined
  readonly revision: bigint
}

/** What a claim is told that is not met behind the entries ahead. */
const refusal = ({ layout, prefix }: Line, claim: Claim, { ahead, head }: Beginning): Refused => {
  const claims = ahead.map((kv) => layout.claimOf(prefix, kv, claim)!)
  const of = claims.reduce((of, claim) => Math.min(of, claim.of), claim.of)
  const used = claims.reduce((sum, { permits }) => sum + permits, 0)
  return new Refused(prefix, head, undefined, Math.max(0, of - used))
}

// In milliseconds.
const sweepEvery = 250

/** How long an entry is in its state before it is attended to. A waiter also checks its key before its turn. */
const attendAfter = { Waiting: 2000, Held: sweepEvery, Left: Infinity }

/** How long a line without entries stays, with its watch. */
const keepLineFor = 1000
