import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import * as Net from "node:net"
import { until } from "./eventually.ts"
import * as Host from "./Host.ts"

/** Says something all the time to who it connects to, and tells what it hears from there. */
const talk = `
  const socket = require("node:net").connect(Number(process.argv[2]), process.argv[1])
  setInterval(() => socket.write("a"), 20)
  socket.on("data", () => console.log("heard"))
`

const namespaces = Effect.callback<string>((resume) => {
  execFile("ip", ["netns", "list"], (_, stdout) => resume(Effect.succeed(stdout)))
})

describe("a host of its own", () => {
  it.live("loses its packets in one direction or both, hears again, and leaves nothing behind", (context) =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const host = yield* Host.make
        if (host === undefined) return context.skip()
        const heard = { here: 0, there: 0 }
        const server = Net.createServer((socket) => {
          const timer = setInterval(() => socket.write("b"), 20)
          socket.on("data", () => heard.here++).on("error", () => {}).on("close", () => clearInterval(timer))
        })
        yield* Effect.callback<void>((resume) => void server.listen(0, host.gateway, () => resume(Effect.void)))
        yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
        const { port } = server.address() as Net.AddressInfo
        const [file, ...args] = host.on([process.execPath, "-e", talk, host.gateway, String(port)])
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => spawn(file!, args)),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        child.stdout.on("data", () => heard.there++)
        const hears = (who: keyof typeof heard) =>
          Effect.suspend(() => {
            const last = heard[who]
            return until(`news ${who}`, Effect.sync(() => heard[who] > last + 2))
          })
        const hearsNothing = (who: keyof typeof heard) =>
          Effect.gen(function*() {
            // What was on its way has arrived by then.
            yield* Effect.sleep("300 millis")
            const last = heard[who]
            yield* Effect.sleep("200 millis")
            assert.strictEqual(heard[who], last)
          })
        for (const [direction, deaf] of [["INPUT", "there"], ["OUTPUT", "here"]] as const) {
          yield* Effect.andThen(hears("here"), hears("there"))
          yield* host.drop(direction)
          yield* hearsNothing(deaf)
          yield* host.pass
        }
        yield* Effect.andThen(hears("here"), hears("there"))
        yield* host.drop("INPUT", "OUTPUT")
        yield* Effect.all([hearsNothing("here"), hearsNothing("there")], { concurrency: "unbounded" })
      }))
      assert.notInclude(yield* namespaces, `etcd-lock-${process.pid}-`)
    }))
})
