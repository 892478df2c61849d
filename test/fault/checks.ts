/**
 * What a history has to show: no holders beside each other whose claims exclude that, tokens that grow, writes that only
 * the owner makes, service in the order of etcd, locks that move when all is well and keep no waiter for which there is
 * room, and nothing left behind.
 */
import type { ofHistories } from "../support/excuses.ts"
import { exclude, fit, Greatest } from "./claims.ts"
import {
  byHistory,
  type Counter,
  type End,
  type Held,
  type History,
  isHeld,
  type Kind,
  type Report,
  type Section,
  sectionsOf
} from "./history.ts"
import * as Linearizability from "./linearizability.ts"

export interface Violation {
  readonly check: Check
  /** Whose fault it is. */
  readonly kind: Kind
  readonly what: string
  readonly from: number
  readonly to: number
}

export type Check =
  | "one holder"
  | "held once"
  | "permits"
  | "linearizable"
  | "tokens grow"
  | "fenced writes"
  | "order of service"
  | "locks move"
  | "room is used"
  | "everyone is served"
  | "held throughout"
  | "errors are explained"
  | "nothing left"
  | "processes end"
  | "flat"

/** An overlap that no lock can prevent. All excuses are listed in `ofHistories`. */
export interface Excuse {
  readonly why: Extract<keyof typeof ofHistories, "frozen" | "operator" | "restored" | "etcd">
  /** Since when the lock may have been another's. */
  readonly from: number
  /** Since when the earlier holder could have known of it. */
  readonly since: number
}

export interface Overlap {
  readonly check: "one holder" | "permits"
  readonly earlier: Held
  readonly later: Held
  readonly at: number
  readonly millis: number
  readonly excuse: Excuse | undefined
}

export interface Verdict {
  readonly violations: ReadonlyArray<Violation>
  readonly overlaps: ReadonlyArray<Overlap>
  /** How long each lock took to move when all was well again, in milliseconds. */
  readonly recoveries: ReadonlyArray<number>
  readonly counters: ReadonlyArray<CounterFound>
}

export interface CounterFound {
  readonly lock: string
  readonly counter: Counter
  readonly value: number
  readonly applied: number
  /** Applied, though the writer was not told. */
  readonly unknown: number
}

/**
 * How long a body may take to stop once its process could know that the lock is lost, beyond what etcd is asked for: more
 * than a busy machine keeps a process waiting.
 */
const stopping = 3000

/** How long a lock may take to move when all is well again, beyond the TTL. */
const moving = 5000

/** How long after all is well again a process may take to hear of what it has missed, beyond a heartbeat. */
const hearing = 2000

/** How long a waiter may wait that would fit in beside the holders, when all has been well for so long. */
const entering = 2000

/** Half of the margin before the TTL: a process that stands still for longer may overstay. */
const standstill = (ttl: number) => Math.max(ttl / 10, 300) / 2

/** A history, with what many checks ask it for. */
interface Facts {
  readonly history: History
  readonly sections: ReadonlyArray<Section>
  /** When each contender stood still. */
  readonly standstills: ReadonlyMap<string, ReadonlyArray<{ readonly from: number; readonly to: number }>>
  /** What each contender has heard of each of its leases. */
  readonly leases: ReadonlyMap<string, ReadonlyMap<string, ReadonlyArray<LeaseReport>>>
}

type LeaseReport = Extract<Report, { readonly _tag: "Lease" }>

const factsOf = (history: History): Facts => {
  const standstills = new Map<string, Array<{ readonly from: number; readonly to: number }>>()
  const leases = new Map<string, Map<string, Array<LeaseReport>>>()
  for (const report of history.reports) {
    if (report._tag === "Lease") {
      const own = leases.get(report.contender) ?? new Map<string, Array<LeaseReport>>()
      leases.set(report.contender, own.set(report.lease, [...own.get(report.lease) ?? [], report]))
    }
    if (report._tag !== "Froze") continue
    const known = standstills.get(report.contender) ?? []
    standstills.set(report.contender, [...known, { from: report.from, to: report.at }])
  }
  return { history, sections: sectionsOf(history), standstills, leases }
}

