/** The commands in docs/operating.md do what it says of them, on an etcd of their own. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Lock } from "effect-etcd-lock"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { inject } from "vitest"
import * as EtcdServer from "../support/EtcdServer.ts"
import { failureOf } from "../support/exits.ts"
import { holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { need } from "./need.ts"
import * as Tools from "./tools.ts"

const guide = Fs.readFileSync(Path.resolve(import.meta.dirname, "../../docs/operating.md"), "utf8")

const blocks = [...guide.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, block]) => block!)

const starts = [
  "etcdctl get",
  "etcdctl lease timetolive",
  "etcdctl del",
  "etcdctl lease revoke",
  "etcdctl compact"
] as const

/** The commands of the guide, by how they begin. */
const commandsOf = (start: typeof starts[number]) => {
  const found = blocks.filter((block) => block.startsWith(start))
  assert.lengthOf(found, 1, start)
  return found[0]!
}

/** Runs commands of the guide for the keys of this world, with a lease of its own in place of the guide's. */
const shell = (world: World.World, commands: string, lease = "") =>
  Effect.flatMap(Tools.etcdctl, (etcdctl) =>
    Effect.callback<ReadonlyArray<string>>((resume) => {
      const script = commands
        .replaceAll("nightly-report/", `${world.prefix}nightly-report/`)
        .replaceAll("1b0f320c64454378", lease)
      const env = {
        ...process.env,
        ETCDCTL_ENDPOINTS: world.endpoint,
        ETCDCTL_API: "3",
        PATH: `${Path.dirname(etcdctl)}${Path.delimiter}${process.env.PATH}`
      }
      execFile("sh", ["-ec", script], { env }, (error, stdout, stderr) => {
        resume(error === null ? Effect.succeed(stdout.trim().split("\n")) : Effect.die(new Error(stdout + stderr)))
      })
    }))

const ownWorld = Effect.flatMap(EtcdServer.start(), ({ endpoint }) => World.make({ endpoint }))

/** Turns the alarm on that etcd turns on when its database is full. */
const fill = (world: World.World) =>
  Effect.promise(async () => {
    const call = async (path: string, body: object): Promise<any> => {
      const reply = await fetch(`http://${world.endpoint}/v3/maintenance/${path}`, {
        method: "POST",
        body: JSON.stringify(body)
      })
      return reply.json()
    }
    const { header } = await call("status", {})
    return call("alarm", { action: "ACTIVATE", memberID: header.member_id, alarm: "NOSPACE" })
  })

describe.runIf(inject("interop"))("the commands in the guide to operating", () => {
  need(Tools.etcdctl)

  it("are those that are run here", () => {
    assert.sameMembers(starts.flatMap((start) => blocks.filter((block) => block.startsWith(start))), blocks)
  })

  it.live("show a line and a lease, and take away a lock and all locks of a holder", () =>
    Effect.gen(function*() {
      const world = yield* ownWorld
      const [a, b] = [yield* world.process(), yield* world.process()]
      const first = yield* holdIn(a, "nightly-report")
      const other = yield* holdIn(a, "other")
      const { key, leaseId } = yield* first.held
      yield* other.held
      const second = yield* holdIn(b, "nightly-report")
      yield* world.untilLine("nightly-report", 2)
      const lease = leaseId.toString(16)

      const [firstKey, firstValue, secondKey, secondValue] = yield* shell(world, commandsOf("etcdctl get"))
      assert.strictEqual(firstKey, world.prefix + key)
      assert.match(secondKey!, /nightly-report\/[0-9a-f]+-1$/)
      for (const value of [firstValue, secondValue]) assert.strictEqual(JSON.parse(value!).pid, process.pid)

      const [described] = yield* shell(world, commandsOf("etcdctl lease timetolive"), lease)
      assert.match(described!, /^lease [0-9a-f]+ granted with TTL\(15s\), remaining\(\d+s\), attached keys\(\[/)
      assert.include(described, firstKey!)

      assert.deepStrictEqual(yield* shell(world, commandsOf("etcdctl del"), lease), ["1"])
      assert.include(failureOf(yield* Fiber.await(first.fiber)), { _tag: "LockLost", reason: "KeyDeleted" })
      yield* second.held
      assert.isTrue(yield* other.isHeld)

      const revoked = `lease ${lease.padStart(16, "0")} revoked`
      assert.deepStrictEqual(yield* shell(world, commandsOf("etcdctl lease revoke"), lease), [revoked])
      assert.include(failureOf(yield* Fiber.await(other.fiber)), { _tag: "LockLost" })
      yield* second.release
    }))

  it.live("make room in an etcd that is full, where what is held stays held and can be released", () =>
    Effect.gen(function*() {
      const world = yield* ownWorld
      const process = yield* world.process({ ttl: "2 seconds" })
      const [kept, released] = [yield* holdIn(process, "kept"), yield* holdIn(process, "released")]
      yield* Effect.all([kept.held, released.held])
      yield* fill(world)

      const refused = yield* Effect.flip(process.run(Lock.withLock(Effect.void, "job")))
      assert.include(refused, { _tag: "EtcdError", reason: "NoSpace" })
      yield* Effect.sleep("4 seconds")
      assert.isTrue(Exit.isSuccess(yield* released.release))
      assert.lengthOf(yield* world.line("released"), 0)
      assert.lengthOf(yield* world.line("kept"), 1)

      yield* shell(world, commandsOf("etcdctl compact"))
      yield* process.run(Lock.withLock(Effect.void, "job"))
      assert.isTrue(Exit.isSuccess(yield* kept.release))
    }))
})
