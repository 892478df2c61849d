/**
 * The screen of `watch`, as lines that fit a terminal. An answer of etcd is shown as of when it came, and as old when no other
 * one has come since.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import type * as Terminal from "effect/Terminal"
import { printable } from "../internal/printable.ts"
import type { Renewal } from "../internal/recipe/description.ts"
import * as Client from "./client.ts"
import * as Line from "./line.ts"
import * as Ls from "./ls.ts"
import { type Room, type Row, shortened, type Style, styled, table } from "./table.ts"

/** What etcd has said. */
export interface Heard<A> {
  readonly shown: A
  /** When it has last answered, in milliseconds of the wall clock. */
  readonly at: number
  /** Why it did not answer since. */
  readonly trouble: string | undefined
  /** Of the leases of the holders on the screen, and when it was asked about each. */
  readonly renewals: ReadonlyMap<bigint, Asked>
}

export interface Asked extends Renewal {
  readonly at: number
}

/** A view of locks. */
export interface Kind<A> {
  readonly title: (shown: A) => string
  /** What keeps a lock from being acquired. */
  readonly notes: (shown: A) => ReadonlyArray<string>
  readonly header: ReadonlyArray<string>
  /** The most important ones first. */
  readonly rows: (heard: Heard<A>) => ReadonlyArray<Row>
  /** The holders, in the order of their rows. */
  readonly holders: (shown: A) => ReadonlyArray<Client.Client>
}

/** Etcd is asked every second, so that it is silent when it has not answered for so many milliseconds. */
export const silentAfter = 3000

export interface Size extends Room {
  readonly rows: number
}

/** A terminal wraps what ends in its last column. One that does not tell its size is taken for a common one. */
export const sizeOf = ({ columns, rows }: Terminal.Size, canColor: boolean): Size => ({
  columns: (columns || 80) - 1,
  rows: rows || 24,
  cell: 60,
  canColor
})

export const paint = <A>(kind: Kind<A>, heard: Heard<A>, now: number, size: Size): ReadonlyArray<string> => {
  const line = (text: string, style?: Style) => styled(shortened(printable(text), size.columns), style, size)
  const isOld = heard.trouble !== undefined || now - heard.at >= silentAfter
  const time = DateTime.formatIso(DateTime.makeUnsafe(heard.at)).slice(11, 19)
  const silent = `etcd has not answered for ${Client.spanOf(now - heard.at)}: what follows is old`
  const [notes, moreNotes] = limited(kind.notes(heard.shown), 3)
  const top = [
    line(`as of ${time}Z  ${kind.title(heard.shown)}`, "bold"),
    ...(isOld ? [line(silent, "red")] : []),
    ...(heard.trouble === undefined ? [] : [line(heard.trouble, "red")]),
    ...notes.map((note) => line(note)),
    ...moreNotes.map((note) => line(note))
  ]
  const all = isOld ? kind.rows(heard).map(({ cells }): Row => ({ cells, style: "dim" })) : kind.rows(heard)
  const [rows, more] = limited(all, size.rows - top.length - 1)
  return [...top, ...(rows.length === 0 ? [] : table(kind.header, rows, size)), ...more.map((text) => line(text))]
    .slice(0, size.rows)
}

/** What fits into so many lines, and a line that says how many do not. */
const limited = <A>(all: ReadonlyArray<A>, most: number): readonly [ReadonlyArray<A>, ReadonlyArray<string>] => {
  if (all.length <= most) return [all, []]
  const fitting = all.slice(0, Math.max(0, most - 1))
  return [fitting, [`and ${all.length - fitting.length} more`]]
}

