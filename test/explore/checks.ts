/**
 * What must hold at every moment of a run. Who holds, and with which token, is excused only by what a fault has done to
 * the entry in question. What a client ends with after a fault of its own connection is not judged.
 */
import { Cause, Exit } from "effect"
import { Etcd, Lock, Semaphore } from "effect-etcd-lock"
import type { Task } from "./programs.ts"
import type { Client, Wire } from "./Wire.ts"

/** What a body asks for; a number is one of permits. */
export type Claim = "lock" | "read" | number

/** How many permits there are. */
export const permits = 2

const areTogether = (claims: ReadonlyArray<Claim>): boolean =>
  claims.length <= 1 || claims.every((claim) => claim === "read") ||
  claims.reduce((sum: number, claim) => sum + (typeof claim === "number" ? claim : Infinity), 0) <= permits

/** A key of a line, from its creation to its end. */
interface Entry {
  readonly key: string
  readonly name: string
  readonly claim: Claim
  readonly created: bigint
  /** Whom it stands for: another task of its client may take it over. */
  taskId: number
  readonly client: Client | undefined
  end: { readonly revision: bigint; readonly by: Wire["writer"] } | undefined
  /** Its client has been told of the end. */
  isKnownGone: boolean
}

/** A body that runs under an entry. */
export interface Holding {
  readonly task: Task
  readonly name: string
  readonly entry: Entry
  readonly token: bigint
  claim: Claim
  wasTold: boolean
  /** It cleans up. */
  isStopping: boolean
  /** The revision of etcd at its end. */
  endedAt: bigint | undefined
}

export interface Checks {
  readonly violations: ReadonlyArray<string>
  /** To be called by a body when it starts, with the claims that it holds under each handle. */
  readonly starts: (task: Task, claims: ReadonlyArray<Claim>, handles: ReadonlyArray<Lock.Handle>) => Array<Holding>
  readonly ended: (task: Task, exit: Exit.Exit<unknown, unknown>) => void
  /** Every fiber waits. `isQuiet` when nothing is on its way, so that only time can change anything. */
  readonly settled: (isQuiet: boolean) => void
  readonly broken: (what: string) => void
  /** The entries that are there. */
  readonly present: () => ReadonlyArray<Pick<Entry, "key" | "taskId"> & { readonly label: string }>
}

