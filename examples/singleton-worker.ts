/**
 * A worker that runs on one of three processes: the leader is killed, the next one frozen, and the one after that asked to
 * end. The processes need an etcd that they share:
 *
 *   npm run example -- test/examples/withEtcd.ts examples/singleton-worker.ts
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Fiber, Option, Queue, Schedule, Stream } from "effect"
import { Election, Session } from "effect-etcd-lock"
import { start } from "./processes.ts"
import { explained, say, SharedEtcdLive } from "./support.ts"

const election = "singleton-worker"

// -----------------------------------------------------------------------------
// the worker, as every process has it
// -----------------------------------------------------------------------------

const worker = (who: string) =>
  Effect.gen(function*() {
    yield* Console.log("begins to work")
    yield* Effect.repeat(Console.log("works"), Schedule.spaced("1 second"))
  }).pipe(
    Effect.onExit(() => Console.log("has stopped working")),
    Election.whileLeader(election, { value: who }),
    // A short TTL, so that the demonstration is. The default is 15 seconds.
    Effect.provide(Session.layer({ ttl: "3 seconds" }))
  )

// -----------------------------------------------------------------------------
// three processes, and what happens to them
// -----------------------------------------------------------------------------

const operator = Effect.gen(function*() {
  const leaders = yield* Queue.unbounded<string>()
  const observing = Stream.runForEach(Election.observe(election), (leader) =>
    Option.match(leader, {
      onNone: () => say("Observer", "sees that no process leads"),
      onSome: ({ value }) => Effect.andThen(say("Observer", `sees that ${value} leads`), Queue.offer(leaders, value))
    }))
  yield* Effect.forkScoped(observing)

  const ada = yield* start("Ada")
  yield* Queue.take(leaders)
  const others = { Ben: yield* start("Ben"), Cleo: yield* start("Cleo") }
  yield* Effect.sleep("2 seconds")

  yield* ada.signal("SIGKILL")
  // Ada cannot resign: the next one leads when her lease is over.
  const second = (yield* Queue.take(leaders)) as keyof typeof others
  yield* Effect.sleep("2 seconds")

  yield* others[second].signal("SIGSTOP")
  const third = (yield* Queue.take(leaders)) as keyof typeof others
  // It was frozen when it lost the leadership, and stops before it does anything else.
  yield* others[second].signal("SIGCONT")
  yield* Effect.sleep("3 seconds")

  yield* others[third].signal("SIGTERM")
  yield* Queue.take(leaders)
  yield* Effect.sleep("2 seconds")
  yield* others[second].signal("SIGTERM")
  yield* Effect.forEach(Object.values(others), ({ printing }) => Fiber.await(printing))
}).pipe(
  Effect.scoped,
  Effect.provide(NodeServices.layer)
)

const program = Effect.gen(function*() {
  const who = process.argv[2]
  if (who === undefined) yield* operator
  else yield* worker(who)
})

program.pipe(Effect.provide(SharedEtcdLive), explained, NodeRuntime.runMain)
