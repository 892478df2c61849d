import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Schedule } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { temporaryDirectory } from "../support/internal/native.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Tls from "../support/Tls.ts"

const filesIn = (directory: string, name: string) => ({
  ca: Path.join(directory, `${name}-ca.pem`),
  cert: Path.join(directory, `${name}.pem`),
  key: Path.join(directory, `${name}-key.pem`)
})

describe.concurrent("certificates", () => {
  // A container keeps the files that it was started with.
  it.live.skipIf(!Tls.canIssue || process.env.ETCD_FROM === "docker")(
    "are renewed in their files, both authorities too, and no lock is lost",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory()
        const [ofServer, ofClient] = [filesIn(directory, "server"), filesIn(directory, "client")]
        const [first, second] = [Tls.authority(directory, "first"), Tls.authority(directory, "second")]
        for (const { ca } of [ofServer, ofClient]) Fs.copyFileSync(first.ca, ca)
        first.issue("server", ofServer)
        const lifetime = 15
        first.issue("client", ofClient, lifetime)
        const issued = Date.now()
        const server = yield* EtcdServer.start({ tls: { ...ofServer, clientCertAuth: true } })
        const etcd = Etcd.layerEtcdctl().pipe(
          Layer.provide(NodeFileSystem.layer),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({
            env: {
              ETCDCTL_ENDPOINTS: `https://${server.endpoint}`,
              ETCDCTL_CACERT: ofClient.ca,
              ETCDCTL_CERT: ofClient.cert,
              ETCDCTL_KEY: ofClient.key
            }
          })))
        )
        yield* Effect.gen(function*() {
          const expired = Effect.suspend(() => Effect.sleep(issued + (lifetime + 1) * 1000 - Date.now()))
          first.issue("client", ofClient)
          yield* expired
          // All connections are made anew.
          yield* server.kill
          yield* server.restart
          yield* Lock.withLock(Effect.void, "other")
          // Renewals alone, for longer than the TTL.
          yield* Effect.sleep("12 seconds")
          for (const { ca } of [ofServer, ofClient]) Fs.copyFileSync(second.ca, ca)
          second.issue("server", ofServer)
          second.issue("client", ofClient)
          yield* server.kill
          yield* server.restart
          yield* Lock.withLock(Effect.void, "other")
          yield* Effect.sleep("12 seconds")
        }).pipe(
          Lock.withLock("held"),
          Effect.provide(Session.layer({ ttl: "10 seconds" }).pipe(Layer.provide(etcd)))
        )
      })
  )

  it.live("are read for each new connection, which says what is wrong with them, and the next reads them again", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      const proxy = yield* Proxy.make(server.endpoint)
      const good = Tls.certificates(Tls.client)
      let tls: Effect.Effect<Etcd.Tls, string> = Effect.fail("the vault is sealed")
      let reads = 0
      const etcd = yield* connect({
        hosts: `https://${proxy.endpoint}`,
        tls: Effect.suspend(() => {
          reads++
          return tls
        }),
        requestTimeout: "3 seconds"
      })
      assert.strictEqual(reads, 0)
      const calls: ReadonlyArray<Effect.Effect<unknown, Etcd.EtcdError>> = [
        etcd.range(Etcd.get("a")),
        etcd.leaseKeepAlive(1n, 1000),
        Effect.scoped(etcd.watch({ key: Buffer.from("a") }))
      ]
      const cannot = "cannot read `tls` for a new connection: "
      const rows: ReadonlyArray<readonly [typeof tls, string]> = [
        [tls, `${cannot}the vault is sealed`],
        [Effect.die(new Error("no vault")), `${cannot}no vault`],
        [Effect.never, cannot],
        [Effect.succeed({ ...good, key: undefined }), `${cannot}\`tls.cert\` is set without \`tls.key\``],
        [Effect.succeed({ ...good, ca: "ca.pem" }), `${cannot}\`tls.ca\` is not PEM text`],
        [
          Effect.succeed(Tls.certificates(Tls.expiredClient)),
          "etcd refused the client certificate in `tls.cert`: it expired on 2020-02-01T00:00:00.000Z; renew it"
        ]
      ]
      for (const [source, says] of rows) {
        tls = source
        yield* Effect.forEach(
          calls,
          Effect.fnUntraced(function*(call) {
            const stillThePrevious = (error: Etcd.EtcdError) => !error.description.startsWith(says)
            const error = yield* Effect.flip(call).pipe(
              Effect.repeat({ while: stillThePrevious, schedule: Schedule.spaced("100 millis"), times: 100 })
            )
            assert.include(error.description, says)
            assert.deepStrictEqual([error.reason, error.outcome], ["Tls", "Refused"])
          })
        )
      }
      tls = Effect.succeed(good)
      yield* Effect.retry(etcd.range(Etcd.get("a")), { times: 20 })
      const before = reads
      yield* etcd.range(Etcd.get("a"))
      assert.strictEqual(reads, before)
      yield* proxy.cut
      yield* Effect.retry(etcd.range(Etcd.get("a")), { times: 20 })
      assert.isAbove(reads, before)
    }))
})
