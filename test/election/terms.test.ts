/** What runs on the leader: it starts with each term, and ends before the next one's. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Schedule } from "effect"
import { Election, Etcd, type Lock } from "effect-etcd-lock"
import { cite } from "../promises.ts"
import { defectOf, failureOf } from "../support/exits.ts"
import {
  fork,
  freezable,
  keys,
  pass,
  provideMemory,
  seconds,
  session,
  sessionThrough,
  stop
} from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"

/** Notes when it starts and when it has ended. Its end takes 500 ms. */
const worker = (who: string, events: Array<string>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => events.push(`${who} in`)),
    () => Effect.never,
    () => Effect.delay(Effect.sync(() => events.push(`${who} out`)), 500)
  )

const workerLayer = (who: string, events: Array<string>) =>
  Layer.effectDiscard(Effect.acquireRelease(
    Effect.sync(() => events.push(`${who} in`)),
    () => Effect.delay(Effect.sync(() => events.push(`${who} out`)), 500)
  ))

/** From then on a leader watches its key. */
const watched = pass("1 second")

/** Lets seconds pass one after the other. */
const unreachable = (reason: Etcd.EtcdErrorReason) =>
  new Etcd.EtcdError({ reason, method: "txn", outcome: "Refused", description: "says the test" })

/** A process for which etcd refuses every transaction. */
const refused = (reason: Etcd.EtcdErrorReason) =>
  sessionThrough(() => ({ txn: () => Effect.fail(unreachable(reason)) }))

