/** Runs examples as processes, and reads what they print. */
import { assert } from "@effect/vitest"
import { Effect, Semaphore } from "effect"
import { spawn } from "node:child_process"
import * as Path from "node:path"

export const examples = Path.resolve(import.meta.dirname, "../../examples")

/** The examples go by a real clock, so they do not all run at the same time. A test's time includes its wait. */
const turns = Semaphore.makeUnsafe(5)

/** Runs an example until it ends by itself. Its lines come without the time and the padding. */
export const run = (example: string, environment: Record<string, string>, ...through: ReadonlyArray<string>) =>
  Effect.callback<{ readonly code: number | null; readonly lines: ReadonlyArray<string>; readonly errors: string }>(
    (resume) => {
      const { DATABASE_URL: _, ETCD_ENDPOINTS: __, ETCDCTL_ENDPOINTS: ___, ...inherited } = process.env
      const child = spawn(
        process.execPath,
        ["--conditions=@effect-etcd-lock/source", ...through, Path.join(examples, `${example}.ts`)],
        { env: { ...inherited, ...environment }, stdio: ["ignore", "pipe", "pipe"] }
      )
      let output = ""
      let errors = ""
      child.stdout.on("data", (chunk) => {
        output += String(chunk)
      })
      child.stderr.on("data", (chunk) => {
        errors += String(chunk)
      })
      child.on("close", (code) => {
        const lines = output.trim().split("\n").map((line) => line.replace(/^\d+\.\d s +(\w+) +/, "$1 "))
        resume(Effect.succeed({ code, lines, errors }))
      })
      return Effect.sync(() => child.kill("SIGKILL"))
    }
  ).pipe(turns.withPermit)

/** What an example prints that succeeds. */
export const linesOf = (...args: Parameters<typeof run>) =>
  Effect.map(run(...args), ({ code, errors, lines }) => {
    assert.strictEqual(errors.replaceAll(warning, ""), "")
    assert.strictEqual(code, 0)
    return lines
  })

/** What the package logs where a lock is lost on purpose, with its annotations. */
const warning = /^\[[\d:.]+\] WARN \(#\d+\): (Lock|Lease|The lines of this session) .*\n( {2}.*\n)*(\}\n)?/gm

export const printsInOrder = (lines: ReadonlyArray<string>, expected: ReadonlyArray<string | RegExp>) => {
  let at = 0
  for (const wanted of expected) {
    const found = lines.findIndex((line, i) =>
      i >= at && (typeof wanted === "string" ? line === wanted : wanted.test(line))
    )
    assert.isAtLeast(found, 0, `'${wanted}' is missing after line ${at} of\n${lines.join("\n")}`)
    at = found + 1
  }
}
