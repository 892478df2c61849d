import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { inject } from "vitest"
import * as Auth from "../support/Auth.ts"
import { connect, elapsed, leased, random63, text } from "../support/connect.ts"
import { logs } from "../support/logs.ts"
import * as Proxy from "../support/Proxy.ts"

const shared = inject("etcdEndpoint")

type Service = Etcd.Etcd["Service"]

describe.concurrent("authentication", () => {
  // Ann may do all under `reports/`.
  const startWithAuth = (...args: ReadonlyArray<string>) =>
    Auth.start({ args, users: { ann: { password: "secret", prefix: "reports/" } } })

  const inScope = (etcd: Service) =>
    [
      ["range", Effect.asVoid(etcd.range(Etcd.get("reports/a")))],
      ["txn", Effect.asVoid(etcd.txn({ then: [Etcd.put("reports/a", "")] }))],
      ["leaseGrant", Effect.asVoid(etcd.leaseGrant(random63(), 60))],
      ["watch", Effect.asVoid(Effect.scoped(etcd.watch({ key: Buffer.from("reports/a") })))]
    ] as const

  it.live("takes place on the connection of the calls", () =>
    Effect.gen(function*() {
      const server = yield* startWithAuth()
      const proxy = yield* Proxy.make(server.endpoint)
      const etcd = yield* connect({ hosts: proxy.endpoint, ...Auth.user("ann", "secret") })
      for (const [, call] of inScope(etcd)) yield* call
      assert.strictEqual(yield* proxy.connections, 1)
    }))

  it.live("is told apart from permission, by every call", () =>
    Effect.gen(function*() {
      const { endpoint: hosts } = yield* startWithAuth()
      const ann = yield* connect({ hosts, ...Auth.user("ann", "secret") })
      for (const [, call] of inScope(ann)) yield* call

      const below = yield* connect({ hosts, prefix: "secrets/", ...Auth.user("ann", "secret") })
      const roles = "the roles of user \"ann\" do not allow this on"
      const denied = [
        [ann.range(Etcd.get("secrets")), `${roles} key "secrets"`],
        [ann.txn({ then: [Etcd.put("secrets", "")] }), `${roles} key "secrets"`],
        [Effect.scoped(ann.watch({ key: Buffer.from("secrets") })), `${roles} key "secrets"`],
        // The key is named as etcd knows it, since that is what the role has to allow.
        [below.range(Etcd.get("a")), `${roles} key "secrets/a"`],
        [
          ann.txn({
            compare: [Etcd.compareCreateRevision("reports/a", "=", 0n)],
            then: [Etcd.nested({ then: [Etcd.get("reports/a")] }), Etcd.put("secrets", "")]
          }),
          `${roles} all keys of the request, the first of which is "reports/a"`
        ]
      ] as const
      for (const [call, text] of denied) {
        const error = yield* Effect.flip<unknown, Etcd.EtcdError, never>(call)
        assert.deepStrictEqual([error.reason, error.outcome], ["PermissionDenied", "Refused"], error.method)
        assert.strictEqual(error.description, text)
        assert.notInclude(JSON.stringify(error) + String(error), "secret\"")
      }
      // which has not harmed the stream that others use
      yield* inScope(ann)[3][1]

      for (
        const [options, cure] of [
          [Auth.user("ann", "wrong"), "wrong user name or password"],
          [Auth.user("nobody", "secret"), "wrong user name or password"],
          [{}, "this etcd wants a user name and a password; set `username` and `password`"]
        ] as const
      ) {
        const etcd = yield* connect({ hosts, ...options })
        for (const [name, call] of inScope(etcd)) {
          // etcd grants leases to whom it does not know
          if (name === "leaseGrant" && !("username" in options)) continue
          const error = yield* Effect.flip(call)
          assert.strictEqual(error.reason, "Unauthenticated", `${name}: ${error.message}`)
          assert.include(error.message, cure, name)
        }
      }
    }))

  it.live("goes on after the token has expired", () =>
    Effect.gen(function*() {
      const { endpoint: hosts } = yield* startWithAuth("--auth-token=simple", "--auth-token-ttl=1")
      const etcd = yield* connect({ hosts, ...Auth.user("ann", "secret") })
      const key = Buffer.from("reports/a")
      const id = yield* leased(etcd)
      const running = yield* etcd.watch({ key })
      yield* etcd.leaseKeepAlive(id, 1000)
      const expired = Effect.sleep("2500 millis")

      yield* expired
      yield* etcd.txn({ then: [Etcd.put(key, "1")] })
      yield* expired
      const after = yield* etcd.watch({ key })
      assert.strictEqual((yield* etcd.leaseKeepAlive(id, 1000)).ttl, 60)
      yield* etcd.txn({ then: [Etcd.put(key, "2")] })
      assert.strictEqual((yield* after.next).length, 1)
      assert.strictEqual(text((yield* running.next)[0]?.kv.value), "1")
      assert.strictEqual(text((yield* running.next)[0]?.kv.value), "2")
    }))

  it.live("ends every call in time when the token cannot be had", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({
        hosts: proxy.endpoint,
        requestTimeout: "2 seconds",
        ...Auth.user("ann", "secret")
      })
      yield* proxy.stall
      // a second attempt has less time than the client gives the token
      const calls = [...inScope(etcd), ["leaseKeepAlive", Effect.asVoid(etcd.leaseKeepAlive(1n, 400))] as const]
      for (const [name, call] of calls) {
        const [error, millis] = yield* elapsed(Effect.flip(call))
        assert.strictEqual(error.reason, "Timeout", name)
        assert.isBelow(millis, name === "leaseKeepAlive" ? 1900 : 3900, name)
      }
    }))

  it.live("passes over a host where there is none", () =>
    Effect.gen(function*() {
      const { endpoint } = yield* startWithAuth()
      const hosts = ["127.0.0.1:1", endpoint]
      for (const i of [0, 1, 2, 3]) {
        yield* inScope(yield* connect({ hosts, ...Auth.user("ann", "secret") }))[i]![1]
      }
    }))

  it.live("may be set up before etcd has it enabled, and tells so once", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      yield* Effect.gen(function*() {
        const etcd = yield* connect(Auth.user("ann", "secret"))
        for (const [, call] of inScope(etcd)) yield* call
      }).pipe(Effect.provide(logger))
      assert.deepStrictEqual(logged, [
        "This etcd has no authentication enabled, so user \"ann\" is not used until it has."
      ])
    }))

  it.live("is enabled and disabled while locks are held, and costs none of them", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ann: { password: "secret", prefix: "reports/" } }, enabled: false })
      const { logged, logger } = logs()
      yield* Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const works = Effect.gen(function*() {
          yield* Lock.withLock(Effect.void, "reports/other")
          yield* Lock.tryWithLock(Effect.void, "reports/other")
        })
        yield* Effect.gen(function*() {
          yield* works
          yield* server.enable
          const stranger = yield* connect({ hosts: server.endpoint })
          assert.strictEqual((yield* Effect.flip(stranger.range(Etcd.get("reports/a")))).reason, "Unauthenticated")
          yield* works
          // Renewals alone, for longer than the TTL.
          yield* Effect.sleep("12 seconds")
          yield* works
          yield* server.disable
          yield* works
          yield* Effect.sleep("6 seconds")
          yield* server.enable
          yield* works
          yield* Effect.sleep("12 seconds")
          const subscribed = yield* etcd.watch({ key: Buffer.from("reports/a") })
          yield* etcd.txn({ then: [Etcd.put("reports/a", "")] })
          assert.strictEqual((yield* subscribed.next).length, 1)
        }).pipe(Lock.withLock("reports/held"), Effect.scoped)
      }).pipe(
        Effect.provide(
          Session.layer({ ttl: "10 seconds" }).pipe(
            Layer.provideMerge(Etcd.layer({ hosts: server.endpoint, ...Auth.user("ann", "secret") })),
            Layer.provideMerge(logger)
          )
        )
      )
      assert.lengthOf(logged.filter((message) => String(message).includes("no authentication enabled")), 1)
    }))
})
