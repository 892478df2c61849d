import { assert, describe, it } from "@effect/vitest"
import { Effect, Latch, Layer, Redacted } from "effect"
import { Etcd, Lease, Lock, Session } from "effect-etcd-lock"
import * as Auth from "../support/Auth.ts"
import { connect } from "../support/connect.ts"
import * as Proxy from "../support/Proxy.ts"

const ann = { password: "secret", prefix: "locks/" }
const asAnn = Auth.user("ann", ann.password)

const metricsOf = (endpoint: string) =>
  Effect.promise(() => fetch(`http://${endpoint}/metrics`).then((response) => response.text()))

describe.concurrent("a token that expires", () => {
  // Newer versions of etcd, 3.5.30 among them, check the token of each renewal. On older ones a lock is held without.
  for (const [hosts, seconds] of [[1, 14], [3, 26]] as const) {
    it.live(`costs no lock that is held, with ${hosts} host(s)`, () =>
      Effect.gen(function*() {
        const { endpoint } = yield* Auth.start({ ...yield* Auth.jwt(5), users: { ann } })
        const proxies = yield* Effect.forEach(Array.from({ length: hosts }), () => Proxy.make(endpoint))
        const etcd = Etcd.layer({ hosts: proxies.map((proxy) => proxy.endpoint), ...asAnn })
        // Nothing is asked of etcd meanwhile but renewals.
        yield* Effect.sleep(`${seconds} seconds`).pipe(
          Lock.withLock("locks/job"),
          Effect.provide(Session.layer({ ttl: "5 seconds" }).pipe(Layer.provide(etcd)))
        )
      }))
  }

  it.live("costs no lease when etcd has forgotten it in a restart", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ann } })
      yield* Effect.gen(function*() {
        const lease = yield* Lease.make({ ttl: "10 seconds" })
        yield* Effect.gen(function*() {
          // At its start etcd repeats what it had not yet written to its database, the giving of tokens too.
          yield* Effect.sleep("1 second")
          yield* server.kill
          yield* server.restart
          yield* Effect.sleep("14 seconds")
        }).pipe(lease.whileAlive)
      }).pipe(Effect.scoped, Effect.provide(Etcd.layer({ hosts: server.endpoint, ...asAnn })))
    }))

  it.live("is fetched as soon as etcd can be reached again", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make((yield* Auth.start({ users: { ann } })).endpoint)
      yield* proxy.refuse
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "2 seconds", ...asAnn })
      const read = etcd.range(Etcd.get("locks/a"))
      // By then gRPC would connect every ten seconds by itself.
      const outage = yield* Effect.forkChild(Effect.sleep("18 seconds"))
      while (outage.pollUnsafe() === undefined) yield* Effect.flip(read)
      yield* proxy.accept
      yield* read
    }))

  it.live("is replaced when the rights of a role have changed", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ ...yield* Auth.jwt(60), users: { ann } })
      yield* Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const lease = yield* Lease.make()
        yield* etcd.watch({ key: Buffer.from("locks/a") })
        yield* server.allow("ann", "more/")
        yield* etcd.range(Etcd.get("more/a"))
        yield* server.allow("ann", "most/")
        yield* etcd.leaseGrant(17n, 60)
        yield* server.allow("ann", "all/")
        yield* etcd.watch({ key: Buffer.from("all/a") })
        assert.isAbove((yield* etcd.leaseKeepAlive(lease.id, 1000)).ttl, 0)
        yield* server.allow("ann", "again/")
        assert.isAbove((yield* etcd.leaseKeepAlive(lease.id, 1000)).ttl, 0)
      }).pipe(Effect.scoped, Effect.provide(Etcd.layer({ hosts: server.endpoint, ...asAnn })))
    }))

  it.live("is not asked for again at once after a refusal, which all calls hear meanwhile", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ann } })
      let password = "wrong"
      let reads = 0
      const etcd = yield* connect({
        hosts: server.endpoint,
        username: "ann",
        password: Effect.sync(() => {
          reads++
          return Redacted.make(password)
        })
      })
      const began = performance.now()
      for (let i = 0; i < 20; i++) {
        const error = yield* Effect.flip(etcd.range(Etcd.get("locks/a")))
        assert.include(error.message, "wrong user name or password")
      }
      assert.isAtMost(reads, 1 + (performance.now() - began) / 1000)
      password = ann.password
      // It is read anew as soon as the refusal is forgotten.
      yield* Effect.sleep("1100 millis")
      yield* etcd.range(Etcd.get("locks/a"))
    }))

  it.live("cannot be had while the password cannot be read, which the error says", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ann } })
      let password: Effect.Effect<Redacted.Redacted, string> = Effect.fail("the vault is sealed")
      const etcd = yield* connect({
        hosts: server.endpoint,
        username: "ann",
        password: Effect.suspend(() => password)
      })
      for (
        const call of [
          etcd.range(Etcd.get("locks/a")),
          etcd.leaseKeepAlive(1n, 1000),
          Effect.scoped(etcd.watch({ key: Buffer.from("locks/a") }))
        ] as ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>>
      ) {
        const error = yield* Effect.flip(call)
        assert.deepStrictEqual([error.reason, error.outcome], ["Unauthenticated", "Refused"])
        assert.strictEqual(error.description, "cannot read `password` for a token: the vault is sealed")
      }
      password = Effect.succeed(Redacted.make(ann.password))
      yield* Effect.sleep("1100 millis")
      yield* etcd.range(Etcd.get("locks/a"))
    }))

  it.live("is fetched once for all calls that find it refused at the same time", () =>
    Effect.gen(function*() {
      // With a password that takes long to check, all have been refused before there is another token.
      const { endpoint } = yield* Auth.start({
        args: ["--auth-token=simple", "--auth-token-ttl=1", "--bcrypt-cost=10"],
        users: { ann }
      })
      const fetched = Effect.map(
        metricsOf(endpoint),
        (metrics) =>
          Number(/^grpc_server_handled_total\{grpc_code="OK",grpc_method="Authenticate".* (\d+)/m.exec(metrics)?.[1])
      )
      yield* Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        yield* etcd.range(Etcd.get("locks/a"))
        const before = yield* fetched
        yield* Effect.sleep("2500 millis")
        yield* Effect.all(Array.from({ length: 100 }, () => etcd.range(Etcd.get("locks/a"))), {
          concurrency: "unbounded"
        })
        const more = (yield* fetched) - before
        assert.isAtLeast(more, 1)
        // A busy machine may refuse some of them late.
        assert.isBelow(more, 10)
      }).pipe(Effect.scoped, Effect.provide(Etcd.layer({ hosts: endpoint, ...asAnn })))
    }))
})

