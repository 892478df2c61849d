import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { EtcdNotFound, type Launcher } from "./launcher.ts"
import * as Native from "./native.ts"

const cache = Path.resolve(import.meta.dirname, "../../../.cache/etcd")
const unpacked = Path.join(cache, `${process.platform}-${process.arch}`)
const binary = Path.join(unpacked, "usr/bin/etcd")

/** The etcd-server package of Debian or Ubuntu, unpacked below `.cache` once; the system stays as it is. */
export const fromPackage: Effect.Effect<Launcher, EtcdNotFound> = Effect.suspend(() =>
  Fs.existsSync(binary) ? Effect.void : Effect.scoped(unpack)
).pipe(
  Effect.mapError((why) =>
    new EtcdNotFound({ message: `The etcd-server package of Debian and Ubuntu could not be unpacked: ${why}` })
  ),
  Effect.andThen(Native.fromBinary(binary))
)

const unpack = Effect.gen(function*() {
  const work = yield* workDirectory
  // its own lists and cache: the system's may be missing, stale or not ours to write
  const apt = (...args: ReadonlyArray<string>) =>
    run("apt-get", [
      "--option=Acquire::Languages=none",
      "--option=APT::Sandbox::User=",
      `--option=Dir::State=${work}`,
      `--option=Dir::Cache=${work}`,
      ...args
    ], work)
  // one unreachable source among many makes it fail, and need not matter
  yield* apt("update").pipe(Effect.ignore)
  yield* apt("download", "etcd-server")
  const file = Fs.readdirSync(work).find((name) => name.endsWith(".deb")) ?? ""
  yield* run("dpkg", ["-x", Path.join(work, file), Path.join(work, "root")], work)
  // in one step, so that nobody ever sees half of it; whoever came first has done the same
  yield* Effect.try(() => Fs.renameSync(Path.join(work, "root"), unpacked)).pipe(Effect.ignore)
})

const run = (command: string, args: ReadonlyArray<string>, cwd: string): Effect.Effect<void, string> =>
  Effect.callback((resume) => {
    execFile(command, args, { cwd, timeout: 300_000 }, (error, _stdout, stderr) => {
      resume(error === null ? Effect.void : Effect.fail(stderr.trim().split("\n").at(-1) || error.message))
    })
  })

const workDirectory = Effect.acquireRelease(
  Effect.sync(() => {
    Fs.mkdirSync(cache, { recursive: true })
    const work = Fs.mkdtempSync(Path.join(cache, "work-"))
    Fs.mkdirSync(Path.join(work, "lists/partial"), { recursive: true })
    Fs.mkdirSync(Path.join(work, "archives/partial"), { recursive: true })
    return work
  }),
  (work) => Effect.sync(() => Fs.rmSync(work, { recursive: true, force: true }))
)
