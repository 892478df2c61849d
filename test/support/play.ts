import { Cause, Clock, Context, Effect, Exit, Fiber, Layer, Logger, Metric, Random, Scheduler, Scope } from "effect"
import { type Election, Etcd, Lock, Semaphore, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import { Lengths } from "../../src/internal/line/line.ts"
import type { PromiseId } from "../promises.ts"
import { type Connection, isolable } from "./Connection.ts"
import { Misfortunes } from "./excuses.ts"
import { type Entry, identity, isThere, Past } from "./Past.ts"
import * as Recipes from "./recipes.ts"
import { type Claim, type Request, type Schedule, type Step } from "./Schedule.ts"
import { Ticks } from "./Ticks.ts"

/**
 * Plays a schedule on an etcd in memory and answers which promises were broken.
 *
 * What is promised, and how far it goes:
 *
 * - P1 One holder: one writer, or readers, or permits that are no more than there are. When a body starts, its entry
 *   can be met beside all those before it in etcd's line, and the earlier bodies of that lock that have not ended, with
 *   their clean-up, are such that it may be beside them, unless that one's lock is *gone*:
 *   - because its key or lease was taken away from outside. Nobody can prevent that, and from
 *     then on etcd may give the lock to the next before the holder knows. The holder is told
 *     within a second while etcd can be reached and no watch is late.
 *   - because its lease expired. Then the body has been told at least a safety margin before,
 *     so that it has ended if it stops within that time; only what goes on for longer, by being
 *     uninterruptible or by its clean-up, can meet the next body.
 * - P2 Always fenced. Of two that exclude each other, the later one has the greater token: the tokens of writers
 *   increase, and a reader's exceeds that of every writer before it. Later is the body that starts later, and, also for
 *   those whose entry was taken away before they started, the entry of the greater create revision.
 * - P3 Typed loss. What the body answers, fails or dies with is what the whole does. If it is told that the lock
 *   is lost, or the lock turns out to be lost when the body has ended, the whole fails with `LockLost`, beside which is how
 *   the body ended. Every other failure has its cause in the schedule.
 * - P4 First come, first served. Bodies that exclude each other start in the order of their create revisions, and those
 *   of one process in the order of their requests.
 * - P5 Nothing left behind. Afterwards no key, no lease and no fiber is left, and none is busy, whether the sessions
 *   are closed or not. The lease of a body that goes on for more than a TTL after its session was closed is left to
 *   expire.
 * - P6 Bounded. Every request ends once the faults are over: none waits for ever. One with a timeout is
 *   started or has failed by then, one that is interrupted while it waits ends at once. A timeout
 *   of zero waits for etcd's answer, and not for the lock. Every session closes. A waiter that may be beside all those
 *   before it does not wait, unless there was a fault.
 * - P7 Flat. The entries of one process are no more than may be held at once. What requests cost is counted elsewhere.
 */
export const play = (
  schedule: Schedule,
  { through = (etcd) => etcd, trace }: PlayOptions = {}
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.suspend(() => {
    const census = new Census()
    // etcd is looked at after whatever any fiber does
    const ticks = new Ticks(() => see())
    let see = () => {}
    return Effect.scoped(playWith(schedule, ticks, census, { through, trace }, (look) => {
      see = look
    })).pipe(
      Effect.provide(TestClock.layer(), { local: true }),
      Effect.provideService(Scheduler.Scheduler, ticks),
      Effect.provideService(Metric.FiberRuntimeMetrics, census),
      Effect.provideService(Logger.CurrentLoggers, new Set()),
      Random.withSeed("play")
    )
  })

interface PlayOptions {
  /** Told every step. */
  readonly trace?: ((line: string) => void) | undefined
  /** What becomes of etcd on the way to a process: the world that the schedule is played in is another one then. */
  readonly through?: (etcd: Etcd.Etcd["Service"], process: number) => Etcd.Etcd["Service"]
}

const requestTimeout = 2000

/** How long it may take until a holder is told that its key was deleted. */
const noticedWithin = 1000

class Census implements Metric.FiberRuntimeMetricsService {
  alive = 0
  recordFiberStart() {
    this.alive++
  }
  recordFiberEnd() {
    this.alive--
  }
}

class Boom {
  readonly _tag = "Boom"
  readonly request: number
  constructor(request: number) {
    this.request = request
  }
}

interface Process {
  readonly index: number
  readonly session: Session.Session["Service"]
  readonly connection: Connection
  readonly scope: Scope.Closeable
  isClosing: boolean
  /** When it was asked to close. */
  closedAt: number | undefined
  closing: Fiber.Fiber<void> | undefined
}

/** Whether claims can be met at the same time. */
const areTogetherOf = (permits: number) => (claims: ReadonlyArray<Claim>): boolean =>
  claims.length <= 1 || claims.every((claim) => claim === "read") ||
  claims.reduce((sum: number, claim) => sum + (typeof claim === "number" ? claim : Infinity), 0) <= permits

interface Contender {
  readonly id: number
  /** All that contend for one request, of which the first is known in etcd: one for each lock. */
  readonly parts: ReadonlyArray<Contender>
  readonly process: Process
  readonly step: Request
  readonly requestedAt: number
  /** The revision of etcd by then. */
  readonly requestedIn: bigint
  /** Those that had ended by then. */
  readonly requestedAfter: ReadonlySet<Contender>
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  interruptedAt: number | undefined
  /** The entry under which the body started. */
  entry: Entry | undefined
  startedAt: number | undefined
  toldAt: number | undefined
  bodyExit: Exit.Exit<unknown, unknown> | undefined
  bodyExitAt: number | undefined
  exit: Exit.Exit<unknown, unknown> | undefined
  endedAt: number | undefined
}

const playWith = Effect.fnUntraced(function*(
  schedule: Schedule,
  ticks: Ticks,
  census: Census,
  { through, trace }: Required<PlayOptions>,
  onTask: (look: () => void) => void
) {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const violations: Array<string> = []
  const tell = (line: string) => trace?.(`${String(now()).padStart(6)} ${line}`)
  const broken = (promise: PromiseId, broke: string) => {
    const what = `${promise}: ${broke}`
    tell(`BROKEN ${what}`)
    if (violations.every((line) => !line.endsWith(what))) violations.push(`at ${now()} ms: ${what}`)
  }
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  // the clock forks a fiber of its own until it is moved for the first time
  yield* TestClock.adjust(0)

  const scope = yield* Scope.Scope
  const memory = yield* Layer.buildWithScope(Etcd.layerMemory({ requestTimeout }), scope)
  const etcd = Context.get(memory, Etcd.Etcd)
  const faults = Context.get(memory, Etcd.Faults)
  /** In the order of their creation, since their names are random. */
  const keys = (): ReadonlyArray<Entry> =>
    runSync(faults.keys)
      .map((kv) => Object.assign({}, kv, { key: Buffer.from(kv.key) }))
      .sort((a, b) => Number(a.createRevision - b.createRevision))
  const place = (name: string) => schedule.layout === "queue" ? `${name}/` : name
  const leases = () => runSync(faults.leases)
  const margin = Math.max(schedule.ttl * 100, 300)
  const { permits = 3 } = schedule
  const areTogether = areTogetherOf(permits)

  // ---------------------------------------------------------------------------
  // what was done to the world, and what has happened so far
  // ---------------------------------------------------------------------------

  const past = new Past()
  const see = () => past.see(runSync(faults.snapshot).revision, keys, now())
  onTask(see)
  const misfortunes = new Misfortunes({ requestTimeout, ttl: schedule.ttl * 1000 })
  /** How many requests are still to be lost. Each call of a process is at least one. */
  const drops = new Map<string, number>()
  let isUnreachable = false
  let watchDelay = 0

  const onSent = (process: number) => (method: string) => {
    const left = drops.get(method) ?? 0
    if (left === 0) return () => {}
    if (!isUnreachable) drops.set(method, left - 1)
    const fault = misfortunes.begin(`a lost ${method}`, now(), process)
    return () => {
      fault.to = now()
    }
  }

  const fibersBefore = census.alive
  const processes: Array<Process> = []
  const short = schedule.shortLine
  for (let index = 0; index < schedule.processes; index++) {
    const connection = isolable(through(etcd, index), onSent(index))
    const scope = yield* Scope.make()
    const session = yield* Session.make({ ttl: schedule.ttl * 1000 }).pipe(
      Effect.provideService(Etcd.Etcd, connection.etcd),
      Effect.provideService(Lengths, { short, long: 2 * short, longest: 2 * short }),
      Scope.provide(scope)
    )
    processes.push({ index, session, connection, scope, isClosing: false, closedAt: undefined, closing: undefined })
  }
  const contenders: Array<Contender> = []

  const settle = Effect.map(ticks.settle, (isSettled) => {
    if (!isSettled) broken("P5", "fibers are busy for ever")
  })

  const isTakenBefore = ({ entry }: Contender, time: number) => (misfortunes.takenAt(entry) ?? Infinity) < time
  const describe = ({ id, process, step }: Contender) =>
    `request ${id} (${step.how} ${step.claim} '${step.name}' in ${process.index})`

  const ofContender = (kv: Entry, { parts: [first], step: { name } }: Contender) =>
    kv.key.toString().startsWith(place(name)) && Buffer.from(kv.value).includes(`"request":${first!.id}}`)

  /** A contender that gives up passes its entry on to the next one of its process, whose metadata etcd may not have yet. */
  const ofProcess = (kv: Entry, { process, step: { name } }: Contender) =>
    contenders.some((other) => other.process === process && other.step.name === name && ofContender(kv, other))

  const contenderOf = (kv: Entry) => contenders.find((contender) => ofContender(kv, contender))

  const claimsOf = (kvs: ReadonlyArray<Entry>) => kvs.flatMap((kv) => contenderOf(kv)?.step.claim ?? [])

  const lineOf = (name: string) => keys().filter((kv) => kv.key.toString().startsWith(place(name)))

  /** What is compared of those that exclude each other. */
  interface Started {
    readonly contender: Contender
    readonly createRevision: bigint
    readonly token: bigint
  }

  /** The bodies that started, and those of them that had their entry then. */
  const started: Array<Started> = []
  const startedWithEntry: Array<Started> = []

  // ---------------------------------------------------------------------------
  // the promises
  // ---------------------------------------------------------------------------

  /** To be called when `contender`'s lock, under which its body runs, is gone from etcd; answers why that must not be. */
  const mayBeGone = (contender: Contender): string | undefined => {
    const { entry, interruptedAt, process, step, toldAt } = contender
    if (entry === undefined) return "it had none"
    if (misfortunes.takenAt(entry) !== undefined) return undefined
    if (leases().includes(entry.lease)) return "its own process deleted its key"
    if (process.connection.revoked.has(entry.lease)) return "its own process revoked its lease"
    // one that is interrupted already cannot be told
    const asked = Math.min(toldAt ?? Infinity, isSection(step) ? interruptedAt ?? Infinity : Infinity)
    if (asked === Infinity) return "its lease expired and it was not told"
    const before = now() - asked
    return before >= margin ? undefined : `its lease expired within ${before} ms after it was told`
  }

  const onStart = (contender: Contender, handle: Lock.Handle) => {
    const { id, process, step } = contender
    const { name, timeout } = step
    contender.startedAt = now()
    see()
    const line = lineOf(name)
    const known = past.find(handle.key, handle.createRevision)
    contender.entry = known?.entry
    const own = line.find((kv) => kv.key.toString() === handle.key && kv.createRevision === handle.createRevision)
    tell(`body ${id} starts ${own === undefined ? "without an entry" : identity(own)}, token ${handle.fencingToken}`)

    // P1, when etcd gave the turn
    if (known === undefined) {
      broken("P1", `${describe(contender)} starts under ${handle.key}@${handle.createRevision}, which never was`)
    } else if (isThere(known, handle.fencingToken) === "No") {
      broken("P1", `${describe(contender)} starts with token ${handle.fencingToken}, when its key was gone`)
    }
    if (known !== undefined) {
      const ahead = past.at(place(name), handle.fencingToken)
        .filter(({ createRevision }) => createRevision < handle.createRevision)
      if (!areTogether([step.claim, ...claimsOf(ahead)])) {
        broken("P1", `${describe(contender)} starts behind ${ahead.map(identity).join(" and ")}`)
      }
      if (!ofProcess(known.entry, contender)) {
        broken("P1", `${describe(contender)} takes ${identity(known.entry)} of another process for its own`)
      }
      // What a leader proclaims is not to be another's, whose place it may have taken over.
      if (own !== undefined && step.claim === "election" && !isTry(step) && !ofContender(own, contender)) {
        broken("P1", `${describe(contender)} leads under the value ${Buffer.from(own.value).toString()}`)
      }
    }
    // P1, as its body starts
    if (known !== undefined && own === undefined) {
      const takenAt = misfortunes.takenAt(known.entry)
      const reason = mayBeGone(contender)
      if (reason !== undefined) broken("P1", `${describe(contender)} starts without its entry: ${reason}`)
      else if (takenAt !== undefined && now() > turnStandsUntil(contender, takenAt)) {
        broken("P1", `${describe(contender)} starts ${now() - takenAt} ms after its key was taken away`)
      }
    }
    const beside = contenders.filter((other) =>
      other !== contender && other.step.name === name && other.startedAt !== undefined && other.bodyExit === undefined
    ).flatMap((other) => {
      // the one that came later in the line may run when the other one's entry is gone
      const isElder = other.entry === undefined || other.entry.createRevision < handle.createRevision
      const elder = isElder ? other : contender
      const reason = line.some((kv) => elder.entry !== undefined && identity(kv) === identity(elder.entry))
        ? "its entry is there"
        : mayBeGone(elder)
      return reason === undefined ? [] : [{ other, what: `${describe(elder)}: ${reason}` }]
    })
    if (!areTogether([step.claim, ...beside.map(({ other }) => other.step.claim)])) {
      broken("P1", `${describe(contender)} starts beside ${beside.map(({ what }) => what).join(", and ")}`)
    }
    // P2, P4
    const excluded = (all: ReadonlyArray<Started>) =>
      all.filter(({ contender: { step: other } }) => other.name === name && !areTogether([other.claim, step.claim]))
    if (own !== undefined) {
      for (const before of excluded(startedWithEntry)) {
        if (own.createRevision <= before.createRevision) {
          broken("P4", `${describe(contender)} of ${own.createRevision} starts after one of ${before.createRevision}`)
        }
        if (handle.fencingToken <= before.token) {
          broken("P2", `${describe(contender)} has token ${handle.fencingToken} after ${before.token}`)
        }
      }
      startedWithEntry.push({ contender, createRevision: own.createRevision, token: handle.fencingToken })
    }
    if (excluded(started).some((other) => other.contender.process === process && other.contender.id > id)) {
      broken("P4", `${describe(contender)} starts after a later one of its process`)
    }
    started.push({
      contender,
      createRevision: handle.createRevision,
      token: handle.fencingToken
    })
    // P7
    if (isUndisturbed(process, now() - schedule.ttl * 1000)) {
      const entries = claimsOf(line.filter((kv) => contenderOf(kv)?.process === process))
      if (!areTogether(entries)) broken("P7", `process ${process.index} has entries of ${entries.join(" and ")}`)
    }
    // P6
    if (timeout !== "none" && isWaiting(step) && now() >= contender.requestedAt + timeout + 1) {
      broken("P6", `${describe(contender)} starts after its timeout`)
    }
  }

  /** How long after its key was taken away the turn can still be on its way to a process, or be waited with for another lock. */
  const turnStandsUntil = ({ parts, process }: Contender, takenAt: number) =>
    misfortunes.arrivesBy(process.index, takenAt) + (parts.length > 1 ? noticedWithin : 0)

  /** Whether a lock of a contender can have been lost by now, or cannot be known to be held. */
  const mayBeLost = ({ parts, process }: Contender) =>
    process.isClosing || parts.some(({ entry }) => misfortunes.takenAt(entry) !== undefined) ||
    !misfortunes.hasRecovered(process.index, now())

  const onTold = (contender: Contender) => {
    if (contender.toldAt !== undefined) return
    tell(`body ${contender.id} is told`)
    contender.toldAt = now()
    if (!mayBeLost(contender)) {
      broken("P3", `${describe(contender)} is told of a loss without a cause`)
    }
  }

  const onEnd = (contender: Contender, exit: Exit.Exit<unknown, unknown>) => {
    const { bodyExit, bodyExitAt, interruptedAt, process, startedAt, step, toldAt } = contender
    contender.exit = exit
    contender.endedAt = now()
    see()
    tell(`request ${contender.id} ends: ${show(exit)}`)
    const reasons = Exit.isSuccess(exit) ? [] : exit.cause.reasons
    const errors = errorsOf(exit)

    if (startedAt !== undefined) {
      if (bodyExit === undefined) return broken("P3", `${describe(contender)} ended before its body`)
      if (interruptedAt !== undefined) return
      const isLost = errors[0] instanceof Lock.LockLost
      if (toldAt !== undefined && !isLost) {
        broken("P3", `${describe(contender)} was told of a loss and ends with ${show(exit)}`)
      } else if (isLost) {
        if (toldAt === undefined && !mayBeLost(contender)) {
          broken("P3", `${describe(contender)} is lost at its end without a cause`)
        }
        if (errorsOf(bodyExit).some((error) => !errors.includes(error))) {
          broken("P3", `${describe(contender)} hides what its body failed with`)
        }
        if (Exit.isSuccess(bodyExit) && successBeside(exit) !== bodyExit.value) {
          broken("P3", `${describe(contender)} hides what its body succeeded with`)
        }
      } else if (
        isSection(step) && misfortunes.faultOf(process.index, bodyExitAt!) === undefined &&
        contender.parts.some((part) => isTakenBefore(part, bodyExitAt!))
      ) {
        broken("P3", `${describe(contender)} ends with ${show(exit)}, though its key had been deleted`)
      } else if (!sameExit(exit, bodyExit)) {
        broken("P3", `${describe(contender)} ends with ${show(exit)}, its body with ${show(bodyExit)}`)
      }
      return
    }
    if (Exit.isSuccess(exit)) return broken("P3", `${describe(contender)} succeeds without its body`)
    for (const reason of reasons) {
      if (Cause.isInterruptReason(reason) && interruptedAt === undefined && !process.isClosing) {
        broken("P3", `${describe(contender)} is interrupted by nobody`)
      }
    }
    for (const error of errors) {
      const excused = excuses(contender, error)
      if (!excused) broken("P3", `${describe(contender)} fails without a cause: ${String(error)}`)
    }
    if (
      step.timeout !== "none" && isWaiting(step) && now() >= contender.requestedAt + step.timeout + lateness(contender)
    ) {
      broken("P6", `${describe(contender)} ends after its timeout`)
    }
  }

  /** When the time is up, a waiter asks etcd who holds the lock, and waits half a second for the answer. */
  const lateness = ({ process, requestedAt, step: { timeout } }: Contender) => {
    const due = requestedAt + (timeout === "none" ? 0 : timeout)
    return misfortunes.faultOf(process.index, due - requestTimeout) === undefined ? 1 : 501
  }

  const excuses = (contender: Contender, error: unknown): boolean => {
    const { parts, process, requestedAt, step } = contender
    if (error instanceof Lock.LockTimeout && isWaiting(step)) {
      const late = step.timeout === "none" ? Infinity : now() - requestedAt - step.timeout
      return late > -1 && late < lateness(contender) && parts.some((part) => isAnother(part, error.holder))
    }
    const isRefusal = error instanceof (typeof step.claim === "number" ? Semaphore.PermitsUnavailable : Lock.LockHeld)
    if (isRefusal || error instanceof Lock.LockTimeout) {
      if (isWaiting(step) || isTry(step) !== isRefusal) return false
      const { holder } = error as Partial<Lock.LockHeld>
      return parts.some(wasRefused) && parts.some((part) => isAnother(part, holder))
    }
    if (error instanceof Lock.LockLost) {
      return process.isClosing || !misfortunes.hasRecovered(process.index, now()) ||
        misfortunes.hasTaken(requestedAt, (entry) => parts.some((part) => ofProcess(entry, part)))
    }
    if (error instanceof Etcd.EtcdError) {
      return process.isClosing ||
        misfortunes.faultOf(process.index, Math.max(requestedAt, now() - requestTimeout) - requestTimeout) !== undefined
    }
    return false
  }

  /** Whether etcd, or its process, had a state since it asked in which there was no room for a contender. */
  const wasRefused = (contender: Contender): boolean => {
    const { requestedIn, step: { claim, name } } = contender
    const local = new Set([...rivalsHere(contender), ...past.hasUnseenSince(requestedIn) ? unseen(contender) : []])
    return past.statesSince(place(name), requestedIn).some((line) => {
      const entries = line.filter((kv) => !ofContender(kv, contender))
      const others = [...local].filter((other) => !entries.some((kv) => ofContender(kv, other)))
      return !areTogether([claim, ...claimsOf(entries), ...others.map(({ step }) => step.claim)])
    })
  }

  /** Those that have given up, and whose entries may have come and gone between two looks at etcd. */
  const unseen = ({ parts, step: { name } }: Contender) =>
    contenders.filter((other) => {
      if (other.step.name !== name || parts.includes(other)) return false
      const { endedAt, interruptedAt, requestedAt, step: { timeout } } = other
      const gaveUpAt = Math.min(
        endedAt ?? Infinity,
        interruptedAt ?? Infinity,
        timeout === "none" ? Infinity : requestedAt + timeout
      )
      return gaveUpAt <= now() && !past.hasSeen((kv) => ofContender(kv, other))
    })

  /** Those of its process that ask for the same, or have given up while their join may still be under way. */
  const rivalsHere = ({ parts, process, requestedAfter, requestedAt, step: { name } }: Contender) =>
    contenders.filter((other) => {
      if (other.process !== process || other.step.name !== name || parts.includes(other)) return false
      if (!requestedAfter.has(other)) return true
      const endsBy = misfortunes.endsBy(process.index, other.endedAt!)
      // What has succeeded has left the line, unless etcd's answer to that is lost.
      return Exit.isSuccess(other.exit!) ? endsBy > requestedAt : endsBy >= requestedAt
    })

  /** Whether who is said to hold the lock is another one, which stood in the line when a contender asked or later. */
  const isAnother = (contender: Contender, holder: Lock.Holder | undefined): boolean => {
    if (holder === undefined) return true
    const { parts, process, requestedAt, requestedIn, step: { name } } = contender
    if (!holder.key.startsWith(place(name))) return false
    const known = past.find(holder.key, holder.createRevision)
    if (known === undefined) return holder.createRevision > requestedIn && past.isUnseen(holder.createRevision)
    const { entry, gone } = known
    if (parts.some((part) => ofContender(entry, part))) return false
    if (gone === undefined || gone.revision > requestedIn) return true
    // An answer that shows it may still have been on its way, or it is of its own process, which does not know yet.
    return misfortunes.arrivesBy(process.index, gone.at) >= requestedAt ||
      (rivalsHere(contender).some((rival) => rival.entry === entry) &&
        misfortunes.knownBy(process.index, gone.at) + noticedWithin >= requestedAt)
  }

  const outlastsSession = ({ bodyExitAt, process: { closedAt }, startedAt }: Contender) =>
    startedAt !== undefined && closedAt !== undefined && (bodyExitAt ?? Infinity) >= closedAt + schedule.ttl * 1000

  /** What must hold after time has passed. */
  const audit = () => {
    const present = new Set(keys().map(identity))
    for (const contender of contenders) {
      const { bodyExit, endedAt, entry, interruptedAt, process, requestedAt, startedAt, step, toldAt } = contender
      if (endedAt !== undefined) continue
      if (startedAt === undefined) {
        if (interruptedAt !== undefined && now() > misfortunes.endsBy(process.index, interruptedAt)) {
          broken("P6", `${describe(contender)} does not end when interrupted`)
        }
        if (step.timeout !== "none" && isWaiting(step) && now() >= requestedAt + step.timeout + lateness(contender)) {
          broken("P6", `${describe(contender)} does not end when its time is up`)
        }
        if (
          isUndisturbed(process, now() - schedule.ttl * 1000) &&
          contender.parts.every((part) => areTogether([step.claim, ...claimsBefore(part)]))
        ) {
          broken("P6", `${describe(contender)} waits, although it may be beside all before it`)
        }
        continue
      }
      if (bodyExit !== undefined || (entry !== undefined && present.has(identity(entry)))) continue
      const reason = mayBeGone(contender)
      if (reason !== undefined) broken("P1", `${describe(contender)} runs without its entry: ${reason}`)
      const takenAt = misfortunes.takenAt(entry)
      if (takenAt === undefined || toldAt !== undefined || interruptedAt !== undefined || process.isClosing) continue
      if (now() > misfortunes.knownBy(process.index, Math.max(takenAt, startedAt)) + noticedWithin) {
        broken("P1", `${describe(contender)} is not told that its key was deleted`)
      }
    }
  }

  /** In etcd's line, or in that of its process if it has no place there, as none has who waits for a single key. */
  const claimsBefore = (contender: Contender): ReadonlyArray<Claim> => {
    const { id, process, step: { name } } = contender
    const line = lineOf(name)
    const own = line.findIndex((kv) => ofContender(kv, contender))
    if (own >= 0) return claimsOf(line.slice(0, own))
    const local = contenders.filter((other) =>
      other.process === process && other.step.name === name && other.id < id && other.endedAt === undefined
    )
    return [...local.map(({ step }) => step.claim), ...schedule.layout === "queue" ? [] : claimsOf(line)]
  }

  /** Nothing has happened to a process since then but requests and interruptions. */
  const isUndisturbed = (process: Process, since: number) =>
    !process.isClosing && misfortunes.isQuiet(process.index, since)

  // ---------------------------------------------------------------------------
  // the steps
  // ---------------------------------------------------------------------------

  const body = (contender: Contender) =>
    Effect.flatMap(Lock.Current, (handle) => {
      const { id, parts, step: { ending, hold, unwinding } } = contender
      const handles = parts.length === 1 ? [handle] : (handle as Lock.HandleOfAll).locks
      parts.forEach((part, i) => onStart(part, handles[i]!))
      const outcome = ending === "succeed"
        ? Effect.succeed(id)
        : ending === "fail"
        ? Effect.fail(new Boom(id))
        : Effect.die(new Boom(id))
      const work = hold === 0 ? outcome : Effect.andThen(proclaiming(contender, handle, Effect.sleep(hold)), outcome)
      const onInterrupt = Effect.sync(() => {
        if (contender.interruptedAt === undefined) parts.forEach(onTold)
      })
      return unwinding === "stubborn"
        ? stubborn(work, onInterrupt)
        : Effect.onInterrupt(work, () =>
          unwinding === 0 ? onInterrupt : Effect.andThen(onInterrupt, Effect.sleep(unwinding)))
    }).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          tell(`body ${contender.id} ends: ${show(exit)}`)
          for (const part of contender.parts) {
            part.bodyExit = exit
            part.bodyExitAt = now()
          }
        })
      )
    )

  /** A leader proclaims something else while it works. */
  const proclaiming = (
    { entry, id, process, startedAt, step }: Contender,
    handle: Lock.Handle,
    work: Effect.Effect<void>
  ) => {
    if (step.claim !== "election" || !("proclaim" in handle)) return work
    const { proclaim } = handle as Election.Leadership
    return Effect.gen(function*() {
      const proclaiming = yield* Effect.forkChild(Effect.exit(proclaim(`{"proclaimed":${id},"request":${id}}`)))
      yield* work
      const own = entry && lineOf(step.name).find((kv) => identity(kv) === identity(entry))
      const isKnown = Exit.match(proclaiming.pollUnsafe() ?? Exit.fail(undefined), {
        onSuccess: Exit.isSuccess,
        onFailure: () => false
      })
      if (
        isKnown && isUndisturbed(process, startedAt!) && !Buffer.from(own?.value ?? []).includes(`"proclaimed":${id},`)
      ) {
        broken("P1", `what request ${id} proclaims is not seen`)
      }
    })
  }

  const underHandle = (contender: Contender, handle: Lock.Handle) => {
    // the body may hear of it later, or not at all when it is interrupted for another reason
    const listener = Effect.catch(handle.awaitLoss, () =>
      Effect.sync(() => {
        if (contender.startedAt !== undefined && contender.bodyExit === undefined) contender.parts.forEach(onTold)
      }))
    return Effect.andThen(
      Effect.forkDetach(listener, { startImmediately: true }),
      handle.whileHeld(body(contender))
    )
  }

  const recipeOf = ({ parts: [, ...others], step: { claim } }: Contender): Recipes.Recipe => {
    if (others.length > 0) return Recipes.several(...others.map(({ step: { name } }) => name))
    if (claim === "lock") return Recipes.lock(schedule.layout)
    if (claim === "election") return Recipes.election
    return typeof claim === "number" ? Recipes.permits(claim, permits) : Recipes[claim]
  }

  const program = (contender: Contender): Effect.Effect<number, unknown, Session.Session> => {
    const { how, name, timeout } = contender.step
    const recipe = recipeOf(contender)
    const options = { metadata: { request: contender.id }, ...timeout === "none" ? undefined : { timeout } }
    switch (how) {
      case "withLock": {
        return recipe.withLock(body(contender), name, options)
      }
      case "tryWithLock": {
        return recipe.tryWithLock(body(contender), name, options)
      }
      case "acquire": {
        return Effect.scoped(Effect.flatMap(recipe.acquire(name, options), (handle) => underHandle(contender, handle)))
      }
      case "tryAcquire": {
        if (isSection(contender.step)) return recipe.tryWithLock(body(contender), name, options)
        return Effect.scoped(
          Effect.flatMap(recipe.tryAcquire(name, options), (handle) => underHandle(contender, handle))
        )
      }
      case "release": {
        return Effect.scoped(Effect.gen(function*() {
          const handle = yield* recipe.acquire(name, options)
          const exit = yield* Effect.exit(underHandle(contender, handle))
          yield* handle.release
          // a lock that was lost at once has failed by now, and its timeout may be that near
          if (contender.startedAt !== undefined) yield* Effect.sleep(10)
          return yield* exit
        }))
      }
    }
  }

  const request = (step: Request) => {
    const parts: Array<Contender> = []
    const names = step.both === true ? [step.name, ...step.name === "a" ? ["b" as const] : ["a" as const]] : [step.name]
    const partOf = (name: typeof step.name): Contender => ({
      id: contenders.length,
      parts,
      process: processes[step.process % processes.length]!,
      step: { ...step, name },
      requestedAt: now(),
      requestedIn: past.revision,
      requestedAfter: new Set(contenders.filter(({ endedAt }) => endedAt !== undefined)),
      fiber: undefined,
      interruptedAt: undefined,
      entry: undefined,
      startedAt: undefined,
      toldAt: undefined,
      bodyExit: undefined,
      bodyExitAt: undefined,
      exit: undefined,
      endedAt: undefined
    })
    for (const name of names) {
      parts.push(partOf(name))
      contenders.push(parts.at(-1)!)
    }
    const contender = parts[0]!
    return program(contender).pipe(
      Effect.onExit((exit) => Effect.sync(() => parts.forEach((part) => onEnd(part, exit)))),
      Effect.provideService(Session.Session, contender.process.session),
      Effect.forkDetach({ startImmediately: true }),
      Effect.map((fiber) => {
        for (const part of parts) part.fiber = fiber
      })
    )
  }

  /** Time is looked at closely where promises are about moments. */
  const advance = Effect.fnUntraced(function*(millis: number) {
    let left = millis
    while (left > 0) {
      const isEventful = misfortunes.isEventful &&
        contenders.some((it) => it.startedAt !== undefined && it.bodyExit === undefined)
      const part = isEventful ? Math.min(left, 100) : left
      // no time passes while an answer is on its way, unless a fault delays it
      yield* settle
      yield* TestClock.adjust(part)
      yield* settle
      left -= part
      audit()
    }
  })

  const pick = <A>(all: ReadonlyArray<A>, index: number): A | undefined => all[index % Math.max(1, all.length)]

  /** A fault that lasts. */
  const fault = (what: string, effect: Effect.Effect<void>) =>
    Effect.suspend(() => {
      misfortunes.begin(what, now())
      return effect
    })

  const over = (...whats: ReadonlyArray<string>) =>
    Effect.sync(() => misfortunes.end(now(), ({ what }) => whats.includes(what)))

  const delayWatches = (millis: number) =>
    Effect.suspend(() => {
      watchDelay = millis
      misfortunes.delayWatches(millis, now())
      return faults.delayWatches(millis)
    })

  const heal = Effect.suspend(() => {
    watchDelay = 0
    for (const { connection } of processes) connection.isIsolated = false
    drops.clear()
    isUnreachable = false
    misfortunes.end(now())
    misfortunes.hurryWatches(now())
    return faults.heal
  })

  const close = (process: Process) =>
    Effect.suspend(() => {
      if (process.isClosing) return Effect.void
      process.isClosing = true
      process.closedAt = now()
      return Effect.map(
        Effect.forkDetach(Effect.suspend(() => Scope.close(process.scope, Exit.void)), { startImmediately: true }),
        (fiber) => {
          process.closing = fiber
          // the connection may be closed from then on
          fiber.addObserver(() => {
            const { underWay } = process.connection
            const isLate = misfortunes.faultOf(process.index, process.closedAt! - requestTimeout) !== undefined
            if (underWay.length > 0 && !isLate) {
              broken("P5", `session ${process.index} has ended with ${underWay.join(" and ")} under way`)
            }
          })
        }
      )
    })

  const perform = (step: Step): Effect.Effect<void> => {
    switch (step._tag) {
      case "Request": {
        return request(step)
      }
      case "Advance": {
        return advance(step.millis)
      }
      case "Yield": {
        return Effect.repeat(Effect.yieldNow, { times: step.times - 1 }).pipe(Effect.asVoid)
      }
      case "Interrupt": {
        const contender = pick(contenders, step.request)
        if (contender === undefined || contender.endedAt !== undefined || contender.fiber === undefined) {
          return Effect.void
        }
        for (const part of contender.parts) part.interruptedAt ??= now()
        return Effect.sync(() => contender.fiber!.interruptUnsafe())
      }
      case "RevokeLease": {
        const lease = pick(leases(), step.lease)
        if (lease === undefined) return Effect.void
        misfortunes.take(keys().filter((kv) => kv.lease === lease), now())
        return faults.revokeLease(lease)
      }
      case "DeleteKey": {
        const kv = pick(keys(), step.key)
        if (kv === undefined) return Effect.void
        misfortunes.take([kv], now())
        const deletion = faults.deleteKey(kv.key)
        if (step.late === undefined) return deletion
        const before = watchDelay
        return Effect.andThen(Effect.andThen(delayWatches(step.late), deletion), delayWatches(before))
      }
      case "DeletePrefix": {
        misfortunes.take(lineOf(step.name), now())
        return faults.deletePrefix(place(step.name))
      }
      case "Close": {
        return close(processes[step.process % processes.length]!)
      }
      case "Drop": {
        drops.set(step.method, (drops.get(step.method) ?? 0) + step.times)
        return faults.drop(step.what, { method: step.method, times: step.times })
      }
      case "Delay": {
        return fault("delay", faults.delay(step.millis))
      }
      case "DelayWatches": {
        return delayWatches(step.millis)
      }
      case "Network": {
        return network(step.what)
      }
      case "Isolate": {
        const process = processes[step.process % processes.length]!
        process.connection.isIsolated = true
        misfortunes.begin("isolated", now(), process.index)
        return Effect.void
      }
      case "Reconnect": {
        const process = processes[step.process % processes.length]!
        process.connection.isIsolated = false
        misfortunes.end(now(), (fault) => fault.what === "isolated" && fault.process === process.index)
        return Effect.void
      }
    }
  }

  const network = (what: Extract<Step, { readonly _tag: "Network" }>["what"]) => {
    switch (what) {
      case "heal": {
        return heal
      }
      case "cut": {
        return Effect.andThen(fault(what, faults.cut), over(what))
      }
      case "stall": {
        return fault(what, faults.stall)
      }
      case "resume": {
        return Effect.andThen(faults.resume, over("stall"))
      }
      case "unreachable": {
        isUnreachable = true
        return fault(what, faults.unreachable)
      }
      case "reachable": {
        isUnreachable = false
        return Effect.andThen(faults.reachable, over("unreachable"))
      }
    }
  }

  for (const step of schedule.steps) {
    tell(`-- ${JSON.stringify(step)}`)
    see()
    yield* perform(step)
    see()
  }

  // ---------------------------------------------------------------------------
  // the end
  // ---------------------------------------------------------------------------

  tell("-- all faults end")
  yield* heal
  const patience = contenders.reduce(
    (sum, { step: { hold, unwinding } }) =>
      sum + hold + (unwinding === "stubborn" ? 0 : unwinding) + 2 * requestTimeout,
    4 * schedule.ttl * 1000
  )
  const isOver = () =>
    contenders.every(({ endedAt }) => endedAt !== undefined) &&
    processes.every(({ closing }) => closing === undefined || closing.pollUnsafe() !== undefined)
  for (const until = now() + patience; now() < until && !isOver();) yield* advance(1000)
  for (const contender of contenders) {
    if (contender.endedAt !== undefined) continue
    broken("P6", `${describe(contender)} does not end`)
    contender.interruptedAt = now()
    contender.fiber?.interruptUnsafe()
  }

  const nothingLeft = (when: string) => {
    const names = keys().map(identity)
    if (names.length > 0) broken("P5", `keys are left ${when}: ${names.join(", ")}`)
    if (leases().length > 0) broken("P5", `leases are left ${when}`)
    if (census.alive > fibersBefore) broken("P5", `${census.alive - fibersBefore} fibers are left ${when}`)
  }
  if (schedule.idles) {
    yield* advance(2 * schedule.ttl * 1000 + 2000)
    nothingLeft("when all is idle")
  }
  tell("-- sessions are closed")
  for (const process of processes) yield* close(process)
  yield* TestClock.adjust(1)
  const isClosed = () => processes.every(({ closing }) => closing?.pollUnsafe() !== undefined)
  for (const until = now() + 2 * requestTimeout; now() < until && !isClosed();) yield* TestClock.adjust(500)
  if (!isClosed()) broken("P6", "a session does not close")
  // A grant that arrives late may be left to expire, and so is the lease of a body that outlasts its session by a TTL.
  const expired = Math.max(
    misfortunes.lastFaultAt,
    ...contenders.filter(outlastsSession).map(({ bodyExitAt }) => bodyExitAt ?? now())
  ) +
    schedule.ttl * 1000 + 3000
  if (misfortunes.hasFaults || contenders.some(outlastsSession)) {
    yield* TestClock.adjust(Math.max(0, expired - now()))
  }
  nothingLeft("when all is closed")
  for (const [index, a] of started.entries()) {
    for (const b of started.slice(index + 1)) {
      const [first, second] = a.createRevision < b.createRevision ? [a, b] : [b, a]
      const { name } = a.contender.step
      if (name !== b.contender.step.name || areTogether([a.contender.step.claim, b.contender.step.claim])) continue
      if (first.token !== undefined && second.token !== undefined && second.token <= first.token) {
        broken("P2", `tokens of '${name}' do not increase: ${first.token}, and then ${second.token}`)
      }
    }
  }
  return violations
})

