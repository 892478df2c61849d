/** Runners of a real cluster, which speak to each other through sockets, and what they say of themselves. */
import { assert } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, References, Schedule, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { spawn } from "node:child_process"
import * as Path from "node:path"
import { freePort } from "../support/internal/ports.ts"
import * as Runner from "./runner.ts"

const things = Array.from({ length: 8 }, (_, i) => `thing-${i}`)

/** All that is to run once. */
const all = [...Runner.singletons, Runner.job, ...things]

/** By when the next one runs, and how much later the machine may be. */
export const bound = Duration.toMillis(Runner.config.shardLockExpiration) +
  Duration.toMillis(Runner.config.refreshAssignmentsInterval) + 1000
export const slack = 20_000

export interface Running {
  readonly port: number
  readonly stop: Effect.Effect<void>
}

export interface Process extends Running {
  readonly signal: (name: NodeJS.Signals) => Effect.Effect<void>
}

type Event = Runner.Happened | { readonly at: number; readonly port: number; readonly what: "is out" }

export const make = Effect.fnUntraced(function*(etcd: string | ReadonlyArray<string>) {
  const prefix = `cluster-${crypto.randomUUID()}`
  const events: Array<Event> = []
  const happened = (what: Event) => void events.push(what)

  /** What ran where at the end of the events, and what ran twice. */
  const state = () => {
    const running = new Map<string, number>()
    const twice: Array<string> = []
    // Those of processes arrive later than they happened.
    for (const event of events.toSorted((a, b) => a.at - b.at)) {
      const { at, port, what } = event
      if (what === "is out") {
        for (const [name, other] of running) if (other === port) running.delete(name)
      } else if (what === "starts") {
        const other = running.get(event.name)
        if (other !== undefined) twice.push(`${event.name} starts on ${port} at ${at} while it runs on ${other}`)
        running.set(event.name, port)
      } else if (what === "stops" && running.get(event.name) === port) {
        running.delete(event.name)
      }
    }
    return { running, twice }
  }

  /** A runner in this process, which reaches etcd in its own way. */
  const start = Effect.fnUntraced(function*(hosts = etcd) {
    const port = yield* freePort
    const scope = yield* Scope.fork(yield* Effect.scope)
    yield* Runner.runner(port, prefix, happened).pipe(
      Layer.provide(Etcd.layer({ hosts })),
      (layer) => Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
    return { port, stop: Scope.close(scope, Exit.void) } satisfies Running
  })

  const startProcess = Effect.fnUntraced(function*() {
    const port = yield* freePort
    const program = Path.join(import.meta.dirname, "runner.ts")
    const args = ["--conditions=@effect-etcd-lock/source", program, String(port), String(etcd), prefix]
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    let line = ""
    child.stdout.on("data", (chunk) => {
      const lines = `${line}${chunk}`.split("\n")
      line = lines.pop()!
      for (const one of lines) happened(JSON.parse(one))
    })
    const ended = Effect.callback<void>((resume) => {
      if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
      child.once("close", () => resume(Effect.void))
    })
    const signal: Process["signal"] = (name) =>
      Effect.sync(() => {
        child.kill(name)
        if (name === "SIGKILL" || name === "SIGSTOP") happened({ at: Runner.now(), port, what: "is out" })
      })
    const stop = Effect.andThen(signal("SIGTERM"), Effect.timeout(ended, "30 seconds"))
    return { port, signal, stop: Effect.orDie(stop) } satisfies Process
  })

  const runningOn = (port: number) => [...state().running].filter(([, other]) => other === port).map(([name]) => name)

  const until = Effect.fnUntraced(function*(what: string, holds: () => boolean, atMost: number) {
    const began = Runner.now()
    while (!holds()) {
      if (Runner.now() - began > atMost) {
        const running = JSON.stringify([...state().running])
        return yield* Effect.die(new Error(`waited ${atMost} ms for ${what}; there runs ${running}`))
      }
      yield* Effect.sleep(20)
    }
    return Runner.now() - began
  })

  /** Waits until all runs, on each of the runners and on no other. */
  const settled = (runners: ReadonlyArray<Running>, atMost = 30_000) =>
    until(
      `all to run on ${runners.map(({ port }) => port).join(", ")}`,
      () => {
        const { running } = state()
        const ports = [...running.values()]
        return all.every((name) => running.has(name)) && runners.every(({ port }) => ports.includes(port)) &&
          ports.every((port) => runners.some((runner) => runner.port === port))
      },
      atMost
    )

  /** Waits until nothing has moved for a while: all may run on the right runners, and some of it be about to move. */
  const still = until(
    "nothing to move any more",
    () => {
      const moved = events.findLast(({ what }) => what !== "runs")
      return moved === undefined || Runner.now() - moved.at > 4000
    },
    30_000
  )

  const once = Effect.sync(() => assert.deepStrictEqual(state().twice, []))

  /** How often the job ran since then. */
  const runsSince = (at: number) => events.filter((event) => event.what === "runs" && event.at >= at).length

  // The runner that has a thing is asked for it all the time, so that it comes to live again where it went.
  const client = yield* Layer.buildWithMemoMap(
    Runner.client(prefix).pipe(Layer.provide(Etcd.layer({ hosts: etcd }))),
    Layer.makeMemoMapUnsafe(),
    yield* Effect.scope
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  yield* Effect.forEach(things, (id) =>
    Runner.Thing.client.pipe(
      Effect.flatMap((thing) => thing(id).Touch()),
      Effect.timeout("1 second"),
      Effect.ignoreCause,
      Effect.repeat(Schedule.spaced("100 millis"))
    ), { concurrency: "unbounded" }).pipe(Effect.provideContext(client), Effect.forkScoped)

  return { prefix, start, startProcess, runningOn, until, settled, still, once, runsSince }
})
