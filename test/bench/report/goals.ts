/**
 * What the library sets out to reach, and where a run stands.
 */
import { ttl } from "../contender.ts"
import { type Environment, medianIn, medianOf, ratios, values } from "../results.ts"
import * as Roster from "../roster.ts"

export interface Goal {
  readonly text: string
  readonly bar: { readonly atMost: number } | { readonly atLeast: number }
  readonly value: (environment: Environment) => number | undefined
}

const ratio = (name: string, other: string, metric: string) => ({ cases }: Environment) => {
  const measured = cases.find((one) => one.case === name)
  return measured && medianOf(ratios(measured, Roster.library, other, metric))?.median
}

const own = (name: string, metric: string) => (environment: Environment) =>
  medianIn(environment, name, Roster.library, metric)

/** How long failover took at most, in seconds beyond the TTL. */
const beyondTtl = ({ cases }: Environment) => {
  const measured = cases.find((one) => one.case === "failover")
  const found = measured && values(measured, Roster.library, "killed")
  return found && Math.max(...found) / 1000 - ttl
}

const growth = (environment: Environment, large: string, small: string, metric: string) => {
  const many = own(large, metric)(environment)
  const few = own(small, metric)(environment)
  return many === undefined || few === undefined ? undefined : many / few
}

const handOvers = ["hand-over-2", "hand-over-8", "hand-over-32", "hand-over-4x1", "hand-over-4x8", "hand-over-8x4"]

/** How many times as many hand-overs as Go's, by the number of sessions. */
const sessionsBesideGo = { 2: 20, 8: 12, 32: 2, 64: 1, 128: 0.85, 256: 0.85 }

const sentByEtcd = { bytes: "bytes", watchMessages: "watch messages" }

export const goals: ReadonlyArray<Goal> = [
  {
    text: "uncontended: p50 as a multiple of the raw floor's",
    bar: { atMost: 1.12 },
    value: ratio("uncontended", Roster.floor, "p50")
  },
  { text: "uncontended: commits per lock", bar: { atMost: 2.05 }, value: own("uncontended", "commits") },
  { text: "uncontended: watch requests per lock", bar: { atMost: 0 }, value: own("uncontended", "watches") },
  ...["read", "write", "permit"].map((claim): Goal => ({
    text: `uncontended ${claim}: p50 as a multiple of that of a lock`,
    bar: { atMost: 1.1 },
    value: own(`uncontended-${claim}`, "multiple")
  })),
  {
    text: "4 locks at once: rate as a multiple of that of nested sections",
    bar: { atLeast: 1.5 },
    value: own("locks-4", "multiple")
  },
  {
    text: "4 locks at once: rate as a multiple of nested mutexes of Go",
    bar: { atLeast: 10 },
    value: ratio("locks-4", Roster.goMutex, "rate")
  },
  {
    text: "8 contenders in one process: locks/s as a multiple of Go's",
    bar: { atLeast: 20 },
    value: ratio("hand-over-8", Roster.goMutex, "rate")
  },
  {
    text: "8 contenders in one process: locks/s as a multiple of redlock's",
    bar: { atLeast: 1 },
    value: ratio("hand-over-8", Roster.redlock, "rate")
  },
  {
    text: "8 contenders in one process: locks passed on to another/s as a multiple of redlock's",
    bar: { atLeast: 1 },
    value: ratio("hand-over-8", Roster.redlock, "passed")
  },
  {
    text: "4 processes of one contender: locks/s as a multiple of Go's",
    bar: { atLeast: 15 },
    value: ratio("hand-over-4x1", Roster.goMutex, "rate")
  },
  {
    text: "4 processes of 8 contenders: locks/s as a multiple of Go's",
    bar: { atLeast: 3 },
    value: ratio("hand-over-4x8", Roster.goMutex, "rate")
  },
  ...["section-8", "section-4x1"].map((name): Goal => ({
    text: `${name}: p90 of the hand-over as a multiple of p50`,
    bar: { atMost: 1.5 },
    value: own(name, "gapRatio")
  })),
  ...handOvers.map((name): Goal => ({
    text: `${name}: fewest/mean`,
    bar: { atLeast: 0.95 },
    value: own(name, "fairness")
  })),
  ...Object.entries(sessionsBesideGo).map(([count, atLeast]): Goal => ({
    text: `${count} sessions: hand-overs/s as a multiple of Go's`,
    bar: { atLeast },
    value: ratio(`sessions-${count}`, Roster.goMutex, "rate")
  })),
  ...Object.keys(sessionsBesideGo).map((count): Goal => ({
    text: `${count} sessions: etcd's CPU per hand-over as a multiple of Go's`,
    bar: { atMost: 1.1 },
    value: ratio(`sessions-${count}`, Roster.goMutex, "serverCpu")
  })),
  ...Object.entries(sentByEtcd).map(([metric, label]): Goal => ({
    text: `256 sessions: ${label} per hand-over as a multiple of those of 32`,
    bar: { atMost: 1.15 },
    value: (environment) => growth(environment, "sessions-256", "sessions-32", metric)
  })),
  ...Object.entries(sentByEtcd).map(([metric, label]): Goal => ({
    text: `128 sessions for 8 permits: ${label} per hand-over as a multiple of those of 32`,
    bar: { atMost: 1.25 },
    value: (environment) => growth(environment, "sessions-permits-128", "sessions-permits-32", metric)
  })),
  {
    text: "64 locks: locks/s as a multiple of the raw floor's",
    bar: { atLeast: 3 },
    value: ratio("many-64", Roster.floor, "rate")
  },
  {
    text: "64 locks: locks/s as a multiple of Go's (3 on etcd 3.4)",
    bar: { atLeast: 1.8 },
    value: ratio("many-64", Roster.goMutex, "rate")
  },
  { text: "64 locks: commits per lock", bar: { atMost: 0.05 }, value: own("many-64", "commits") },
  ...Object.entries({ uncontended: "uncontended", "many-64": "64 locks" }).map(([name, text]): Goal => ({
    text: `${text}: client's CPU per lock while the metrics are read, as a multiple of that without`,
    bar: { atMost: 1.03 },
    value: own(`${name}-monitored`, "cpuMultiple")
  })),
  {
    text: "failed try: p50 as a multiple of the raw transaction's",
    bar: { atMost: 1.15 },
    value: ratio("try", Roster.floor, "p50")
  },
  { text: "failed try: revisions", bar: { atMost: 0 }, value: own("try", "writes") },
  // every third of 9 s, and the window may begin right before one
  { text: "10 000 held: renewals/s", bar: { atMost: 0.45 }, value: own("held-10000", "renewals") },
  { text: "10 000 held: heap bytes per lock", bar: { atMost: 2200 }, value: own("held-10000", "heap") },
  { text: "10 000 waiters: entries in etcd", bar: { atMost: 1 }, value: own("waiters-10000", "entries") },
  {
    text: "10 000 waiters: p50 of the hand-over as a multiple of that of 100",
    bar: { atMost: 2 },
    value: (environment) => growth(environment, "waiters-10000", "waiters-100", "gap50")
  },
  {
    text: "the leader gets SIGTERM: milliseconds until the next one leads",
    bar: { atMost: 100 },
    value: own("failover", "terminated")
  },
  {
    text: "the leader gets SIGKILL: seconds until the next one leads beyond the TTL, in the worst round",
    bar: { atMost: 1 },
    value: beyondTtl
  }
]

export const isReached = ({ bar }: Goal, value: number): boolean =>
  "atMost" in bar ? value <= bar.atMost : value >= bar.atLeast
