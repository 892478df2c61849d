/**
 * The command: three processes want the same lock, and an operator looks at them. It needs an etcd that they share:
 *
 *   npm run example -- test/examples/withEtcd.ts examples/command.ts
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Data, Deferred, Effect, Fiber, Option, Queue, Stream } from "effect"
import { ChildProcess, CommandLine } from "effect/process"
import { fileURLToPath } from "node:url"
import { explained, say } from "./support.ts"

class NoEtcd extends Data.TaggedError("NoEtcd")<{ readonly message: string }> {}

// As `npx etcd-lock` finds it where the package is installed.
const program = fileURLToPath(new URL("dist/bin.js", import.meta.resolve("effect-etcd-lock/package.json")))

interface Options {
  /** What it reads from stdin. */
  readonly stdin?: Stream.Stream<Uint8Array>
  /** Receives the lines that it prints. */
  readonly printed?: Queue.Enqueue<string>
}

/** Types a command, and prints what it prints, and how it ends. */
const type = Effect.fnUntraced(function*(who: string, words: ReadonlyArray<string>, options: Options = {}) {
  yield* say(who, `$ ${CommandLine.display(["etcd-lock", ...words], { format: "posix" })}`)
  const child = yield* ChildProcess.make(process.execPath, [program, ...words], { stdin: options.stdin ?? "ignore" })
  const print = (line: string) =>
    Effect.andThen(say(who, line), options.printed === undefined ? Effect.void : Queue.offer(options.printed, line))
  yield* child.all.pipe(Stream.decodeText, Stream.splitLines, Stream.runForEach(print))
  const code = yield* child.exitCode
  if (code !== 0) yield* say(who, `ends with ${code}`)
}, Effect.scoped)

/** Types a command, and goes on when it has printed its first line. */
const begin = Effect.fnUntraced(function*(who: string, words: ReadonlyArray<string>, stdin: Stream.Stream<Uint8Array>) {
  const printed = yield* Queue.unbounded<string>()
  const typing = yield* Effect.forkChild(type(who, words, { stdin, printed }))
  yield* Queue.take(printed)
  return typing
})

const work = "echo works with the token $ETCD_LOCK_TOKEN; read enough; echo is done"

const demonstration = Effect.gen(function*() {
  if (process.argv.includes("--memory")) {
    return yield* say("etcd-lock", "is a process of its own: an etcd in memory is none that it could share")
  }
  const endpoints = yield* Config.option(Config.String("ETCDCTL_ENDPOINTS"))
  if (Option.isNone(endpoints)) {
    return yield* new NoEtcd({
      message: "The processes of this example need an etcd that they share: set ETCDCTL_ENDPOINTS, " +
        "or run it through test/examples/withEtcd.ts, which starts one."
    })
  }
  const enough = yield* Deferred.make<void>()
  const stdin = Stream.encodeText(Stream.fromEffect(Effect.as(Deferred.await(enough), "enough\n")))
  const anna = yield* begin("Anna", ["run", "report", "--metadata", "job=nightly", "-c", work], stdin)
  const ben = yield* begin("Ben", ["run", "report", "-c", work], stdin)
  yield* type("Cleo", ["run", "--nonblock", "report", "-c", work])
  yield* type("Operator", ["inspect", "report"])
  yield* Deferred.succeed(enough, undefined)
  yield* Fiber.joinAll([anna, ben])
}).pipe(Effect.provide(NodeServices.layer))

demonstration.pipe(explained, NodeRuntime.runMain)
