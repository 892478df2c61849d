/**
 * What is measured. A sample is what one contender did in one round.
 */
import { Effect, Fiber, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { type Claim, monitorEvery, ttl } from "./contender.ts"
import { type Worker, WorkerFailed } from "./fleet.ts"
import type { Replies } from "./protocol.ts"
import * as Roster from "./roster.ts"
import { fairness, quantile, sum } from "./statistics.ts"
import type { Meter, Store } from "./stores.ts"

export type Sample = { readonly [metric: string]: number }

export interface Case {
  readonly name: string
  readonly title: string
  /** What is taken. Who does not have that takes no part. */
  readonly claim: Claim
  readonly metrics: ReadonlyArray<Metric>
  /** The metric that is compared, as a ratio to each of these contenders. */
  readonly compared: string
  readonly against: ReadonlyArray<string>
  /** Who does not take part either, and why. */
  readonly without: { readonly [contender: string]: string }
  /** How many stay for all rounds. Without any, each round starts its own, and nothing is warmed up. */
  readonly processes: number
  /** What takes too long to be repeated, or leaves too much behind, gets servers of its own and no warming up. */
  readonly once: boolean
  /** Left out when it has to be quick. */
  readonly long?: boolean
  /** Also measured on a real disk, and on other etcds. */
  readonly beside?: boolean
  readonly prepare?: (team: Team) => Effect.Effect<unknown, WorkerFailed>
  readonly measure: (team: Team, pace: Pace) => Effect.Effect<Sample, WorkerFailed>
}

export interface Metric {
  readonly key: string
  readonly label: string
  readonly digits: number
}

/** The processes of one contender. */
export interface Team {
  readonly contender: Roster.Contender
  readonly workers: ReadonlyArray<Worker>
  readonly store: Store
  /** Starts more of them. */
  readonly start: (count: number) => Effect.Effect<ReadonlyArray<Worker>, WorkerFailed, Scope.Scope>
}

export interface Pace {
  readonly millis: number
  readonly heldMillis: number
}

// -----------------------------------------------------------------------------
// taking and releasing, over and over
// -----------------------------------------------------------------------------

const metric = (key: string, label: string, digits = 0): Metric => ({ key, label, digits })

const commits = metric("commits", "commits per lock", 2)
const rate = metric("rate", "locks/s")

/** The floor excludes nobody, so it shows one contender at work alone. */
const isFloor = ({ name }: Roster.Contender) => name === Roster.floor || name === Roster.goFloor

const lockName = (team: Team, name: string) => `bench/${team.contender.name.replaceAll(" ", "-")}/${name}`

const runLoops = (
  team: Team,
  claim: Claim,
  names: ReadonlyArray<string>,
  millis: number,
  sections?: { readonly millis: number }
) =>
  Effect.gen(function*() {
    const before = yield* team.store.meter
    const replies = yield* Effect.forEach(
      team.workers,
      (worker) =>
        worker.ask("loops", {
          names: names.map((name) => lockName(team, name)),
          claim,
          millis,
          section: sections?.millis ?? 0,
          trace: sections !== undefined
        }),
      { concurrency: "unbounded" }
    )
    const after = yield* team.store.meter
    const total = sum(replies.map((reply) => reply.total))
    const counts = replies.flatMap((reply) => reply.counts)
    const latencies = replies.flatMap((reply) => reply.latencies)
    const { gaps, passed } = yield* handOvers(replies, isFloor(team.contender) || !isExclusive(claim))
    const rate = sum(counts) / millis * 1000
    return {
      rate,
      p50: quantile(latencies, 0.5),
      p90: quantile(latencies, 0.9),
      fairness: fairness(counts),
      ...perLock(before, after, total),
      // the share of those that went to another contender than the last
      passed: rate * passed / total,
      gap50: quantile(gaps, 0.5),
      gap90: quantile(gaps, 0.9),
      gapRatio: quantile(gaps, 0.9) / quantile(gaps, 0.5)
    }
  })

const isExclusive = (claim: Claim) => claim === "lock" || claim === "write"

const perLock = (before: Meter, after: Meter, locks: number) => ({
  commits: (after.commits! - before.commits!) / locks,
  writes: (after.writes! - before.writes!) / locks,
  watches: (after.watchRequests! - before.watchRequests!) / locks
})

/**
 * The times from the end of one section to the beginning of the next, and how many began after somebody else's. They
 * also show whether the lock excludes; where it lets several in, each process sees whether they are too many.
 */
const handOvers = (replies: ReadonlyArray<Replies["loops"]>, mayOverlap: boolean) => {
  const sections = replies
    .flatMap((reply, process) =>
      reply.sections.map(([began, ended, contender]) => ({ began, ended, who: `${process}/${contender}` }))
    )
    .sort((a, b) => a.began - b.began)
  const pairs = sections.slice(1).map((next, i) => [sections[i]!, next] as const)
  const gaps = pairs.map(([last, next]) => next.began - last.ended)
  const passed = pairs.filter(([last, next]) => next.who !== last.who).length
  const meetings = mayOverlap ? 0 : gaps.filter((gap) => gap < 0).length
  const overlaps = meetings + sum(replies.map((reply) => reply.overlaps))
  return overlaps === 0
    ? Effect.succeed({ gaps, passed })
    : Effect.fail(new WorkerFailed({ message: `it let too many in at once, ${overlaps} times` }))
}

const uncontended: Case = {
  name: "uncontended",
  title: "Uncontended: take and release a lock that nobody else wants, one after the other",
  claim: "lock",
  metrics: [
    metric("p50", "p50 µs"),
    metric("p90", "p90 µs"),
    commits,
    metric("watches", "watch requests per lock", 2)
  ],
  compared: "p50",
  against: [Roster.floor, Roster.goMutex],
  without: {},
  processes: 1,
  once: false,
  beside: true,
  measure: (team, { millis }) => runLoops(team, "lock", ["lock"], millis)
}

const uncontendedOther = (claim: Exclude<Claim, "lock">, what: string, against: ReadonlyArray<string>): Case => ({
  ...uncontended,
  name: `uncontended-${claim}`,
  title: uncontended.title.replace("a lock", what),
  claim,
  metrics: [...uncontended.metrics, metric("multiple", "p50 ÷ that of its lock", 2)],
  against,
  beside: false,
  // In the same round, and before as well as after, since what else the machine does changes the times.
  measure: (team, { millis }) =>
    Effect.gen(function*() {
      const locks = Roster.has(team.contender, "lock") ? runLoops(team, "lock", ["lock"], millis / 2) : Effect.undefined
      const before = yield* locks
      const found = yield* runLoops(team, claim, [claim], millis)
      const after = yield* locks
      return { ...found, multiple: before && after ? found.p50 * 2 / (before.p50 + after.p50) : NaN }
    })
})

const handOver = (processes: number, contenders: number, claim: Claim = "lock"): Case => {
  const where = processes === 1
    ? `${contenders} contenders in one process`
    : `${processes} processes with ${contenders === 1 ? "one contender" : `${contenders} contenders`} each`
  return {
    name: `hand-over-${processes === 1 ? "" : `${processes}x`}${contenders}`,
    title: `Hand-over: ${where}, nothing to do inside`,
    claim,
    metrics: [rate, metric("passed", "passed on/s"), metric("fairness", "fewest/mean", 2), commits],
    compared: "rate",
    against: [Roster.floor, Roster.goMutex, Roster.redlock],
    without: {},
    processes,
    once: false,
    beside: contenders === 8 && processes === 1 || contenders === 1,
    measure: (team, { millis }) =>
      isFloor(team.contender)
        ? runLoops({ ...team, workers: team.workers.slice(0, 1) }, claim, ["lock"], millis)
        : runLoops(team, claim, Array.from({ length: contenders }, () => "lock"), millis * 2, { millis: 0 })
  }
}

const permits = (contenders: number): Case => ({
  ...handOver(1, contenders, "permit"),
  name: `permits-${contenders}`,
  title: `Permits: ${contenders} contenders in one process for 8 permits, nothing to do inside`,
  metrics: [metric("rate", "permits/s"), metric("p50", "p50 µs"), metric("fairness", "fewest/mean", 2), commits],
  against: [Roster.effectDistributedLock, Roster.redisSemaphore]
})

const several: Case = {
  name: "locks-4",
  title: "Several locks: 8 contenders in one process take 4 of 8 locks each, nothing to do inside",
  claim: "several",
  metrics: [
    rate,
    metric("p50", "p50 µs"),
    metric("fairness", "fewest/mean", 2),
    commits,
    metric("multiple", "rate ÷ that of nested sections", 2)
  ],
  compared: "rate",
  against: [Roster.goMutex],
  without: {},
  processes: 1,
  once: false,
  measure: (team, { millis }) =>
    Effect.gen(function*() {
      const names = Array.from(
        { length: 8 },
        (_, i) => Array.from({ length: 4 }, (_, k) => `lock-${(i + k) % 8}`).join("+")
      )
      const nested = Roster.has(team.contender, "nested") ? runLoops(team, "nested", names, millis) : Effect.undefined
      const before = yield* nested
      const found = yield* runLoops(team, "several", names, millis * 2)
      const after = yield* nested
      return { ...found, multiple: before && after ? found.rate * 2 / (before.rate + after.rate) : NaN }
    })
}

const section = (processes: number, contenders: number): Case => ({
  ...handOver(processes, contenders),
  name: `section-${processes === 1 ? "" : `${processes}x`}${contenders}`,
  title: handOver(processes, contenders).title.replace("nothing to do inside", "5 ms inside"),
  metrics: [
    metric("gap50", "hand-over p50 µs"),
    metric("gap90", "p90 µs"),
    metric("gapRatio", "p90/p50", 2),
    metric("fairness", "fewest/mean", 2)
  ],
  compared: "gap50",
  against: [Roster.goMutex, Roster.redlock],
  without: { [Roster.floor]: "hands nothing over", [Roster.goFloor]: "hands nothing over" },
  beside: false,
  // a lock takes so long that fewer would tell too little
  measure: (team, { millis }) =>
    runLoops(team, "lock", Array.from({ length: contenders }, () => "lock"), Math.max(millis * 2, 1000), { millis: 5 })
})

const costs = (what: string) => [
  metric("rate", `${what}s/s`),
  metric("clientCpu", `client's CPU, µs per ${what}`),
  metric("serverCpu", `etcd's CPU, µs per ${what}`),
  metric("bytes", `bytes sent by etcd per ${what}`),
  metric("watchMessages", `watch messages per ${what}`, 2)
]

const sessions = (count: number, claim: Claim = "lock"): Case => ({
  name: `sessions-${count}`,
  title: `Sessions: ${count}, each with a connection of its own, pass one lock on`,
  claim,
  metrics: costs("hand-over"),
  compared: "rate",
  against: [Roster.goMutex],
  without: {
    [Roster.floor]: "hands nothing over",
    [Roster.goFloor]: "hands nothing over",
    [Roster.etcd3Lock]: "has no sessions",
    [Roster.redlock]: "has no sessions",
    [Roster.effectDistributedLock]: "has no sessions"
  },
  processes: 1,
  once: false,
  long: count > 64,
  measure: (team, pace) =>
    Effect.gen(function*() {
      const [worker] = team.workers as [Worker]
      // All of them join at once in the beginning, which is not what is measured.
      const millis = pace.millis * Math.max(2, count / 16)
      const before = yield* team.store.meter
      const usedBefore = yield* worker.ask("usage", { collect: false })
      const { total } = yield* worker.ask("loops", {
        names: Array.from({ length: count }, () => lockName(team, "lock")),
        claim,
        millis,
        section: 0,
        trace: false,
        apart: true
      })
      const used = yield* worker.ask("usage", { collect: false })
      const after = yield* team.store.meter
      return {
        rate: total / millis * 1000,
        clientCpu: (used.cpuMillis - usedBefore.cpuMillis) * 1000 / total,
        serverCpu: (after.cpuMillis - before.cpuMillis) * 1000 / total,
        bytes: (after.sentBytes! - before.sentBytes!) / total,
        watchMessages: (after.watchMessages! - before.watchMessages!) / total,
        ...perLock(before, after, total)
      }
    })
})

const sessionsForPermits = (count: number): Case => ({
  ...sessions(count, "permit"),
  name: `sessions-permits-${count}`,
  title: `Sessions: ${count}, each with a connection of its own, pass 8 permits on`,
  against: [],
  without: { [Roster.effectDistributedLock]: "has no sessions", [Roster.redisSemaphore]: "has no sessions" }
})

const readers = (count: number): Case => ({
  ...sessions(count, "read"),
  name: `readers-${count}`,
  title: `Readers: ${count} sessions, each with a connection of its own, read under one lock`,
  metrics: [...costs("lock"), commits],
  against: [Roster.goRwMutex],
  without: {}
})

const manyNames = Array.from({ length: 64 }, (_, i) => `lock-${i}`)

const many: Case = {
  name: "many-64",
  title: "Many: 64 locks by 64 contenders in one process, each its own",
  claim: "lock",
  metrics: [rate, metric("p50", "p50 µs"), commits],
  compared: "rate",
  against: [Roster.floor, Roster.goMutex],
  without: {},
  processes: 1,
  once: false,
  beside: true,
  measure: (team, { millis }) => runLoops(team, "lock", manyNames, millis)
}

/** What reading the metrics costs: of the rate, which other programs on the machine change by more, and of the client's CPU. */
const monitored = (one: Case, names: ReadonlyArray<string>): Case => ({
  ...one,
  name: `${one.name}-monitored`,
  title: `${one.title}, while the metrics are read every ${monitorEvery} ms`,
  claim: "monitored",
  metrics: [
    rate,
    metric("multiple", "÷ that without a reader", 3),
    metric("cpu", "client's CPU, µs per lock"),
    metric("cpuMultiple", "÷ that without a reader", 3)
  ],
  compared: "rate",
  against: [],
  beside: false,
  // A few percent show only in many turns that are so short that whatever else the machine does meets two neighbours: each
  // is as long as a reader's pause, and is compared with the mean of that before and that after.
  measure: (team, { millis }) =>
    Effect.gen(function*() {
      const [worker] = team.workers as [Worker]
      const cpuMillis = Effect.map(worker.ask("usage", { collect: false }), (usage) => usage.cpuMillis)
      const turn = Effect.fnUntraced(function*(claim: Claim) {
        const before = yield* cpuMillis
        const { rate } = yield* runLoops(team, claim, names, monitorEvery)
        return { rate, cpu: ((yield* cpuMillis) - before) * 1e6 / (rate * monitorEvery) }
      })
      const without = [yield* turn("lock")]
      const read: typeof without = []
      while (read.length < Math.max(12, 4 * millis / monitorEvery)) {
        read.push(yield* turn("monitored"))
        without.push(yield* turn("lock"))
      }
      const median = (of: "rate" | "cpu") => quantile(read.map((turn) => turn[of]), 0.5)
      const multiple = (of: "rate" | "cpu") =>
        quantile(read.map((turn, i) => turn[of] * 2 / (without[i]![of] + without[i + 1]![of])), 0.5)
      return { rate: median("rate"), multiple: multiple("rate"), cpu: median("cpu"), cpuMultiple: multiple("cpu") }
    })
})

// -----------------------------------------------------------------------------
// a try that is refused
// -----------------------------------------------------------------------------

const failedTry: Case = {
  name: "try",
  title: "Failed try: ask once for a lock that another process holds",
  claim: "lock",
  metrics: [
    metric("p50", "p50 µs"),
    metric("p90", "p90 µs"),
    metric("commits", "commits per try", 2),
    metric("writes", "revisions per try", 2)
  ],
  compared: "p50",
  against: [Roster.floor, Roster.goMutex],
  without: { [Roster.goFloor]: "has nothing to try" },
  processes: 2,
  once: false,
  prepare: (team) => team.workers[0]!.ask("hold", { names: [lockName(team, "lock")] }),
  measure: (team, { millis }) =>
    Effect.gen(function*() {
      const before = yield* team.store.meter
      const { latencies, taken } = yield* team.workers[1]!.ask("tries", { name: lockName(team, "lock"), millis })
      if (taken > 0) return yield* new WorkerFailed({ message: `it got a held lock, ${taken} times` })
      return {
        p50: quantile(latencies, 0.5),
        p90: quantile(latencies, 0.9),
        ...perLock(before, yield* team.store.meter, latencies.length)
      }
    })
}

// -----------------------------------------------------------------------------
// many held locks
// -----------------------------------------------------------------------------

const held = (count: number): Case => ({
  name: `held-${count}`,
  title: `Held: ${count} locks held by one process, with a TTL of 9 s`,
  claim: "lock",
  metrics: [
    metric("taking", "all taken, ms"),
    metric("heap", "heap bytes per lock"),
    metric("resident", "server's memory, bytes per lock"),
    metric("renewals", "renewals/s", 2),
    metric("cpu", "CPU ms/s", 1),
    metric("serverCpu", "server's CPU ms/s", 1)
  ],
  compared: "heap",
  against: [Roster.goMutex, Roster.etcd3Lock],
  without: { [Roster.floor]: "renews nothing", [Roster.goFloor]: "renews nothing" },
  processes: 1,
  once: true,
  long: count > 1000,
  measure: (team, { heldMillis }) =>
    Effect.gen(function*() {
      const [worker] = team.workers as [Worker]
      const namesOf = (count: number, what: string) =>
        Array.from({ length: count }, (_, i) => lockName(team, `${what}-${i}`))
      // so that what the first ones bring with them is there, such as code that is compiled anew once it has run often
      yield* worker.ask("hold", { names: namesOf(1000, "first") })
      yield* untilAtRest(worker)
      const empty = yield* worker.ask("usage", { collect: true })
      const emptyStore = yield* team.store.meter
      const { millis } = yield* worker.ask("hold", { names: namesOf(count, "lock") })
      // so that what each lock brings with it is there, and nothing else any more
      yield* untilAtRest(worker)
      const full = yield* worker.ask("usage", { collect: true })
      yield* Effect.sleep("500 millis")
      const before = yield* worker.ask("usage", { collect: false })
      const beforeStore = yield* team.store.meter
      yield* Effect.sleep(heldMillis)
      const after = yield* worker.ask("usage", { collect: false })
      const afterStore = yield* team.store.meter
      const seconds = heldMillis / 1000
      return {
        taking: millis,
        heap: (full.heapBytes - empty.heapBytes) / count,
        resident: (beforeStore.residentBytes - emptyStore.residentBytes) / count,
        renewals: (afterStore.renewals! - beforeStore.renewals!) / seconds,
        cpu: (after.cpuMillis - before.cpuMillis) / seconds,
        serverCpu: (afterStore.cpuMillis - beforeStore.cpuMillis) / seconds
      }
    })
})

/** Waits until a process has used next to no CPU for two seconds. */
const untilAtRest = (worker: Worker) =>
  Effect.gen(function*() {
    const cpu = Effect.map(worker.ask("usage", { collect: false }), ({ cpuMillis }) => cpuMillis)
    let busy = yield* cpu
    for (let seconds = 0, quiet = 0; quiet < 2 && seconds < 60; seconds++) {
      yield* Effect.sleep("1 second")
      const now = yield* cpu
      quiet = now - busy < 50 ? quiet + 1 : 0
      busy = now
    }
  })

// -----------------------------------------------------------------------------
// many waiters
// -----------------------------------------------------------------------------

const waiters = (count: number): Case => ({
  name: `waiters-${count}`,
  title: `Waiters: ${count} contenders of one process in line for one lock, then let go`,
  claim: "lock",
  metrics: [
    metric("lineUp", "all in line, ms"),
    metric("entries", "entries in etcd"),
    metric("gap50", "hand-over p50 µs"),
    metric("gap99", "p99 µs")
  ],
  compared: "gap50",
  against: [Roster.goMutex],
  without: {
    [Roster.floor]: "hands nothing over",
    [Roster.goFloor]: "hands nothing over",
    [Roster.etcd3Lock]: "has no line: it polls",
    [Roster.redlock]: "has no line: it polls",
    [Roster.effectDistributedLock]: "has no line: everybody tries again"
  },
  processes: 1,
  once: true,
  long: count > 1000,
  measure: (team) =>
    Effect.gen(function*() {
      const [worker] = team.workers as [Worker]
      const etcd = yield* Etcd.Etcd
      const name = lockName(team, "lock")
      // stands before all of them, as the entry of somebody who died would
      yield* etcd.leaseGrant(blocker, 600)
      yield* etcd.txn({ then: [Etcd.put(`${name}/blocker`, "", { lease: blocker })], idempotent: true })
      const began = performance.now()
      yield* worker.ask("lineUp", { name, count })
      const asked = performance.now()
      const { entries, since } = yield* untilSteady(etcd, name)
      yield* etcd.txn({ then: [Etcd.remove(`${name}/blocker`)], idempotent: true })
      const turns = yield* worker.ask("drain", { count: Math.min(count, 1000), millis: 30_000 })
      const gaps = turns.began.slice(1).map((at, i) => at - turns.began[i]!)
      return {
        lineUp: Math.max(asked, since) - began,
        entries: entries - 1,
        gap50: quantile(gaps, 0.5),
        gap99: quantile(gaps, 0.99)
      }
    }).pipe(
      Effect.provide(Etcd.layer({ hosts: team.store.endpoint })),
      Effect.mapError(({ message }) => new WorkerFailed({ message }))
    )
})

const blocker = 4711n

/** Waits until the line has not grown for two seconds, and tells since when. */
const untilSteady = (etcd: Etcd.Etcd["Service"], name: string) =>
  Effect.gen(function*() {
    let entries = 0
    let since = performance.now()
    while (performance.now() - since < 2000) {
      const { count } = yield* etcd.range(Etcd.getPrefix(`${name}/`, { limit: 1 }))
      if (count !== entries) since = performance.now()
      entries = count
      yield* Effect.sleep("20 millis")
    }
    return { entries, since }
  })

// -----------------------------------------------------------------------------
// failover
// -----------------------------------------------------------------------------

const candidates = 5

const failover: Case = {
  name: "failover",
  title: `Failover: the leader's process ends, and the next of ${candidates} leads, with a TTL of ${ttl} s`,
  claim: "election",
  metrics: [
    metric("terminated", "after SIGTERM, p50 ms", 1),
    metric("terminatedMost", "longest ms", 1),
    metric("killed", "after SIGKILL, ms")
  ],
  compared: "terminated",
  against: [Roster.goElection],
  without: {},
  processes: 0,
  once: false,
  long: true,
  measure: (team) =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      // What is killed leaves its lease behind.
      const name = `${lockName(team, "election")}-${crypto.randomUUID()}`
      const terms: Array<Effect.Effect<number, WorkerFailed>> = []
      const workers = yield* team.start(candidates)
      for (const worker of workers) {
        const leading = yield* Effect.forkScoped(worker.ask("lead", { name }))
        terms.push(Effect.map(Fiber.join(leading), ({ began }) => began))
        yield* untilLine(etcd, name, terms.length)
      }
      yield* terms[0]!
      /** From the signal to the leader of a term to the beginning of the next one. */
      const gap = Effect.fnUntraced(function*(term: number, signal: "SIGTERM" | "SIGKILL") {
        const sent = yield* workers[term]!.signal(signal)
        const began = yield* terms[term + 1]!
        if (began < sent) return yield* new WorkerFailed({ message: "the next one led before the leader ended" })
        return (began - sent) / 1000
      })
      const terminated: Array<number> = []
      while (terminated.length < candidates - 2) {
        yield* Effect.sleep("500 millis")
        terminated.push(yield* gap(terminated.length, "SIGTERM"))
      }
      // A process dies at any time between two renewals.
      yield* Effect.sleep(Math.random() * ttl * 1000 / 3)
      const killed = yield* gap(candidates - 2, "SIGKILL")
      return { terminated: quantile(terminated, 0.5), terminatedMost: Math.max(...terminated), killed }
    }).pipe(
      Effect.scoped,
      Effect.provide(Etcd.layer({ hosts: team.store.endpoint })),
      Effect.catchTag("EtcdError", ({ message }) => new WorkerFailed({ message }))
    )
}

