import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Cluster, Member } from "./cluster.ts"
import {
  atRandom,
  type Draw,
  draw,
  groups,
  inTurn,
  ofGroups,
  rollingUpgrade,
  type Rounds,
  type World
} from "./nemesis.ts"
import { now } from "./now.ts"
import { dice } from "./random.ts"

const world = {} as World

const at = (...places: ReadonlyArray<string>): Draw => (_, dice) =>
  Effect.succeed({
    name: places.join(),
    at: places,
    millis: dice.between(0, 1000),
    inject: Effect.void,
    mend: Effect.void
  })

const draws = [at("a"), at("a", "b"), at("b", "c"), at("d")]

const rounds = (seed: number) =>
  Effect.map(
    Effect.forEach(Array.from({ length: 100 }, () => dice), (_, i) => draw(draws)(world, dice(seed + i))),
    (rounds) => rounds.map((plans) => plans.map(({ at, millis, name }) => ({ at, millis, name })))
  )

describe("the nemesis", () => {
  it.effect("has several faults at once, and no two at the same place", () =>
    Effect.gen(function*() {
      const drawn = yield* rounds(1)
      for (const plans of drawn) {
        const places = plans.flatMap(({ at }) => at)
        assert.strictEqual(new Set(places).size, places.length)
      }
      assert.deepStrictEqual([...new Set(drawn.map(({ length }) => length))].sort(), [1, 2, 3])
    }))

  it.effect("does the same again for the same seed, and else for another", () =>
    Effect.gen(function*() {
      const first = yield* rounds(1)
      assert.deepStrictEqual(yield* rounds(1), first)
      assert.notDeepEqual(yield* rounds(1001), first)
    }))
})

/** A world whose cluster notes what is done to it. */
const noting = () => {
  const notes: Array<string> = []
  const note = (what: string) => Effect.sync(() => void notes.push(what))
  const member = (index: number) =>
    ({ index, kill: note(`kill ${index}`), restart: note(`restart ${index}`) }) as unknown as Member
  const members = [0, 1, 2].map(member)
  const cluster = {
    members,
    spare: member(3),
    leader: Effect.succeed(members[1]),
    askAny: () => Effect.void,
    healthy: note("healthy"),
    upgraded: note("upgraded"),
    disk: { freeze: note("freeze"), thaw: note("thaw") },
    backup: {
      canLeap: true,
      save: note("save"),
      prepare: (leaps: boolean) => note(`prepare${leaps ? " a leap" : ""}`),
      adopt: note("adopt")
    },
    remove: ({ index }: Member) => note(`remove ${index}`),
    add: ({ index }: Member) => note(`add ${index}`),
    addLearner: ({ index }: Member) => note(`add learner ${index}`),
    promote: ({ index }: Member) => note(`promote ${index}`),
    upgrade: ({ index }: Member, binary: string) => note(`upgrade ${index} to ${binary}`)
  } as unknown as Cluster
  return { notes, world: { cluster, contenders: [], locks: [], ttl: 4000 } as World }
}

/** Takes the pauses away. */
const atOnce = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust("1 minute")
    return yield* Fiber.join(fiber)
  })

describe("members that come and go", () => {
  const [replaceMember, addLearner] = groups.membership

  it.effect("leave no other fault a member, a link or the store to work at", () =>
    Effect.gen(function*() {
      const { world } = noting()
      for (const fault of groups.membership) {
        const { at } = yield* fault(world, dice(1))
        for (const other of [...groups.members, ...groups.membership, ...groups.store]) {
          const others = yield* other(world, dice(2))
          assert.isNotEmpty(others.at.filter((place) => at.includes(place)), others.name)
        }
      }
    }))

  it.effect("go before their successor comes", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      const { inject, mend, name } = yield* replaceMember!(world, dice(1))
      const index = /\d/.exec(name)![0]
      yield* Effect.andThen(inject, mend)
      assert.deepStrictEqual(notes, [`remove ${index}`, `add ${index}`])
    }))

  it.effect("learn while another one is dead, vote when all are well, and leave as many voters as there were", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      const { inject, mend, name } = yield* addLearner!(world, dice(1))
      const index = /\d/.exec(name)![0]
      yield* atOnce(Effect.andThen(inject, mend))
      assert.deepStrictEqual(notes, [
        "add learner 3",
        `kill ${index}`,
        `restart ${index}`,
        "healthy",
        "promote 3",
        "remove 3"
      ])
    }))
})