export const make = (wire: Wire, tasks: ReadonlyArray<Task>): Checks => {
  const violations: Array<string> = []
  const entries: Array<Entry> = []
  const holdings: Array<Holding> = []
  /** What its client has just been told of. */
  let justTold: Array<Entry> = []

  const broken = (what: string) => {
    if (!violations.includes(what)) violations.push(what)
  }

  const show = ({ client, created, taskId }: Entry) => `entry ${created} of task ${taskId} in ${client?.name}`
  const running = () => holdings.filter(({ endedAt }) => endedAt === undefined)
  const wasThere = ({ created, end }: Entry, revision: bigint) =>
    created <= revision && (end === undefined || end.revision > revision)
  const aheadOf = (entry: Entry, revision: bigint) =>
    entries.filter((other) => other.name === entry.name && other.created < entry.created && wasThere(other, revision))
  const isAdmitted = (entry: Entry, claim: Claim, revision: bigint) =>
    areTogether([claim, ...aheadOf(entry, revision).map(({ claim }) => claim)])

  wire.onWrite = (events) => {
    for (const { _tag, kv } of events) {
      const key = Buffer.from(kv.key).toString()
      if (_tag === "Put") {
        const taskId = Number(/"task":(\d+)/.exec(Buffer.from(kv.value).toString())?.[1])
        if (kv.version > 1n) entries.findLast((entry) => entry.key === key)!.taskId = taskId
        else {entries.push({
            key,
            name: key.slice(0, key.indexOf("/")),
            claim: claimOf(key),
            created: kv.createRevision,
            taskId,
            client: typeof wire.writer === "string" ? undefined : wire.writer,
            end: undefined,
            isKnownGone: false
          })}
      } else {
        const entry = entries.findLast((entry) => entry.key === key)!
        entry.end = { revision: kv.modRevision, by: wire.writer }
        for (const { claim, entry: held, task } of running()) {
          if (held !== entry || wire.writer === "an operator") continue
          const by = typeof wire.writer === "string"
            ? "its lease has expired"
            : `${wire.writer.name} has removed its key`
          broken(`P1: the ${claim} body of task ${task.id} runs, and ${by}`)
        }
      }
    }
  }

  wire.onEvents = (client, events) => {
    for (const { _tag, kv } of events) {
      if (_tag !== "Delete") continue
      const key = Buffer.from(kv.key).toString()
      for (const entry of entries) {
        if (entry.key !== key || entry.client !== client || entry.end === undefined) continue
        if (entry.end.revision > kv.modRevision || entry.isKnownGone) continue
        entry.isKnownGone = true
        justTold.push(entry)
      }
    }
  }

  const starts: Checks["starts"] = (task, claims, handles) =>
    handles.map((handle, i) => {
      const claim = claims[i]!
      const entry = entries.find(({ created, key }) => key === handle.key && created === handle.createRevision)!
      const { fencingToken: token } = handle
      const holding: Holding = {
        task,
        name: entry.name,
        entry,
        token,
        claim,
        wasTold: false,
        isStopping: false,
        endedAt: undefined
      }
      const who = `task ${task.id} starts under ${show(entry)} with token ${token}`
      if (entry.client !== task.client) broken(`P1: ${who}, and is in ${task.client.name}`)
      if (entry.isKnownGone) broken(`P1: ${who}, although its client was told of its end`)
      // A turn comes from one state of etcd, whose revision is the token, and in which nothing was in the way.
      if (!wasThere(entry, token)) broken(`P2: ${who}, and the entry was not there at that revision`)
      if (!isAdmitted(entry, claim, token)) {
        broken(`P2: ${who}, and ${aheadOf(entry, token).map(show).join(" and ")} was ahead at that revision`)
      }
      for (const other of holdings) {
        if (other.name !== entry.name || other.task === task || areTogether([claim, other.claim])) continue
        const isEarlier = other.entry.created < entry.created
        if (isEarlier ? other.token >= token : entry.end === undefined) {
          broken(`P2: ${who} after ${show(other.entry)} with token ${other.token}`)
        }
        // Only who has lost its entry and cannot know it yet, or cleans up, may run beside.
        if (other.endedAt === undefined && entry.end === undefined && !isOvertaken(other)) {
          broken(`P1: ${who} beside ${show(other.entry)}`)
        }
      }
      holdings.push(holding)
      return holding
    })

  const isOvertaken = ({ entry: { end, isKnownGone }, isStopping }: Holding) =>
    end?.by === "an operator" && (!isKnownGone || isStopping)

  const ended: Checks["ended"] = (task, exit) => {
    const own = holdings.filter((holding) => holding.task === task)
    const who = `task ${task.id}`
    const wasTampered = entries.some(({ client, end }) => client === task.client && end?.by === "an operator")
    const wasLost = own.some(({ wasTold }) => wasTold)
    if (own.some(({ endedAt }) => endedAt === undefined)) broken(`P3: ${who} ends before its body`)
    if (Exit.isSuccess(exit)) {
      if (own.length === 0) broken(`P3: ${who} succeeds without a body`)
      if (task.outlivesLoss === true) return
      if (wasLost) broken(`P3: ${who} succeeds, although its body was told of a loss`)
      // The answer to its release has said so, unless it was lost.
      const wasGone = own.some(({ endedAt, entry: { end } }) => end?.by === "an operator" && end.revision <= endedAt!)
      if (wasGone && task.isScoped !== true && !task.client.wasFaulty) {
        broken(`P3: ${who} succeeds, although its key was gone before its body ended`)
      }
      return
    }
    for (const reason of exit.cause.reasons) {
      if (Cause.isInterruptReason(reason)) {
        if (!task.isInterrupted) broken(`P3: ${who} is interrupted by nobody`)
        continue
      }
      const error = Cause.isFailReason(reason) ? reason.error : reason.defect
      if (!isExplained(task, error, wasTampered)) broken(`P3: ${who} ends without a cause with ${String(error)}`)
    }
    if (
      wasLost && task.outlivesLoss !== true && !task.isInterrupted &&
      !Cause.prettyErrors(exit.cause).some(({ name }) => name === "LockLost")
    ) {
      broken(`P3: ${who} hides a loss`)
    }
  }

  const isExplained = (task: Task, error: unknown, wasTampered: boolean): boolean => {
    if (error instanceof Lock.LockLost) return wasTampered || task.client.isolatedUntil > 0
    if (error instanceof Etcd.EtcdError) {
      const isOutOfTime = task.patience === "some" && task.client.wasLate && error.reason === "Timeout"
      return task.client.wasFaulty || isOutOfTime
    }
    if (error instanceof Lock.LockTimeout) return task.patience === "some"
    if (error instanceof Lock.LockHeld || error instanceof Semaphore.PermitsUnavailable) {
      return typeof task.patience === "object" && wasRefused(task, task.patience.tries)
    }
    return false
  }

  /** Whether there was a state since a task began in which there was no room for its claim. */
  const wasRefused = (task: Task, claim: Claim): boolean => {
    const others = entries.filter(({ name, taskId }) => task.names.includes(name) && taskId !== task.id)
    for (let revision = task.startedAt; revision <= wire.revision; revision++) {
      const there = others.filter((other) => wasThere(other, revision))
      if (!areTogether([claim, ...there.map(({ claim }) => claim)])) return true
    }
    return false
  }

  const settled: Checks["settled"] = (isQuiet) => {
    for (const entry of justTold) {
      for (const holding of running()) {
        if (holding.entry === entry && !holding.wasTold && !holding.task.isInterrupted) {
          broken(`P3: task ${holding.task.id} is not told that ${show(entry)} is gone`)
        }
      }
    }
    justTold = []
    if (!isQuiet) return
    for (const task of tasks) {
      if (task.fiber === undefined || task.exit !== undefined || task.client.wasFaulty) continue
      if (holdings.some((holding) => holding.task === task)) continue
      const own = entries.filter(({ end, taskId }) => taskId === task.id && end === undefined)
      if (own.length < task.names.length) continue
      if (own.every((entry) => isAdmitted(entry, entry.claim, wire.revision))) {
        broken(`P6: task ${task.id} waits, although nothing is ahead of ${own.map(show).join(" and ")}`)
      }
    }
  }

  const present = () =>
    entries.filter(({ end }) => end === undefined).map(({ key, name, taskId }) => ({
      key,
      taskId,
      label: `${name} of task ${taskId}`
    }))

  return { violations, starts, ended, settled, broken, present }
}

const claimOf = (key: string): Claim => {
  const [, claimed] = /-(\d+)of\d+$/.exec(key) ?? []
  return claimed !== undefined ? Number(claimed) : key.includes("/read/") ? "read" : "lock"
}
