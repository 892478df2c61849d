/**
 * What goes wrong, drawn by dice: some faults at once, each for a while, none of them where another is at work.
 */
import { Console, Effect, Schedule } from "effect"
import type { Direction } from "../support/Host.ts"
import type { Cluster, Member } from "./cluster.ts"
import type { Running } from "./contender.ts"
import type { Fault, Taken } from "./history.ts"
import { now } from "./now.ts"
import * as Operator from "./operator.ts"
import type { Dice } from "./random.ts"

export interface World {
  readonly cluster: Cluster
  readonly contenders: ReadonlyArray<Running>
  readonly locks: ReadonlyArray<string>
  /** In milliseconds. */
  readonly ttl: number
}

/** A fault that is decided on. */
export interface Plan {
  readonly name: string
  /** What it works at: no two faults at once work at the same. */
  readonly at: ReadonlyArray<string>
  /** How long until it is mended. */
  readonly millis: number
  readonly inject: Effect.Effect<Pick<Fault, "taken" | "restored"> | void>
  readonly mend: Effect.Effect<void>
}

export type Draw = (world: World, dice: Dice) => Effect.Effect<Plan>

/** What goes wrong in the next round, or nothing any more. */
export type Rounds = (
  world: World,
  dice: Dice,
  round: { readonly number: number; readonly elapsed: number }
) => Effect.Effect<ReadonlyArray<Plan> | undefined>

/** Rounds of faults at random, for so many milliseconds. */
export const atRandom = (draws: ReadonlyArray<Draw>, millis: number): Rounds => (world, dice, { elapsed }) =>
  elapsed < millis && draws.length > 0 ? draw(draws)(world, dice) : Effect.undefined

/** One fault a round, in this order, spread over so many milliseconds. */
export const inTurn = (draws: ReadonlyArray<Draw>, millis: number): Rounds => (world, dice, { elapsed, number }) => {
  const next = draws[number]
  if (next === undefined) return Effect.undefined
  return Effect.delay(
    Effect.map(next(world, dice), (plan) => [plan]),
    Math.max(0, number / draws.length * millis - elapsed)
  )
}

/** From two to three faults at once are as likely as one alone. */
export const draw = (draws: ReadonlyArray<Draw>) => (world: World, dice: Dice): Effect.Effect<ReadonlyArray<Plan>> =>
  Effect.gen(function*() {
    const plans: Array<Plan> = []
    const count = dice.pick([1, 1, 2, 3])
    for (let i = 0; i < count; i++) {
      const plan = yield* dice.pick(draws)(world, dice)
      const taken = new Set(plans.flatMap(({ at }) => at))
      if (!plan.at.some((place) => taken.has(place))) plans.push(plan)
    }
    return plans
  })

// -----------------------------------------------------------------------------
// the members
// -----------------------------------------------------------------------------

const memberOf = ({ cluster }: World, dice: Dice): Effect.Effect<readonly [Member, string]> =>
  Effect.map(cluster.leader, (leader) => {
    const member = dice.percent(50) && leader !== undefined ? leader : dice.pick(cluster.members)
    return [member, `${member === leader ? "leader" : "follower"} ${member.index}`]
  })

const killMember: Draw = (world, dice) =>
  Effect.map(memberOf(world, dice), ([member, name]) => ({
    name: `${name} killed`,
    at: [`member ${member.index}`],
    millis: dice.between(200, 6000),
    inject: member.kill,
    mend: member.restart
  }))

const all = ({ members }: Cluster, act: (member: Member) => Effect.Effect<void>) =>
  Effect.forEach(members, act, { concurrency: "unbounded", discard: true })

const killAll: Draw = ({ cluster }, dice) =>
  Effect.succeed({
    name: "all members killed",
    at: cluster.members.map(({ index }) => `member ${index}`),
    millis: dice.between(200, 4000),
    inject: all(cluster, ({ kill }) => kill),
    mend: all(cluster, ({ restart }) => restart)
  })

const stopMember: Draw = (world, dice) =>
  Effect.map(memberOf(world, dice), ([member, name]) => ({
    name: `${name} stopped`,
    at: [`member ${member.index}`],
    millis: around(world.ttl, dice),
    inject: member.pause,
    mend: member.resume
  }))

/** It keeps its connections, and it no longer answers what takes the disk. */
const hangDisk: Draw = ({ cluster: { disk, leader, members }, ttl }, dice) =>
  Effect.map(leader, (leader) => ({
    name: `disk of the ${leader === members[0] ? "leader" : "follower"} hung`,
    at: ["member 0"],
    millis: around(ttl, dice),
    inject: disk!.freeze,
    mend: disk!.thaw
  }))

