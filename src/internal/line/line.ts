/**
 * One waiting line: whose turn it is.
 *
 * Every contender puts an entry, a key of its own that is attached to its lease; their order is that of the create
 * revisions. A discipline says who may hold beside whom. The keys are those of Go's `concurrency` package, so that its
 * programs stand in the same line.
 *
 * In a short line, one watch for deletes under the prefix reports the end of all earlier entries and of one's own. In a
 * long line that would wake every waiter at every hand-over, so an entry watches only its guards: the nearest entries
 * ahead that cannot all stay if its turn is to come. When a guard ends, the entry reads its own key and what is ahead of
 * it now, and takes its turn or the next guards.
 *
 * In a long line, only an answer gives a turn, and an event never does. etcd orders the events of one watch, and not those
 * of two: a guard's end may be reported while that of the entry's own key, earlier or in the same revision, is not. An
 * answer shows one revision, at which the own key is there and nothing ahead excludes it. Entries ahead can only go, so
 * that stays true for as long as the own key is there. The answer's revision is the token: all that excluded the entry had
 * gone by then, so their tokens are smaller.
 *
 * An answer without values does not show whether a key is on a lease. One on none is no entry, and might stay for ever, so
 * etcd is asked: at once about a key whose name says nothing of a lease, and about the others when they have been waited
 * for a while.
 *
 * Watches stay open while this process has entries here.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Semaphore from "effect/Semaphore"
import type * as Etcd from "../../Etcd.ts"
import { monotonicMillis } from "../monotonic.ts"
import { type Claim, hasCompanion } from "./discipline.ts"
import { type Entry, ForeignEntry, keyDeleted } from "./entry.ts"
import { type EntryKey, idOf } from "./entryKey.ts"
import { KeyWatches } from "./keyWatches.ts"
import type { Layout } from "./layout.ts"
import * as Requests from "./requests.ts"
import { follow, type Guarded, inTheWay, onDelete, type Place, settle, type Step, unplaced } from "./view.ts"
import { DeletionWatch, type Host, persistently, type Subject } from "./watch.ts"

/** How many entries make a line short, which is watched as a whole, or long, which is watched by guards. */
export interface Lengths {
  readonly short: number
  /** With more entries, a line is long. In between, its watches stay as they are. */
  readonly long: number
  /** A line with more entries is never read as a whole, however many entries may hold. */
  readonly longest: number
}

export const Lengths = Context.Reference<Lengths>("effect-etcd-lock/internal/line/Lengths", {
  defaultValue: () => ({ short: 8, long: 16, longest: 256 })
})

/** What the lines of a session have in common. */
export interface LineHost extends Host {
  readonly clock: Clock.Clock
  readonly lengths: Lengths
  readonly layout: Layout
  /** Asks etcd whether a key that was read is on a lease. */
  readonly leaseOf: (kv: EntryKey) => Effect.Effect<"OnLease" | "OnNone" | "Gone", Etcd.EtcdError>
  /** Limit how many watches are opened at once: those that waiters need, and the others. */
  readonly openingLimits: { readonly waited: Semaphore.Semaphore; readonly others: Semaphore.Semaphore }
}

/** The newest entries of a line at a revision, newest first, and how many entries there were. */
export interface Newest {
  readonly kvs: ReadonlyArray<EntryKey>
  /** Undefined where they were not read. */
  readonly count: number | undefined
  readonly revision: bigint
}

/** What is nearest ahead of an entry at a revision, newest first, and the entry itself if it is still there. */
interface Ahead {
  readonly own: EntryKey | undefined
  readonly ahead: ReadonlyArray<EntryKey>
  /** Nothing else is ahead. */
  readonly isComplete: boolean
  readonly revision: bigint
}

/** What a heartbeat reads for an entry, and what follows from the answer. */
export interface Question {
  readonly reads: ReadonlyArray<Etcd.Range>
  readonly onAnswer: (results: ReadonlyArray<Etcd.RangeResult>, revision: bigint) => void
}

export class Line implements Subject {
  readonly prefix: string
  readonly range: Etcd.Range
  readonly entries = new Map<string, Entry>()
  /** Another client was ahead when the line was last joined or tried. */
  isTaken = false
  /** Since when it has been without entries. */
  idleSince = 0
  readonly #host: LineHost
  /** The whole line, and the part of it that can be in the way of a reader. */
  readonly #all: ReadonlyArray<Etcd.Range>
  #part: ReadonlyArray<Etcd.Range> | undefined
  /** Reports the end of all its entries, while it is short. */
  readonly #whole: DeletionWatch
  /** Report the end of guards, and of our own entries where the whole line is not watched. */
  #keys: KeyWatches | undefined
  /** The latest revision that an answer or an event has shown. */
  #seen = 0n
  /** How many entries it had when it was last joined. */
  #length = 0
  /** Joins and reads whose answer is still to come. */
  #pending = 0
  /** When each key was last deleted, as far as the watch has reported it while answers are still to come. */
  #deletes: Map<string, bigint> | undefined
  /** Keys in the way that etcd was asked about. */
  #asked: Map<string, Asked> | undefined