describe("whileLeader", () => {
  for (const end of ["succeed", "fail", "die"] as const) {
    it.effect(`ends with what the effect does: ${end}`, () =>
      provideMemory(Effect.gen(function*() {
        const { run } = yield* session()
        const outcome = { succeed: Effect.succeed("done"), fail: Effect.fail("no"), die: Effect.die("bug") }[end]
        const exit = yield* Effect.exit(run(Election.whileLeader(Effect.delay(outcome, 0), "job")))
        assert.deepStrictEqual(exit, yield* Effect.exit(outcome))
        assert.deepStrictEqual(yield* keys, [])
      })))
  }

  it.effect(`runs in one process at a time, and in the next once it has ended (${cite("P1")})`, () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const one = yield* fork(a.run(Election.whileLeader(worker("a", events), "job", { value: "a" })))
      yield* pass(1)
      const two = yield* fork(b.run(Election.whileLeader(worker("b", events), "job", { value: "b" })))
      yield* seconds(2)
      assert.deepStrictEqual(events, ["a in"])
      const term = yield* Election.leader("job")
      assert.strictEqual(term.valueOrUndefined?.value, "a")
      // The lease goes, and with it the key of the leader: it cannot have been stopped before the next one starts.
      yield* faults.revokeLease(term.valueOrUndefined!.leaseId)
      yield* seconds(4)
      assert.sameMembers(events, ["a in", "b in", "a out"])
      // The former leader stands again, behind the other, and gets its turn when that one stops.
      assert.lengthOf(yield* keys, 2)
      yield* stop(two)
      yield* seconds(4)
      assert.deepStrictEqual(events.slice(3), ["b out", "a in"])
      yield* stop(one)
      yield* seconds(2)
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("stands again by the schedule, which sees why the term ended", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const seen: Array<string> = []
      let terms = 0
      const standAgain = Schedule.spaced("7 seconds").pipe(
        Schedule.while(({ attempt, input }) => {
          seen.push((input as Lock.LockLost)._tag)
          return attempt < 3
        })
      )
      const whole = yield* fork(run(
        Effect.sync(() => terms++).pipe(
          Effect.andThen(Effect.never),
          Election.whileLeader("job", { standAgain })
        )
      ))
      yield* pass(1)
      for (const term of [1, 2, 3]) {
        yield* watched
        assert.strictEqual(terms, term)
        yield* faults.deletePrefix("job/")
        yield* seconds(6)
        assert.strictEqual(terms, term)
        yield* seconds(1)
      }
      assert.deepStrictEqual(seen, ["LockLost", "LockLost", "LockLost"])
      assert.include(failureOf(whole.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "KeyDeleted" })
    })))

  it.effect("stands again after a second or so, always", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      let terms = 0
      const body = Effect.andThen(Effect.sync(() => terms++), Effect.never)
      const whole = yield* fork(run(Election.whileLeader(body, "job")))
      for (let term = 1; term <= 20; term++) {
        yield* watched
        assert.strictEqual(terms, term)
        yield* faults.deletePrefix("job/")
        yield* pass(700)
        assert.strictEqual(terms, term)
        yield* pass(600)
      }
      yield* stop(whole)
      yield* pass(1)
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("waits for an etcd that cannot be reached, and fails with what waiting does not cure", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "60 seconds" })
      yield* faults.unreachable
      const whole = yield* fork(run(Election.whileLeader(Effect.succeed("led"), "job")))
      yield* seconds(30)
      assert.isUndefined(whole.pollUnsafe())
      yield* faults.heal
      yield* seconds(3)
      assert.deepStrictEqual(whole.pollUnsafe(), Exit.succeed("led"))

      const denied = yield* refused("PermissionDenied")
      const error = yield* Effect.flip(denied.run(Election.whileLeader(Effect.void, "job")))
      assert.include(error, { _tag: "EtcdError", reason: "PermissionDenied" })
    })))

  it.effect("ends with what the effect fails with while a loss interrupts it, and not with the loss", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      const body = Effect.onInterrupt(Effect.never, () => Effect.die("the cleaning failed"))
      const whole = yield* fork(run(Election.whileLeader(body, "job")))
      yield* watched
      yield* faults.deletePrefix("job/")
      yield* pass(1)
      const exit = whole.pollUnsafe()!
      assert.strictEqual(defectOf(exit), "the cleaning failed")
      assert.isUndefined(failureOf(exit))
    })))

  it.effect("starts anew where the effect succeeds after a loss, and where it fails with that loss itself", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session()
      let terms = 0
      const stubborn = Effect.uninterruptible(Effect.andThen(Effect.sync(() => terms++), Effect.sleep("3 seconds")))
      const checking = Effect.gen(function*() {
        terms++
        const { proclaim } = yield* Election.Current
        return yield* Effect.forever(Effect.delay(proclaim("alive"), 10))
      })
      for (const body of [stubborn, checking]) {
        terms = 0
        const whole = yield* fork(run(Election.whileLeader(body, "job")))
        yield* watched
        yield* faults.deletePrefix("job/")
        yield* Effect.repeat(pass(10), { times: 350 })
        assert.isUndefined(whole.pollUnsafe())
        assert.strictEqual(terms, 2)
        yield* stop(whole)
        yield* seconds(4)
      }
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("ends where the effect fails with the loss of an earlier term", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      let earlier: Election.Leadership | undefined
      const body = Effect.gen(function*() {
        if (earlier !== undefined) return yield* earlier.check
        earlier = yield* Election.Current
        yield* earlier.resign
        return yield* Effect.never
      })
      const whole = yield* fork(run(Election.whileLeader(body, "job")))
      yield* seconds(5)
      const { fencingToken } = earlier!
      assert.include(failureOf(whole.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", fencingToken })
    })))

  it.effect("steps down for another candidate when the effect resigns, and stands again", () =>
    provideMemory(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const body = (who: string) =>
        Effect.gen(function*() {
          events.push(who)
          const { resign } = yield* Election.Current
          yield* Effect.sleep("10 seconds")
          yield* resign
          return yield* Effect.never
        })
      const both = [
        yield* fork(a.run(Election.whileLeader(body("a"), "job"))),
        yield* fork(b.run(Election.whileLeader(body("b"), "job")))
      ]
      yield* seconds(45)
      assert.deepStrictEqual(events, ["a", "b", "a", "b", "a"])
      yield* Effect.forEach(both, stop)
      yield* seconds(1)
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("ends with LockLost when its session has closed, while it leads and before it stands again", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      for (const isLeading of [true, false]) {
        const { close, run } = yield* session()
        const whole = yield* fork(run(Election.whileLeader(Effect.never, "job")))
        yield* pass(1)
        yield* watched
        if (!isLeading) yield* faults.deletePrefix("job/")
        yield* pass(1)
        yield* fork(close)
        yield* seconds(3)
        assert.include(failureOf(whole.pollUnsafe()) as Lock.LockLost, { _tag: "LockLost", reason: "Released" })
        assert.deepStrictEqual(yield* keys, [])
      }
    })))

  it.effect("ends when it is interrupted, whether it leads, waits or pauses", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const leading = yield* fork(a.run(Election.whileLeader(worker("a", events), "job")))
      yield* pass(1)
      const waiting = yield* fork(b.run(Election.whileLeader(worker("b", events), "job")))
      yield* pass(1)
      yield* stop(waiting)
      yield* pass(1)
      assert.isTrue(Exit.hasInterrupts(waiting.pollUnsafe()!))
      yield* stop(leading)
      yield* pass(500)
      assert.isTrue(Exit.hasInterrupts(leading.pollUnsafe()!))
      const pausing = yield* fork(a.run(Election.whileLeader(Effect.never, "job")))
      yield* watched
      yield* faults.deletePrefix("job/")
      yield* pass(1)
      yield* stop(pausing)
      yield* pass(1)
      assert.isTrue(Exit.hasInterrupts(pausing.pollUnsafe()!))
      yield* seconds(3)
      assert.deepStrictEqual(events, ["a in", "a out"])
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect(`stops before another one can start when its process cannot reach etcd any more (${cite("P1")})`, () =>
    provideMemory(Effect.gen(function*() {
      let isCut = false
      const cutOff = yield* sessionThrough((etcd) => ({
        leaseKeepAlive: (...args) => isCut ? Effect.fail(unreachable("Unavailable")) : etcd.leaseKeepAlive(...args),
        txn: (request) => isCut ? Effect.fail(unreachable("Unavailable")) : etcd.txn(request)
      }), { ttl: "6 seconds", safetyMargin: "1 second" })
      const { run } = yield* session()
      const events: Array<string> = []
      const one = yield* fork(cutOff.run(Election.whileLeader(worker("a", events), "job")))
      yield* pass(1)
      const two = yield* fork(run(Election.whileLeader(worker("b", events), "job")))
      yield* seconds(10)
      assert.deepStrictEqual(events, ["a in"])
      isCut = true
      yield* Effect.repeat(pass(100), { times: 70 })
      assert.deepStrictEqual(events, ["a in", "a out", "b in"])
      isCut = false
      yield* Effect.forEach([one, two], stop)
      yield* seconds(3)
    })))

  it.effect("of a process that stood still starts no second term beside the other's", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { freeze, process } = yield* freezable
      const { run } = yield* session()
      const events: Array<string> = []
      const one = yield* fork(process.run(Election.whileLeader(worker("a", events), "job")))
      yield* pass(1)
      const two = yield* fork(run(Election.whileLeader(worker("b", events), "job")))
      yield* pass(1)
      freeze()
      const term = yield* Election.leader("job")
      yield* faults.expireLease(term.valueOrUndefined!.leaseId)
      yield* seconds(10)
      assert.sameMembers(events, ["a in", "a out", "b in"])
      yield* Effect.forEach([one, two], stop)
      yield* seconds(3)
      assert.strictEqual(events.length, 4)
    })))
})