const partitionMember: Draw = (world, dice) =>
  Effect.map(memberOf(world, dice), ([member, name]) => {
    const { cluster } = world
    const others = cluster.members.filter((other) => other !== member)
    const each = (act: "blackHole" | "resume") =>
      Effect.forEach(others, (other) =>
        Effect.flatMap(cluster.between(member, other), (proxies) =>
          Effect.forEach(proxies, (proxy) => proxy[act])), { discard: true })
    return {
      name: `${name} cut off from the others`,
      at: ["links"],
      millis: around(world.ttl, dice),
      inject: each("blackHole"),
      mend: each("resume")
    }
  })

const moveLeader: Draw = ({ cluster }, dice) =>
  Effect.succeed({
    name: "leader moved",
    at: ["leader"],
    millis: 0,
    inject: Effect.ignore(Effect.gen(function*() {
      const leader = yield* cluster.leader
      if (leader === undefined) return
      const target = dice.pick(cluster.members.filter((member) => member !== leader))
      yield* cluster.ask(leader, "maintenance/transfer-leadership", { targetID: target.id })
    })),
    mend: Effect.void
  })

const compact: Draw = ({ cluster }) =>
  Effect.succeed({
    name: "compacted and defragmented",
    at: ["store"],
    millis: 0,
    inject: Effect.ignore(Operator.compact(cluster)),
    mend: Effect.void
  })

const noSpace: Draw = ({ cluster }, dice) => {
  const alarm = (action: string) =>
    Effect.ignore(
      cluster.askAny("maintenance/alarm", { action, memberID: cluster.members[0]!.id, alarm: "NOSPACE" })
    )
  return Effect.succeed({
    name: "no space",
    at: ["store"],
    millis: dice.between(500, 6000),
    inject: alarm("ACTIVATE"),
    mend: alarm("DEACTIVATE")
  })
}

// -----------------------------------------------------------------------------
// who is a member
// -----------------------------------------------------------------------------

/** While members come and go, no other fault takes one away: the majority would be gone with it. */
const everywhere = ({ cluster }: World): ReadonlyArray<string> => [
  "links",
  "leader",
  "store",
  ...cluster.members.map(({ index }) => `member ${index}`)
]

const replaceMember: Draw = (world, dice) =>
  Effect.map(memberOf(world, dice), ([member, name]) => ({
    name: `${name} replaced without its data`,
    at: everywhere(world),
    millis: dice.between(200, 4000),
    inject: world.cluster.remove(member),
    mend: world.cluster.add(member)
  }))

/**
 * A fourth one learns, votes, and leaves. While it learns, one of the others is killed: clients of that one may come upon the
 * learner, which serves none of them.
 */
const addLearner: Draw = (world, dice) =>
  Effect.map(memberOf(world, dice), ([member, name]) => {
    const { cluster, cluster: { spare } } = world
    const [alone, votes] = [dice.between(0, 2000), dice.between(0, 3000)]
    return {
      name: `learner added, promoted and removed, ${name} killed beside it`,
      at: everywhere(world),
      millis: dice.between(200, 6000),
      inject: Effect.andThen(cluster.addLearner(spare!), Effect.delay(member.kill, alone)),
      mend: Effect.all([
        member.restart,
        cluster.healthy,
        cluster.promote(spare!),
        Effect.sleep(votes),
        cluster.remove(spare!)
      ], { discard: true })
    }
  })

// -----------------------------------------------------------------------------
// the history of etcd
// -----------------------------------------------------------------------------

/**
 * All that was written since the backup is gone. The members are down for longer than the TTL, as operators are told, or for
 * less: a holder that etcd knows nothing of may then run on for a while. No other fault holds back what etcd has said before.
 */
const restore: Draw = (world, dice) => {
  const { cluster, cluster: { backup }, contenders, locks, ttl } = world
  const leaps = dice.percent(50) && backup!.canLeap
  const isSoon = dice.percent(50)
  const lost = dice.between(200, 5000)
  const down = isSoon ? dice.between(300, 700) : dice.between(ttl, 2 * ttl)
  return Effect.succeed({
    name: `restored from a backup, ${isSoon ? "sooner than leases end" : "when leases have ended"}${
      leaps ? ", with a leap" : ""
    }`,
    at: [
      ...everywhere(world),
      ...contenders.flatMap(({ name }) => [`process ${name}`, `network of ${name}`]),
      ...locks.map((lock) => `lock ${lock}`)
    ],
    millis: 0,
    inject: Effect.gen(function*() {
      yield* Effect.andThen(backup!.save, Effect.sleep(lost))
      yield* backup!.prepare(leaps)
      yield* all(cluster, ({ kill }) => kill)
      yield* Effect.sleep(down)
      return { restored: { at: now(), leaps, isSoon } }
    }),
    mend: backup!.adopt
  })
}

export interface Release {
  /** `3.6` */
  readonly version: string
  /** The path of its etcd. */
  readonly binary: string
}

