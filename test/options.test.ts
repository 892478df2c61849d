/**
 * What can never work is refused before etcd is asked for anything. Each row has the input, and what the defect says
 * of it: the option's name, the value, and a right one.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Layer, type Scope } from "effect"
import { Etcd, Lease, Session } from "effect-etcd-lock"
import * as Util from "node:util"

const asked = () => Effect.die(new Error("etcd was asked"))

/** Fails whatever asks it for anything. */
const silent = Etcd.Etcd.of({
  txn: asked,
  range: asked,
  leaseGrant: asked,
  leaseRevoke: asked,
  leaseKeepAlive: asked,
  leaseTimeToLive: asked,
  watch: asked,
  subscribe: asked
})

const inMemory = Effect.provide(Session.layer().pipe(Layer.provideMerge(Etcd.layerMemory())))

const exitOf = <A, E>(
  effect: Effect.Effect<A, E, Session.Session | Etcd.Etcd | Scope.Scope>
): Effect.Effect<Exit.Exit<A, E>> =>
  effect.pipe(
    Effect.provide(Session.layer()),
    Effect.scoped,
    Effect.provideService(Etcd.Etcd, silent),
    Effect.exit
  )

interface Row {
  readonly input: string
  readonly use: Effect.Effect<unknown, unknown, Session.Session | Etcd.Etcd | Scope.Scope>
  /** What the message says. */
  readonly says: ReadonlyArray<string>
  /** What is shown nowhere. */
  readonly hides?: ReadonlyArray<string> | undefined
}

const refuse = (rows: ReadonlyArray<Row>) =>
  it.effect.each(rows.map((row) => [row.input, row] as const))(
    "%s",
    ([, { hides = [], says, use }]) =>
      Effect.gen(function*() {
        const exit = yield* exitOf(use)
        const defect = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isDieReason)?.defect : undefined
        assert.instanceOf(defect, RangeError, String(exit))
        for (const said of says) assert.include(defect.message, said)
        assert.isBelow(defect.message.length, 400)
        const shown = `${Util.inspect(defect, { depth: 10, showHidden: true })} ${String(exit)}`
        for (const hidden of hides) assert.notInclude(shown, hidden)
      })
  )

// -----------------------------------------------------------------------------
// durations
// -----------------------------------------------------------------------------

const durations: ReadonlyArray<readonly [unknown, string]> = [
  [Number.NaN, "got NaN"],
  [-1, "got -1 ms"],
  [-Infinity, "got -Infinity"],
  [-5n, "got -5 ns"],
  ["-1 second", "got \"-1 second\""],
  [Duration.seconds(-1), "got -1s"],
  ["15s", "got \"15s\""],
  ["15", "got \"15\""],
  ["", "got \"\""],
  [`1${"0".repeat(100_000)}s`, "… (100002 characters)"],
  [null, "got null"],
  [true, "got true"],
  [{}, "got an object"],
  [{ second: 5 }, "got an object"],
  [{ seconds: Number.NaN }, "got an object"],
  [{ seconds: "5" }, "got an object"],
  [[1, Number.NaN], "got an array"],
  [[1], "got an array"],
  [new Date(0), "got an instance of Date"],
  [Effect.succeed("15 seconds"), "got an Effect"]
]

const takeDurations: ReadonlyArray<readonly [string, string, (value: any) => Row["use"]]> = [
  ["Lease: ttl must be ", "Lease.make", (ttl) => Lease.make({ ttl })],
  ["Lease: ttl must be ", "Session.layer", (ttl) => Layer.build(Session.layer({ ttl }))],
  ["Lease: safetyMargin must be ", "Lease.make", (safetyMargin) => Lease.make({ safetyMargin })],
  ["Lease: safetyMargin must be ", "Session.layer", (safetyMargin) => Layer.build(Session.layer({ safetyMargin }))],
  [
    "Etcd.layer: requestTimeout must be ",
    "Etcd.layer",
    (requestTimeout) => Layer.build(Etcd.layer({ hosts: "etcd:2379", requestTimeout }))
  ],
  [
    "Etcd.layerMemory: requestTimeout must be ",
    "Etcd.layerMemory",
    (requestTimeout) => Layer.build(Etcd.layerMemory({ requestTimeout }))
  ]
]

describe("a duration is refused:", () => {
  refuse(takeDurations.flatMap(([said, where, use]) =>
    durations.map(([value, got]) => ({
      input: `${where}, ${said.split(" ")[1]} ${Util.inspect(value).slice(0, 30)}`,
      use: use(value),
      says: [said, got, "Write it as \"", " seconds\""]
    }))
  ))
})

describe("a duration is accepted:", () => {
  const values: ReadonlyArray<Duration.Input> = [
    2000,
    2_000_000_000n,
    [2, 0],
    "2 seconds",
    { seconds: 2 },
    Duration.seconds(2)
  ]
  it.effect.each(values.map((value) => [Util.inspect(value), value] as const))(
    "%s",
    ([, value]) =>
      Effect.gen(function*() {
        const lease = yield* Lease.make({ ttl: value, safetyMargin: { milliseconds: 500, seconds: undefined } as any })
        assert.strictEqual(Duration.toMillis(yield* lease.remaining), 1500)
        yield* Layer.build(Etcd.layer({ hosts: "etcd:2379", requestTimeout: value }))
      }).pipe(inMemory)
  )
})
