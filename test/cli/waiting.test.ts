/** What a command that waits for its lock costs. On an etcd in memory. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Option, Queue } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { Command } from "effect/cli"
import * as Holding from "../../src/cli/holding.ts"
import { root } from "../../src/cli/root.ts"
import { type Signal, Signals } from "../../src/cli/signals.ts"
import { fork, provideMemory, seconds } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"
import { noted } from "../support/noted.ts"

const options = {
  ...Holding.noCommand,
  name: "job",
  ttl: Duration.seconds(15),
  conflictExitCode: 75,
  lostExitCode: 76
}

const waits = root.pipe(Command.withSubcommands([
  Command.make(
    "wait",
    {},
    () => Holding.hold(options, Option.none(), (body) => Lock.withLock(body, options.name))
  )
]))

describe("a command that waits", () => {
  it.effect("costs as many requests in a line of thirty as in one of three hundred", () =>
    provideMemory(Effect.gen(function*() {
      const [etcd, faults] = [yield* Etcd.Etcd, yield* Etcd.Faults]
      const costs: Array<number> = []
      for (const length of [30, 300]) {
        const entries = Array.from({ length }, (_, i) => `job/${(i + 1).toString(16)}-1`)
        for (const [i, key] of entries.entries()) {
          yield* Effect.ignore(etcd.leaseGrant(BigInt(i + 1), 1_000_000))
          yield* etcd.txn({ then: [Etcd.put(key, "{}", { lease: BigInt(i + 1) })] })
        }
        const requests: Array<string> = []
        const { logged, logger } = logs()
        const signals = yield* Queue.unbounded<Signal>()
        const command = yield* fork(
          Command.runWith(waits, { version: "" })(["wait"]).pipe(
            Effect.provideService(Etcd.Etcd, noted(etcd, requests)),
            Effect.provideService(Signals, signals),
            Effect.provide(Layer.merge(logger, NodeServices.layer))
          )
        )
        yield* seconds(10)
        assert.include(logged.join(), "Waits for 'job', held by ")
        costs.push(requests.length)
        Queue.offerUnsafe(signals, "SIGTERM")
        yield* seconds(5)
        assert.isDefined(command.pollUnsafe())
        yield* faults.deletePrefix("job/")
      }
      assert.strictEqual(costs[1], costs[0])
    })))
})
