/** How the process of the command starts. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { unique } from "../support/connect.ts"
import { temporaryDirectory } from "../support/internal/native.ts"
import * as Program from "./Program.ts"

/** Runs a command under a lock, and returns how it ended and what the folder has then. */
const startWith = Effect.fnUntraced(function*(env: Readonly<Record<string, string>>, folder: string) {
  const { code, stderr } = yield* Program.run(["run", unique("start"), "true"], { env })
  return [code, stderr, Fs.existsSync(folder) && Fs.readdirSync(folder).length > 0]
})

describe("etcd-lock", () => {
  it.live("keeps what it has compiled in the cache of the user who runs it", () =>
    Effect.gen(function*() {
      const [home, caches] = [yield* temporaryDirectory(), yield* temporaryDirectory()]
      const inHome = Path.join(home, ".cache/etcd-lock")
      assert.deepStrictEqual(yield* startWith({ HOME: home, XDG_CACHE_HOME: "" }, inHome), [0, "", true])
      const inCaches = Path.join(caches, "etcd-lock")
      assert.deepStrictEqual(yield* startWith({ HOME: "", XDG_CACHE_HOME: caches }, inCaches), [0, "", true])
    }).pipe(Effect.scoped), 60_000)

  it.live(
    "does without a cache where it can have none, or where others could write to it",
    () =>
      Effect.gen(function*() {
        const home = yield* temporaryDirectory()
        const folder = Path.join(home, ".cache/etcd-lock")
        // A loop, a file in the way, no absolute path, and none at all.
        Fs.symlinkSync("loop", Path.join(home, "loop"))
        Fs.writeFileSync(Path.join(home, "file"), "")
        for (const HOME of [Path.join(home, "loop"), Path.join(home, "file"), "x".repeat(300), "here", ""]) {
          for (const env of [{ HOME, XDG_CACHE_HOME: "" }, { HOME: "", XDG_CACHE_HOME: HOME }]) {
            assert.deepStrictEqual(yield* startWith(env, Path.resolve(HOME, ".cache/etcd-lock")), [0, "", false], HOME)
          }
        }
        Fs.mkdirSync(folder, { recursive: true })
        Fs.chmodSync(folder, 0o777)
        assert.deepStrictEqual(yield* startWith({ HOME: home, XDG_CACHE_HOME: "" }, folder), [0, "", false])
        Fs.chmodSync(folder, 0o700)
        assert.deepStrictEqual(yield* startWith({ HOME: home, XDG_CACHE_HOME: "" }, folder), [0, "", true])
      }).pipe(Effect.scoped),
    60_000
  )

  // Only root can give a folder away.
  it.live.skipIf(process.getuid?.() !== 0)(
    "does not use the cache of another user, such as the one who calls sudo",
    () =>
      Effect.gen(function*() {
        const home = yield* temporaryDirectory()
        const folder = Path.join(home, ".cache/etcd-lock")
        Fs.mkdirSync(folder, { recursive: true })
        Fs.chownSync(folder, 65534, 65534)
        assert.deepStrictEqual(yield* startWith({ HOME: home, XDG_CACHE_HOME: "" }, folder), [0, "", false])
      }).pipe(Effect.scoped),
    60_000
  )
})