describe("a restore", () => {
  const [restore] = groups.restores

  it.effect("takes all members away between the backup and the restore, and says when, and how", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 8; seed++) {
        const { notes, world } = noting()
        const { inject, mend, name } = yield* restore!(world, dice(seed))
        const before = now()
        const done = yield* atOnce(Effect.tap(inject, () => mend))
        const { at, isSoon, leaps } = done!.restored!
        assert.isAbove(at, before)
        assert.strictEqual(leaps, name.endsWith("with a leap"))
        assert.strictEqual(isSoon, name.includes("sooner"))
        assert.deepStrictEqual(notes, [
          "save",
          leaps ? "prepare a leap" : "prepare",
          "kill 0",
          "kill 1",
          "kill 2",
          "adopt"
        ])
      }
    }))

  it.effect("is down for longer than the TTL, or for so short that leases live on", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 8; seed++) {
        const { notes, world } = noting()
        const { inject, name } = yield* restore!(world, dice(seed))
        const fiber = yield* Effect.forkChild(inject)
        while (!notes.includes("kill 2")) yield* TestClock.adjust(100)
        yield* TestClock.adjust(world.ttl / 4)
        assert.strictEqual(fiber.pollUnsafe() !== undefined, name.includes("sooner"))
      }
    }))

  it.effect("is at work alone", () =>
    Effect.gen(function*() {
      const { world } = noting()
      const contender = { name: "ours-0" } as any
      const { at } = yield* restore!({ ...world, contenders: [contender], locks: ["a"] }, dice(1))
      for (const place of ["links", "leader", "store", "member 2", "process ours-0", "network of ours-0", "lock a"]) {
        assert.include(at, place)
      }
    }))
})

describe("a disk that hangs", () => {
  it.effect("thaws again, and keeps every other fault from its member", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      const { at, inject, mend } = yield* groups.disks[0]!(world, dice(1))
      yield* Effect.andThen(inject, mend)
      assert.deepStrictEqual(notes, ["freeze", "thaw"])
      for (const other of [...groups.membership, ...groups.restores]) {
        const others = yield* other(world, dice(2))
        assert.includeMembers(others.at as Array<string>, at as Array<string>)
      }
    }))
})

describe("packets", () => {
  it.effect("are dropped in one direction or in both, and pass again", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      const note = (what: string) => Effect.sync(() => notes.push(what))
      const host = { drop: (...which: ReadonlyArray<string>) => note(`drop ${which}`), pass: note("pass") }
      for (const fault of groups.packets) {
        const { at, inject, mend } = yield* fault({ ...world, contenders: [{ name: "ours-0", host } as any] }, dice(1))
        assert.deepStrictEqual(at, ["network of ours-0"])
        yield* Effect.andThen(inject, mend)
      }
      assert.deepStrictEqual(notes, ["drop INPUT,OUTPUT", "pass", "drop INPUT", "pass", "drop OUTPUT", "pass"])
    }))
})

