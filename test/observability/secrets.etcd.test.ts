/** A password that is planted in every way to connect is in no error, span, log or metric, whatever fails. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Metric, Redacted, References, Tracer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { inspect } from "node:util"
import * as Auth from "../support/Auth.ts"
import { fromVariables } from "../support/connect.ts"
import { eventually } from "../support/eventually.ts"

const right = "planted-right-hunter2"
const wrong = "planted-wrong-hunter2"

/** Text in the forms in which it could be seen. */
const forms = [
  "hunter2",
  Buffer.from(right).toString("base64").slice(4, -4),
  Buffer.from(wrong).toString("base64").slice(4, -4)
]

describe("secrets", () => {
  it.live("are in no error, span, log or metric", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ada: { password: right, prefix: "ada/" } } })
      const seen: Array<unknown> = []
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const observed = Layer.mergeAll(
        Logger.layer([
          Logger.make((options) => {
            seen.push([options.message, options.cause, options.fiber.getRef(References.CurrentLogAnnotations)])
          })
        ]),
        Layer.succeed(References.MinimumLogLevel, "All")
      )

      const connectionOf = (password: string) =>
        Etcd.layer({
          hosts: server.endpoint,
          username: "ada",
          password: Redacted.make(password),
          requestTimeout: "1 second"
        })
      const use = (name: string, password: string) => <A, E>(body: Effect.Effect<A, E>) =>
        body.pipe(
          Lock.withLock(name, { timeout: "1 second", metadata: { who: "ada" } }),
          Effect.exit,
          Effect.tap((exit) => Effect.sync(() => seen.push(exit))),
          Effect.provide(Session.layer({ ttl: "3 seconds" }).pipe(Layer.provideMerge(connectionOf(password))))
        )

      const all = Effect.gen(function*() {
        yield* use("ada/works", right)(Effect.log("works"))
        yield* use("ada/refused", wrong)(Effect.void)
        yield* use("ben/denied", right)(Effect.void)
        // The lock is lost: its lease is revoked by another client of the same user.
        yield* use("ada/lost", right)(Effect.never).pipe(
          Effect.race(
            Effect.gen(function*() {
              const etcd = yield* Etcd.Etcd
              const { holder } = yield* eventually(
                Effect.tap(Lock.inspect("ada/lost"), ({ holder }) => Effect.sync(() => assert.isDefined(holder)))
              )
              yield* etcd.leaseRevoke(holder!.leaseId)
              return yield* Effect.never
            }).pipe(Effect.provide(connectionOf(right)))
          )
        )
        // etcd does not answer.
        yield* server.pause
        yield* use("ada/silent", right)(Effect.void)
        yield* server.resume
        for (const [user, password] of [["ada", wrong], ["ada:" + wrong, undefined], [":" + wrong, undefined]]) {
          const env = {
            ETCDCTL_ENDPOINTS: server.endpoint,
            ETCDCTL_USER: user!,
            ...password === undefined ? {} : { ETCDCTL_PASSWORD: password }
          }
          const exit = yield* fromVariables(env).pipe(
            Effect.flatMap((etcd) => etcd.range(Etcd.get("ada/x"))),
            Effect.scoped,
            Effect.exit
          )
          seen.push(exit)
        }
        seen.push(yield* Metric.snapshot, yield* Effect.exit(Effect.sync(() => connectionOf(""))))
      })
      yield* all.pipe(Effect.withTracer(tracer), Effect.provide(observed))

      assert.isAbove(spans.length, 5)
      const text = [...seen, ...spans].flatMap((value) => [
        inspect(value, { depth: 20, maxArrayLength: null, maxStringLength: null, showHidden: false }),
        JSON.stringify(value, (_, value) =>
          typeof value === "bigint" ? String(value) : value instanceof Map ? [...value] : value)
      ]).join("\n")
      // It is the right text that is looked at.
      for (const planted of ["ada/works", "ada/lost", "wrong user name or password", "LeaseExpired"]) {
        assert.include(text, planted)
      }
      for (const form of forms) {
        assert.notInclude(text, form)
      }
    }).pipe(Effect.scoped), 60_000)
})
