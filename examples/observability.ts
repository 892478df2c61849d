/**
 * Three replicas hold locks and wait for them, one of them leads, and an operator takes a lock away. The program serves its
 * metrics to Prometheus, and sends them, its traces and its logs by OTLP to `OTEL_EXPORTER_OTLP_ENDPOINT`, if that is set.
 *
 *   npm run example -- examples/observability.ts
 *   RUN_FOR='1 hour' OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 npm run example -- examples/observability.ts
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Option } from "effect"
import { Election, Lock, ReadWriteLock, Semaphore, Session } from "effect-etcd-lock"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import { Otlp, PrometheusMetrics } from "effect/observability"
import { createServer } from "node:http"
import { EtcdLive, explained, say } from "./support.ts"

// -----------------------------------------------------------------------------
// the exporters
// -----------------------------------------------------------------------------

/** Zero is any free port. */
const port = Config.Int("METRICS_PORT").pipe(Config.withDefault(9464))

const PrometheusLive = HttpRouter.serve(PrometheusMetrics.layerHttp(), {
  disableLogger: true,
  disableListenLog: true
}).pipe(
  Layer.provideMerge(Layer.unwrap(
    Effect.map(port, (port) => NodeHttpServer.layer(createServer, { host: "127.0.0.1", port }))
  ))
)

const resource = { serviceName: "effect-etcd-lock-example" }

const OtlpLive = Layer.unwrap(Effect.gen(function*() {
  const endpoint = yield* Config.option(Config.String("OTEL_EXPORTER_OTLP_ENDPOINT"))
  if (Option.isNone(endpoint)) return Layer.empty
  return Otlp.layerJson({ baseUrl: endpoint.value, resource }).pipe(Layer.provide(FetchHttpClient.layer))
}))

// -----------------------------------------------------------------------------
// the replicas
// -----------------------------------------------------------------------------

/** Each run is a trace of its own. A failure does not end the later runs, so that an outage of etcd can be watched. */
const again = <A, E extends { readonly message: string }, R>(who: string, name: string, work: Effect.Effect<A, E, R>) =>
  Effect.withSpan(work, name, { root: true }).pipe(
    Effect.catch(({ message }) => Effect.delay(say(who, `fails in ${name}: ${message}`), "1 second")),
    Effect.andThen(Effect.sleep("50 millis")),
    Effect.forever
  )

const report = (who: string) =>
  Effect.sleep("2 seconds").pipe(
    // The label makes this lock's metrics series of their own.
    Lock.withLock("observability/report", { label: "report", metadata: { who } }),
    // The log has the loss, with its cause.
    Effect.catchTag("LockLost", ({ heldFor }) =>
      say(who, heldFor === undefined ? "loses its place in the line" : "is interrupted in the middle of the report"))
  )

const cleanUp = Effect.sleep("200 millis").pipe(Lock.withLockIfAvailable("observability/clean-up"))

const page = Effect.sleep("50 millis").pipe(ReadWriteLock.withReadLock("observability/catalogue"))

const refresh = Effect.sleep("100 millis").pipe(ReadWriteLock.withWriteLock("observability/catalogue"))

const call = Effect.sleep("100 millis").pipe(Semaphore.withPermits("observability/api", { permits: 1, of: 2 }))

/** Each term has a trace of its own. */
const schedule = (who: string) =>
  Effect.never.pipe(Election.whileLeader("observability/scheduler", { value: who, label: "scheduler" }))

/** A replica has a session of its own, as another machine has. Its lease is short, so that it is renewed often. */
const replica = (who: string) =>
  Effect.all([
    again(who, "report", report(who)),
    again(who, "clean-up", cleanUp),
    again(who, "page", page),
    again(who, "refresh", Effect.delay(refresh, "500 millis")),
    again(who, "call", call),
    again(who, "schedule", schedule(who))
  ], { concurrency: "unbounded" }).pipe(
    Effect.provide(Session.layer({ ttl: "5 seconds" }))
  )

/** Takes the lock away after three seconds, in the middle of a report. Returns whether its holder still had it. */
const takeAway = Effect.gen(function*() {
  const { holder } = yield* Lock.inspect("observability/report")
  if (holder === undefined) return false
  yield* say("Operator", `takes the lock away from ${holder.metadata?.who}`)
  return yield* Lock.forceRelease("observability/report", { createRevision: holder.createRevision })
})

const operator = Effect.repeat(takeAway, { until: (isTaken) => isTaken }).pipe(Effect.delay("3 seconds"))

// -----------------------------------------------------------------------------
// the program
// -----------------------------------------------------------------------------

/** Prints the losses as Prometheus gets them. */
const losses = Effect.gen(function*() {
  const metrics = yield* PrometheusMetrics.format()
  for (const line of metrics.split("\n").filter((line) => /^etcd_lock_losses.* [1-9]/.test(line))) {
    yield* say("Metrics", `have ${line}`)
  }
})

const program = Effect.gen(function*() {
  const { address } = yield* HttpServer.HttpServer
  yield* say("Metrics", `are at ${HttpServer.formatAddress(address)}/metrics`)
  const runFor = yield* Config.Duration("RUN_FOR").pipe(Config.withDefault("5 seconds"))
  yield* Effect.all([replica("Ada"), replica("Ben"), replica("Cleo"), operator], { concurrency: "unbounded" }).pipe(
    Effect.timeoutOption(runFor)
  )
  yield* losses
})

program.pipe(
  // The tracer is beside the server and not below it: a scrape is no part of what the program does, and gets no span.
  Effect.provide(Layer.mergeAll(EtcdLive, PrometheusLive, OtlpLive)),
  explained,
  NodeRuntime.runMain
)
