import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Etcd } from "effect-etcd-lock"
import { execFile } from "node:child_process"
import { inject } from "vitest"
import * as Auth from "../support/Auth.ts"
import { connect, fromVariables, random63 } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Tls from "../support/Tls.ts"

const shared = inject("etcdEndpoint")

const variables = ({ ca, cert, key }: { readonly ca: string; readonly cert: string; readonly key: string }) => ({
  ETCDCTL_CACERT: ca,
  ETCDCTL_CERT: cert,
  ETCDCTL_KEY: key
})

const file = (variable: string, path: string) => `ETCDCTL_${variable} (${JSON.stringify(path)})`

/** By the environment that the tests run in, which another test varies. */
const notTrusted = (ca: string) => [
  `etcd's certificate is not signed by an authority on Node's own list, which is not that of the system; set ${ca} ` +
  "to the authority that signed it, or add to the list: the file of an authority by NODE_EXTRA_CA_CERTS, " +
  "the system's list by NODE_USE_SYSTEM_CA=1",
  "etcd's certificate is not signed by an authority in the file of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH; " +
  `set ${ca} to the authority that signed it`
]

describe.concurrent("TLS", () => {
  it.live("is spoken where it is asked for", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const https = `https://${server.endpoint}`
      for (const hosts of [https, `${https}/`, server.endpoint]) {
        const etcd = yield* connect({ hosts, tls: Tls.certificates(Tls.client) })
        yield* etcd.range(Etcd.get("a"))
        yield* etcd.watch({ key: Buffer.from("a") })
        yield* etcd.leaseKeepAlive(random63(), 1000)
      }
    }))

  it.live("reports each mistake in words, with the option or the variable and file that has it", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const https = `https://${server.endpoint}`
      const otherName = `https://${(yield* Proxy.make(server.endpoint)).endpoint.replace("127.0.0.1", "127.1")}`
      const expired = `https://${(yield* EtcdServer.start({ tls: Tls.expiredServer })).endpoint}`
      const good = Tls.certificates(Tls.client)
      /** What `options` and the variables `env` get wrong alike, and what may be said of it, with the names of both. */
      const mistakes: ReadonlyArray<{
        readonly options: Partial<Etcd.Options>
        readonly env: Record<string, string>
        readonly says: (name: (option: string, variable: string) => string) => ReadonlyArray<string>
      }> = [
        {
          options: { hosts: https, tls: { ...good, ca: Tls.certificates({ ...Tls.client, ca: Tls.foreignCa }).ca } },
          env: { ETCDCTL_ENDPOINTS: https, ...variables({ ...Tls.client, ca: Tls.foreignCa }) },
          says: (name) => [
            `etcd's certificate is not signed by an authority in ${name("tls.ca", file("CACERT", Tls.foreignCa))}; ` +
            "set it to the authority that signed that certificate"
          ]
        },
        {
          options: { hosts: https },
          env: { ETCDCTL_ENDPOINTS: https },
          says: (name) => notTrusted(name("tls.ca", "ETCDCTL_CACERT"))
        },
        {
          options: { hosts: server.endpoint, tls: {} },
          env: { ETCDCTL_ENDPOINTS: server.endpoint, ETCDCTL_INSECURE_TRANSPORT: "false" },
          says: (name) => notTrusted(name("tls.ca", "ETCDCTL_CACERT"))
        },
        {
          options: { hosts: https, tls: { ca: good.ca } },
          env: { ETCDCTL_ENDPOINTS: https, ETCDCTL_CACERT: Tls.ca },
          says: (name) => [
            "etcd wants a client certificate, and got none; " +
            `set ${name("tls.cert", "ETCDCTL_CERT")} and ${name("tls.key", "ETCDCTL_KEY")}`
          ]
        },
        {
          options: { hosts: https, tls: Tls.certificates(Tls.expiredClient) },
          env: { ETCDCTL_ENDPOINTS: https, ...variables(Tls.expiredClient) },
          says: (name) => [
            `etcd refused the client certificate in ${name("tls.cert", file("CERT", Tls.expiredClient.cert))}: ` +
            "it expired on 2020-02-01T00:00:00.000Z; renew it"
          ]
        },
        {
          options: { hosts: https, tls: Tls.certificates(Tls.foreignClient) },
          env: { ETCDCTL_ENDPOINTS: https, ...variables(Tls.foreignClient) },
          // Older versions of etcd do not say what is wrong with it.
          says: (name) =>
            ["it is not signed by", "use one for clients, signed by"].map((wrong) =>
              `etcd refused the client certificate in ${name("tls.cert", file("CERT", Tls.foreignClient.cert))}: ` +
              `${wrong} an authority that etcd trusts (by --trusted-ca-file); "CN=Foreign test CA" signed it`
            )
        },
        {
          options: { hosts: https, tls: Tls.certificates(Tls.noClient) },
          env: { ETCDCTL_ENDPOINTS: https, ...variables(Tls.noClient) },
          says: (name) => [
            `etcd refused the client certificate in ${name("tls.cert", file("CERT", Tls.noClient.cert))}: ` +
            "its extended key usage is not for clients; use one with clientAuth"
          ]
        },
        {
          // This is another way to write 127.0.0.1, and not a name that the certificate has.
          options: { hosts: otherName, tls: good },
          env: { ETCDCTL_ENDPOINTS: otherName, ...variables(Tls.client) },
          says: (name) => [
            "etcd's certificate is for another host (Host: 127.1. is not in the cert's altnames: DNS:localhost, " +
            `IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1); use a name in ${name("hosts", "ETCDCTL_ENDPOINTS")} ` +
            "that it has"
          ]
        },
        {
          options: { hosts: expired, tls: { ca: good.ca } },
          env: { ETCDCTL_ENDPOINTS: expired, ETCDCTL_CACERT: Tls.ca },
          says: () => ["etcd's certificate, or that of its authority, has expired; renew it"]
        },
        {
          options: { hosts: server.endpoint },
          env: { ETCDCTL_ENDPOINTS: server.endpoint },
          says: () => ["etcd speaks TLS here; write the host with https://"]
        },
        {
          options: { hosts: `https://${shared}`, tls: { ca: good.ca } },
          env: { ETCDCTL_ENDPOINTS: `https://${shared}`, ETCDCTL_CACERT: Tls.ca },
          says: (name) => [
            `etcd does not speak TLS here; write the host with http:// and leave out ${name("tls", "ETCDCTL_CACERT")}`
          ]
        }
      ]
      for (const { env, options, says } of mistakes) {
        const byOption = yield* connect({ requestTimeout: "2 seconds", ...options })
        // Here each call waits for a token.
        const withAuth = yield* connect({ requestTimeout: "2 seconds", ...options, ...Auth.user("ann", "secret") })
        const byVariable = yield* fromVariables({ ETCDCTL_COMMAND_TIMEOUT: "2s", ...env })
        const connections = [
          [byOption, says((option) => `\`${option}\``)],
          [withAuth, says((option) => `\`${option}\``)],
          [byVariable, says((_, variable) => variable)]
        ] as const
        for (const [etcd, said] of connections) {
          const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
            etcd.range(Etcd.get("a")),
            etcd.txn({ then: [Etcd.put("a", "")] }),
            etcd.leaseKeepAlive(1n, 1000),
            Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
          ]
          for (const call of calls) {
            // On a busy machine, the attempt before it may not have failed yet, so that there is nothing to say why.
            const isUnexplained = ({ reason }: Etcd.EtcdError) => reason === "Unavailable"
            const error = yield* Effect.flip(Effect.retry(call, { times: 3, while: isUnexplained }))
            assert.deepStrictEqual([error.reason, error.outcome], ["Tls", "Refused"], error.message)
            assert.include(said, error.description)
          }
        }
      }
    }))

  it.live("goes on with the next member when the certificate of one is wrong", () =>
    Effect.gen(function*() {
      const [expired, good] = yield* Effect.all([
        EtcdServer.start({ tls: Tls.expiredServer }),
        EtcdServer.start({ tls: Tls.server })
      ])
      const etcd = yield* connect({
        hosts: [`https://${expired.endpoint}`, `https://${good.endpoint}`],
        tls: { ca: Tls.certificates(Tls.client).ca }
      })
      assert.strictEqual((yield* Effect.flip(etcd.range(Etcd.get("a")))).reason, "Tls")
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).count, 0)
    }))

  it.live("trusts Node's own list of authorities where there is no `ca`, and what the variables say", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: Tls.server })
      const program = `
        import { Effect } from "effect"
        import { Etcd } from "effect-etcd-lock"
        const read = (options) => Effect.flatMap(Etcd.Etcd, (etcd) => etcd.range(Etcd.get("a"))).pipe(
          Effect.match({
            onSuccess: () => "trusted",
            onFailure: ({ description }) => /signed by an authority (?:on|in the file of) (.*?)[,;]/.exec(description)[1]
          }),
          Effect.provide(Etcd.layer({ hosts: "https://${server.endpoint}", ...options }))
        )
        console.log((await Effect.runPromise(Effect.all([read({}), read({ tls: {} })]))).join("; "))
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
          // This is where OpenSSL finds the system's authorities.
          run({ SSL_CERT_FILE: Tls.ca }),
          run({ SSL_CERT_FILE: Tls.ca, NODE_USE_SYSTEM_CA: "1" }),
          run({ NODE_EXTRA_CA_CERTS: Tls.ca }),
          run({ GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: Tls.ca }),
          run({ GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: Tls.foreignCa })
        ], { concurrency: 2 }),
        [
          "Node's own list; Node's own list",
          "Node's own list; Node's own list",
          "trusted; trusted",
          "trusted; trusted",
          "trusted; trusted",
          "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH; GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
        ]
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
