/**
 * Beside its peers: when the holder has stopped and when the next one has begun, where the holder loses its lock in one way
 * or another. All kinds of contenders meet the same fault on the same cluster at the same moment.
 */
import { Effect, Exit, Scope } from "effect"
import type * as Cluster from "./cluster.ts"
import * as Contender from "./contender.ts"
import type { Kind, Recorded } from "./history.ts"
import { now } from "./now.ts"
import * as Operator from "./operator.ts"
import type { Work } from "./protocol.ts"
import type { Entrant } from "./roster.ts"

/** In seconds. */
export const ttl = 4

export interface Measured {
  readonly fault: string
  readonly kind: Kind
  readonly round: number
  /** From the end of the holder's body to the beginning of the next one's, in milliseconds; negative where they overlapped. */
  readonly gap: number
  /** Whether the holder's body had ended when the wait for that was over. */
  readonly stopped: boolean
  /** From the fault to the beginning of the next body. */
  readonly next: number
}

interface Pair {
  readonly kind: Kind
  readonly lock: string
  readonly holder: Contender.Running
}

interface Scenario {
  readonly name: string
  /** Whether the holders know only of one member, and the others only of the rest. */
  readonly isOneMember?: boolean
  readonly strike: (
    cluster: Cluster.Cluster,
    member: Cluster.Member,
    pair: Pair
  ) => Effect.Effect<void, Cluster.CallFailed>
  readonly mend?: (cluster: Cluster.Cluster, member: Cluster.Member, pair: Pair) => Effect.Effect<void>
}

const links = (cluster: Cluster.Cluster, member: Cluster.Member, act: "blackHole" | "resume") =>
  Effect.forEach(
    cluster.members.filter((other) => other !== member),
    (other) => Effect.flatMap(cluster.between(member, other), Effect.forEach((proxy) => proxy[act])),
    { discard: true }
  )

export const scenarios: ReadonlyArray<Scenario> = [
  {
    name: "black hole before the holder",
    strike: (_, __, { holder }) => Effect.forEach(holder.network, ({ blackHole }) => blackHole, { discard: true }),
    mend: (_, __, { holder }) => Effect.forEach(holder.network, ({ resume }) => resume, { discard: true })
  },
  {
    name: "the holder's member cut off from the others",
    isOneMember: true,
    strike: (cluster, member) => links(cluster, member, "blackHole"),
    mend: (cluster, member) => links(cluster, member, "resume")
  },
  {
    name: "the holder's member stopped (SIGSTOP)",
    isOneMember: true,
    strike: (_, member) => member.pause,
    mend: (_, member) => member.resume
  },
  {
    name: "lease revoked by an operator",
    strike: (cluster, _, { lock }) =>
      Effect.flatMap(Operator.line(cluster, lock), ([first]) => Effect.asVoid(Operator.revoke(cluster, first!.lease)))
  },
  {
    name: "key deleted by an operator",
    strike: (cluster, _, { lock }) =>
      Effect.flatMap(Operator.line(cluster, lock), (line) => Effect.asVoid(Operator.remove(cluster, line.slice(0, 1))))
  },
  {
    name: "the holder frozen for 6 s (SIGSTOP)",
    strike: (_, __, { holder }) =>
      Effect.asVoid(Effect.forkDetach(
        Effect.andThen(holder.signal("SIGSTOP"), Effect.delay(holder.signal("SIGCONT"), "6 seconds"))
      ))
  }
]

const patience = 12_000