/** One member after the other becomes the next release, and the whole cluster one before any becomes the one after that. */
export const rollingUpgrade = (releases: ReadonlyArray<Release>): ReadonlyArray<Draw> =>
  releases.flatMap(({ binary, version }) =>
    [0, 1, 2].map((index): Draw => ({ cluster }) =>
      Effect.gen(function*() {
        if (index === 0) yield* cluster.upgraded
        const member = cluster.members[index]!
        const role = member === (yield* cluster.leader) ? "leader" : "follower"
        return {
          name: `${role} ${index} upgraded to ${version}`,
          at: [`member ${index}`],
          millis: 0,
          inject: cluster.upgrade(member, binary),
          mend: cluster.healthy
        }
      })
    )
  )

// -----------------------------------------------------------------------------
// the contenders and their networks
// -----------------------------------------------------------------------------

/** Below the TTL, or beyond it. */
const around = (ttl: number, dice: Dice) => dice.percent(50) ? dice.between(200, ttl - 500) : dice.between(ttl, 2 * ttl)

const each = (
  { network }: Running,
  act: (proxy: Running["network"][number]) => Effect.Effect<void>
) => Effect.forEach(network, act, { discard: true })

const network =
  (what: string, act: (proxy: Running["network"][number]) => Effect.Effect<void>): Draw => (world, dice) => {
    const contender = dice.pick(world.contenders)
    return Effect.succeed({
      name: `${contender.name} ${what}`,
      at: [`network of ${contender.name}`],
      millis: around(world.ttl, dice),
      inject: each(contender, act),
      mend: each(
        contender,
        ({ accept, delay, delayReplies, resume }) =>
          Effect.all([delay(0), delayReplies(0), resume, accept], { discard: true })
      )
    })
  }

/** The answers to the last renewals come so late that it matters from when a lease is counted. */
const lateBlackHole: Draw = (world, dice) => {
  const millis = dice.between(300, 620)
  return Effect.map(network("in a black hole", ({ blackHole }) => blackHole)(world, dice), (plan) => ({
    ...plan,
    name: `${plan.name} after answers ${millis} ms late`,
    inject: Effect.andThen(
      Effect.andThen(
        Effect.forEach(networkOf(world, plan), ({ delayReplies }) => delayReplies(millis)),
        Effect.sleep(2000)
      ),
      plan.inject
    )
  }))
}

const networkOf = ({ contenders }: World, { at }: Plan) =>
  contenders.find(({ name }) => at.includes(`network of ${name}`))!.network

const networks: ReadonlyArray<Draw> = [
  network("in a black hole", ({ blackHole }) => blackHole),
  network("stalled", ({ stall }) => stall),
  network("without replies", ({ dropReplies }) => dropReplies),
  network("without requests", ({ dropRequests }) => dropRequests),
  network("without events", ({ dropEvents }) => dropEvents),
  network("half-open", ({ halfOpen }) => halfOpen),
  network("cut off", ({ cut, refuse }) => Effect.andThen(refuse, cut)),
  network("cut once", ({ cut }) => cut),
  (world, dice) => {
    const millis = dice.between(50, 900)
    return network(`slowed down by ${millis} ms`, ({ delay }) => delay(millis))(world, dice)
  },
  lateBlackHole,
  lateBlackHole
]

/** Nobody hears of it: what was sent is sent again and again, and arrives when packets pass again. */
const packets = (what: string, ...which: ReadonlyArray<Direction>): Draw => (world, dice) => {
  const { host, name } = dice.pick(world.contenders)
  return Effect.succeed({
    name: `${name} with ${what}`,
    at: [`network of ${name}`],
    millis: around(world.ttl, dice),
    inject: host!.drop(...which),
    mend: host!.pass
  })
}

const freeze: Draw = (world, dice) => {
  const contender = dice.pick(world.contenders)
  return Effect.succeed({
    name: `${contender.name} stopped`,
    at: [`process ${contender.name}`],
    millis: around(world.ttl, dice),
    inject: contender.signal("SIGSTOP"),
    mend: contender.signal("SIGCONT")
  })
}

const block: Draw = (world, dice) => {
  const contender = dice.pick(world.contenders)
  const millis = around(world.ttl, dice)
  return Effect.succeed({
    name: `${contender.name} blocked`,
    at: [`process ${contender.name}`],
    millis,
    inject: contender.tell(`block ${millis}`),
    mend: Effect.void
  })
}

// -----------------------------------------------------------------------------
// the lines
// -----------------------------------------------------------------------------