const only = (sections: ReadonlyArray<Section>, facts: Facts): Facts => ({ ...facts, sections })

export const check = (history: History): Verdict => {
  const facts = factsOf(history)
  const { sections } = facts
  const overlaps = overlapsOf(facts)
  const recoveries = recoveriesOf(history, sections)
  const histories = byHistory(history, sections).map((some) => only(some, facts))
  return {
    violations: [
      ...overlaps.flatMap(unexcused),
      ...heldOnce(sections),
      ...histories.flatMap((one) => linearizability(one, overlaps)),
      ...histories.flatMap(tokens),
      ...fencedWrites(history, sections),
      ...histories.flatMap(orderOfService),
      ...recoveries.flatMap(({ violation }) => violation ?? []),
      ...roomIsUsed(facts),
      ...flatness(history),
      ...unexplained(facts),
      ...history.end === undefined
        ? []
        : [
          ...service(sections),
          ...heldThroughout(history, sections),
          ...leftOvers(history, history.end),
          ...exits(history, history.end)
        ]
    ],
    overlaps,
    recoveries: recoveries.flatMap(({ millis }) => millis ?? []),
    counters: countersOf(history)
  }
}

// -----------------------------------------------------------------------------
// one holder
// -----------------------------------------------------------------------------

const heldIn = (sections: ReadonlyArray<Section>, lock: string): ReadonlyArray<Held> =>
  sections.filter((section): section is Held => section.lock === lock && isHeld(section))
    .sort((a, b) => a.holds - b.holds)

const overlapsOf = (facts: Facts): ReadonlyArray<Overlap> =>
  facts.history.locks.flatMap(({ name }) => {
    const overlaps: Array<Overlap> = []
    let running: ReadonlyArray<Held> = []
    for (const next of heldIn(facts.sections, name)) {
      running = running.filter(({ stopped }) => stopped > next.holds)
      const rivals = running.filter(({ claim }) => exclude(claim, next.claim))
      const found = rivals.map((other) => overlapOf(facts, "one holder", ...inOrder(other, next), next.holds))
      const lost = new Set([...overlaps, ...found].map(({ earlier }) => earlier))
      overlaps.push(...found, ...crowdOf(facts, running, next, lost))
      running = [...running, next]
    }
    return overlaps
  })

/** A turn may come long before its body, where the process stood still or the lock was taken away. */
const inOrder = (other: Held, next: Held): readonly [Held, Held] =>
  (other.token ?? 0n) > (next.token ?? other.token ?? 0n) ? [next, other] : [other, next]

const overlapOf = (facts: Facts, check: Overlap["check"], earlier: Held, later: Held, at: number): Overlap => ({
  check,
  earlier,
  later,
  at,
  millis: Math.min(earlier.stopped, later.stopped) - at,
  excuse: excuseOf(facts, earlier, at, check === "one holder" ? later : undefined)
})

/**
 * Those that hold too much together as `next` begins, though each of them could be beside each other one. An entry that has an
 * excuse may have lost its permits; those come first that have stopped soonest.
 */
const crowdOf = (
  facts: Facts,
  running: ReadonlyArray<Held>,
  next: Held,
  lost: ReadonlySet<Held>
): ReadonlyArray<Overlap> => {
  let crowd = [...running, next].filter((one) => !lost.has(one)).sort((a, b) => a.stopped - b.stopped)
  const overlaps: Array<Overlap> = []
  const fits = () => fit(crowd.map(({ claim }) => claim))
  const firstBut = (but: Held) => crowd.find((one) => one !== but)!
  for (const one of crowd) {
    if (fits()) return overlaps
    const overlap = overlapOf(facts, "permits", one, one === next ? firstBut(one) : next, next.holds)
    if (overlap.excuse === undefined) continue
    overlaps.push(overlap)
    crowd = crowd.filter((other) => other !== one)
  }
  if (fits() || !crowd.includes(next)) return overlaps
  return [...overlaps, overlapOf(facts, "permits", firstBut(next), next, next.holds)]
}

