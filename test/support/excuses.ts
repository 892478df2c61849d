/**
 * Why something that looks like a broken promise is none. Each excuse names what was done to the world, and when; each
 * of them ends. There are no others.
 */
import { type Entry, identity } from "./Past.ts"

export interface Excuse {
  /** What it lets pass. */
  readonly excuses: string
  /** What has to be known of the fault. */
  readonly names: string
  readonly ends: string
  /** Why nobody could have prevented it. */
  readonly reason: string
}

/** Those of the checker of random schedules. */
export const ofSchedules = {
  takenAway: {
    excuses: "A body meets the next one, or is told of a loss",
    names: "The key and its create revision, which was deleted from outside or with its lease",
    ends: "When the process must have heard of it: within a second while events and answers come in time",
    reason: "From that revision on etcd gives the lock to the next, before the holder can know"
  },
  onTheWay: {
    excuses: "A body starts although its key is gone",
    names: "The key, which was there at the revision of the token, and was taken away since",
    ends: "When no answer or event of before can still be on its way",
    reason: "What gave the turn was true when etcd said it"
  },
  toldBefore: {
    excuses: "A body meets the next one after its lease has expired",
    names: "The lease that etcd has no longer, and when the body was asked to stop",
    ends: "It begins only a safety margin after the body was asked to stop",
    reason: "A body that cleans up for longer, or cannot be interrupted, goes on"
  },
  outOfReach: {
    excuses: "A process loses its locks, or a place in a line, though nobody took them away",
    names: "A fault between that process and etcd",
    ends: "A TTL after the fault: by then its lease is renewed or another one",
    reason: "A lease that cannot be renewed is lost"
  },
  unanswered: {
    excuses: "A request fails with `EtcdError`, or ends later than it should",
    names: "A fault between that process and etcd while the request was under way",
    ends: "A request timeout after the fault",
    reason: "An answer that does not come is waited for"
  },
  unsaid: {
    excuses: "A body's success stands although its key was deleted before it ended",
    names: "A fault between that process and etcd from the body's end to that of the request",
    ends: "With the request",
    reason: "Only etcd's answer to the release can tell that the key was gone"
  },
  underWay: {
    excuses: "A try is refused though no other one stands in the line",
    names: "The request of its own process that has given up, while its join was under way",
    ends: "With the answer to the join: at once, or a request timeout later where a fault is between them and etcd",
    reason: "The join may have been made, so its place is kept until etcd has said"
  },
  outdated: {
    excuses: "Who is said to hold the lock had gone when that was asked",
    names: "The key and its create revision, and when it went",
    ends: "When no answer of before can still be on its way, or its own process must have heard of it",
    reason:
      "Those of a process that ask at the same moment share one answer, and it takes itself for the holder until it hears"
  },
  closing: {
    excuses: "A request fails, is interrupted, or is told of a loss",
    names: "Its own session, which closes",
    ends: "It does not: a closed session stays closed",
    reason: "Nothing may hang on the lease of a session that ends"
  },
  late: {
    excuses: "A process does not act yet on what has happened",
    names: "The delay of the watches when it happened",
    ends: "When the event arrives, or with the next heartbeat and its answer",
    reason: "An event that is on its way says nothing"
  },
  leftToExpire: {
    excuses: "A lease and its keys are there when all sessions are closed",
    names:
      "A fault whose late requests may still be applied, or a body that went on for a TTL after its session closed",
    ends: "A TTL later, and the time of a request",
    reason: "Nobody is left who could revoke it"
  },
  atOnce: {
    excuses: "It is not known whether a key was there at a revision, nor whether a try was refused by a state",
    names: "The revisions that etcd went through in one step when it woke up, and whose entry came and went in them",
    ends: "With the last of these revisions",
    reason: "The checker looks at etcd between two steps"
  }
} as const satisfies Record<string, Excuse>

