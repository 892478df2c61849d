import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Etcd } from "effect-etcd-lock"
import { execFile } from "node:child_process"
import { inject } from "vitest"
import { connect, elapsed, random63, text, unique, versionOf } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { until } from "../support/eventually.ts"
import * as Proxy from "../support/Proxy.ts"

const shared = inject("etcdEndpoint")

type Service = Etcd.Etcd["Service"]

describe.concurrent("a connection", () => {
  const everyCall = (etcd: Service): ReadonlyArray<readonly [string, Effect.Effect<unknown, Etcd.EtcdError>]> => [
    ["range", etcd.range(Etcd.get("a"))],
    ["txn", etcd.txn({ then: [Etcd.put(unique("any"), "")] })],
    ["idempotent txn", etcd.txn({ then: [Etcd.get("a")] })],
    ["leaseGrant", etcd.leaseGrant(random63(), 5)],
    ["leaseRevoke", etcd.leaseRevoke(random63())],
    ["leaseTimeToLive", etcd.leaseTimeToLive(random63())],
    ["leaseKeepAlive", etcd.leaseKeepAlive(random63(), 1000)],
    ["watch", Effect.scoped(etcd.watch({ key: Buffer.from("a") }))]
  ]

  const assertBounded = Effect.fnUntraced(function*(etcd: Service) {
    yield* Effect.forEach(
      everyCall(etcd),
      Effect.fnUntraced(function*([name, call]) {
        const [error, millis] = yield* elapsed(Effect.flip(call))
        assert.include(["Timeout", "Unavailable"], error.reason, name)
        // less than a second attempt of two seconds would take
        assert.isBelow(millis, 3900, name)
      }),
      { concurrency: "unbounded" }
    )
  })

  it.live("passes over a host where there is none", () =>
    Effect.gen(function*() {
      for (const method of ["range", "txn", "leaseGrant", "watch"]) {
        const etcd = yield* connect({ hosts: ["127.0.0.1:1", shared], requestTimeout: "3 seconds" })
        yield* everyCall(etcd).find(([name]) => name === method)![1]
      }
    }))

  it.live("ends every call in time when nothing comes back", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const fresh = yield* connect({ hosts: proxy.endpoint, requestTimeout: "2 seconds" })
      const used = yield* connect({ hosts: proxy.endpoint, requestTimeout: "2 seconds" })
      // That may be too short where much else is going on.
      yield* Effect.retry(used.range(Etcd.get("a")), { times: 10 })
      yield* Effect.retry(used.leaseKeepAlive(random63(), 1000), { times: 10 })
      yield* Effect.retry(used.watch({ key: Buffer.from("a") }), { times: 10 })
      yield* proxy.stall
      yield* Effect.all([assertBounded(fresh), assertBounded(used)], { concurrency: "unbounded" })
      yield* proxy.cut
      yield* proxy.resume
      yield* Effect.forEach([fresh, used], (etcd) => Effect.retry(etcd.range(Etcd.get("a")), { times: 10 }))
    }))

  it.live("ends every call in time when etcd stands still, and recovers with it", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint, requestTimeout: "2 seconds" })
      yield* etcd.range(Etcd.get("a"))
      yield* server.pause
      yield* assertBounded(etcd)
      yield* server.resume
      yield* Effect.retry(etcd.range(Etcd.get("a")), { times: 10 })
    }))

  it.live("sends an idempotent transaction again when its answer is lost", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const [etcd, direct] = yield* Effect.all([connect({ hosts: proxy.endpoint }), connect()])
      const key = unique("lost-reply")
      yield* etcd.range(Etcd.get(key))
      yield* proxy.dropReplies
      const sent = yield* etcd.txn({
        compare: [Etcd.compareCreateRevision(key, "=", 0n)],
        then: [Etcd.put(key, "mine")],
        else: [Etcd.get(key)],
        idempotent: true
      }).pipe(Effect.forkChild({ startImmediately: true }))
      yield* until("etcd to apply it", Effect.map(versionOf(direct, key), (version) => version === 1n))
      yield* until("its answer to be lost", proxy.hasDropped)
      yield* proxy.resume
      const answer = yield* Fiber.join(sent)
      const [own] = answer.succeeded ? assert.fail("it was applied before") : answer.responses
      assert.strictEqual(text(own.kvs[0]?.value), "mine")
      assert.strictEqual(own.kvs[0]?.version, 1n)
    }))

  it.live("does not send another transaction again, and says that its outcome is unknown", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const [etcd, direct] = yield* Effect.all([connect({ hosts: proxy.endpoint }), connect()])
      const key = unique("lost-reply")
      yield* etcd.range(Etcd.get(key))
      yield* proxy.dropReplies
      const sent = yield* Effect.forkChild(Effect.flip(etcd.txn({ then: [Etcd.put(key, "")] })), {
        startImmediately: true
      })
      yield* until("etcd to apply it", Effect.map(versionOf(direct, key), (version) => version === 1n))
      yield* until("its answer to be lost", proxy.hasDropped)
      yield* proxy.resume
      const error = yield* Fiber.join(sent)
      assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Unknown"])
      yield* Effect.sleep("300 millis")
      assert.strictEqual(yield* versionOf(direct, key), 1n)
    }))

  it.live("sends such a transaction again as long as it could not be sent at all", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      const etcd = yield* connect({ hosts: proxy.endpoint })
      const key = unique("refused")
      yield* proxy.refuse
      const sent = yield* Effect.forkChild(etcd.txn({ then: [Etcd.put(key, "")] }), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* proxy.accept
      assert.isTrue((yield* Fiber.join(sent)).succeeded)
      assert.strictEqual(yield* versionOf(etcd, key), 1n)
    }))

  it.live("sends it to the next host, too, when another call gave up the connection that it waited for", () =>
    Effect.gen(function*() {
      const [mute, other] = yield* Effect.all([Proxy.make(shared), Proxy.make(shared)])
      yield* mute.stall
      const etcd = yield* connect({ hosts: [mute.endpoint, other.endpoint], requestTimeout: "6 seconds" })
      const key = unique("given-up")
      // A read is repeated after a third of the time, and closes the channel in which the other waits for longer.
      yield* Effect.all([etcd.range(Etcd.get(key)), etcd.txn({ then: [Etcd.put(key, "")] })], {
        concurrency: "unbounded"
      })
      assert.strictEqual(yield* versionOf(etcd, key), 1n)
      yield* etcd.txn({ then: [Etcd.remove(key)] })
    }))

  it.live("names the host where the connection was given up, to which nothing was sent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      yield* proxy.stall
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      // The read ends after a second, and with it the connection. A renewal is one attempt.
      yield* Effect.forkChild(Effect.exit(etcd.range(Etcd.get("a"))), { startImmediately: true })
      const error = yield* Effect.flip(etcd.leaseKeepAlive(random63(), 10_000))
      assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Refused"])
      assert.include(
        error.message,
        `the connection was given up before the request was sent (${proxy.endpoint})`
      )
    }))
})