/** Why nobody could stop `earlier` before another one began at `at`, which is the one that has its lock, where that is known. */
const excuseOf = (facts: Facts, earlier: Held, at: number, next?: Held): Excuse | undefined => {
  const { history, standstills } = facts
  const stood = standstills.get(earlier.contender.name) ?? []
  const awake = (since: number) =>
    stood.reduce((last, { from, to }) => from <= last + stopping && to > last ? to : last, since)
  const taken = takenFrom(history, earlier, next).filter(({ from }) => from <= at).sort((a, b) => b.from - a.from)[0]
  // When exactly is not known, where a member takes its time.
  if (taken !== undefined) return { why: "operator", from: taken.from, since: awake(Math.min(taken.to, at)) }
  const restored = history.faults.find(({ restored }) =>
    restored?.isSoon === true && earlier.holds <= restored.at && restored.at <= at && earlier.stopped > restored.at
  )
  if (restored !== undefined) {
    return { why: "restored", from: restored.restored!.at, since: awake(Math.max(at, restored.to)) }
  }
  if (wasCutShort(facts, earlier, at)) return { why: "etcd", from: at, since: awake(at) }
  if (!isOver(facts, earlier, at)) return undefined
  // It may have stood still more than once on a busy machine.
  const recent = at - 4 * standstill(history.ttl)
  const before = stood.filter(({ from, to }) => from <= at && to >= recent)
  const lost = before.reduce((sum, { from, to }) => sum + Math.min(to, at) - Math.max(from, recent), 0)
  if (lost < standstill(history.ttl)) return undefined
  return { why: "frozen", from: Math.min(...before.map(({ from }) => from)), since: awake(at) }
}

/** Whether the TTL of a lease has passed that etcd has acknowledged last, as far as its contender tells of leases. */
const isOver = ({ history, leases }: Facts, { contender, lease }: Held, at: number): boolean => {
  const reports = lease === undefined ? [] : leases.get(contender.name)?.get(lease) ?? []
  return reports.every(({ sent, what }) => what !== "alive" || sent + history.ttl <= at || sent > at)
}

/** Whether etcd, of its own accord, gave the lock to another within the TTL of a lease that it had acknowledged. */
const wasCutShort = ({ history, leases }: Facts, { contender, holds, lease }: Held, at: number): boolean =>
  [...leases.get(contender.name) ?? []].some(([id, reports]) => {
    if (lease !== undefined && lease !== id) return false
    const gone = reports.find((report) => report.what === "gone" && report.at >= holds)
    if (gone === undefined || reports.some((report) => report.what === "revoking" && report.at <= at)) return false
    return reports.some(({ sent, what }) => what === "alive" && sent <= at && at < sent + history.ttl)
  })

/** What was done to take a lock away from its holder after its turn, and before the next one's. */
const takenFrom = ({ faults }: History, section: Section, next: Held | undefined) => {
  const { contender, createRevision, joins, lease, lock, stopped, token } = section
  return faults.filter(({ from, taken, to }) =>
    to >= joins && from <= stopped &&
    taken?.some((entry) => {
      if (entry.lock !== lock) return false
      if (entry.revision !== undefined) {
        const revision = BigInt(entry.revision)
        if (token !== undefined && revision <= token) return false
        if (next?.token !== undefined && next.token < revision) return false
      }
      if (lease === undefined) return entry.pid === contender.pid
      if (entry.lease !== lease) return false
      return createRevision === undefined || entry.createRevision === undefined ||
        BigInt(entry.createRevision) === createRevision
    })
  )
}

const unexcused = ({ at, check, earlier, excuse, later, millis }: Overlap): ReadonlyArray<Violation> => {
  const violation = (what: string): ReadonlyArray<Violation> => [
    { check, kind: earlier.contender.kind, what, from: at - 5000, to: at + millis }
  ]
  const others = check === "permits" ? ", with others," : ""
  const both = `${earlier.id} and ${later.id}${others} held '${earlier.lock}' at once for ${millis.toFixed(0)} ms`
  if (excuse === undefined) return violation(both)
  // A process that wakes up reads its clock; a deleted key is reported by a watch, or by etcd at the latest with the next renewal.
  const late = earlier.stopped - excuse.since
  return late > stopping + (excuse.why === "frozen" ? 0 : 4000)
    ? violation(`${both}; it was ${excuse.why}, and took ${late.toFixed(0)} ms to stop`)
    : []
}

