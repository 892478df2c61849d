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
  return [code, stderr, Fs.existsSync(folder) && Fs.readdirSync(folder, { recursive: true }).length > 1]
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

  it.live("does without a cache where there is no such folder, or another user's", () =>
    Effect.gen(function*() {
      const missing = Path.join(yield* temporaryDirectory(), "missing")
      assert.deepStrictEqual(yield* startWith({ HOME: "", XDG_CACHE_HOME: "" }, missing), [0, "", false])
      assert.deepStrictEqual(yield* startWith({ HOME: missing, XDG_CACHE_HOME: "" }, missing), [0, "", false])
      const others = yield* temporaryDirectory()
      const cache = Path.join(others, ".cache/etcd-lock")
      const isGivenAway = yield* Effect.option(Effect.try(() => Fs.chownSync(others, 65534, 65534)))
      // Only root can give a folder away.
      if (isGivenAway._tag === "Some") {
        assert.deepStrictEqual(yield* startWith({ HOME: others, XDG_CACHE_HOME: "" }, cache), [0, "", false])
      }
    }).pipe(Effect.scoped), 60_000)
})