/** Waits until a line has so many entries. */
const untilLine = (etcd: Etcd.Etcd["Service"], name: string, length: number) =>
  Effect.repeat(Effect.delay(etcd.range(Etcd.getPrefix(`${name}/`, { limit: 1 })), "20 millis"), {
    until: ({ count }) => count >= length,
    times: 1000
  })

// -----------------------------------------------------------------------------
// all of them
// -----------------------------------------------------------------------------

export const cases: ReadonlyArray<Case> = [
  uncontended,
  uncontendedOther("read", "a read lock", [Roster.goRwMutex]),
  uncontendedOther("write", "a write lock", [Roster.goRwMutex]),
  uncontendedOther("permit", "one of 8 permits", [Roster.redisSemaphore]),
  handOver(1, 2),
  handOver(1, 8),
  handOver(1, 32),
  handOver(4, 1),
  handOver(4, 8),
  handOver(8, 4),
  section(1, 8),
  section(4, 1),
  ...[1, 2, 8, 32, 64, 128, 256].map((count) => sessions(count)),
  permits(64),
  ...[32, 64, 128].map(sessionsForPermits),
  readers(64),
  several,
  many,
  monitored(uncontended, ["lock"]),
  monitored(many, manyNames),
  failedTry,
  held(1000),
  held(10_000),
  waiters(100),
  waiters(1000),
  waiters(10_000),
  failover
]
