/** How passwords and certificates are read, and what is told of a read that fails. */
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Redacted, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { inspect } from "node:util"
import * as Background from "../../src/internal/background.ts"
import { certificates } from "../../src/internal/etcd3/secrets.ts"
import { connect } from "../support/connect.ts"
import * as GrpcServer from "../support/GrpcServer.ts"

/** An etcd that lets everybody in. */
const etcd: GrpcServer.Answers = {
  Auth: { Authenticate: () => ({ token: "token" }) },
  KV: { Range: () => ({ header: { cluster_id: 1, revision: 7 } }) }
}

/** Reads certificates until the scope closes. */
const readerOf = Effect.fnUntraced(function*(tls: NonNullable<Etcd.Options["tls"]>, timeout = 5000) {
  const background = yield* Background.make
  const scope = yield* Effect.scope
  const isClosed = () => scope.state._tag === "Closed"
  return certificates({ hosts: "https://127.0.0.1:1", tls }, true, { background, isClosed, timeout })!
})

const rejection = (promise: Promise<unknown>): Effect.Effect<Error> =>
  Effect.promise(() => promise.then(() => assert.fail("it was read"), (error) => error))

class Sealed extends Data.TaggedError("Sealed")<{ readonly password: string }> {}

describe.concurrent("a read", () => {
  it.live("may take longer than an attempt, and goes on across attempts", () =>
    Effect.gen(function*() {
      const hosts = yield* GrpcServer.start(etcd)
      let reads = 0
      const client = yield* connect({
        hosts,
        username: "ann",
        password: Effect.delay(
          Effect.sync(() => {
            reads++
            return Redacted.make("secret")
          }),
          "2 seconds"
        ),
        requestTimeout: "4 seconds"
      })
      yield* client.range(Etcd.get("a"))
      assert.strictEqual(reads, 1)
    }))

  it.live("is shared by all who ask meanwhile, and made again for those who ask later", () =>
    Effect.gen(function*() {
      let reads = 0
      const read = yield* readerOf(Effect.delay(
        Effect.sync(() => {
          reads++
          return {}
        }),
        50
      ))
      yield* Effect.promise(() => Promise.all([read(), read()]))
      assert.strictEqual(reads, 1)
      yield* Effect.promise(read)
      assert.strictEqual(reads, 2)
    }))

  it.live("that does not end is told with the time that it had", () =>
    Effect.gen(function*() {
      const read = yield* readerOf(Effect.never, 50)
      assert.strictEqual(
        (yield* rejection(read())).message,
        "cannot read `tls` for a new connection: it took longer than `requestTimeout` (50ms)"
      )
    }))

  it.live("does not begin once the connection is closed", () =>
    Effect.gen(function*() {
      let reads = 0
      const scope = yield* Scope.make()
      const tls = Effect.sync(() => {
        reads++
        return {}
      })
      const read = yield* readerOf(tls).pipe(Scope.provide(scope))
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.include((yield* rejection(read())).message, "the connection is closed")
      assert.strictEqual(reads, 0)
    }))

  it.live("of certificates that failed late is told, where gRPC knows of no reason any more", () =>
    Effect.gen(function*() {
      const hosts = `https://${yield* GrpcServer.start(etcd)}`
      const tls = Effect.delay(Effect.fail("the vault is sealed"), 1500)
      const client = yield* connect({ hosts, tls, requestTimeout: "2 seconds" })
      const told = new Set<string>()
      const ask = (call: Effect.Effect<unknown, Etcd.EtcdError>) =>
        Effect.flip(call).pipe(
          Effect.tap(({ description, reason }) => Effect.sync(() => told.add(`${reason}: ${description}`))),
          Effect.andThen(Effect.sleep(50)),
          Effect.forever
        )
      yield* Effect.all([ask(client.leaseKeepAlive(1n, 1000)), ask(client.range(Etcd.get("a")))], { concurrency: 2 })
        .pipe(
          Effect.timeoutOption("5 seconds")
        )
      assert.include([...told], "Tls: cannot read `tls` for a new connection: the vault is sealed")
      assert.notInclude([...told].join(), "cannot connect to etcd")
    }))

  const failures: ReadonlyArray<readonly [unknown, string]> = [
    [{ _tag: "Sealed", password: "s3cret" }, "Sealed"],
    [new Sealed({ password: "s3cret" }), "Sealed"],
    [Object.assign(new Error("the vault is sealed"), { password: "s3cret" }), "the vault is sealed"],
    [{ password: "s3cret" }, "it failed"],
    [["s3cret"], "it failed"],
    [{ _tag: { password: "s3cret" } }, "it failed"]
  ]
  for (const [failure, says] of failures) {
    it.live(`that fails with ${inspect(failure).split("\n")[0]} shows no more than its text`, () =>
      Effect.gen(function*() {
        const endpoint = yield* GrpcServer.start(etcd)
        const fails = Effect.fail(failure)
        const cases = [
          [{ hosts: endpoint, username: "ann", password: fails }, "cannot read `password` for a token: "],
          [{ hosts: `https://${endpoint}`, tls: fails }, "cannot read `tls` for a new connection: "]
        ] as const
        for (const [options, cannot] of cases) {
          const client = yield* connect(options)
          const error = yield* Effect.flip(client.range(Etcd.get("a")))
          assert.strictEqual(error.description, cannot + says)
          assert.notInclude(JSON.stringify(error) + inspect(error, { depth: 20, showHidden: true }), "s3cret")
        }
      }))
  }
})
