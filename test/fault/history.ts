/**
 * What happened in a run: what the contenders report of their critical sections, and what was done to them. All times are
 * milliseconds of CLOCK_MONOTONIC, which all processes of a machine share.
 */

/** What a contender reports, one JSON object a line. */
export type Report =
  | { readonly _tag: "Ready"; readonly at: number; readonly pid: number }
  /** It asks for the lock. */
  | {
    readonly _tag: "Wants"
    readonly at: number
    readonly section: string
    readonly lock: string
    /** Absent where the contender knows only mutexes. */
    readonly claim?: Claim | undefined
    /** The section of a writer that goes on as this reader, with its place and its token. */
    readonly downgrades?: string | undefined
  }
  /** Its body begins. What identifies the holder in etcd is absent where the contender cannot know it. */
  | {
    readonly _tag: "Holds"
    readonly at: number
    readonly section: string
    readonly token?: string | undefined
    readonly createRevision?: string | undefined
    readonly key?: string | undefined
    /** In hexadecimal. */
    readonly lease?: string | undefined
  }
  /** It has counted up, and left a mark of that beside the counter. */
  | {
    readonly _tag: "Wrote"
    readonly at: number
    readonly section: string
    readonly counter: Counter
    readonly mark: string
    readonly outcome: Outcome
    readonly revision?: string | undefined
  }
  /** Its body has ended. */
  | { readonly _tag: "Stopped"; readonly at: number; readonly section: string }
  /** It is done with the lock, or has failed to get or keep it. */
  | {
    readonly _tag: "Ended"
    readonly at: number
    readonly section: string
    /** The tag of the error, and what it says of itself. */
    readonly error?: string | undefined
    /** Whether etcd has confirmed that the lock is given back. */
    readonly released: boolean
  }
  /** What etcd has answered about a lease of the contender's, or what the contender asks for. */
  | {
    readonly _tag: "Lease"
    readonly at: number
    /** In hexadecimal. */
    readonly lease: string
    /** Granted or renewed, there no more, or about to be revoked by the contender itself. */
    readonly what: "alive" | "gone" | "revoking"
    /** When the request was sent. */
    readonly sent: number
  }
  /** The process stood still until now. */
  | { readonly _tag: "Froze"; readonly at: number; readonly from: number }
  | { readonly _tag: "Usage"; readonly at: number; readonly heap: number; readonly sockets: number }

/** What a section asks for, and holds while its body runs. */
export type Claim =
  | { readonly kind: "lock" | "election" | "read" | "write" }
  | { readonly kind: "permits"; readonly permits: number; readonly of: number }

/**
 * A counter that is written through the handle of an exclusive claim, one that is written through the handles of claims
 * that may run beside each other, or one that no lock guards.
 */
export type Counter = "fenced" | "shared" | "plain"

export type Outcome = "Applied" | "Refused" | "Unknown"

export type Recorded = Report & { readonly contender: string }

export interface Contender {
  readonly name: string
  readonly kind: Kind
  readonly pid: number
}

export type Kind = "ours" | "go" | "etcd3"

/** Something that was done to the cluster, the network or a contender. */
export interface Fault {
  readonly name: string
  readonly from: number
  readonly to: number
  /** What an operator took away: entries of locks, as far as etcd shows whose they were. */
  readonly taken?: ReadonlyArray<Taken> | undefined
  /** What was written since the fault began is gone. */
  readonly restored?: Restored | undefined
}

/** A restore of all members from a backup that was made as the fault began. */
export interface Restored {
  /** A moment at which all members were down. */
  readonly at: number
  /** Whether revisions have leapt beyond all that there were, so that tokens go on growing. */
  readonly leaps: boolean
  /** Whether they were down for less than the TTL, so that a holder may run on beside the next one. */
  readonly isSoon: boolean
}

export interface Taken {
  readonly lock: string
  readonly lease: string
  /** Undefined where the lease was taken, with all that hangs on it. */
  readonly createRevision?: string | undefined
  readonly pid?: number | undefined
  /** The revision at which it was deleted. Undefined where etcd did not say that it had deleted it by then. */
  readonly revision?: string | undefined
}

/** What was found in etcd of a lock's counter when all had ended. */
export interface Counted {
  readonly lock: string
  readonly counter: Counter
  readonly value: number
  readonly marks: ReadonlyArray<string>
}

export interface Exited {
  readonly contender: string
  readonly code: number | null
  readonly signal: string | null
  /** How long it took after it was asked to, in milliseconds. */
  readonly millis: number
}

