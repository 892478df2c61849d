import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { spawn } from "node:child_process"
import { inject } from "vitest"
import { elapsed, random63, unique } from "../support/connect.ts"

const shared = inject("etcdEndpoint")

describe.concurrent("the process", () => {
  const run = Effect.fnUntraced(function*(end: string) {
    const id = random63()
    const program = `
      import { Effect, Exit, Context, Layer, Scope } from "effect"
      import { Etcd } from "effect-etcd-lock"
      const scope = Scope.makeUnsafe()
      const program = Effect.gen(function*() {
        const etcd = Context.get(yield* Layer.build(Etcd.layer({ hosts: "${shared}" })), Etcd.Etcd)
        yield* etcd.leaseGrant(${id}n, 30)
        yield* etcd.leaseKeepAlive(${id}n, 1000)
        yield* etcd.leaseRevoke(${id}n)
        yield* Effect.scoped(Effect.gen(function*() {
          const watch = yield* etcd.watch({ key: Buffer.from("${unique("child")}") })
          yield* etcd.txn({ then: [Etcd.get("a")] })
        }))
        ${end}
        console.log("done")
      })
      await Effect.runPromise(Scope.provide(program, scope))
    `
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program], {
          stdio: ["ignore", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const done = Effect.callback<void>((resume) => {
      child.stdout.once("data", () => resume(Effect.void))
    })
    const exited = Effect.callback<number | null>((resume) => {
      child.once("exit", (code) => resume(Effect.succeed(code)))
    })
    const exiting = yield* Effect.forkChild(exited, { startImmediately: true })
    yield* Effect.raceFirst(done, Effect.andThen(Fiber.join(exiting), Effect.die(new Error("it ended early"))))
    return yield* elapsed(Fiber.join(exiting))
  })

  it.live("ends by itself at once when the layer is closed", () =>
    Effect.gen(function*() {
      const [code, millis] = yield* run("yield* Scope.close(scope, Exit.void)")
      assert.strictEqual(code, 0)
      assert.isBelow(millis, 5000)
    }))

  it.live("ends by itself when the layer stays open but is idle", () =>
    Effect.gen(function*() {
      const [code, millis] = yield* run("")
      assert.strictEqual(code, 0)
      assert.isBelow(millis, 20_000)
    }))
})
