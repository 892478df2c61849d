import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Etcd } from "effect-etcd-lock"
import { execFile } from "node:child_process"
import { inject } from "vitest"
import { connect, fromVariables, random63 } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Tls from "../support/Tls.ts"

const shared = inject("etcdEndpoint")

describe.concurrent("TLS", () => {
  it.live("is spoken where it is asked for, and its mistakes are told as such", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const https = `https://${server.endpoint}`
      const good = Tls.certificates(Tls.client)
      for (const hosts of [https, `${https}/`, server.endpoint]) {
        const etcd = yield* connect({ hosts, tls: good })
        yield* etcd.range(Etcd.get("a"))
        yield* etcd.watch({ key: Buffer.from("a") })
        yield* etcd.leaseKeepAlive(random63(), 1000)
      }
      const mistakes: ReadonlyArray<readonly [string, Partial<Etcd.Options>, string | RegExp]> = [
        [
          "another authority",
          { hosts: https, tls: { ...good, ca: Tls.certificates({ ...Tls.client, ca: Tls.foreignCa }).ca } },
          "etcd's certificate is not signed by `tls.ca`"
        ],
        [
          "no authority",
          { hosts: https },
          "etcd's certificate is not signed by an authority that Node trusts; set `tls.ca`"
        ],
        [
          "no client certificate",
          { hosts: https, tls: { ca: good.ca } },
          "etcd wants a client certificate; set `tls.cert` and `tls.key`"
        ],
        [
          "an expired client certificate",
          { hosts: https, tls: Tls.certificates(Tls.expiredClient) },
          "etcd refused our client certificate: expired (on 2020-02-01T00:00:00.000Z)"
        ],
        [
          "a foreign client certificate",
          { hosts: https, tls: Tls.certificates(Tls.foreignClient) },
          // Older versions of etcd do not say what is wrong with it.
          /^etcd refused our client certificate(: not signed by an|; an) authority that etcd trusts/
        ],
        ["http to https", { hosts: server.endpoint }, "etcd speaks TLS here; write the host with https://"],
        [
          "https to http",
          { hosts: `https://${shared}` },
          "etcd does not speak TLS here; write the host with http:// and leave out `tls`"
        ]
      ]
      for (const [name, options, cure] of mistakes) {
        const etcd = yield* connect({ requestTimeout: "2 seconds", ...options })
        const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
          etcd.range(Etcd.get("a")),
          etcd.txn({ then: [Etcd.put("a", "")] }),
          etcd.leaseKeepAlive(1n, 1000),
          Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
        ]
        for (const call of calls) {
          const error = yield* Effect.flip(call)
          assert.deepStrictEqual([error.reason, error.outcome], ["Tls", "Refused"], `${name}: ${error.message}`)
          if (typeof cure === "string") assert.strictEqual(error.description, cure, name)
          else assert.match(error.description, cure, name)
        }
      }
    }))

  it.live("trusts Node's own list of authorities where there is no `ca`, and what the variables say", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: Tls.server })
      const program = `
        import { Effect } from "effect"
        import { Etcd } from "effect-etcd-lock"
        const read = (options) => Effect.flatMap(Etcd.Etcd, (etcd) => etcd.range(Etcd.get("a"))).pipe(
          Effect.match({ onSuccess: () => "trusted", onFailure: ({ reason }) => reason }),
          Effect.provide(Etcd.layer({ hosts: "https://${server.endpoint}", ...options }))
        )
        console.log(...await Effect.runPromise(Effect.all([read({}), read({ tls: {} })])))
      `
      const isAboutAuthorities = (variable: string) => /^(NODE_|SSL_CERT_|GRPC_)/.test(variable)
      const others = Object.fromEntries(Object.entries(process.env).filter(([name]) => !isAboutAuthorities(name)))
      const run = (env: NodeJS.ProcessEnv) =>
        Effect.callback<string>((resume) => {
          const args = ["--conditions=@effect-etcd-lock/source", "--input-type=module", "--eval", program]
          const child = execFile(
            process.execPath,
            args,
            { env: { ...others, ...env } },
            (error, stdout) => resume(error === null ? Effect.succeed(stdout.trim()) : Effect.die(error))
          )
          return Effect.sync(() => child.kill("SIGKILL"))
        })
      assert.deepStrictEqual(
        yield* Effect.all([
          run({}),
          run({ NODE_EXTRA_CA_CERTS: Tls.ca }),
          run({ GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: Tls.ca })
        ], { concurrency: "unbounded" }),
        ["Tls Tls", "trusted trusted", "trusted trusted"]
      )
    }))

  it.live("does not take a connection that is cut for a mistake", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      for (
        const [target, options] of [[server.endpoint, { tls: Tls.certificates(Tls.client) }], [shared, {}]] as const
      ) {
        const proxy = yield* Proxy.make(target)
        const etcd = yield* connect({ hosts: proxy.endpoint, requestTimeout: "4 seconds", ...options })
        const cutting = yield* Effect.forkChild(Effect.forever(Effect.andThen(proxy.cut, Effect.sleep("1 millis"))))
        const call = yield* Effect.forkChild(etcd.range(Etcd.get("a")), { startImmediately: true })
        const watch = yield* Effect.forkChild(Effect.scoped(etcd.watch({ key: Buffer.from("a") })), {
          startImmediately: true
        })
        yield* Effect.sleep("500 millis")
        yield* Fiber.interrupt(cutting)
        yield* Fiber.join(call)
        yield* Fiber.join(watch)
      }
    }))

  it.live("is set up from etcdctl's own variables", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const etcd = yield* fromVariables({
        ETCDCTL_ENDPOINTS: `https://127.0.0.1:1,https://${server.endpoint}`,
        ETCDCTL_CACERT: Tls.client.ca,
        ETCDCTL_CERT: Tls.client.cert,
        ETCDCTL_KEY: Tls.client.key,
        ETCDCTL_COMMAND_TIMEOUT: "3s"
      })
      yield* etcd.txn({ then: [Etcd.put("a", "1")] })
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).count, 1)
    }))
})