/** Writes lines over those that are on the screen, and scrolls nothing. */
export const overwrite = (lines: ReadonlyArray<string>): string =>
  `\u001b[H${lines.map((line) => `${line}\u001b[K`).join("\n")}\u001b[J`

/** A holder is green only if its lease is known to be renewed. */
const styleOf = ({ renewals }: Heard<unknown>, { leaseId }: Client.Client): Style | undefined => {
  const renewal = renewals.get(leaseId)
  if (renewal === undefined) return undefined
  return renewal.notRenewedFor === undefined || Client.isLate(renewal) ? "yellow" : "green"
}

/** The time goes on for a lease that is late. Of another one it is shown as etcd has told it, since it may have been renewed. */
const leaseOf = ({ at, renewals }: Heard<unknown>, { leaseId }: Client.Client): string => {
  const renewal = renewals.get(leaseId)
  if (renewal === undefined) return ""
  const { notRenewedFor, remaining } = renewal
  if (notRenewedFor === undefined || remaining === undefined || !Client.isLate(renewal)) return Client.leaseOf(renewal)
  const since = Duration.millis(Math.max(0, at - renewal.at))
  return Client.leaseOf({
    notRenewedFor: Duration.sum(notRenewedFor, since),
    remaining: Duration.max(Duration.subtract(remaining, since), Duration.zero)
  })
}

// -----------------------------------------------------------------------------
// the views
// -----------------------------------------------------------------------------

/** The line of one lock. */
export const ofLock: Kind<Line.Line> = {
  title: (line) => `${Line.summary(line)}.`,
  notes: Line.conflictsOf,
  header: ["STATE", "CLAIM", "CLIENT", "FOR", "LEASE", "BEHIND", "VALUE"],
  rows: (heard) => {
    const { at, shown: { holders, queue } } = heard
    const cells = ({ claim, client }: Line.Entry, state: string, time: string, lease: string) => [
      state,
      claim,
      Client.nameOf(client),
      time,
      lease,
      Line.behindOf(client),
      Client.valueOf(client)
    ]
    return [
      ...holders.map((entry) => ({
        cells: cells(entry, "holds", Client.holdOf(entry.client, at), leaseOf(heard, entry.client)),
        style: styleOf(heard, entry.client)
      })),
      ...queue.map((entry) => ({ cells: cells(entry, "waits", Client.ageOf(entry.client.askedAt, at), "") }))
    ]
  },
  holders: ({ holders }) => holders.map(({ client }) => client)
}

type Locks = ReadonlyArray<Lock>

type Lock = Ls.Listed & { readonly holder: Client.Client }

/** The locks under a prefix. */
export const ofLocks = (prefix: string): Kind<Locks> => ({
  title: (locks) => {
    if (locks.length === 0) return Ls.noneText(prefix)
    const waiting = locks.reduce((sum, lock) => sum + Ls.waitingFor(lock), 0)
    return `${locks.length} ${locks.length === 1 ? "lock is" : "locks are"} held; ${waiting} ${
      waiting === 1 ? "waits" : "wait"
    }.`
  },
  notes: () => [],
  header: ["LOCK", "HELD BY", "FOR", "WAIT", "FOR", "LEASE", "VALUE"],
  rows: (heard) =>
    mostUrgentFirst(heard.shown).map((lock) => {
      const { holder, holding, next } = lock
      return {
        cells: [
          lock.lock,
          holding > 1 ? `${Client.nameOf(holder)} and ${holding - 1} more` : Client.nameOf(holder),
          Client.holdOf(holder, heard.at),
          String(Ls.waitingFor(lock) || ""),
          Client.ageOf(next?.askedAt, heard.at),
          leaseOf(heard, holder),
          Client.valueOf(holder)
        ],
        style: styleOf(heard, holder)
      }
    }),
  holders: (locks) => mostUrgentFirst(locks).map(({ holder }) => holder)
})

/** The longest waits first, then those of which it is not known for how long, and then the longest holds. */
const mostUrgentFirst = (locks: Locks): Locks => {
  const timed = locks.map((lock) => {
    const { askedAt, heldSince } = lock.holder
    return {
      lock,
      group: lock.next?.askedAt !== undefined ? 0 : Ls.waitingFor(lock) > 0 ? 1 : 2,
      since: DateTime.toEpochMillis(lock.next?.askedAt ?? heldSince ?? askedAt ?? unknown)
    }
  })
  return timed.sort((a, b) => a.group - b.group || a.since - b.since).map(({ lock }) => lock)
}

const unknown = DateTime.makeUnsafe(8.64e15)