/** A line becomes so long that those who wait in it do so in another way, and as short as before. */
const crowd: Draw = (world, dice) => {
  const contender = dice.pick(world.contenders)
  const [lock, count] = [dice.pick(world.locks), dice.between(10, 30)]
  const length = Effect.map(Operator.line(world.cluster, lock), (line) => line.length)
  let before = Infinity
  return Effect.succeed({
    name: `${contender.name} with ${count} more for '${lock}'`,
    at: [`line of ${lock}`],
    millis: dice.between(1000, 6000),
    inject: Effect.gen(function*() {
      before = yield* Effect.orElseSucceed(length, () => before)
      yield* contender.tell(`crowd ${count} ${lock}`)
    }),
    mend: length.pipe(
      Effect.filterOrFail((length) => length <= before),
      Effect.retry(Schedule.spaced("500 millis")),
      Effect.timeoutOption("30 seconds"),
      Effect.ignore
    )
  })
}

// -----------------------------------------------------------------------------
// the operator
// -----------------------------------------------------------------------------

type Choose = (entries: ReadonlyArray<Operator.Entry>, dice: Dice) => ReadonlyArray<Operator.Entry>

const take = (
  what: string,
  choose: Choose,
  act: (world: World, entries: ReadonlyArray<Operator.Entry>) => Effect.Effect<ReadonlyArray<Taken>, unknown>
): Draw =>
(world, dice) => {
  const lock = dice.pick(world.locks)
  return Effect.succeed({
    name: `${what} of '${lock}'`,
    at: [`lock ${lock}`],
    millis: 0,
    inject: Operator.line(world.cluster, lock).pipe(
      Effect.flatMap((entries) => act(world, choose(entries, dice))),
      Effect.orElseSucceed(() => []),
      Effect.map((taken) => ({ taken }))
    ),
    mend: Effect.void
  })
}

/** Whether or not etcd says that it has deleted them. */
const deleted = (world: World, entries: ReadonlyArray<Operator.Entry>) => Operator.remove(world.cluster, entries)

const revoked = (world: World, entries: ReadonlyArray<Operator.Entry>) =>
  Effect.map(
    Effect.forEach(entries, ({ lease, pid }) =>
      Effect.map(Operator.revoke(world.cluster, lease), (revision) =>
        // Every lock that hangs on it is taken.
        world.locks.map((lock): Taken => ({ lock, lease, pid, revision })))),
    (taken) => taken.flat()
  )

const first: Choose = (entries) => entries.slice(0, 1)
const oneThatWaits: Choose = (entries, dice) => entries.length < 2 ? [] : [dice.pick(entries.slice(1))]

const operators: ReadonlyArray<Draw> = [
  take("key of the holder", first, deleted),
  take("key of a waiter", oneThatWaits, deleted),
  take("whole line", (entries) => entries, deleted),
  take("lease of the holder", first, revoked),
  take("lease of a waiter", oneThatWaits, revoked)
]

export const groups = {
  members: [
    killMember,
    killMember,
    killAll,
    stopMember,
    stopMember,
    partitionMember,
    partitionMember,
    moveLeader
  ],
  disks: [hangDisk],
  membership: [replaceMember, addLearner],
  restores: [restore],
  networks,
  packets: [
    packets("all packets dropped", "INPUT", "OUTPUT"),
    packets("packets to it dropped", "INPUT"),
    packets("packets from it dropped", "OUTPUT")
  ],
  processes: [freeze, freeze, block],
  lines: [crowd],
  operators,
  store: [compact, noSpace]
} satisfies Record<string, ReadonlyArray<Draw>>

export type Group = keyof typeof groups

/** What each group takes that not every machine has. */
const needs: { readonly [G in Group]?: (world: World) => string | false } = {
  restores: ({ cluster }) => cluster.backup === undefined && "there is no etcdctl beside this etcd",
  disks: ({ cluster }) => cluster.disk === undefined && "only root can freeze a file system, on a loop device",
  packets: ({ contenders }) =>
    contenders.some(({ host }) => host === undefined) && "network namespaces take root, ip and iptables"
}

/** Rounds of faults at random, of those groups that this machine can do; it says which ones it cannot. */
export const ofGroups = (some: ReadonlyArray<Group>, millis: number): Rounds => (world, dice, round) =>
  Effect.gen(function*() {
    const possible: Array<Group> = []
    for (const group of some) {
      const why = needs[group]?.(world)
      if (why === undefined || why === false) possible.push(group)
      else if (round.number === 0) yield* Console.log(`Left out: ${group}, since ${why}`)
    }
    return yield* atRandom(possible.flatMap((group): ReadonlyArray<Draw> => groups[group]), millis)(world, dice, round)
  })

/**
 * Without a leader that stands still: before 3.4.31 and 3.5.13, etcd lets it revoke leases that live when it wakes up, and
 * no lock can do anything about that.
 */
export const forEveryEtcd: ReadonlyArray<Draw> = [
  killMember,
  moveLeader,
  ...networks,
  ...groups.processes,
  ...operators,
  ...groups.store
]