export const measure = (
  scenario: Scenario,
  round: number,
  cluster: Cluster.Cluster,
  entrants: ReadonlyArray<Entrant>
): Effect.Effect<ReadonlyArray<Measured>, Contender.ContenderFailed | Cluster.CallFailed> =>
  Effect.scopedWith((scope) =>
    Effect.gen(function*() {
      const reports: Array<Recorded> = []
      const leader = yield* cluster.leader
      // A new leader would give all leases their time again.
      const member = cluster.members.find((member) => member !== leader)!
      const start = Effect.fnUntraced(function*({ command, kind }: Entrant, role: "holder" | "next") {
        const network = yield* cluster.client()
        const isOnMember = (i: number) => !scenario.isOneMember || (i === member.index) === (role === "holder")
        const lock = `table/${kind}-${scenario.name.replaceAll(/\W+/g, "-")}-${round}`
        const work: Work = {
          lock,
          claim: { kind: "lock" },
          layout: "queue",
          how: "handle",
          session: 0,
          turns: "forever"
        }
        const running = yield* Contender.start({
          kind,
          command,
          network,
          task: {
            name: `${kind} ${role}`,
            seed: round,
            hosts: network.filter((_, i) => isOnMember(i)).map(({ endpoint }) => endpoint),
            ttl,
            workers: [work]
          },
          onReport: (report) => reports.push(report)
        })
        return { kind, lock, holder: running } satisfies Pair
      })
      const at = (kind: Kind, role: string, tag: Recorded["_tag"]) =>
        reports.find(({ _tag, contender }) => _tag === tag && contender === `${kind} ${role}`)?.at
      const until = Effect.fnUntraced(function*(role: string, tag: Recorded["_tag"], millis: number) {
        const limit = now() + millis
        while (now() < limit && entrants.some(({ kind }) => at(kind, role, tag) === undefined)) yield* Effect.sleep(20)
      })
      const pairs = yield* Effect.forEach(entrants, (entrant) => start(entrant, "holder"), { concurrency: "unbounded" })
      yield* until("holder", "Holds", patience)
      const others = yield* Effect.forEach(entrants, (entrant) => start(entrant, "next"), { concurrency: "unbounded" })
      // At another moment between two renewals in each round.
      yield* Effect.sleep(1000 + round * 377 % 1333)
      const struck = now()
      yield* Effect.forEach(pairs, (pair) => scenario.strike(cluster, member, pair), { concurrency: "unbounded" })
      yield* until("next", "Holds", patience)
      yield* until("holder", "Stopped", patience)
      const over = now()
      yield* Effect.forEach(pairs, (pair) => scenario.mend?.(cluster, member, pair) ?? Effect.void)
      yield* Effect.forEach([...pairs, ...others], ({ holder }) => holder.tell("stop"), { discard: true })
      yield* Effect.forEach([...pairs, ...others], ({ holder }) => Effect.timeoutOption(holder.exited, "15 seconds"), {
        concurrency: "unbounded",
        discard: true
      })
      yield* cluster.healthy
      return entrants.flatMap(({ kind }): ReadonlyArray<Measured> => {
        const next = at(kind, "next", "Holds")
        const ended = at(kind, "holder", "Stopped")
        if (next === undefined) return []
        const stopped = ended !== undefined && ended < over
        return [{
          fault: scenario.name,
          kind,
          round,
          gap: Math.round(next - (stopped ? ended : over)),
          stopped,
          next: Math.round(next - struck)
        }]
      })
    }).pipe(Scope.provide(scope))
  ).pipe(Effect.onExit((exit) => Exit.isFailure(exit) ? cluster.healthy : Effect.void))

// -----------------------------------------------------------------------------
// as text
// -----------------------------------------------------------------------------

export interface Table {
  readonly date: string
  readonly commit: string
  readonly machine: string
  readonly etcd: string
  readonly ttl: number
  readonly entrants: ReadonlyArray<Pick<Entrant, "kind" | "what">>
  readonly measured: ReadonlyArray<Measured>
}

/** The gaps of a cell, from the worst to the best. */
export const gapsOf = ({ measured }: Pick<Table, "measured">, fault: string, kind: Kind): ReadonlyArray<Measured> =>
  measured.filter((one) => one.fault === fault && one.kind === kind).toSorted((a, b) => a.gap - b.gap)
