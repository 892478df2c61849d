/**
 * Replicas that report over HTTP whether they lead, for a load balancer that sends writes to the leader alone, and
 * which replica leads, for all other clients.
 *
 *   npm run example -- examples/leader-health.ts
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Context, Effect, Exit, Layer, Option, Ref, Scope, Stream } from "effect"
import { Election, Session } from "effect-etcd-lock"
import { HttpClient, HttpRouter, HttpServerResponse } from "effect/http"
import { EtcdLive, explained, say } from "./support.ts"

const election = "leader-health/primary"

// -----------------------------------------------------------------------------
// a replica
// -----------------------------------------------------------------------------

/** Leads whenever it can, and keeps its leadership where the server finds it. */
const leading = (who: string, own: Ref.Ref<Option.Option<Election.Leadership>>) =>
  Effect.flatMap(Election.Current, (leadership) => Ref.set(own, Option.some(leadership))).pipe(
    Effect.andThen(Effect.never),
    Effect.ensuring(Ref.set(own, Option.none())),
    Election.whileLeader(election, { value: who })
  )

const routes = (own: Ref.Ref<Option.Option<Election.Leadership>>) =>
  HttpRouter.addAll([
    // It sends no request, and is right even in a process that has just been frozen for a minute.
    HttpRouter.route(
      "GET",
      "/leading",
      Effect.map(Ref.get(own), (leadership) => {
        const leads = Option.exists(leadership, ({ isHeldUnsafe }) => isHeldUnsafe())
        return HttpServerResponse.jsonUnsafe({ leads }, { status: leads ? 200 : 503 })
      })
    ),
    // It asks etcd.
    HttpRouter.route(
      "GET",
      "/leader",
      Election.leader(election).pipe(
        Effect.map(Option.match({
          onNone: () => HttpServerResponse.jsonUnsafe({ leader: null }, { status: 404 }),
          onSome: ({ value }) => HttpServerResponse.jsonUnsafe({ leader: value })
        })),
        Effect.catch(({ message }) => Effect.succeed(HttpServerResponse.jsonUnsafe({ message }, { status: 503 })))
      )
    )
  ])

/** A server on a free port, with an `HttpClient` that calls it, and a candidate behind it. */
const replica = (who: string) =>
  Layer.unwrap(Effect.gen(function*() {
    const own = yield* Ref.make(Option.none<Election.Leadership>())
    const candidate = Layer.effectDiscard(Effect.forkScoped(leading(who, own)))
    return HttpRouter.serve(routes(own), { disableLogger: true, disableListenLog: true }).pipe(
      Layer.merge(candidate),
      Layer.provide(Session.layer()),
      Layer.provideMerge(NodeHttpServer.layerTest)
    )
  }))

// -----------------------------------------------------------------------------
// two replicas, and a client that asks them
// -----------------------------------------------------------------------------

/** Starts a replica, and returns how to ask it. */
const start = Effect.fnUntraced(function*(who: string, scope: Scope.Scope) {
  const context = yield* Layer.buildWithScope(Layer.fresh(replica(who)), scope)
  const client = Context.get(context, HttpClient.HttpClient)
  return (path: string) =>
    Effect.gen(function*() {
      const { status, text } = yield* client.get(path)
      yield* say("Client", `asks ${who} for ${path}: ${status} ${yield* text}`)
    })
})

/** Waits until a replica leads. */
const untilLeads = (who: string) =>
  Election.observe(election).pipe(
    Stream.takeUntil(Option.exists(({ value }) => value === who)),
    Stream.runDrain
  )

const program = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const adaScope = yield* Scope.fork(scope)
  const ada = yield* start("Ada", adaScope)
  yield* untilLeads("Ada")
  const ben = yield* start("Ben", scope)
  yield* Effect.sleep("1 second")
  for (const ask of [ada, ben]) yield* Effect.andThen(ask("/leading"), ask("/leader"))
  yield* say("Operator", "shuts Ada down")
  yield* Scope.close(adaScope, Exit.void)
  yield* untilLeads("Ben")
  yield* Effect.sleep("1 second")
  yield* Effect.andThen(ben("/leading"), ben("/leader"))
})

program.pipe(Effect.scoped, Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
