/** The etcd that the options name, and etcdctl's variables where there are none. */
import { NodeFileSystem } from "@effect/platform-node"
import { Etcd } from "effect-etcd-lock"
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Misuse } from "./ending.ts"
import { root } from "./root.ts"

export const connection: Layer.Layer<Etcd.Etcd, Config.ConfigError | Misuse, Effect.Services<typeof root>> = Layer
  .unwrap(
    Effect.gen(function*() {
      const options = yield* root
      if (Option.isSome(options.user) && options.user.value.includes(":")) {
        return yield* new Misuse({
          message:
            "--user takes a name alone, since every user of the machine can read a command's arguments. Put the " +
            "password into ETCDCTL_PASSWORD, or into a file for --password-file."
        })
      }
      const given: Record<string, Option.Option<string>> = {
        ETCDCTL_ENDPOINTS: options.endpoints,
        ETCDCTL_CACERT: options.cacert,
        ETCDCTL_CERT: options.cert,
        ETCDCTL_KEY: options.key,
        ETCDCTL_USER: options.user,
        ETCDCTL_PASSWORD: options.passwordFile,
        ETCDCTL_COMMAND_TIMEOUT: Option.map(options.commandTimeout, (timeout) => `${Duration.toMillis(timeout)}ms`)
      }
      const env: Record<string, string | undefined> = { ...process.env }
      for (const [variable, value] of Object.entries(given)) {
        if (Option.isSome(value)) env[variable] = value.value
      }
      // The variable may hold both, and then it would go before the file.
      if (Option.isSome(options.passwordFile)) env.ETCDCTL_USER = env.ETCDCTL_USER?.split(":", 1)[0]
      return Etcd.layerEtcdctl().pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: env as Record<string, string> }))),
        Layer.provide(NodeFileSystem.layer)
      )
    })
  )