// Beside the others, it would keep etcds and cores busy that they need.
describe("a token", () => {
  it.live("is asked for seldom by many programs whose password has changed", () =>
    Effect.gen(function*() {
      const server = yield* Auth.start({ users: { ann } })
      const refused = () =>
        Effect.map(metricsOf(server.endpoint), (metrics) =>
          [...metrics.matchAll(/^grpc_server_handled_total\{grpc_code="(\w+)",grpc_method="Authenticate".* (\d+)/gm)]
            .reduce((sum, [, code, count]) =>
              code === "OK" ? sum : sum + Number(count), 0))
      const programs = 20
      const session = () =>
        Session.layer({ ttl: "12 seconds" }).pipe(Layer.provide(Etcd.layer({ hosts: server.endpoint, ...asAnn })))
      const held = yield* Latch.make()
      let holding = 0
      yield* Effect.forEach(
        Array.from({ length: programs }, (_, i) =>
          i),
        (i) =>
          Effect.gen(function*() {
            if (++holding === programs) yield* held.open
            return yield* Effect.never
          }).pipe(Lock.withLock(`locks/${i}`), Effect.provide(session()), Effect.exit, Effect.forkScoped)
      )
      yield* held.await
      yield* server.changePassword("ann", "another")
      yield* Effect.sleep("11 seconds")
      const count = yield* refused()
      assert.isAtLeast(count, programs)
      // Each tries at a third of the TTL, and then 1, 2 and 4 seconds apart, or more often where answers come too late.
      assert.isAtMost(count, programs * 12)
    }).pipe(Effect.scoped))
})