describe.concurrent("a host", () => {
  it.live("names a host that cannot be reached", () =>
    Effect.gen(function*() {
      for (
        const [hosts, told] of [
          ["127.0.0.1:1", /cannot connect to etcd \(.*127\.0\.0\.1:1\)$/],
          ["no-such-host.invalid:2379", /cannot find the host; check its name \(.*no-such-host\.invalid:2379\)$/],
          [["127.0.0.1:1", "127.0.0.1:2"], /cannot connect to etcd \(.*127\.0\.0\.1:[12]\)$/]
        ] as const
      ) {
        const etcd = yield* connect({ hosts, requestTimeout: "1 second" })
        const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
          etcd.range(Etcd.get("a")),
          etcd.txn({ then: [Etcd.put("a", "")] }),
          etcd.leaseKeepAlive(1n, 1000),
          Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
        ]
        yield* Effect.forEach(
          calls,
          Effect.fnUntraced(function*(call) {
            const [error, millis] = yield* elapsed(Effect.flip(call))
            assert.deepStrictEqual([error.reason, error.outcome], ["Unavailable", "Refused"], error.method)
            assert.match(error.message, told)
            assert.isBelow(millis, 3000)
          }),
          { concurrency: "unbounded" }
        )
      }
    }))

  it.live("may be a host that never answers, to which nothing was sent", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make(shared)
      yield* proxy.stall
      const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "1 second" })
      const error = yield* Effect.flip(etcd.txn({ then: [Etcd.put("a", "")] }))
      assert.deepStrictEqual([error.reason, error.outcome], ["Timeout", "Refused"])
      assert.include(error.message, `no connection in time (${proxy.endpoint})`)
    }))

  it.live("is not what only looks like it", () =>
    Effect.gen(function*() {
      const port = shared.split(":").at(-1)
      for (
        const hosts of [
          `${shared}/`,
          `http://${shared}`,
          `HTTP://${shared}//`,
          ` ${shared} `,
          ...shared.startsWith("127.0.0.1") ? [`localhost:${port}`] : []
        ]
      ) {
        yield* (yield* connect({ hosts })).range(Etcd.get("a"))
      }
    }))

  it.live("is reached directly, whatever proxy the environment names for the web", () =>
    Effect.gen(function*() {
      const program = `
        import { Effect } from "effect"
        import { Etcd } from "effect-etcd-lock"
        const read = Effect.flatMap(Etcd.Etcd, (etcd) => etcd.range(Etcd.get("a")))
        await Effect.runPromise(Effect.provide(read, Etcd.layer({ hosts: "${shared}" })))
        console.log("read")
      `
      const nowhere = "http://127.0.0.1:1"
      const env = { ...process.env, grpc_proxy: nowhere, https_proxy: nowhere, http_proxy: nowhere, no_proxy: "" }
      const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
      const output = yield* Effect.callback<string>((resume) => {
        const child = execFile(
          process.execPath,
          args,
          { env },
          (error, stdout) => resume(error === null ? Effect.succeed(stdout) : Effect.die(error))
        )
        return Effect.sync(() => child.kill("SIGKILL"))
      })
      assert.strictEqual(output, "read\n")
    }))

  it.live("is not a bracketed IPv6 address", () =>
    Effect.gen(function*() {
      const etcd = yield* connect({ hosts: "[::1]:1", requestTimeout: "1 second" })
      const error = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.strictEqual(error.reason, "Unavailable", error.message)
    }))
})