  constructor(host: LineHost, prefix: string) {
    this.prefix = prefix
    this.range = host.layout.range(prefix)
    this.#all = [this.range]
    this.#host = host
    this.#whole = new DeletionWatch(host, this)
  }

  get etcd(): Etcd.Etcd["Service"] {
    return this.#host.etcd
  }

  get layout(): Layout {
    return this.#host.layout
  }

  /** Where the entries are that can be in the way of a claim. */
  ahead(claim: Claim): ReadonlyArray<Etcd.Range> {
    return this.layout.seesPart(claim) ? this.#part ??= this.layout.part(this.prefix) : this.#all
  }

  get isInUse(): boolean {
    return this.entries.size > 0 || this.#pending > 0
  }

  // ---------------------------------------------------------------------------
  // joining and leaving
  // ---------------------------------------------------------------------------

  /** A request whose answer says where entries are. Returns what to call when it has been dealt with. */
  expectAnswer(): () => void {
    this.#pending++
    return () => {
      this.#pending--
      // What was deleted before matters to answers that were under way then, and to no later ones.
      if (this.#pending === 0) this.#deletes = undefined
    }
  }

  /** How many of the newest entries a join reads: as many as show what is ahead, which is all of a short line. */
  newestLimit(claim: Claim): number {
    const among = this.layout.guardsAmong(claim)
    if (this.layout.seesPart(claim)) return among
    const limit = this.#shortLimit(claim)
    return this.#length > limit ? 1 + among : limit
  }

  enter(entry: Entry, createRevision: bigint) {
    entry.joined(createRevision, monotonicMillis(this.#host.clock))
    this.entries.set(entry.id, entry)
    this.#see(createRevision)
    // A watch may have reported the entry's end before the answer reported its beginning.
    if (this.#deletedAt(entry.id) > createRevision) entry.lose(keyDeleted)
  }

  /** Gives the entry its turn: nothing was in its way when it joined. */
  hold(entry: Entry) {
    this.#takeTurn(entry, entry.createRevision)
  }

  /** Finds out what is ahead of an entry. */
  place(entry: Entry, { count, kvs, revision }: Newest) {
    this.#see(revision)
    const { createRevision } = entry
    const ahead = kvs.filter((kv) => kv.createRevision < createRevision)
    // If the line has more entries than were read, which of them are ahead is not known yet.
    const isComplete = count === kvs.length
    // An entry that sees only a part always watches its guards: the watch of the whole line would report all other
    // ends, too.
    const isPart = this.layout.seesPart(entry.claim)
    if (!isPart) this.#length = count ?? this.#length
    this.isTaken = !isComplete || ahead.length > 0
    if (isComplete) entry.ahead = ahead.length
    else if (!isPart && count !== undefined) entry.ahead = count - 1
    // What leaves in the same batch leaves at the same revision, and may do so after this was read.
    const seenAt = isPart ? revision - 1n : revision
    // An entry that was put again may be behind more entries than were read: then none of these is ahead of it, and it
    // reads what is.
    const step = follow(this, entry.claim, ahead, isComplete, revision, seenAt)
    if (step._tag === "Turn" || step._tag === "Foreign") {
      this.#apply(entry, step)
    } else if (isPart || count === undefined || count > this.#shortLimit(entry.claim)) {
      if (!isPart && count !== undefined) this.#closeWhole(entry)
      this.#apply(entry, step)
    } else if (this.#whole.from === undefined) {
      // Once the watch is open, the line is read.
      this.#whole.open()
    } else if (isComplete && this.#whole.from < createRevision) {
      this.#apply(entry, settle(this, entry.claim, ahead.toReversed(), revision, this.#deletes))
    } else {
      this.#repeat(this.read())
    }
  }

  /** The entry is no longer in the line. */
  remove(entry: Entry) {
    this.entries.delete(entry.id)
    if (!this.needs(entry.id)) this.#keys?.close(entry.id)
  }

  // ---------------------------------------------------------------------------
  // turns
  // ---------------------------------------------------------------------------

  /** Does what follows from an answer or an event. */
  #apply(entry: Entry, step: Step) {
    if (entry.state !== "Waiting") return
    switch (step._tag) {
      case "Turn": {
        return this.#takeTurn(entry, step.revision)
      }
      case "Foreign": {
        return this.#failBehind(entry, step.kv)
      }
      case "Look": {
        return this.#lookAhead(entry)
      }
      case "Wait": {
        entry.place = step.place
        if (step.place._tag === "Guarded") this.#watchGuards(entry, step.place)
        this.#askAbout(entry, (kv) => !this.layout.namesLease(this.prefix, kv))
      }
    }
  }

  /** A key of a name that no entry has is in the way, unless it has gone since it was read. */
  #failBehind(entry: Entry, kv: EntryKey) {
    entry.place = unplaced
    const ask = Effect.map(this.#host.leaseOf(kv), (shown) => {
      if (shown === "Gone") this.#lookAhead(entry)
      else entry.fail(new ForeignEntry(kv, shown === "OnLease"))
    })
    this.#repeat(Effect.suspend(() => entry.state === "Waiting" ? ask : Effect.void))
  }

  /** Fails those behind a key that is on no lease. A key may be taken off its lease, so etcd is asked again after a while. */
  #askAbout({ place }: Entry, isSuspect: (kv: EntryKey) => boolean) {
    const now = monotonicMillis(this.#host.clock)
    for (const [id, kv] of inTheWay(place)) {
      const { createRevision } = kv
      const known = this.#asked?.get(id)
      const before = known?.createRevision === createRevision ? known : undefined
      if (!isSuspect(kv) && before?.isPlain !== true) continue
      if (before?.isPlain === false && now - before.at < askAgainAfter) continue
      const asked: Asked = { createRevision, at: Infinity, isPlain: false }
      this.#asked = (this.#asked ?? new Map()).set(id, asked)
      const behind = () =>
        [...this.entries.values()].filter(({ place }) => inTheWay(place).get(id)?.createRevision === createRevision)
      const ask = Effect.map(this.#host.leaseOf(kv), (shown) => {
        if (shown !== "OnNone") return
        asked.isPlain = true
        for (const entry of behind()) entry.fail(new ForeignEntry(kv, false))
      })
      this.#repeat(Effect.suspend(() => behind().length > 0 ? ask : Effect.void)).addObserver(() => {
        asked.at = monotonicMillis(this.#host.clock)
      })
    }
  }

  #takeTurn(entry: Entry, revision: bigint) {
    entry.takeTurn(revision, monotonicMillis(this.#host.clock))
  }

  onDeletes(events: ReadonlyArray<Etcd.WatchEvent>, isWhole = true) {
    const deleted = events.map(({ kv }) => ({ id: idOf(kv), revision: kv.modRevision }))
    for (const { id, revision } of deleted) {
      this.#asked?.delete(id)
      this.#see(revision)
      if (isWhole && this.#pending > 0) (this.#deletes ??= new Map()).set(id, revision)
      const own = this.entries.get(id)
      if (own !== undefined && revision > own.createRevision) own.lose(keyDeleted)
    }
    // Turns come after all deletes of this revision have been noted, since an entry's own key may be among them.
    for (const entry of this.entries.values()) {
      for (const event of deleted) {
        if (entry.state !== "Waiting") break
        const step = onDelete(this, entry.claim, entry.place, event, isWhole)
        if (step !== undefined) this.#apply(entry, step)
      }
    }
  }

  onError(error: Etcd.EtcdError) {
    for (const entry of this.entries.values()) entry.fail(error)
  }

  get isNeeded(): boolean {
    return this.entries.size > 0
  }

  // ---------------------------------------------------------------------------
  // a short line
  // ---------------------------------------------------------------------------

  /** Reads the line, and takes note of the end of any of our entries and of what is ahead of those that wait. */
  read(): Effect.Effect<void, Etcd.EtcdError> {
    return Effect.suspend(() => {
      const ours = [...this.entries.values()]
      if (ours.length === 0) return Effect.void
      const last = ours.reduce((last, { createRevision }) => createRevision > last ? createRevision : last, 0n)
      return this.#answerOf(this.#host.etcd.range(Requests.upTo(this.range, last)), ({ kvs, revision }) => {
        this.#see(revision)
        // Without the watch, nothing would report the end of what was ahead. Whatever has closed it since lets the
        // waiters look for guards, or has the line read again once the watch is open.
        const isWatched = this.#whole.from !== undefined && this.#whole.from <= revision
        for (const entry of ours) {
          const { claim, createRevision, id } = entry
          if (kvs.some((kv) => kv.createRevision === createRevision && idOf(kv) === id)) {
            const ahead = kvs.filter((kv) => kv.createRevision < createRevision)
            const step = settle(this, claim, ahead, revision, this.#deletes)
            if (step._tag !== "Wait" || isWatched) this.#apply(entry, step)
          } else {
            entry.lose(keyDeleted)
          }
        }
      })
    })
  }

  // ---------------------------------------------------------------------------
  // a long line
  // ---------------------------------------------------------------------------

  /** Reads what is nearest ahead of an entry. */
  #lookAhead(entry: Entry) {
    const limit = this.layout.guardsAmong(entry.claim)
    entry.place = unplaced
    const look = Effect.suspend(() => {
      if (entry.state !== "Waiting") return Effect.void
      return this.#answerOf(this.#readAhead(entry, limit), ({ ahead, isComplete, own, revision }) => {
        this.#see(revision)
        if (own?.createRevision !== entry.createRevision) entry.lose(keyDeleted)
        else this.#apply(entry, follow(this, entry.claim, ahead, isComplete, revision))
      })
    })
    this.#repeat(look)
  }

  #readAhead(entry: Entry, limit: number): Effect.Effect<Ahead, Etcd.EtcdError> {
    const { etcd } = this.#host
    return this.layout.seesPart(entry.claim) || hasCompanion(entry.claim)
      ? Effect.map(etcd.txn(Requests.ownBesideAhead(entry, limit)), ({ responses, revision }) => {
        const [own, ...ahead] = responses as Requests.OwnBesideAhead
        const isComplete = ahead.every(({ kvs }) => kvs.length < limit)
        return { own: own.kvs[0], ahead: Requests.together(ahead).kvs, isComplete, revision }
      })
      : Effect.map(this.#readOn(Requests.ownAndAhead(entry, limit)), ({ kvs, revision }) => {
        const own = kvs.find((kv) => idOf(kv) === entry.id)
        const ahead = kvs.filter((kv) => kv.createRevision < entry.createRevision)
        return { own, ahead, isComplete: kvs.length <= limit, revision }
      })
  }

  /**
   * Reads what one member has, or what all agree on if that member is behind what has been seen. Entries ahead can only go,
   * so any later state of the line shows all that there may be.
   */
  #readOn(range: Etcd.Range) {
    const { etcd } = this.#host
    return Effect.suspend(() => {
      const seen = this.#seen
      return Effect.filterOrElse(
        etcd.range({ ...range, serializable: true }),
        ({ revision }) => revision >= seen,
        () => etcd.range(range)
      )
    })
  }

  #see(revision: bigint) {
    if (revision > this.#seen) this.#seen = revision
  }

  /**
   * Asks whether an entry is still there, and what is ahead of it if it waits. The answer shows what no watch may have
   * reported.
   */
  question(entry: Entry): Question {
    const limit = this.layout.guardsAmong(entry.claim)
    return {
      reads: entry.state === "Waiting" ? Requests.ownBesideAhead(entry, limit).then : [Requests.getKey(entry.key)],
      onAnswer: ([own, ...ahead], revision) => {
        if (entry.state === "Left" || entry.loss !== undefined) return
        this.#see(revision)
        if (own!.kvs[0]?.createRevision !== entry.createRevision) {
          this.#doubt(entry.id)
          entry.lose(keyDeleted)
        } else if (entry.state === "Waiting") {
          const isComplete = ahead.every(({ kvs }) => kvs.length < limit)
          this.#reconsider(entry, Requests.together(ahead).kvs, isComplete, revision)
        }
      }
    }
  }

  /** Does what the watches of what is ahead should have led to. */
  #reconsider(entry: Entry, ahead: ReadonlyArray<EntryKey>, isComplete: boolean, revision: bigint) {
    const step = follow(this, entry.claim, ahead, isComplete, revision)
    const found = new Set(ahead.map(idOf))
    // Those farther away than what was read may still be there.
    const gone = [...inTheWay(entry.place)]
      .filter(([id, kv]) =>
        !found.has(id) && (isComplete || ahead.some((other) => other.createRevision < kv.createRevision))
      )
    for (const [id] of gone) this.#doubt(id)
    if (step._tag === "Turn" || step._tag === "Foreign") this.#apply(entry, step)
    else if (gone.length > 0) this.#lookAhead(entry)
  }

  /** A read shows the end of a key that its watch has not reported. */
  #doubt(id: string) {
    this.#whole.doubt()
    this.#keys?.doubt(id)
  }

  /** Reads a guard again once its watch is open, unless the watch is older than the read that showed the guard. */
  #watchGuards(entry: Entry, { guards, seenAt }: Guarded) {
    const keys = this.#keyWatches
    keys.setGuards(new Set(guards.keys()))
    for (const [id, { createRevision, key }] of guards) {
      const from = this.#whole.from ?? keys.from(id)
      if (from === undefined) keys.open(id, key)
      else if (this.#deletedAt(id) > createRevision) return this.#lookAhead(entry)
      else if (from > seenAt) this.#repeat(this.verify(id, key, from))
    }
  }

  /** Looks for a key whose watch reports what happens after `from`. */
  verify(id: string, key: Uint8Array, from: bigint): Effect.Effect<void, Etcd.EtcdError> {
    return Effect.suspend(() => {
      const own = this.entries.get(id)
      const guarded = [...this.entries.values()].filter(({ place }) => isGuardedBy(place, id) && place.seenAt < from)
      if (own === undefined && guarded.length === 0) return Effect.void
      return Effect.map(this.#host.etcd.range(Requests.getKey(key)), ({ kvs: [kv], revision }) => {
        this.#see(revision)
        if (own !== undefined && own.createRevision !== kv?.createRevision) own.lose(keyDeleted)
        for (const entry of guarded) {
          const { place } = entry
          if (isGuardedBy(place, id) && place.guards.get(id)!.createRevision !== kv?.createRevision) {
            this.#lookAhead(entry)
          }
        }
      })
    })
  }

  /** Whether an entry of ours is, or waits for, a key. */
  needs(id: string): boolean {
    return this.entries.has(id) || [...this.entries.values()].some(({ place }) => isGuardedBy(place, id))
  }

  /** The line has become long: entries that relied on its whole watch need guards. */
  #closeWhole(except: Entry) {
    if (!this.#whole.isOpen) return
    this.#whole.close()
    for (const entry of this.entries.values()) if (entry !== except && entry.state === "Waiting") this.#lookAhead(entry)
  }

  /** More entries make the line a long one. */
  #shortLimit(claim: Claim): number {
    const { long, longest, short } = this.#host.lengths
    return Math.max(this.#whole.isOpen ? long : short, Math.min(2 * this.layout.guardsAmong(claim), longest))
  }

  // ---------------------------------------------------------------------------
  // watches and reads
  // ---------------------------------------------------------------------------

  /**
   * Sees to an entry of our own that has been in its state for a while: watches for its end, and asks about what it waits
   * for.
   */
  attend(entry: Entry) {
    this.#watchOwn(entry)
    this.#askAbout(entry, () => true)
  }

  #watchOwn({ claim, id, key }: Entry) {
    if (this.#whole.isOpen) return
    if (this.layout.seesPart(claim) || this.#length > this.#host.lengths.short) {
      this.#keyWatches.open(id, Buffer.from(key))
    } else this.#whole.open()
  }

  unwatch() {
    this.#whole.close()
    this.#keys?.closeAll()
  }

  get #keyWatches(): KeyWatches {
    return this.#keys ??= new KeyWatches(this.#host, this)
  }

  /** Watches that no waiter needs do not hold up the others. */
  get openingLimit(): Semaphore.Semaphore {
    const { others, waited } = this.#host.openingLimits
    return [...this.entries.values()].some(({ state }) => state === "Waiting") ? waited : others
  }

  /** When a key was last deleted, as far as its watch has reported. */
  #deletedAt(id: string): bigint {
    const whole = this.#deletes?.get(id) ?? 0n
    const single = this.#keys?.deletedAt(id) ?? 0n
    return whole > single ? whole : single
  }

  #answerOf<A>(request: Effect.Effect<A, Etcd.EtcdError>, onAnswer: (answer: A) => void) {
    return Effect.suspend(() => {
      const answered = this.expectAnswer()
      return Effect.ensuring(Effect.map(request, onAnswer), Effect.sync(answered))
    })
  }

  /** Repeats a read until it succeeds. An error that repeating cannot cure fails all waiters. */
  #repeat(read: Effect.Effect<void, Etcd.EtcdError>): Fiber.Fiber<void> {
    const repeated = persistently(this.#host.outage, read)
    return this.#host.background(Effect.catch(repeated, (error) => Effect.sync(() => this.onError(error))))
  }
}

/** A question about a key that was created at a revision. */
interface Asked {
  readonly createRevision: bigint
  /** When it was answered; never before that, so that an outage gathers no questions. */
  at: number
  /** It was on no lease. */
  isPlain: boolean
}

/** In milliseconds. */
const askAgainAfter = 15_000

const isGuardedBy = (place: Place, id: string): place is Guarded => place._tag === "Guarded" && place.guards.has(id)