/** Those of the checker of histories that processes on real clusters write. */
export const ofHistories = {
  operator: {
    excuses: "A body runs beside the next one, or begins after it",
    names:
      "The entry, by its lease and create revision, and the revision of its deletion: after its turn, before the next",
    ends: "When the process must have heard of it, by a watch or its next heartbeat, and had time to stop",
    reason: "From that revision on etcd gives the lock to the next, before the holder can know"
  },
  frozen: {
    excuses: "A body runs beside the next one, or begins after it",
    names: "The standstill of its process, and its lease, whose TTL had passed since etcd acknowledged it last",
    ends: "When the process is awake and has had time to stop",
    reason: "A process that stands still can neither renew its lease nor stop its body"
  },
  etcd: {
    excuses: "A body runs beside the next one, or begins after it",
    names:
      "The lease that was gone within the TTL of a renewal that etcd had acknowledged, without a revoke of its own",
    ends: "When the process must have heard of it, and had time to stop",
    reason: "A leader that wakes up from a standstill may let a lease end before its time"
  },
  restored: {
    excuses: "A body runs beside the next one, or begins after it",
    names: "The restore within the TTL, which came after its turn and before the next one's",
    ends: "When the process must have heard of the other history, and had time to stop",
    reason: "The backup does not have its entry"
  },
  rolledBack: {
    excuses: "A fenced write that was acknowledged is not there",
    names: "The restore, and the write, which came between its backup and the end of the old history",
    ends: "When etcd is restored",
    reason: "A restore takes back what was written since the backup"
  },
  broughtBack: {
    excuses: "A fenced counter is not the number of its writes",
    names: "The restore within the TTL, and the write after it by a section that had its turn before it",
    ends: "With the lock's counter: what was written on top of a lost write stays",
    reason: "An entry that the backup has is owned again, and its holder goes on from what it had read before"
  },
  stray: {
    excuses: "A waiter waits though there is room",
    names: "The section that ended in a fault without an answer that its entry was gone",
    ends: "A TTL, and the time of a request, after that section",
    reason: "Its entry is in the line until its lease expires"
  },
  unheard: {
    excuses: "A waiter waits though there is room, in the first seconds after a fault",
    names: "The end of the fault",
    ends: "With the next heartbeat and its answer",
    reason: "What a watch has missed, a heartbeat reads"
  },
  faulty: {
    excuses: "A section loses its lock, or fails with an `EtcdError` of a connection or a full etcd",
    names: "A fault, or a standstill of its process, while it lasted or shortly before",
    ends: "A TTL, and the time of a request, after the fault",
    reason: "Requests are not answered, and leases are not renewed"
  },
  peer: {
    excuses: "A section of ours does not fit in where a peer overtook it",
    names: "The overlap, which is a violation of the peer's",
    ends: "With that overlap",
    reason: "What another client does to the line is no fault of ours"
  }
} as const satisfies Record<string, Excuse>

/** Something between etcd and one process, or all. */
export interface Fault {
  readonly what: string
  /** All processes if it is undefined. */
  readonly process: number | undefined
  readonly from: number
  /** Infinite while it lasts. */
  to: number
}

/** Watches that report what happens that much later. */
interface Lateness {
  readonly millis: number
  readonly from: number
  to: number
  /** By when the last late event has arrived. */
  over: number
}

/** What was taken away from outside. */
export interface Taken {
  readonly entry: Entry
  readonly at: number
}

/** What was done to the world, from which every excuse is made. All times are milliseconds. */
export class Misfortunes {
  readonly #requestTimeout: number
  readonly #ttl: number
  readonly #faults: Array<Fault> = []
  readonly #lateness: Array<Lateness> = []
  readonly #taken = new Map<string, Taken>()

  constructor({ requestTimeout, ttl }: { readonly requestTimeout: number; readonly ttl: number }) {
    this.#requestTimeout = requestTimeout
    this.#ttl = ttl
  }

  // ---------------------------------------------------------------------------
  // what happens
  // ---------------------------------------------------------------------------

  begin(what: string, from: number, process?: number): Fault {
    const fault: Fault = { what, process, from, to: Infinity }
    this.#faults.push(fault)
    return fault
  }