describe("a layer of the leader", () => {
  it.effect(`is built in one process, torn down before the next one builds it, and built again (${cite("P1")})`, () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const events: Array<string> = []
      const process = Effect.fnUntraced(function*(who: string) {
        const { close, run } = yield* session()
        const program = Layer.launch(Election.layer("job", workerLayer(who, events), { value: who }))
        return { close, fiber: yield* fork(run(program)) }
      })
      const a = yield* process("a")
      yield* pass(1)
      const b = yield* process("b")
      yield* seconds(1)
      assert.deepStrictEqual(events, ["a in"])
      // Its program ends.
      yield* stop(a.fiber)
      yield* pass(499)
      assert.deepStrictEqual(events, ["a in"])
      yield* seconds(1)
      assert.deepStrictEqual(events, ["a in", "a out", "b in"])
      // It loses its key, and gets it back when it stands again: nobody else does.
      yield* faults.deletePrefix("job/")
      yield* seconds(3)
      assert.deepStrictEqual(events.slice(3), ["b out", "b in"])
      yield* stop(b.fiber)
      yield* seconds(1)
      assert.strictEqual(events.at(-1), "b out")
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("can proclaim, and what is built together with it does not wait for it", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      class Port extends Context.Service<Port, number>()("Port") {}
      const inner = Layer.effectDiscard(Effect.gen(function*() {
        const { proclaim } = yield* Election.Current
        yield* proclaim(`port ${yield* Port}`)
      }))
      const both = Layer.mergeAll(Election.layer("job", inner), Layer.empty)
      const program = Effect.andThen(
        pass(1),
        Effect.map(Election.leader("job"), ({ valueOrUndefined }) => valueOrUndefined?.value)
      )
      assert.strictEqual(yield* run(Effect.provide(program, Layer.provide(both, Layer.succeed(Port)(80)))), "port 80")
      assert.deepStrictEqual(yield* keys, [])
    })))

  it.effect("that fails is logged, leaves the lead to another, and is built again by the schedule", () =>
    provideMemory(Effect.gen(function*() {
      const { logged, logger } = logs()
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const failing = Layer.effectDiscard(Effect.suspend(() => {
        events.push("tried")
        return Effect.fail("no disk")
      }))
      const standAgain = Schedule.spaced("10 seconds").pipe(
        Schedule.while(({ attempt, input }) => input === "no disk" && attempt < 3)
      )
      const one = yield* fork(
        a.run(Layer.launch(Election.layer("job", failing, { standAgain }))).pipe(
          Effect.provide(logger)
        )
      )
      yield* pass(1)
      const two = yield* fork(b.run(Layer.launch(Election.layer("job", workerLayer("b", events)))))
      yield* pass(1)
      assert.deepStrictEqual(events, ["tried", "b in"])
      yield* stop(two)
      yield* seconds(60)
      assert.deepStrictEqual(events, ["tried", "b in", "b out", "tried", "tried"])
      assert.lengthOf(logged.filter((line) => line.startsWith("What the leader of election 'job' runs has failed")), 3)
      assert.strictEqual(logged.at(-1), "This process stands in election 'job' no longer")
      // The program itself goes on.
      assert.isUndefined(one.pollUnsafe())
      yield* stop(one)
    })))

  it.effect("is waited for when etcd refuses to let its process stand, which is logged", () =>
    provideMemory(Effect.gen(function*() {
      const { logged, logger } = logs()
      const denied = yield* refused("PermissionDenied")
      const program = Layer.launch(Election.layer("job", Layer.empty))
      const one = yield* fork(Effect.provide(denied.run(program), logger))
      yield* seconds(5)
      assert.isAbove(logged.length, 2)
      for (const line of logged) assert.match(line, /^This process could not stand in election 'job'/)
      assert.isUndefined(one.pollUnsafe())
      yield* stop(one)
    })))

  it.effect("that dies is not built again, and its lead goes to another", () =>
    provideMemory(Effect.gen(function*() {
      const { logged, logger } = logs()
      const [a, b] = yield* Effect.all([session(), session()])
      const events: Array<string> = []
      const dying = Layer.effectDiscard(Effect.die("bug"))
      const one = yield* fork(Effect.provide(a.run(Layer.launch(Election.layer("job", dying))), logger))
      const two = yield* fork(b.run(Layer.launch(Election.layer("job", workerLayer("b", events)))))
      yield* seconds(5)
      assert.deepStrictEqual(
        logged.map((line) => line.split(",")[0]),
        [
          "What the leader of election 'job' runs has failed",
          "This process stands in election 'job' no longer"
        ].map((line) => line.split(",")[0])
      )
      assert.deepStrictEqual(events, ["b in"])
      yield* Effect.forEach([one, two], stop)
      yield* seconds(1)
    })))

  it.effect("says nothing when its session closes", () =>
    provideMemory(Effect.gen(function*() {
      const { logged, logger } = logs()
      const { close, run } = yield* session()
      const events: Array<string> = []
      const one = yield* fork(
        Effect.provide(run(Layer.launch(Election.layer("job", workerLayer("a", events)))), logger)
      )
      yield* pass(1)
      yield* fork(close)
      yield* seconds(5)
      assert.deepStrictEqual(events, ["a in", "a out"])
      assert.deepStrictEqual(logged, [])
      yield* stop(one)
    })))

  it.effect("names the option that is wrong, before the program starts", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      for (const options of [{ value: 1 }, { value: "\ud800" }] as ReadonlyArray<any>) {
        const exit = yield* Effect.exit(run(Layer.launch(Election.layer("job", Layer.empty, options))))
        assert.match(String(defectOf(exit)), /value must be well-formed text/)
      }
      const exit = yield* Effect.exit(run(Layer.launch(Election.layer("", Layer.empty))))
      assert.match(String(defectOf(exit)), /name/)
    })))
})
