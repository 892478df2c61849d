/**
 * What is printed on stderr. A write to a pipe that nobody reads, to a full disk or to a terminal that has been stopped
 * blocks the only thread, and renewals with it. So where a lock may be held, `cat` writes for this process, and what it does
 * not take in time is dropped and counted.
 */
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"

/** How many bytes may wait for a slow reader. */
const room = 1 << 16

/** How long what is printed last may take to be read, in milliseconds. */
const patience = 500

let isHolding = false
let cat: ChildProcess | undefined
let dropped = 0

/** Prints lines, and never waits or fails. */
export const write = (lines: string): void => {
  if (!isHolding) return console.error(lines)
  const { stdin } = cat ??= start()
  if (stdin!.writableLength + lines.length > room) return void dropped++
  const missing = dropped === 0 ? "" : `etcd-lock: ${dropped} messages that were not read in time are missing here\n`
  dropped = 0
  stdin!.write(`${missing}${lines}\n`)
}

const start = () => {
  // In a session of its own, it gets no signal of the terminal's before it has written the last line.
  const cat = spawn("cat", { detached: true, stdio: ["pipe", 2, "ignore"] })
  cat.on("error", () => {})
  cat.stdin!.on("error", () => {})
  cat.unref()
  return cat
}

/** Writes do not wait until the scope closes, nor after that where nobody has read what was printed by then. */
export const whileHolding = Effect.acquireRelease(
  Effect.sync(() => {
    isHolding = true
  }),
  () =>
    Effect.asVoid(Effect.timeoutOption(
      Effect.map(Effect.suspend(() => cat === undefined ? Effect.void : ended(cat)), () => {
        isHolding = false
      }),
      patience
    ))
)

const ended = (cat: ChildProcess) =>
  Effect.callback<void>((resume) => {
    cat.on("close", () => resume(Effect.void))
    cat.stdin!.end()
  })
