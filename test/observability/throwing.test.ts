/** What a program's logger, tracer or metrics throw ends no renewal, no section and no candidate. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, Metric, References, Tracer } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { failureOf } from "../support/exits.ts"
import { fork, pass, provideMemory, session } from "../support/inMemory.ts"

const fail = (): never => {
  throw new Error("EAGAIN: resource temporarily unavailable, write")
}

const throwingLogger = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  self.pipe(
    Effect.provide(Logger.layer([Logger.make(fail)])),
    Effect.provideService(References.MinimumLogLevel, "Debug")
  )

class ThrowingSpan extends Tracer.NativeSpan {
  override end = fail
  override event = fail
  override attribute = fail
  override addLinks = fail
}

class ThrowingRegistry extends Map {
  override get = fail
  override set = fail
}

type Provide = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const observers: Record<string, Provide> = {
  "a logger": throwingLogger,
  "a tracer": (self) => Effect.withTracer(self, Tracer.make({ span: fail })),
  "a span": (self) => Effect.withTracer(self, Tracer.make({ span: (options) => new ThrowingSpan(options) })),
  "a registry of metrics": (self) =>
    Effect.provideService(self, Metric.MetricRegistry, new ThrowingRegistry() as Metric.MetricRegistry)
}

for (const [name, provide] of Object.entries(observers)) {
  describe(`${name} that throws`, () => {
    it.effect("ends no section, neither one that waits nor one whose renewals fail for a while", () =>
      provideMemory(provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const [a, b] = yield* Effect.all([session({ ttl: "9 seconds" }), session({ ttl: "9 seconds" })])
        const first = yield* fork(a.run(Lock.withLock(Effect.sleep("12 seconds"), "job")))
        const second = yield* fork(b.run(Lock.withLock(Effect.succeed("ran"), "job")))
        yield* Effect.repeat(pass(500), { times: 2 })
        yield* faults.unreachable
        yield* Effect.repeat(pass(500), { times: 10 })
        yield* faults.reachable
        yield* Effect.repeat(pass(500), { times: 20 })
        assert.deepStrictEqual(first.pollUnsafe(), Exit.void)
        assert.deepStrictEqual(second.pollUnsafe(), Exit.succeed("ran"))
      }))))

    it.effect("hides no loss, and no lock is left behind", () =>
      provideMemory(provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        for (const lose of [faults.revokeLease, () => faults.deletePrefix("job")]) {
          const fiber = yield* fork(run(Lock.withLock(Effect.never, "job")))
          yield* Effect.repeat(pass(500), { times: 2 })
          for (const lease of yield* faults.leases) yield* lose(lease)
          yield* Effect.repeat(pass(500), { times: 8 })
          assert.include(failureOf(fiber.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost" })
        }
        assert.deepStrictEqual(yield* faults.keys, [])
        const fiber = yield* fork(run(Lock.withLock(Effect.succeed("ran"), "job")))
        yield* pass(500)
        assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("ran"))
      }))))

    it.effect("lets a candidate stand again", () =>
      provideMemory(provide(Effect.gen(function*() {
        const faults = yield* Etcd.Faults
        const { run } = yield* session()
        let terms = 0
        yield* fork(run(Election.whileLeader(Effect.andThen(Effect.sync(() => terms++), Effect.never), "job")))
        for (let i = 0; i < 2; i++) {
          yield* Effect.repeat(pass(500), { times: 4 })
          yield* faults.deletePrefix("job")
          yield* Effect.repeat(pass(500), { times: 4 })
        }
        assert.isAtLeast(terms, 2)
      }))))
  })
}
