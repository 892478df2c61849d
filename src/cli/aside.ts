/**
 * A process beside this one, in a session of its own, so that no signal of the terminal's reaches it. What the user has in
 * the environment cannot keep it from working, it keeps no folder in use, and this process does not wait for it.
 */
import { type ChildProcess, spawn, type StdioOptions } from "node:child_process"

/** Starts it; `notThere` is called when it cannot be started. */
export const start = (words: ReadonlyArray<string>, stdio: StdioOptions, notThere: () => void): ChildProcess => {
  const [program, ...args] = words
  const env = { PATH: "/usr/local/bin:/usr/bin:/bin" }
  const process = spawn(program!, args, { detached: true, stdio, cwd: "/", env })
  process.on("error", notThere)
  process.unref()
  return process
}