/** A body that began twice would be seen once by all the other checks. */
const heldOnce = (sections: ReadonlyArray<Section>): ReadonlyArray<Violation> =>
  sections.flatMap(({ contender: { kind }, holdsAgain, id, lock, wants }) =>
    holdsAgain === undefined
      ? []
      : [{ check: "held once", kind, what: `${id} began its body on '${lock}' twice`, from: wants, to: holdsAgain }]
  )

// -----------------------------------------------------------------------------
// linearizability
// -----------------------------------------------------------------------------

const linearizability = (facts: Facts, overlaps: ReadonlyArray<Overlap>): ReadonlyArray<Violation> => {
  const { history, sections } = facts
  // A holder that could not be stopped in time has lost the lock before the first one overtakes it; and what a peer does to
  // our line is no fault of ours.
  const lostAt = new Map<string, number>()
  for (const { at, earlier, excuse, later } of overlaps) {
    if (excuse === undefined && earlier.contender.kind === "ours") continue
    const lost = Math.min(lostAt.get(earlier.id) ?? Infinity, at, later.holds, excuse?.from ?? Infinity)
    lostAt.set(earlier.id, lost)
  }
  // Each lost it before the one that overtook it held, and so before that one lost it in its turn.
  for (const { earlier, later } of overlaps.toSorted((a, b) => Number((b.later.token ?? 0n) - (a.later.token ?? 0n)))) {
    const lost = lostAt.get(earlier.id)
    if (lost !== undefined) lostAt.set(earlier.id, Math.min(lost, lostAt.get(later.id) ?? Infinity))
  }
  // So has one whose body began only when a later holder's had ended; a peer that is that later holder may never have held.
  const disbelieved = new Set<string>()
  for (const { name } of history.locks) {
    for (const { later: late, overtaker } of overtakenIn(fencedIn(sections, name))) {
      if (overtaker.contender.kind !== "ours") disbelieved.add(overtaker.id)
      const excuse = excuseOf(facts, late, overtaker.holds, overtaker)
      if (excuse !== undefined) lostAt.set(late.id, Math.min(lostAt.get(late.id) ?? Infinity, excuse.from))
    }
  }
  return history.locks.flatMap(({ name }) => {
    const operations = heldIn(sections, name).flatMap((section): ReadonlyArray<Linearizability.Operation> => {
      const { claim, downgrades, ended, holds, id: by, released, stopped, token, wants } = section
      if (disbelieved.has(by)) return []
      const lost = lostAt.get(by)
      const isDowngrade = downgrades !== undefined
      const acquire = { kind: "acquire", by, claim, token, isDowngrade, call: wants, return: holds } as const
      const end = released && lost === undefined ? ended : undefined
      const release = { kind: "release", by, claim, call: Math.min(stopped, lost ?? Infinity), return: end } as const
      return stopped === Infinity && lost === undefined ? [acquire] : [acquire, release]
    })
    const answer = Linearizability.check(operations)
    if (answer.isLinearizable) return []
    const { by, kind, token } = answer.operation
    const section = sections.find(({ id }) => id === by)!
    return [{
      check: "linearizable" as const,
      kind: section.contender.kind,
      what: `the ${kind} of '${name}' by ${by}${token === undefined ? "" : `, token ${token},`} fits in nowhere`,
      from: section.wants,
      to: section.ended ?? section.wants
    }]
  })
}

// -----------------------------------------------------------------------------
// fencing
// -----------------------------------------------------------------------------

type Fenced = Held & { readonly token: bigint }

const fencedIn = (sections: ReadonlyArray<Section>, lock: string): ReadonlyArray<Fenced> =>
  heldIn(sections, lock).filter((section): section is Fenced => section.token !== undefined)

