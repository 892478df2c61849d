/** A run that is to succeed once, by processes of their own whose clocks disagree. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { inject } from "vitest"
import { unique } from "../support/connect.ts"

const endpoint = inject("etcdEndpoint")

/** Prints what became of the run. Its process's clock is a day or more off. */
const program = (name: string, days: number) => `
  const { now } = Date
  Date.now = () => now() + ${days} * 86_400_000
  const { Effect, Layer } = await import("effect")
  const { Etcd, Lock, Session } = await import("effect-etcd-lock")
  const work = Effect.as(Effect.sleep(300), "done")
  const live = Session.layer({ ttl: "5 seconds" }).pipe(Layer.provide(Etcd.layer({ hosts: "${endpoint}" })))
  const once = Effect.provide(Lock.withLockOnce(work, "${name}", { run: "2026-11-25" }), live)
  console.log((await Effect.runPromise(once))._tag)
`

const started = (name: string, days: number) =>
  Effect.callback<string>((resume) => {
    const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program(name, days)]
    execFile(
      process.execPath,
      args,
      (error, stdout) => resume(error ? Effect.die(error) : Effect.succeed(stdout.trim()))
    )
  })

describe.concurrent("two processes of which each is to run a job of one day", () => {
  it.live("run it once, though the second comes when the first has ended", () =>
    Effect.gen(function*() {
      const name = unique("once")
      assert.strictEqual(yield* started(name, -1), "Some")
      assert.strictEqual(yield* started(name, 30), "None")
    }), 60_000)

  it.live("run it once, though they come at the same time", () =>
    Effect.gen(function*() {
      const name = unique("once")
      const ends = yield* Effect.all([started(name, 2), started(name, -2)], { concurrency: 2 })
      assert.deepStrictEqual(ends.toSorted(), ["None", "Some"])
    }), 60_000)
})
