/**
 * One of several operating-system processes that count up the same file under the
 * same lock. Reading and writing it are apart in time, so any two bodies at once
 * lose a count; and a marker that only one can create tells of them directly.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Random } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import * as Fs from "node:fs"
import { setTimeout } from "node:timers/promises"

const [endpoint, prefix, directory, fibers, rounds] = process.argv.slice(2)
const file = (name: string) => `${directory}/${name}`

const work = (token: bigint) =>
  Effect.promise(async () => {
    try {
      Fs.writeFileSync(file("inside"), "", { flag: "wx" })
    } catch {
      Fs.appendFileSync(file("violations"), `${token}\n`)
    }
    const count = Number(Fs.readFileSync(file("count"), "utf8"))
    await setTimeout(Math.random() * 2)
    Fs.writeFileSync(file("count"), String(count + 1))
    Fs.appendFileSync(file("tokens"), `${token}\n`)
    Fs.rmSync(file("inside"), { force: true })
  })

const fiber = Effect.gen(function*() {
  for (let round = 0; round < Number(rounds); round++) {
    const dice = yield* Random.nextIntBetween(0, 4)
    // some come and go without having had it
    if (dice === 0) yield* Effect.ignore(Lock.withLock(Effect.void, "counter", { timeout: "3 millis" }))
    yield* Effect.scoped(Effect.flatMap(Lock.acquire("counter"), (lock) => lock.whileHeld(work(lock.fencingToken))))
  }
})

Effect.all(Array.from({ length: Number(fibers) }, () => fiber), { concurrency: "unbounded" }).pipe(
  Effect.provide(
    Session.layer({ ttl: "10 seconds" }).pipe(
      Layer.provide(Etcd.layer({ hosts: endpoint!, prefix }))
    )
  ),
  NodeRuntime.runMain
)
