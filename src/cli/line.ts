/** The line of a lock of any kind, as a person or a program reads it. */
import { Lock, Semaphore } from "effect-etcd-lock"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import { printable } from "../internal/printable.ts"
import * as Client from "./client.ts"
import { type Room, table } from "./table.ts"

export interface Entry {
  /** What it takes, in the words of the options of `run`: `exclusive`, `shared`, or how many permits. */
  readonly claim: string
  readonly client: Client.Client
}

export interface Line {
  readonly lock: string
  readonly holders: ReadonlyArray<Entry>
  readonly queue: ReadonlyArray<Entry>
  readonly conflicts: Lock.Inspection["conflicts"]
  /** How many permits a semaphore has. */
  readonly of?: number | undefined
}

/** Reads a lock's line: that of its queue, or that of its single key where its queue is empty. */
export const lineOf = Effect.fnUntraced(function*(name: string) {
  const queue = yield* Semaphore.inspect(name)
  return isEmpty(queue) ? ofSingleKey(yield* Lock.inspect(name, singleKey)) : ofQueue(queue)
})

/** Emits the same, now and after every change. Only the first holder is shown with the time that its lease has left. */
export const linesOf = (name: string) =>
  Stream.zipLatestWith(
    Semaphore.changes(name),
    // The first one tells of an outage for both.
    Stream.provideService(Lock.changes(name, singleKey), References.MinimumLogLevel, "None"),
    (queue, single) => isEmpty(queue) ? ofSingleKey(single) : ofQueue(queue)
  )

const singleKey = { layout: "single-key" } as const

const isEmpty = ({ conflicts, holders }: Semaphore.Inspection): boolean => holders.length + conflicts.length === 0

/** All kinds stand in one line, which shows each by its key: one look for all, since two looks may be of different moments. */
const ofQueue = ({ conflicts, holders, lock, of, queue }: Semaphore.Inspection): Line => {
  const readers = `${lock}/read/`
  const entry = ({ client, permits }: Semaphore.Claimant): Entry => ({
    claim: of !== undefined ? `${permits ?? "all"} of ${of}` : client.key.startsWith(readers) ? "shared" : "exclusive",
    client
  })
  return { lock, holders: holders.map(entry), queue: queue.map(entry), conflicts, of }
}

// A plain key of the lock's name is in no queue's way.
const ofSingleKey = ({ holder, lock }: Lock.Inspection): Line => ({
  lock,
  holders: holder === undefined ? [] : [{ claim: "single key", client: holder }],
  queue: [],
  conflicts: []
})

// -----------------------------------------------------------------------------
// for people
// -----------------------------------------------------------------------------

export const summary = ({ holders, lock, queue }: Line): string => {
  const clients = holders.map(({ client }) => Client.nameOf(client))
  const state = clients.length === 0 ? "is free" : `is held by ${clients.join(", ")}`
  return printable(`'${lock}' ${state}${waitingText(queue.length, [...holders, ...queue].map(({ client }) => client))}`)
}

/** How many wait, those included that stand behind a client's entry in its process. */
export const waitingText = (entries: number, clients: ReadonlyArray<Client.Client>): string => {
  const behind = clients.reduce((sum, { behind = 0 }) => sum + behind, 0)
  const waiting = entries + behind
  if (waiting === 0) return ""
  return `; ${waiting} ${waiting === 1 ? "waits" : "wait"}${
    behind === 0 ? "" : `, ${behind} of them inside of a process`
  }`
}

export const conflictsOf = ({ conflicts }: Line): ReadonlyArray<string> =>
  conflicts.map(({ key, kind }) => printable(`'${key}' is in its place (${kind}): no client can acquire it.`))

export const text = (line: Line, room: Room): string => {
  const row = (state: string) => ({ claim, client }: Entry) => ({
    cells: [
      state,
      claim,
      Client.nameOf(client),
      Client.timeOf(client.heldSince),
      Client.timeOf(client.askedAt),
      Client.leaseOf(client),
      behindOf(client),
      String(client.createRevision),
      Client.valueOf(client)
    ],
    style: Client.isLate(client) ? "yellow" as const : undefined
  })
  const rows = [...line.holders.map(row("holds")), ...line.queue.map(row("waits"))]
  const header = ["STATE", "CLAIM", "CLIENT", "HELD SINCE", "ASKED AT", "LEASE", "BEHIND", "REVISION", "VALUE"]
  return [`${summary(line)}.`, ...(rows.length === 0 ? [] : table(header, rows, room)), ...conflictsOf(line)].join("\n")
}

/** How many wait inside of its process. */
export const behindOf = ({ behind }: Client.Client): string => behind === undefined ? "" : String(behind)

// -----------------------------------------------------------------------------
// for programs
// -----------------------------------------------------------------------------

export const toData = ({ conflicts, holders, lock, of, queue }: Line) => {
  const entry = ({ claim, client }: Entry) => ({ claim, ...Client.toData(client) })
  return { lock, of, holders: holders.map(entry), queue: queue.map(entry), conflicts }
}
