/**
 * The etcds to run: each a release that `.ci/etcd` can get, such as 3.6, or a file.
 */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as Path from "node:path"
import { EtcdNotFound } from "../support/EtcdServer.ts"
import type { Release } from "./nemesis.ts"

/** Those that upstream supports, in the order in which a cluster goes through them. */
export const supported: ReadonlyArray<string> = ["3.5", "3.6", "3.7"]

export const find = (etcd: string): Effect.Effect<Release, EtcdNotFound> =>
  /^\d+\.\d+$/.test(etcd)
    ? Effect.map(get(etcd), (binary) => ({ version: etcd, binary }))
    : Effect.succeed({ version: etcd, binary: Path.resolve(etcd) })

/**
 * Has a young cluster take the snapshots that an older one has taken: 3.7 panics at what members of 3.5 have written at their
 * start, if no snapshot came after it, which by default takes thousands of writes.
 */
export const ofSomeAge: ReadonlyArray<string> = ["--snapshot-count=100"]

const root = Path.resolve(import.meta.dirname, "../..")

const get = (version: string): Effect.Effect<string, EtcdNotFound> =>
  Effect.callback((resume) => {
    const child = execFile(Path.join(root, ".ci/etcd"), [version], (error, stdout, stderr) => {
      resume(
        error === null
          ? Effect.succeed(stdout.trim())
          : Effect.fail(new EtcdNotFound({ message: stderr.trim() || error.message }))
      )
    })
    return Effect.sync(() => void child.kill())
  })
