/** Effect Cluster's own runners in one process, on an etcd in memory and on the test's clock. */
import { Clock, Duration, Effect, Exit, Layer, Option, References, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as RunnerHealth from "effect/cluster/RunnerHealth"
import * as Runners from "effect/cluster/Runners"
import * as Sharding from "effect/cluster/Sharding"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Singleton from "effect/cluster/Singleton"
import { pass } from "../support/inMemory.ts"

export const config = {
  shardLockExpiration: "6 seconds",
  shardLockRefreshInterval: "1 second",
  refreshAssignmentsInterval: "500 millis",
  entityMessagePollInterval: "1 second",
  shardsPerGroup: 20
} as const

const names = Array.from({ length: 8 }, (_, i) => `singleton-${i}`)

export interface Virtual {
  /** Starts a runner, which has its port for a name. */
  readonly start: (port: number) => Effect.Effect<RunnerOf>
  /** Which runner runs each of the singletons now. */
  readonly running: ReadonlyMap<string, number>
  /** What happened that must not, by the one clock that all runners have. */
  readonly faults: Array<string>
  /** For how many milliseconds no runner has run some of the singletons. */
  readonly longestGap: () => number
  /** Lets time pass until it holds, and returns the milliseconds that passed. */
  readonly until: (what: string, holds: () => boolean, atMost: number) => Effect.Effect<number>
  /** Lets time pass until every singleton runs, on all of the runners together. */
  readonly settled: (ports: ReadonlyArray<number>) => Effect.Effect<number>
  /** The singletons that a runner runs. */
  readonly of: (port: number) => ReadonlyArray<string>
}

export interface RunnerOf {
  readonly port: number
  /** Nothing that it sends arrives, and it hears nothing. */
  readonly isolate: Effect.Effect<void>
  readonly reconnect: Effect.Effect<void>
  /** Ends it in order. */
  readonly stop: Effect.Effect<void>
  /** Ends it without another request. */
  readonly kill: Effect.Effect<void>
}

/**
 * A clock on which whole milliseconds pass, as on a real one. Retries wait for random fractions of them, and a fixed schedule
 * that lacks the tiniest part of its interval would run again and again without that any time passes.
 */
const inWholeMillis = (clock: Clock.Clock): Clock.Clock => ({
  ...clock,
  sleep: (duration) => clock.sleep(Duration.millis(Math.ceil(Duration.toMillis(duration))))
})

export const make = Effect.gen(function*() {
  const { connect } = yield* Etcd.Faults
  const clock = yield* Clock.Clock
  const all = yield* Effect.scope
  const running = new Map<string, number>()
  const faults: Array<string> = []
  const stoppedAt = new Map<string, number>()
  let longest = 0
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const start: Virtual["start"] = Effect.fnUntraced(function*(port) {
    const connection = yield* connect
    const scope = yield* Scope.fork(all)
    let isDead = false

    const stopped = (name: string) => {
      if (isDead) return
      running.delete(name)
      stoppedAt.set(name, now())
    }
    const body = (name: string) =>
      Effect.suspend(() => {
        const other = running.get(name)
        if (other !== undefined) faults.push(`${name} started on ${port} at ${now()} while it ran on ${other}`)
        running.set(name, port)
        const since = stoppedAt.get(name)
        if (since !== undefined) longest = Math.max(longest, now() - since)
        return Effect.never
      }).pipe(Effect.ensuring(Effect.sync(() => stopped(name))))

    const runner = Layer.mergeAll(
      Layer.empty,
      ...names.map((name) => Singleton.make(name, body(name)))
    ).pipe(
      Layer.provide(Sharding.layer),
      Layer.provide([Runners.layerNoop, RunnerHealth.layerNoop]),
      Layer.provide([MessageStorage.layerNoop, EtcdRunnerStorage.layer()]),
      Layer.provide([
        ShardingConfig.layer({ ...config, runnerAddress: Option.some(RunnerAddress.make("10.0.0.7", port)) }),
        Layer.succeed(Etcd.Etcd, connection.etcd)
      ])
    )
    yield* Layer.buildWithMemoMap(runner, Layer.makeMemoMapUnsafe(), scope).pipe(
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provideService(Clock.Clock, inWholeMillis(clock))
    )
    return {
      port,
      isolate: connection.faults.stall,
      reconnect: connection.faults.resume,
      stop: Scope.close(scope, Exit.void),
      kill: Effect.gen(function*() {
        yield* connection.faults.stall
        for (const name of of(port)) stopped(name)
        isDead = true
        yield* Effect.forkIn(Scope.close(scope, Exit.void), all)
        // Its end would wait for a clock that no longer moves.
        yield* Scope.addFinalizer(all, connection.faults.heal)
      })
    }
  })

  const of = (port: number) => [...running].filter(([, other]) => other === port).map(([name]) => name)

  const until: Virtual["until"] = Effect.fnUntraced(function*(what, holds, atMost) {
    const began = now()
    while (!holds()) {
      if (now() - began > atMost) return yield* Effect.die(new Error(`waited ${atMost} ms for ${what}`))
      yield* pass("50 millis")
    }
    return now() - began
  })

  const settled: Virtual["settled"] = (ports) =>
    until(
      `all singletons on ${ports.join(", ")}, which are on ${[...running].map(String).join(" ")}`,
      () =>
        running.size === names.length && [...running.values()].every((port) => ports.includes(port)) &&
        ports.every((port) => of(port).length > 0),
      30_000
    )

  return { start, running, faults, longestGap: () => longest, until, settled, of } satisfies Virtual
})
