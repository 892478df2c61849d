/** What the contenders that run on Node have in common. */
import { createInterface } from "node:readline"
import type { Report } from "../history.ts"
import { now } from "../now.ts"
import { standstill, type Task } from "../protocol.ts"

export const task: Task = JSON.parse(process.argv[2]!)

type Unstamped<R> = R extends Report ? Omit<R, "at"> : never

/** Stamps a report with the time, and writes it before anything else happens. */
export const report = (what: Unstamped<Report>): void =>
  void process.stdout.write(`${JSON.stringify({ at: now(), ...what })}\n`)

const standStill = (millis: number) => {
  const until = now() + millis
  while (now() < until);
}

const watchTime = () => {
  let last = now()
  setInterval(() => {
    const at = now()
    if (at - last > standstill) report({ _tag: "Froze", from: last })
    last = at
  }, 20).unref()
}

/**
 * Reports how it is, obeys, and calls back when it should stop, and when more should wait for a lock. The process ends with
 * its input, in whatever way that ended.
 */
export const obey = (onStop: () => void, onCrowd?: (count: number, lock: string) => void): void => {
  watchTime()
  const lines = createInterface({ input: process.stdin })
  let isStopping = false
  lines.on("line", (line) => {
    const [command, argument, lock] = line.split(" ")
    switch (command) {
      case "block": {
        return standStill(Number(argument))
      }
      case "crowd": {
        return onCrowd?.(Number(argument), lock!)
      }
      case "usage": {
        globalThis.gc?.()
        const sockets = process.getActiveResourcesInfo().filter((resource) => resource === "TCPSocketWrap").length
        return report({ _tag: "Usage", heap: process.memoryUsage().heapUsed, sockets })
      }
      case "stop": {
        isStopping = true
        lines.close()
        process.stdin.destroy()
        return onStop()
      }
    }
  })
  process.stdin.on("end", () => isStopping || process.exit(1))
  report({ _tag: "Ready", pid: process.pid })
}
