import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Duration, Effect, Layer, Redacted } from "effect"
import { Etcd } from "effect-etcd-lock"
import { inject } from "vitest"
import * as Auth from "../support/Auth.ts"
import { connect, fromVariables, keys, unique } from "../support/connect.ts"

const shared = inject("etcdEndpoint")

describe.concurrent("Etcd.layerEtcdctl", () => {
  it.live("connects to the endpoints, under the prefix", () =>
    Effect.gen(function*() {
      const prefix = unique("config")
      const etcd = yield* fromVariables({ ETCDCTL_ENDPOINTS: ` ${shared} , http://${shared}/,` }, { prefix })
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.deepStrictEqual(keys(yield* (yield* connect()).range(Etcd.getPrefix(prefix))), [`${prefix}a`])
    }))

  it.live("takes any source of configuration", () =>
    Effect.gen(function*() {
      const etcd = yield* Layer.build(Layer.fresh(Etcd.layerEtcdctl())).pipe(
        Effect.map(Context.get(Etcd.Etcd)),
        Effect.provide(NodeFileSystem.layer),
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromUnknown({ ETCDCTL_ENDPOINTS: shared, ETCDCTL_COMMAND_TIMEOUT: "2.5s" })
        )
      )
      assert.strictEqual(Duration.toMillis(etcd.requestTimeout), 2500)
      yield* etcd.range(Etcd.get("a"))
    }))

  it.live("sends the user's name and password, from one variable or two, or as they are given", () =>
    Effect.gen(function*() {
      const { endpoint } = yield* Auth.start({ users: { ann: { password: "se:cret", prefix: "a" } } })
      const given = { password: Redacted.make("se:cret") }
      for (
        const [variables, options] of [
          [{ ETCDCTL_USER: "ann:se:cret" }, {}],
          [{ ETCDCTL_USER: "ann", ETCDCTL_PASSWORD: "se:cret" }, {}],
          [{ ETCDCTL_USER: "ann" }, given],
          [{ ETCDCTL_USER: "ann:wrong" }, given],
          [{ ETCDCTL_USER: "ann", ETCDCTL_PASSWORD: "wrong" }, { password: Effect.succeed(given.password) }]
        ] as const
      ) {
        const etcd = yield* fromVariables({ ETCDCTL_ENDPOINTS: endpoint, ...variables }, options)
        yield* etcd.range(Etcd.get("a"))
      }
      const stranger = yield* fromVariables({ ETCDCTL_ENDPOINTS: endpoint })
      assert.include(
        (yield* Effect.flip(stranger.range(Etcd.get("a")))).message,
        "set ETCDCTL_USER and ETCDCTL_PASSWORD"
      )
    }))
})

describe.concurrent("Etcd.layerConfig", () => {
  it.live("connects to the hosts, under the prefix", () =>
    Effect.gen(function*() {
      const prefix = unique("config")
      const layer = Etcd.layerConfig({
        hosts: Config.map(Config.String("HOSTS"), (hosts) => hosts.split(",")),
        prefix: Config.String("PREFIX")
      })
      const env = { HOSTS: `127.0.0.1:1,${shared}`, PREFIX: prefix }
      const etcd = yield* Layer.build(layer).pipe(
        Effect.map(Context.get(Etcd.Etcd)),
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
      )
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.deepStrictEqual(keys(yield* (yield* connect()).range(Etcd.getPrefix(prefix))), [`${prefix}a`])
    }))
})
