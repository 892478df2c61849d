/**
 * What is printed while a lock is held. A write to a full disk, or to a terminal that has been stopped, blocks the only
 * thread, and renewals with it. So `cat` writes in the place of this process, and what it does not take in time is dropped
 * and counted.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import type { ChildProcess } from "node:child_process"
import * as Aside from "./aside.ts"

/** How many bytes may wait for a slow reader. */
const room = 1 << 16

/** How long what was printed last may take to be read. */
const patience = "500 millis"

/** A console that neither waits nor fails when it prints an error. */
export const layer = Layer.effect(
  Console.Console,
  Effect.gen(function*() {
    const console = yield* Console.Console
    let cat: ChildProcess | undefined
    let isThere = true
    let dropped = 0
    yield* Effect.addFinalizer(() =>
      Effect.timeoutOption(Effect.suspend(() => cat === undefined ? Effect.void : ended(cat)), patience)
    )
    const services = yield* Effect.context()
    const self: Console.Console = {
      ...console,
      error: (lines: string) => {
        const { stdin } = cat ??= start(() => {
          isThere = false
          console.error(lines)
        })
        if (!isThere) return console.error(lines)
        if (stdin!.writableLength + lines.length > room) return void dropped++
        const missing = dropped
        dropped = 0
        if (missing > 0) {
          Effect.runSyncWith(services)(
            Effect.logWarning(`${missing} messages are missing here: nobody read them in time`).pipe(
              Effect.provideService(Console.Console, self),
              // Errors may be among them.
              Effect.provideService(References.MinimumLogLevel, "Warn")
            )
          )
        }
        stdin!.write(`${lines}\n`)
      }
    }
    return self
  })
)

const start = (notThere: () => void) => {
  const cat = Aside.start(["cat"], ["pipe", 2, "ignore"], notThere)
  cat.stdin!.on("error", () => {})
  return cat
}

const ended = (cat: ChildProcess) =>
  Effect.callback<void>((resume) => {
    cat.on("close", () => resume(Effect.void))
    cat.stdin!.end()
  })
