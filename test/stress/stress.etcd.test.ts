import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as World from "../support/World.ts"

const processes = 4
const fibers = 3
const rounds = 15

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "etcd-lock-stress-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true }))
)

const worker = (...args: ReadonlyArray<string>) =>
  Effect.callback<void>((resume) => {
    const child = execFile(
      process.execPath,
      ["--conditions=@effect-etcd-lock/source", Path.join(import.meta.dirname, "worker.ts"), ...args],
      (error, stdout, stderr) =>
        resume(error ? Effect.die(new Error(`${error.message}\n${stdout}\n${stderr}`)) : Effect.void)
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

it.live(
  "processes that count under a lock lose no count, with tokens in the order of the work",
  () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const directory = yield* temporaryDirectory
      Fs.writeFileSync(Path.join(directory, "count"), "0")
      yield* Effect.all(
        Array.from(
          { length: processes },
          () => worker(world.endpoint, world.prefix, directory, String(fibers), String(rounds))
        ),
        { concurrency: "unbounded" }
      )
      const total = processes * fibers * rounds
      assert.isFalse(Fs.existsSync(Path.join(directory, "violations")))
      assert.strictEqual(Fs.readFileSync(Path.join(directory, "count"), "utf8"), String(total))
      const tokens = Fs.readFileSync(Path.join(directory, "tokens"), "utf8").trim().split("\n").map(BigInt)
      assert.lengthOf(tokens, total)
      assert.isTrue(tokens.every((token, i) => i === 0 || tokens[i - 1]! < token), "tokens strictly increase")
    }),
  60_000
)
