import { Effect, type Scope } from "effect"
import type { Lock } from "effect-etcd-lock"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { holdIn } from "../support/holdIn.ts"
import type * as World from "../support/World.ts"
import * as Peer from "./Peer.ts"
import * as Tools from "./tools.ts"

export interface Held {
  /** As the world names it, without its prefix. */
  readonly key: string
  readonly token: bigint
}

/** A contender that has asked for a lock. */
export interface Contender {
  readonly held: Effect.Effect<Held, Lock.AcquireError>
  readonly release: Effect.Effect<unknown>
}

export type Kind = (world: World.World, name: string) => Effect.Effect<Contender, Tools.ToolMissing, Scope.Scope>

export const ours: Kind = Effect.fnUntraced(function*(world, name) {
  const process = yield* world.process()
  const { held, release } = yield* holdIn(process, name)
  return { held: Effect.map(held, ({ fencingToken: token, key }) => ({ key, token })), release }
})

/** `etcdctl lock`, with a command that tells what it is given. */
export const etcdctl: Kind = Effect.fnUntraced(function*(world, name) {
  const done = Path.join(yield* temporaryDirectory, "done")
  const script = `echo "locked $ETCD_LOCK_KEY $ETCD_LOCK_REV"; until [ -e "$0" ]; do sleep 0.02; done`
  const args = [
    "--endpoints",
    world.endpoint,
    "lock",
    "--ttl",
    "2",
    world.prefix + name,
    "--",
    "sh",
    "-c",
    script,
    done
  ]
  const peer = yield* Peer.start(yield* Tools.etcdctl, args)
  return {
    held: Effect.map(peer.heard, heldOf(world)),
    release: Effect.andThen(Effect.sync(() => Fs.writeFileSync(done, "")), peer.ended)
  }
})

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "interop-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true }))
)

/** The program `go/mutex.go`, connected and with a lease of two seconds. */
export const goMutex = Effect.fnUntraced(function*(world: World.World, name: string) {
  const peer = yield* Peer.start(yield* Tools.go("mutex"), [world.endpoint, world.prefix + name, "2"])
  yield* peer.heard
  const ask = (command: "lock" | "trylock" | "owner" | "unlock") => Effect.andThen(peer.write(command), peer.heard)
  return { ...peer, ask, close: Effect.andThen(peer.hangUp, peer.ended) }
})

export const go: Kind = Effect.fnUntraced(function*(world, name) {
  const peer = yield* goMutex(world, name)
  yield* peer.write("lock")
  return {
    held: Effect.map(peer.heard, heldOf(world)),
    release: Effect.andThen(peer.ask("unlock"), peer.close)
  }
})

/** Reads `locked KEY REVISION`. */
export const heldOf = (world: World.World) => (line: string): Held => {
  const [what, key, revision] = line.split(" ")
  if (what !== "locked" || !key!.startsWith(world.prefix)) throw new Error(`expected to hear of a lock, not '${line}'`)
  return { key: key!.slice(world.prefix.length), token: BigInt(revision!) }
}
