/**
 * An HTTP API that changes an order under a lock of its own: a lock that is held becomes a typed 409 with Retry-After,
 * an outage of etcd a typed 503.
 *
 *   npm run example -- examples/http-api.ts
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Deferred, Duration, Effect, Fiber, Layer, Schema } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { HttpClient, HttpRouter } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiClient, HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { EtcdLive, explained, say } from "./support.ts"

// -----------------------------------------------------------------------------
// the API
// -----------------------------------------------------------------------------

class OrderBusy extends Schema.TaggedError<OrderBusy>()("OrderBusy", {
  heldBy: Schema.String,
  retryAfter: Schema.Duration
}) {}

const OrderBusyResponse = OrderBusy.pipe(HttpApiSchema.encodeToWithHeaders({
  body: Schema.Struct({ heldBy: Schema.String }).pipe(HttpApiSchema.status(409)),
  headers: { "retry-after": Schema.Int }
}, {
  decode: ({ body, headers }) => new OrderBusy({ ...body, retryAfter: Duration.seconds(headers["retry-after"]) }),
  encode: ({ heldBy, retryAfter }) => ({ body: { heldBy }, headers: { "retry-after": Duration.toSeconds(retryAfter) } })
}))

class LocksUnavailable extends Schema.TaggedError<LocksUnavailable>()("LocksUnavailable", {}, { httpApiStatus: 503 }) {}

const order = {
  params: { id: Schema.String },
  headers: { user: Schema.String },
  error: [OrderBusyResponse, LocksUnavailable]
} as const

const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.put("change", "/orders/:id", { ...order, payload: Schema.Struct({ pieces: Schema.Int }) }),
    HttpApiEndpoint.delete("cancel", "/orders/:id", order)
  )
)

// -----------------------------------------------------------------------------
// the server
// -----------------------------------------------------------------------------

/** Turns the errors of a lock into those of the API. */
const asResponse = <A, R>(self: Effect.Effect<A, Lock.LockHeld | Lock.AcquireError, R>) => {
  const busy = ({ holder }: Lock.LockHeld | Lock.LockTimeout) =>
    new OrderBusy({ heldBy: String(holder?.metadata?.user ?? "another client"), retryAfter: Duration.seconds(3) })
  const unavailable = () => new LocksUnavailable()
  return Effect.catchTags(self, {
    LockHeld: busy,
    LockTimeout: busy,
    EtcdError: unavailable,
    // The order may be half changed, as after a crash, and the client may repeat the request.
    LockLost: unavailable,
    // Only an operator can mend this, so it becomes a 500.
    LockNameConflict: Effect.die
  })
}

const lockOf = (id: string) => Lock.name`http-api/orders/${id}`

/** Lets the clients below call while the first change is under way. */
const paying = Deferred.makeUnsafe<void>()

const OrdersLive = HttpApiBuilder.group(Api, "orders", (handlers) =>
  handlers
    .handle("change", ({ headers: { user }, params: { id }, payload: { pieces } }) =>
      Deferred.succeed(paying, undefined).pipe(
        Effect.andThen(Effect.sleep("3 seconds")),
        Effect.andThen(say("Server", `has changed order ${id} to ${pieces} pieces`)),
        // A request waits for a short time only: a 409 says when to come back.
        Lock.withLock(lockOf(id), { timeout: "1 second", metadata: { user } }),
        asResponse
      ))
    .handle("cancel", ({ headers: { user }, params: { id } }) =>
      say("Server", `has cancelled order ${id}`).pipe(
        Lock.tryWithLock(lockOf(id), { metadata: { user } }),
        asResponse
      )))

/** A server on a free port, with an `HttpClient` that calls it. */
const serverOn = <E>(etcd: Layer.Layer<Etcd.Etcd, E>) =>
  HttpRouter.serve(Layer.provide(HttpApiBuilder.layer(Api), OrdersLive), {
    disableLogger: true,
    disableListenLog: true
  }).pipe(
    Layer.provide(Session.layer()),
    Layer.provide(etcd),
    Layer.provideMerge(NodeHttpServer.layerTest)
  )

// -----------------------------------------------------------------------------
// the clients
// -----------------------------------------------------------------------------

const makeClient = HttpApiClient.make(Api, {
  transformClient: HttpClient.tap(({ headers, status }) =>
    say("Server", `responds ${status}${"retry-after" in headers ? `, Retry-After: ${headers["retry-after"]}` : ""}`)
  )
}).pipe(Effect.map(({ orders }) => ({
  /** Repeats the request after the time of `Retry-After`. */
  change: (user: string, id: string, pieces: number) =>
    orders.change({ headers: { user }, params: { id }, payload: { pieces } }).pipe(
      Effect.tapErrorTag("OrderBusy", ({ heldBy, retryAfter }) =>
        Effect.andThen(
          say(user, `tries again in ${Duration.format(retryAfter)}, since ${heldBy} holds the order's lock`),
          Effect.sleep(retryAfter)
        )),
      Effect.retry({ while: ({ _tag }) => _tag === "OrderBusy" })
    ),
  cancel: (user: string, id: string) =>
    orders.cancel({ headers: { user }, params: { id } }).pipe(Effect.catchTags({
      OrderBusy: ({ heldBy }) => say(user, `gives up, since ${heldBy} holds the order's lock`),
      LocksUnavailable: () => say(user, "gives up, since the server cannot lock orders now")
    }))
})))

const contention = Effect.gen(function*() {
  const { cancel, change } = yield* makeClient
  yield* cancel("Cleo", "6")
  const anna = yield* Effect.forkChild(change("Anna", "7", 3))
  yield* Deferred.await(paying)
  yield* cancel("Cleo", "8")
  yield* cancel("Cleo", "7")
  yield* change("Ben", "7", 5)
  yield* Fiber.join(anna)
})

const program = Effect.gen(function*() {
  yield* Effect.provide(contention, serverOn(EtcdLive))
  yield* say("Operator", "starts a server for which etcd is out of reach")
  const nowhere = Etcd.layer({ hosts: "127.0.0.1:1", requestTimeout: "1 second" })
  yield* Effect.provide(Effect.flatMap(makeClient, ({ cancel }) => cancel("Cleo", "7")), serverOn(nowhere))
})

program.pipe(explained, NodeRuntime.runMain)