/** Those that began with a token that is no greater than that of one before that their claim excludes, and the first such. */
const overtakenIn = (held: ReadonlyArray<Fenced>) => {
  const greatest = new Greatest<Fenced>()
  return held.flatMap((later, i): ReadonlyArray<{ readonly later: Fenced; readonly overtaker: Fenced }> => {
    const known = greatest.excludedBy(later.claim)
    greatest.set(later.claim, later.token, later)
    if (known === undefined || known.value < later.token || known.of.id === later.downgrades) return []
    const overtakes = ({ claim, token }: Fenced) => exclude(claim, later.claim) && token >= later.token
    return [{ later, overtaker: held.slice(0, i).find(overtakes)! }]
  })
}

const tokens = (facts: Facts): ReadonlyArray<Violation> => {
  const { history, sections } = facts
  const writes = new Map<string, bigint>()
  for (const report of history.reports) {
    if (report._tag === "Wrote" && report.counter !== "plain" && report.revision !== undefined) {
      writes.set(report.section, BigInt(report.revision))
    }
  }
  return history.locks.flatMap(({ name }) => {
    const held = fencedIn(sections, name)
    const violations: Array<Violation> = []
    const violation = (section: Held, what: string, { contender: { kind } } = section) => {
      const { holds, wants } = section
      violations.push({ check: "tokens grow", kind, what, from: wants, to: holds })
    }
    for (const { later, overtaker } of overtakenIn(held)) {
      // Between its turn and its body it may have been overtaken, where it stood still or its lock was taken away: by one
      // behind it in the line, whose turn came later. Nothing excuses tokens that do not grow in the order of the turns.
      if (!isBehind(overtaker, later) || excuseOf(facts, later, overtaker.holds, overtaker) === undefined) {
        violation(
          later,
          `${later.id} has token ${later.token} on '${name}' after ${overtaker.id} had ${overtaker.token}`,
          overtaker.contender.kind === "ours" ? later : overtaker
        )
      }
    }
    const written = new Greatest<Fenced>()
    for (const section of held.toSorted(byToken)) {
      const last = written.excludedBy(section.claim)
      if (last !== undefined && section.token <= last.value && last.of.id !== section.downgrades) {
        violation(
          section,
          `${section.id} has token ${section.token} on '${name}', and ${last.of.id} wrote at ${last.value}`
        )
      }
      const revision = writes.get(section.id)
      if (revision !== undefined) written.set(section.claim, revision, section)
    }
    return violations
  })
}

const isBehind = (a: Fenced, b: Fenced): boolean =>
  a.token > b.token &&
  (a.createRevision === undefined || b.createRevision === undefined || a.createRevision > b.createRevision)

const byToken = (a: Fenced, b: Fenced): number => a.token < b.token ? -1 : a.token > b.token ? 1 : 0

const countersOf = (history: History): ReadonlyArray<CounterFound> => {
  const outcomes = outcomesOf(history)
  return (history.end?.counted ?? []).map(({ counter, lock, marks, value }) => ({
    lock,
    counter,
    value,
    applied: marks.length,
    unknown: marks.filter((mark) => outcomes.get(mark)?.outcome !== "Applied").length
  }))
}

const outcomesOf = (history: History) =>
  new Map(history.reports.flatMap((report) => report._tag === "Wrote" ? [[report.mark, report] as const] : []))