describe("a crowd", () => {
  it.effect("waits for one of the locks in one of the processes, and is over when the line is as long as before", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      let length = 1
      const kv = { key: btoa("a/1-1"), create_revision: "1" }
      const cluster = {
        ...world.cluster,
        askAny: (_: string, { key }: { readonly key: string }) =>
          Effect.sync(() => ({ kvs: key === btoa("a/") ? Array.from({ length }, () => kv) : [] }))
      } as Cluster
      const contender = { name: "ours-1", tell: (line: string) => Effect.sync(() => notes.push(line)) } as any
      const { inject, mend } = yield* groups.lines[0]!(
        { ...world, cluster, contenders: [contender], locks: ["a"] },
        dice(1)
      )
      yield* inject
      assert.match(notes.join(), /^crowd [1-3]\d a$/)
      length = 20
      const mending = yield* Effect.forkChild(mend)
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(mending.pollUnsafe())
      length = 1
      yield* TestClock.adjust("1 second")
      assert.isDefined(mending.pollUnsafe())
    }))
})

describe("a rolling upgrade", () => {
  it.effect("upgrades one member a round, and goes on to the next release when the cluster speaks the last one", () =>
    Effect.gen(function*() {
      const { notes, world } = noting()
      const draws = rollingUpgrade([{ version: "3.6", binary: "six" }, { version: "3.7", binary: "seven" }])
      const names = yield* Effect.forEach(draws, (draw) =>
        Effect.gen(function*() {
          const { inject, mend, name } = yield* draw(world, dice(1))
          yield* Effect.andThen(inject, mend)
          return name
        }))
      assert.deepStrictEqual(names.slice(0, 3), [
        "follower 0 upgraded to 3.6",
        "leader 1 upgraded to 3.6",
        "follower 2 upgraded to 3.6"
      ])
      const release = (binary: string) => [
        "upgraded",
        ...[0, 1, 2].flatMap((index) => [`upgrade ${index} to ${binary}`, "healthy"])
      ]
      assert.deepStrictEqual(notes, [...release("six"), ...release("seven")])
    }))
})

describe("the rounds", () => {
  it.effect("leave out what this machine cannot do", () =>
    Effect.gen(function*() {
      const { world } = noting()
      const without = {
        ...world,
        cluster: { ...world.cluster, backup: undefined, disk: undefined },
        contenders: [{ name: "ours-0", host: undefined } as any]
      }
      const all = { ...world, contenders: [{ name: "ours-0", host: { drop: () => Effect.void } } as any] }
      for (const group of ["restores", "disks", "packets"] as const) {
        const rounds = ofGroups([group], 1000)
        assert.isUndefined(yield* rounds(without, dice(1), { number: 1, elapsed: 0 }))
        assert.isNotEmpty(yield* rounds(all, dice(1), { number: 1, elapsed: 0 }))
      }
    }))

  const next = (rounds: Rounds, number: number, elapsed: number) =>
    Effect.map(rounds(world, dice(1), { number, elapsed }), (plans) => plans?.map(({ name }) => name))

  it.effect("at random end when their time is over", () =>
    Effect.gen(function*() {
      const rounds = atRandom([at("a")], 1000)
      assert.deepStrictEqual(yield* next(rounds, 7, 999), ["a"])
      assert.isUndefined(yield* next(rounds, 7, 1000))
    }))

  it.effect("in turn are spread over their time, and end after the last", () =>
    Effect.gen(function*() {
      const rounds = inTurn([at("a"), at("b")], 1000)
      assert.deepStrictEqual(yield* next(rounds, 0, 0), ["a"])
      const second = yield* Effect.forkChild(next(rounds, 1, 100))
      yield* TestClock.adjust(399)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(second), ["b"])
      assert.deepStrictEqual(yield* next(rounds, 1, 900), ["b"])
      assert.isUndefined(yield* next(rounds, 2, 900))
    }))
})

describe("the dice", () => {
  it("fall between both ends, and on either", () => {
    const { between } = dice(7)
    const fallen = Array.from({ length: 1000 }, () => between(2, 5))
    assert.deepStrictEqual([...new Set(fallen)].sort(), [2, 3, 4, 5])
  })

  it("are true as often as they are to be", () => {
    const { percent } = dice(7)
    const times = Array.from({ length: 10_000 }, () => percent(15)).filter(Boolean).length
    assert.approximately(times, 1500, 150)
  })
})
