/** What the storage promises, as Effect Cluster's own runners make use of it: nothing runs twice, and all runs again soon. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { dice } from "../fault/random.ts"
import { pass, provideMemory } from "../support/inMemory.ts"
import * as Virtual from "./virtual.ts"

/** By then the next one runs, by the clock of all. */
const bound = Duration.toMillis(Virtual.config.shardLockExpiration) +
  Duration.toMillis(Virtual.config.refreshAssignmentsInterval) + 1000

/** Moments in all parts of the intervals that there are. */
const moments = Array.from({ length: 8 }, (_, i) => i * 137)

const three = Effect.gen(function*() {
  const cluster = yield* Virtual.make
  const runners = yield* Effect.forEach([1, 2, 3], cluster.start)
  yield* cluster.settled([1, 2, 3])
  return { ...cluster, runner: runners[1]! }
})

type Three = Effect.Success<typeof three>

/** The leases that the keys of a runner are on. */
const leasesOf = (runner: Virtual.RunnerOf, kind: "shards" | "runners") =>
  Effect.gen(function*() {
    const address = `10.0.0.7:${runner.port}`
    const all = yield* (yield* Etcd.Faults).keys
    const own = all.filter(({ key, value }) => {
      const text = Buffer.from(key).toString()
      return text.includes(`/${kind}/`) && (text.endsWith(`/${address}`) || Buffer.from(value).toString() === address)
    })
    assert.isNotEmpty(own)
    return { keys: own.map(({ key }) => key), lease: own[0]!.lease }
  })

/** At each of the moments, on a cluster of its own. */
const atEachMoment = (name: string, what: (cluster: Three) => Effect.Effect<void, never, Etcd.Etcd | Etcd.Faults>) =>
  it.effect(name, () =>
    Effect.forEach(moments, (moment) =>
      Effect.gen(function*() {
        const cluster = yield* three
        yield* pass(moment)
        yield* what(cluster)
        assert.deepStrictEqual(cluster.faults, [], `${moment} ms later`)
      }).pipe(Effect.scoped, provideMemory), { discard: true }))

describe("three runners of a cluster run each singleton once, and soon again, when one of them", () => {
  atEachMoment("ends in order", ({ longestGap, runner, settled }) =>
    Effect.gen(function*() {
      yield* runner.stop
      yield* settled([1, 3])
      assert.isAtMost(longestGap(), 2500)
    }))

  atEachMoment("is killed", ({ longestGap, runner, settled }) =>
    Effect.gen(function*() {
      yield* runner.kill
      assert.isAtMost(yield* settled([1, 3]), bound)
      assert.isAtMost(longestGap(), bound)
    }))

  atEachMoment(
    "is cut off from etcd, in which case it stops before another one starts, and rejoins",
    (cluster) =>
      Effect.gen(function*() {
        const { of, runner, settled, until } = cluster
        yield* runner.isolate
        const stopped = yield* until("the end of what the runner runs", () => of(runner.port).length === 0, 3000)
        assert.isAtMost(stopped + (yield* settled([1, 3])), bound)
        yield* pass("10 seconds")
        yield* runner.reconnect
        yield* settled([1, 2, 3])
      })
  )

  atEachMoment("is cut off for a moment", (cluster) =>
    Effect.gen(function*() {
      yield* cluster.runner.isolate
      yield* pass("1500 millis")
      yield* cluster.runner.reconnect
      assert.isAtMost(yield* cluster.settled([1, 2, 3]), bound)
    }))

  atEachMoment("loses the lease of its shards", ({ longestGap, of, runner, settled, until }) =>
    Effect.gen(function*() {
      const { revokeLease } = yield* Etcd.Faults
      yield* revokeLease((yield* leasesOf(runner, "shards")).lease)
      yield* until("the end of what the runner runs", () => of(runner.port).length === 0, 2000)
      yield* settled([1, 2, 3])
      assert.isAtMost(longestGap(), 2500)
    }))

  atEachMoment(
    "loses the lease of its registration, of which nothing is felt",
    ({ longestGap, of, runner, settled }) =>
      Effect.gen(function*() {
        const { revokeLease } = yield* Etcd.Faults
        const before = of(runner.port)
        yield* revokeLease((yield* leasesOf(runner, "runners")).lease)
        yield* pass(bound)
        assert.deepStrictEqual(of(runner.port), before)
        yield* settled([1, 2, 3])
        assert.strictEqual(longestGap(), 0)
        yield* leasesOf(runner, "runners")
      })
  )

  atEachMoment("loses the keys of some shards", ({ runner, settled }) =>
    Effect.gen(function*() {
      const { deleteKey } = yield* Etcd.Faults
      const { keys } = yield* leasesOf(runner, "shards")
      for (const key of keys.slice(0, 3)) yield* deleteKey(key)
      yield* pass(bound)
      yield* settled([1, 2, 3])
      assert.lengthOf((yield* leasesOf(runner, "shards")).keys, keys.length)
    }))

  atEachMoment("joins", ({ longestGap, settled, start }) =>
    Effect.gen(function*() {
      yield* start(4)
      yield* settled([1, 2, 3, 4])
      assert.isAtMost(longestGap(), 2500)
    }))
})

describe("three runners of a cluster", () => {
  for (const seconds of [2, 20]) {
    atEachMoment(
      `stop what they run when etcd cannot be reached for ${seconds} s, and then go on`,
      (cluster) =>
        Effect.gen(function*() {
          const { reachable, unreachable } = yield* Etcd.Faults
          yield* unreachable
          yield* cluster.until("the end of all", () => cluster.running.size === 0, 3000)
          yield* pass(seconds * 1000)
          yield* reachable
          yield* cluster.settled([1, 2, 3])
        })
    )
  }

  it.effect(
    "run nothing twice, whatever happens to them for a minute, and all of it when that is over",
    () =>
      Effect.forEach(Array.from({ length: 6 }, (_, seed) => seed + 1), (seed) =>
        Effect.gen(function*() {
          const cluster = yield* Virtual.make
          const { heal, reachable, unreachable } = yield* Etcd.Faults
          const { between, pick } = dice(seed)
          const isolated = new Set<Virtual.RunnerOf>()
          let runners = yield* Effect.forEach([1, 2, 3], cluster.start)
          let port = 3
          const replace = (how: "stop" | "kill") =>
            Effect.gen(function*() {
              const runner = pick(runners)
              runners = runners.filter((other) => other !== runner)
              yield* Effect.forkChild(runner[how])
              runners.push(yield* cluster.start(++port))
            })
          const events = [
            Effect.suspend(() => {
              const runner = pick(runners)
              isolated.add(runner)
              return runner.isolate
            }),
            Effect.suspend(() => Effect.forEach(isolated, ({ reconnect }) => reconnect)),
            replace("stop"),
            replace("kill"),
            unreachable,
            reachable
          ]
          yield* cluster.settled([1, 2, 3])
          for (let i = 0; i < 30; i++) {
            yield* pick<Effect.Effect<unknown>>(events)
            yield* pass(between(0, 4000))
            assert.deepStrictEqual(cluster.faults, [], `seed ${seed}`)
          }
          yield* heal
          for (const { reconnect } of runners) yield* reconnect
          yield* cluster.settled(runners.map(({ port }) => port))
          assert.deepStrictEqual(cluster.faults, [], `seed ${seed}`)
        }).pipe(Effect.scoped, provideMemory), { discard: true }),
    60_000
  )
})