const fencedWrites = (history: History, sections: ReadonlyArray<Section>): ReadonlyArray<Violation> => {
  const outcomes = outcomesOf(history)
  const byId = new Map(sections.map((section) => [section.id, section]))
  return (history.end?.counted ?? []).flatMap(({ counter, lock, marks, value }) => {
    const found = new Set(marks)
    const violations: Array<Violation> = []
    const violation = (what: string, section?: Section) =>
      violations.push({
        check: "fenced writes",
        kind: section?.contender.kind ?? kindOf(sections, lock),
        what,
        from: section?.holds ?? history.from,
        to: section?.ended ?? history.to
      })
    for (const { at, counter: of, mark, outcome, section: id } of outcomes.values()) {
      const section = byId.get(id)!
      if (section.lock !== lock || of !== counter) continue
      const isRolledBack = history.faults.some(({ from, restored }) => from <= at && at <= (restored?.at ?? -Infinity))
      if (outcome === "Applied" && !found.has(mark) && !isRolledBack) {
        violation(`${mark} was acknowledged and is not there`, section)
      }
      if (outcome === "Refused" && found.has(mark)) violation(`${mark} was refused and is there`, section)
    }
    // What no lock guards loses counts where two are at it at once: that is shown, and no fault of the lock's.
    // An entry that a backup brings back is in line again, and its holder may still write what it read before a soon restore.
    const isBroughtBack = [...outcomes.values()].some(({ at, counter: of, mark, section: id }) => {
      const { holds, lock: name } = byId.get(id)!
      return name === lock && of === counter && found.has(mark) &&
        history.faults.some(({ restored }) => restored?.isSoon === true && holds! <= restored.at && restored.at <= at)
    })
    if (counter === "fenced" && value !== marks.length && !isBroughtBack) {
      violation(`the fenced counter of '${lock}' is ${value} after ${marks.length} writes`)
    }
    return violations
  })
}

/** Who contends for a lock; of several kinds, this library. */
const kindOf = (sections: ReadonlyArray<Section>, lock: string): Kind => {
  const kinds = new Set(sections.filter((section) => section.lock === lock).map(({ contender }) => contender.kind))
  return kinds.has("ours") || kinds.size === 0 ? "ours" : [...kinds][0]!
}

// -----------------------------------------------------------------------------
// service
// -----------------------------------------------------------------------------

const orderOfService = (facts: Facts): ReadonlyArray<Violation> =>
  facts.history.locks.filter(({ isQueue }) => isQueue).flatMap(({ name }) => {
    const served = fencedIn(facts.sections, name).filter(isInLine).filter(hasWaited).toSorted(byToken)
    const created = new Greatest<Ranked>()
    const violations: Array<Violation> = []
    const violation = (earlier: Ranked, later: Ranked) => {
      const { contender: { kind }, createRevision, id, wants } = earlier
      const what =
        `${id} (created at ${createRevision}) was served on '${name}' before ${later.id} (created at ${later.createRevision})`
      violations.push({ check: "order of service", kind, what, from: wants, to: later.holds })
    }
    for (const section of served) {
      const last = created.excludedBy(section.claim)
      created.set(section.claim, section.createRevision, section)
      if (last !== undefined && last.value >= section.createRevision) violation(last.of, section)
      const overtaken = section.claim.kind === "permits" ? overtakenBy(facts, served, section) : undefined
      if (overtaken !== undefined) violation(section, overtaken)
    }
    return violations
  })

type Ranked = Fenced & { readonly createRevision: bigint }

const isInLine = (section: Fenced): section is Ranked => section.createRevision !== undefined

/** Whether it has waited in line itself. */
const hasWaited = ({ downgrades }: Section): boolean => downgrades === undefined

/** A waiter that came earlier, and without which there was room, so that it had to wait because of one that holds. */
const overtakenBy = (facts: Facts, served: ReadonlyArray<Ranked>, section: Ranked): Ranked | undefined => {
  const { createRevision, holds } = section
  const ahead = served.filter((other) =>
    other.createRevision < createRevision && other.wants < holds && other.stopped > holds
  )
  const waiters = ahead.filter((other) => other.holds > holds)
  if (waiters.length === 0 || fit([section, ...ahead].map(({ claim }) => claim))) return undefined
  const present = ahead.filter((other) => excuseOf(facts, other, holds) === undefined)
  return fit([section, ...present].map(({ claim }) => claim)) ? undefined : waiters[0]
}