  end(at: number, isOver: (fault: Fault) => boolean = () => true) {
    for (const fault of this.#faults) if (fault.to === Infinity && isOver(fault)) fault.to = at
  }

  /** Watches are that late from now on. */
  delayWatches(millis: number, at: number) {
    const last = this.#lateness.at(-1)
    if (last !== undefined && last.to === Infinity) {
      last.to = at
      last.over = at + last.millis
    }
    if (millis > 0) this.#lateness.push({ millis, from: at, to: Infinity, over: Infinity })
  }

  /** All late events arrive now, and no others will be late. */
  hurryWatches(at: number) {
    this.delayWatches(0, at)
    for (const late of this.#lateness) late.over = Math.min(late.over, at)
  }

  take(entries: ReadonlyArray<Entry>, at: number) {
    for (const entry of entries) this.#taken.set(identity(entry), { entry, at })
  }

  // ---------------------------------------------------------------------------
  // what it explains
  // ---------------------------------------------------------------------------

  /** What was between a process and etcd at some time since then. */
  faultOf(process: number, since: number): Fault | undefined {
    return this.#faults.findLast((fault) => (fault.process ?? process) === process && fault.to >= since)
  }

  get hasFaults(): boolean {
    return this.#faults.length > 0
  }

  /** Whether anything was done, so that moments matter. */
  get isEventful(): boolean {
    return this.hasFaults || this.#lateness.length > 0 || this.#taken.size > 0
  }

  /** When an entry was taken away. */
  takenAt(entry: Entry | undefined): number | undefined {
    return entry === undefined ? undefined : this.#taken.get(identity(entry))?.at
  }

  /** Whether anything was taken away since then that fits. */
  hasTaken(since: number, fits: (entry: Entry) => boolean): boolean {
    return [...this.#taken.values()].some(({ at, entry }) => at >= since && fits(entry))
  }

  /** By when what was said to a process at a time has arrived there. */
  arrivesBy(process: number, at: number): number {
    const answered = this.#faultOver(process, at - this.#requestTimeout, this.#requestTimeout) ?? at
    return Math.max(answered, at + this.#lateFor(at))
  }

  /** By when a process knows what happened to a key that it relies on. Never while it cannot be told. */
  knownBy(process: number, at: number): number {
    const recovered = this.#faultOver(process, at - this.#requestTimeout, this.#requestTimeout + 500)
    return Math.max(at + this.#lateFor(at), recovered === undefined ? at : recovered + this.#heartbeat)
  }

  /** A lease of a process that was out of reach is renewed by then, or lost. */
  hasRecovered(process: number, at: number): boolean {
    return this.faultOf(process, at - this.#ttl) === undefined
  }

  /** By when a request that was interrupted then has ended. */
  endsBy(process: number, at: number): number {
    return this.#faultOver(process, at - this.#requestTimeout, this.#requestTimeout) === undefined
      ? at
      : at + this.#requestTimeout
  }

  /** Whether nothing was done to a process since then, and all that it was to hear has arrived. */
  isQuiet(process: number, since: number): boolean {
    return this.faultOf(process, since) === undefined && this.#lateness.every(({ over }) => over < since) &&
      !this.hasTaken(since, () => true)
  }

  /** Since when nobody has to be waited for whose requests came late. */
  get lastFaultAt(): number {
    return Math.max(0, ...this.#faults.map(({ to }) => to))
  }

  /** By when the last fault of a process, since then, has been over for so long. */
  #faultOver(process: number, since: number, recovery: number): number | undefined {
    const ends = this.#faults.filter((fault) => (fault.process ?? process) === process && fault.to >= since)
      .map(({ to }) => to)
    return ends.length === 0 ? undefined : Math.max(...ends) + recovery
  }

  /** How long an event of that time takes; a heartbeat tells of it sooner if it takes long. */
  #lateFor(at: number): number {
    const late = this.#lateness.filter(({ from, over }) => from <= at && at < over).map(({ millis, over }) =>
      Math.min(millis, over - at)
    )
    return Math.min(Math.max(0, ...late), this.#heartbeat)
  }

  /** Until a process has read what it relies on, and has the answer. */
  get #heartbeat(): number {
    return this.#ttl / 3 + 1000
  }
}
