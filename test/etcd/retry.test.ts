import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber } from "effect"
import { Etcd } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as Service from "../../src/internal/etcd/service.ts"

describe("retries", () => {
  const refused = new Etcd.EtcdError({ reason: "Unavailable", method: "txn", outcome: "Refused", description: "down" })
  const lost = new Etcd.EtcdError({ reason: "Unavailable", method: "txn", outcome: "Unknown", description: "cut" })
  const full = new Etcd.EtcdError({ reason: "NoSpace", method: "txn", outcome: "Refused", description: "full" })

  type Answer = Etcd.EtcdError | "yes" | undefined

  /** Answers a transaction with these, one after the other; the last for ever. None is no answer. */
  const answering = (...answers: ReadonlyArray<Answer>) =>
    answeringAt((_, n) => answers[Math.min(n, answers.length) - 1])

  const answeringAt = (answerAt: (at: number, n: number) => Answer) => {
    const attempts: Array<{ readonly at: number; readonly timeout: number }> = []
    const none = () => Effect.die(new Error("transactions only"))
    const etcd = Service.make({
      range: none,
      leaseGrant: none,
      leaseRevoke: none,
      leaseKeepAlive: none,
      leaseTimeToLive: none,
      watch: none,
      txn: (_, timeout) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) => {
          attempts.push({ at, timeout })
          const answer = answerAt(at, attempts.length)
          if (answer === "yes") {
            const header = { revision: 7n, clusterId: 1n, term: 1n }
            return Effect.succeed({ succeeded: true, responses: [{ _tag: "Put" }], ...header })
          }
          return answer === undefined
            ? Effect.delay(
              Effect.fail(
                new Etcd.EtcdError({ reason: "Timeout", method: "txn", outcome: "Unknown", description: "" })
              ),
              timeout
            )
            : Effect.fail(answer)
        })
    }, 5000)
    const run = Effect.fnUntraced(function*(options: { readonly idempotent: boolean }) {
      const running = yield* etcd.txn({ then: [Etcd.put("a", "")], ...options }).pipe(
        Effect.exit,
        Effect.flatMap((exit) => Effect.map(Clock.currentTimeMillis, (at) => ({ exit, at }))),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("1 minute")
      const { at, exit } = yield* Fiber.join(running)
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) as Etcd.EtcdError : undefined
      return { at, error, told: error && `${error.reason} ${error.outcome}` }
    })
    return { run, attempts }
  }

  it.effect("leave room for several attempts, and end with the request timeout", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering()
      const { at, told } = yield* run({ idempotent: true })
      assert.strictEqual(told, "Timeout Unknown")
      assert.isAtMost(at, 5000.001)
      assert.isAtLeast(at, 4700)
      assert.strictEqual(attempts.length, 3)
      assert.closeTo(attempts[0]!.timeout, 1667, 1)
      for (const { at, timeout } of attempts) assert.isAtMost(at + timeout, 5000.001)
    }))

  it.effect("are not made for what must not be applied twice, which gets the whole time", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering()
      assert.deepInclude(yield* run({ idempotent: false }), { told: "Timeout Unknown", at: 5000 })
      assert.deepStrictEqual(attempts, [{ at: 0, timeout: 5000 }])
    }))

  it.effect("go on while every attempt was refused", () =>
    Effect.gen(function*() {
      for (const idempotent of [true, false]) {
        const { attempts, run } = answering(refused, refused, refused, "yes")
        assert.strictEqual((yield* run({ idempotent })).error, undefined)
        assert.strictEqual(attempts.length, 4)
      }
    }))

  it.effect("stop at the first unknown outcome of what must not be applied twice", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering(refused, lost, "yes")
      assert.strictEqual((yield* run({ idempotent: false })).told, "Unavailable Unknown")
      assert.strictEqual(attempts.length, 2)
    }))

  it.effect("remember that an earlier attempt may have been applied", () =>
    Effect.gen(function*() {
      // the pauses between attempts are of random length
      for (let i = 0; i < 50; i++) {
        const started = yield* Clock.currentTimeMillis
        const { at, told } = yield* answering(lost, refused).run({ idempotent: true })
        assert.strictEqual(told, "Unavailable Unknown")
        assert.isAtMost(at - started, 5000.001)
      }
      const full2 = answering(lost, full)
      assert.strictEqual((yield* full2.run({ idempotent: true })).told, "NoSpace Unknown")
      assert.strictEqual(full2.attempts.length, 2)
      assert.strictEqual((yield* answering(refused).run({ idempotent: true })).told, "Unavailable Refused")
    }))

  it.effect("tell what went wrong rather than that the time was up then", () =>
    Effect.gen(function*() {
      const { attempts, run } = answeringAt((at) => at < 4000 ? refused : undefined)
      assert.strictEqual((yield* run({ idempotent: true })).told, "Unavailable Unknown")
      assert.isAbove(attempts.at(-1)!.at, 4000)
    }))

  it.effect("are none when they cannot help", () =>
    Effect.gen(function*() {
      const { attempts, run } = answering(full)
      assert.deepInclude(yield* run({ idempotent: true }), { told: "NoSpace Refused", at: 0 })
      assert.strictEqual(attempts.length, 1)
    }))
})