const recoveriesOf = (history: History, sections: ReadonlyArray<Section>) =>
  history.locks.filter(({ isHeldThroughout }) => isHeldThroughout !== true).flatMap(({ name }) => {
    const held = heldIn(sections, name)
    return history.calms.map(({ from, to }): { readonly millis?: number; readonly violation?: Violation } => {
      const next = held.find(({ holds }) => holds >= from)
      const millis = (next?.holds ?? Infinity) - from
      const limit = history.ttl + moving
      if (millis <= limit) return { millis }
      // It ended before it had its time.
      if (to - from < limit) return {}
      const waiting = sections.filter(({ ended, holds, lock, wants }) =>
        lock === name && wants < from && (holds ?? ended ?? Infinity) > to
      )
      if (waiting.length === 0) return {}
      const what =
        `'${name}' has not moved within ${limit} ms when all was well again; ${waiting.length} wait, the first is ${
          waiting[0]!.id
        }`
      return { violation: { check: "locks move", kind: kindOf(sections, name), what, from, to } }
    })
  })

/** When all is well, a waiter waits for no longer than the claims ahead of it leave it no room. */
const roomIsUsed = (facts: Facts): ReadonlyArray<Violation> => {
  const { history, sections, standstills } = facts
  return history.locks.filter(({ isQueue, isTakenWithOthers }) => isQueue && isTakenWithOthers !== true).flatMap(
    ({ name }) => {
      const held = heldIn(sections, name)
      const served = fencedIn(sections, name).filter(isInLine)
      if (served.length < held.length) return []
      return history.calms.flatMap(({ from, to }) => {
        const heard = from + history.ttl / 3 + hearing
        // Until then, entries may be left of those that could not remove them.
        const well = Math.max(heard, ...strays(facts, name, heard).map((at) => at + history.ttl + moving))
        const waiters = served.filter(({ holds, wants }) =>
          holds > well + entering && Math.max(wants, well) < to - entering
        )
        return waiters.flatMap((waiter): ReadonlyArray<Violation> => {
          const { contender, holds, id } = waiter
          const since = Math.max(well, roomSince(served, waiter))
          const stood = (standstills.get(contender.name) ?? []).reduce(
            (sum, still) => sum + Math.max(0, Math.min(still.to, holds) - Math.max(still.from, since)),
            0
          )
          if (Math.min(holds, to) - since <= entering + stood) return []
          const what = `${id} has waited for '${name}' for ${(holds - since).toFixed(0)} ms with room for it`
          return [{ check: "room is used", kind: contender.kind, what, from: since, to: holds }]
        })
      })
    }
  )
}

/**
 * When those ended that a fault kept from leaving the line, before all was well or soon after. What they have left there
 * expires.
 */
const strays = ({ history: { faults }, sections }: Facts, name: string, by: number): ReadonlyArray<number> =>
  sections.flatMap(({ ended, lock, released, wants }) =>
    lock === name && ended !== undefined && ended < by && !released &&
      faults.some(({ from, to }) => from <= ended && to >= wants)
      ? [ended]
      : []
  )

/** Since when those ahead of a waiter have left it room. */
const roomSince = (served: ReadonlyArray<Ranked>, { claim, createRevision, wants }: Ranked): number => {
  let ahead = served
    .filter((other) => other.createRevision < createRevision && (other.ended ?? Infinity) > wants)
    .sort((a, b) => (a.ended ?? Infinity) - (b.ended ?? Infinity))
  let since = wants
  while (ahead.length > 0 && !fit([claim, ...ahead.map((other) => other.claim)])) {
    since = ahead[0]!.ended ?? Infinity
    ahead = ahead.slice(1)
  }
  return since
}

const service = (sections: ReadonlyArray<Section>): ReadonlyArray<Violation> =>
  sections.flatMap(({ contender, ended, id, lock, stopped, wants }) =>
    ended === undefined
      ? [{
        check: "everyone is served" as const,
        kind: contender.kind,
        what: stopped === Infinity
          ? `${id} has neither got '${lock}' nor been refused`
          : `${id} has not come back from '${lock}'`,
        from: wants,
        to: wants
      }]
      : []
  )

