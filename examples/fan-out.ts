/**
 * Three replicas send their invoices to an API that allows four calls at once, and one of them ends in the middle.
 *
 *   npm run example -- examples/fan-out.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Deferred, Effect, Ref } from "effect"
import { Semaphore, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

const limit = 4

// -----------------------------------------------------------------------------
// the API, which refuses a fifth call
// -----------------------------------------------------------------------------

const makeApi = Effect.gen(function*() {
  const calls = yield* Ref.make(0)
  const most = yield* Ref.make(0)
  const receive = (invoice: string) =>
    Effect.acquireUseRelease(
      Ref.updateAndGet(calls, (n) => n + 1),
      (n) =>
        Effect.gen(function*() {
          if (n > limit) return yield* Effect.die(new Error("429 Too Many Requests"))
          yield* Ref.update(most, (m) => Math.max(m, n))
          yield* say("API", `receives ${invoice}`)
          yield* Effect.sleep("1 second")
        }),
      () => Ref.update(calls, (n) => n - 1)
    )
  return { receive, most: Ref.get(most) }
})

type Api = Effect.Success<typeof makeApi>

// -----------------------------------------------------------------------------
// a replica, which has a session of its own, as another machine has
// -----------------------------------------------------------------------------

const replica = (who: string, { receive }: Api, invoices: ReadonlyArray<number>, begun: Effect.Effect<unknown>) =>
  // All of its fibers call at once, and each waits for one of the permits that all replicas share.
  Effect.forEach(
    invoices,
    (invoice) =>
      Effect.andThen(begun, receive(`invoice ${invoice}`)).pipe(
        Effect.onInterrupt(() => say(who, `breaks off invoice ${invoice}`)),
        Semaphore.withPermits("fan-out/api", { permits: 1, of: limit }),
        Effect.andThen(say(who, `has sent invoice ${invoice}`))
      ),
    { concurrency: "unbounded", discard: true }
  ).pipe(
    Effect.andThen(say(who, "has sent all")),
    Effect.provide(Session.layer())
  )

const program = Effect.gen(function*() {
  const api = yield* makeApi
  const begun = yield* Deferred.make<void>()
  const after = (millis: number) => Effect.andThen(Deferred.await(begun), Effect.sleep(millis))
  // Ben has all permits, and ends in the middle of his calls. His permits go to the others when his session ends.
  const ben = Effect.raceFirst(
    replica("Ben", api, [11, 12, 13, 14, 15], Deferred.succeed(begun, undefined)),
    Effect.andThen(after(600), say("Ben", "is shut down"))
  )
  const ada = Effect.andThen(after(200), replica("Ada", api, [21, 22, 23, 24, 25], Effect.void))
  const cleo = Effect.andThen(after(200), replica("Cleo", api, [31, 32, 33, 34, 35], Effect.void))
  yield* Effect.all([ben, ada, cleo], { concurrency: "unbounded" })
  yield* say("API", `has received up to ${yield* api.most} calls at once`)
})

program.pipe(Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