/** Runs to its end uninterruptibly, but hears at once when it should not. */
const stubborn = <A, E>(work: Effect.Effect<A, E>, onInterrupt: Effect.Effect<void>): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(work, { startImmediately: true, uninterruptible: true })
      yield* Effect.exit(Effect.onInterrupt(restore(Fiber.await(fiber)), () => onInterrupt))
      return yield* Fiber.join(fiber)
    })
  )

// a try for several locks has no other form
const isSection = ({ both, how }: Request) =>
  how === "withLock" || how === "tryWithLock" || (how === "tryAcquire" && both === true)

const isTry = ({ how }: Request) => how === "tryWithLock" || how === "tryAcquire"

/** A timeout of zero is a try, which takes as long as etcd does. */
const isWaiting = (step: Request) => !isTry(step) && step.timeout !== 0

// a defect makes defects of the errors beside it
const errorsOf = (exit: Exit.Exit<unknown, unknown>): ReadonlyArray<unknown> =>
  Exit.isSuccess(exit) ?
    [] :
    exit.cause.reasons.flatMap((reason) =>
      Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : []
    )

const successBeside = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isSuccess(exit) ? undefined : Context.getOrUndefined(Cause.annotations(exit.cause), Lock.BodySuccess)

const sameExit = (a: Exit.Exit<unknown, unknown>, b: Exit.Exit<unknown, unknown>): boolean => {
  if (Exit.isSuccess(a) || Exit.isSuccess(b)) return Exit.isSuccess(a) && Exit.isSuccess(b) && a.value === b.value
  const parts = ({ cause }: Exit.Failure<unknown, unknown>) =>
    cause.reasons.map((reason) => Cause.isInterruptReason(reason) ? reason._tag : `${reason._tag} ${errorId(reason)}`)
  return parts(a).join() === parts(b).join()
}

const errorId = (reason: Cause.Fail<unknown> | Cause.Die): string => {
  const error = Cause.isFailReason(reason) ? reason.error : reason.defect
  return error instanceof Boom ? `Boom ${error.request}` : String(error)
}

const show = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit)
    ? `success ${String(exit.value)}`
    : exit.cause.reasons.map((reason) =>
      Cause.isFailReason(reason)
        ? (reason.error as any)?.message ?? (reason.error as any)?._tag ?? String(reason.error)
        : Cause.isDieReason(reason)
        ? `defect ${(reason.defect as any)?._tag ?? reason.defect}`
        : "interrupt"
    ).join(" + ") || "nothing"