const heldThroughout = ({ faults, from, locks, to }: History, sections: ReadonlyArray<Section>) =>
  locks.filter(({ isHeldThroughout }) => isHeldThroughout === true).flatMap(({ name }): ReadonlyArray<Violation> => {
    const first = Math.min(to, ...faults.map((fault) => fault.from))
    const last = Math.max(from, ...faults.map((fault) => fault.to))
    const isHeld = heldIn(sections, name).some(({ error, holds, stopped }) =>
      holds <= first && stopped >= last && error === undefined
    )
    if (isHeld) return []
    const what = `no body has held '${name}' from the first fault to the last`
    return [{ check: "held throughout", kind: kindOf(sections, name), what, from, to }]
  })

/** A fault takes locks away and makes etcd unavailable or full: it makes no request wrong, and breaks no program. */
const explained =
  /^(LockHeld|LockTimeout|LockLost|PermitsUnavailable|Interrupt|EtcdError (Unavailable|Timeout|TooManyRequests|NoSpace))\b/

/** What only a fault brings about. */
const faulty = /^(LockLost (LeaseExpired|KeyDeleted)|EtcdError)\b/

const unexplained = (facts: Facts): ReadonlyArray<Violation> =>
  facts.sections.flatMap((section) => {
    const { contender: { kind }, ended, error, id, lock, wants } = section
    if (kind !== "ours" || error === undefined) return []
    if (explained.test(error) && !(faulty.test(error) && wasUndisturbed(facts, section))) return []
    const what = `${id} has failed on '${lock}': ${error}`
    return [{ check: "errors are explained", kind, what, from: wants, to: ended ?? wants }]
  })

/** Whether no fault, and no standstill of its process, was there from a section's beginning to its end, or shortly before. */
const wasUndisturbed = (
  { history: { faults, ttl }, standstills }: Facts,
  { contender, ended, wants }: Section
): boolean =>
  ![...faults, ...standstills.get(contender.name) ?? []].some(({ from, to }) =>
    from <= (ended ?? Infinity) && to >= Math.max(wants, (ended ?? wants) - ttl) - ttl - moving
  )

// -----------------------------------------------------------------------------
// nothing left
// -----------------------------------------------------------------------------

const leftOvers = ({ from, to }: History, { left }: End): ReadonlyArray<Violation> => {
  const common = { check: "nothing left", kind: "ours", from, to } as const
  return [
    ...left.keys.length === 0 ? [] : [{ ...common, what: `keys of locks are left: ${left.keys.join(", ")}` }],
    ...left.leases === 0 ? [] : [{ ...common, what: `${left.leases} leases are left` }]
  ]
}

const exits = ({ contenders, to }: History, { exits }: End): ReadonlyArray<Violation> =>
  contenders.flatMap(({ kind, name }) => {
    const exit = exits.find(({ contender }) => contender === name)
    if (exit?.code === 0) return []
    const what = exit === undefined ? `${name} has not ended` : `${name} ended with ${exit.code ?? exit.signal}`
    return [{ check: "processes end" as const, kind, what, from: to, to }]
  })

/** Compares the last quarter with the first of a run: bytes of heap, and sockets, that stay in use. */
const flatness = ({ contenders, reports }: History): ReadonlyArray<Violation> =>
  contenders.flatMap(({ kind, name }) => {
    const usages = reports.flatMap((report) => report._tag === "Usage" && report.contender === name ? [report] : [])
    if (usages.length < 8) return []
    const quarter = Math.floor(usages.length / 4)
    const least = (what: "heap" | "sockets", some: typeof usages) => Math.min(...some.map((usage) => usage[what]))
    const [first, last] = [usages.slice(0, quarter), usages.slice(-quarter)]
    return (["heap", "sockets"] as const).flatMap((what) => {
      const [before, after] = [least(what, first), least(what, last)]
      // What was compiled and cached meanwhile stays.
      const limit = what === "heap" ? before * 1.25 + 8 * 2 ** 20 : before + 2
      if (after <= limit) return []
      const { at: from } = usages[0]!
      return [{
        check: "flat" as const,
        kind,
        what: `${what} of ${name} grew from ${before} to ${after}`,
        from,
        to: usages.at(-1)!.at
      }]
    })
  })