export interface History {
  readonly seed: number
  readonly etcd: string
  /** In milliseconds. */
  readonly ttl: number
  readonly from: number
  readonly to: number
  readonly locks: ReadonlyArray<Lock>
  readonly contenders: ReadonlyArray<Contender>
  readonly reports: ReadonlyArray<Recorded>
  readonly faults: ReadonlyArray<Fault>
  /** When all was well again, and until when it stayed so. */
  readonly calms: ReadonlyArray<{ readonly from: number; readonly to: number }>
  /** Undefined while it goes on. */
  readonly end: End | undefined
  /** What stood in each line when a violation ended the run. */
  readonly lines?: ReadonlyArray<ReadonlyArray<Taken & { readonly key: string }>> | undefined
}

/** What there was when all had ended. */
export interface End {
  readonly counted: ReadonlyArray<Counted>
  /** Of those that have ended. */
  readonly exits: ReadonlyArray<Exited>
  readonly left: { readonly keys: ReadonlyArray<string>; readonly leases: number }
}

export interface Lock {
  readonly name: string
  /** Whether its contenders stand in a line. */
  readonly isQueue: boolean
  /** Whether some take it along with others, and wait for these although there is room for them here. */
  readonly isTakenWithOthers?: boolean | undefined
  /** Whether one body is to hold it from before the first fault until after the last. */
  readonly isHeldThroughout?: boolean | undefined
}

/** One turn of a contender, put together from its reports. */
export interface Section {
  readonly id: string
  readonly lock: string
  readonly claim: Claim
  readonly contender: Contender
  readonly wants: number
  /** Since when it may have stood in line: where it downgrades another one, since that did. */
  readonly joins: number
  readonly downgrades?: string
  readonly holds?: number
  /** When its body began once more. */
  readonly holdsAgain?: number
  /** Infinite while its body runs. */
  readonly stopped: number
  readonly ended?: number
  readonly error?: string
  readonly released: boolean
  readonly token?: bigint
  readonly createRevision?: bigint
  readonly key?: string
  readonly lease?: string
}

/** A section whose body has begun. */
export type Held = Section & { readonly holds: number }

export const isHeld = (section: Section): section is Held => section.holds !== undefined

/** The last part of a history that goes on: the sections that were asked for since then. */
export const since = (history: History, from: number): History => {
  const sections = new Set(
    history.reports.flatMap((report) => report._tag === "Wants" && report.at >= from ? [report.section] : [])
  )
  return {
    ...history,
    reports: history.reports.filter((report) => !("section" in report) || sections.has(report.section)),
    calms: history.calms.filter((calm) => calm.from >= from)
  }
}

/** The sections of each history of etcd: where it was restored without a leap, revisions begin anew, and tokens with them. */
export const byHistory = (
  { faults }: History,
  sections: ReadonlyArray<Section>
): ReadonlyArray<ReadonlyArray<Section>> => {
  const ends = faults.flatMap(({ restored }) => restored === undefined || restored.leaps ? [] : [restored.at])
  const numberOf = ({ holds, wants }: Section) => ends.filter((end) => end <= (holds ?? wants)).length
  return Array.from({ length: ends.length + 1 }, (_, i) => sections.filter((section) => numberOf(section) === i))
}

export const sectionsOf = ({ contenders, reports }: History): ReadonlyArray<Section> => {
  const byName = new Map(contenders.map((contender) => [contender.name, contender]))
  const sections = new Map<string, { -readonly [K in keyof Section]: Section[K] }>()
  for (const report of reports) {
    if (report._tag === "Wants") {
      const { at: wants, claim = { kind: "lock" }, downgrades, lock, section: id } = report
      const contender = byName.get(report.contender)!
      const joins = downgrades === undefined ? wants : sections.get(downgrades)?.joins ?? wants
      sections.set(id, {
        id,
        lock,
        claim,
        contender,
        wants,
        joins,
        ...downgrades !== undefined && { downgrades },
        stopped: Infinity,
        released: false
      })
      continue
    }
    if (!("section" in report)) continue
    const section = sections.get(report.section)!
    switch (report._tag) {
      case "Holds": {
        if (section.holds !== undefined) {
          section.holdsAgain = report.at
          break
        }
        section.holds = report.at
        if (report.token !== undefined) section.token = BigInt(report.token)
        if (report.createRevision !== undefined) section.createRevision = BigInt(report.createRevision)
        if (report.key !== undefined) section.key = report.key
        if (report.lease !== undefined) section.lease = report.lease
        break
      }
      case "Stopped": {
        section.stopped = report.at
        break
      }
      case "Ended": {
        section.ended = report.at
        section.released = report.released
        if (report.error !== undefined) section.error = report.error
      }
    }
  }
  return [...sections.values()]
}
