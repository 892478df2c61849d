/** The etcd that the options name, and etcdctl's variables where there are none. */
import { NodeFileSystem } from "@effect/platform-node"
import { Etcd } from "effect-etcd-lock"
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { unreadable } from "../internal/unreadable.ts"
import { Misuse } from "./ending.ts"
import { optionOf, root } from "./root.ts"

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
        ETCDCTL_COMMAND_TIMEOUT: Option.map(options.commandTimeout, (timeout) => `${Duration.toMillis(timeout)}ms`)
      }
      const env: Record<string, string | undefined> = { ...process.env }
      for (const [variable, value] of Object.entries(given)) {
        if (Option.isNone(value)) continue
        // As a variable that was to have a value. Without it, another etcd could answer, or one without TLS.
        if (value.value === "") {
          return yield* new Misuse({ message: `${optionOf(variable)} is empty. Give it a value, or leave it out.` })
        }
        env[variable] = value.value
      }
      if (Option.isSome(options.passwordFile) && isAbsent(env.ETCDCTL_USER)) {
        return yield* new Misuse({
          message: "--password-file is given without a user. Name the user by --user, or in ETCDCTL_USER."
        })
      }
      if (Option.isSome(options.user) && Option.isNone(options.passwordFile) && isAbsent(env.ETCDCTL_PASSWORD)) {
        return yield* new Misuse({
          message: "--user is given without a password. Put the password into a file for --password-file, or into " +
            "ETCDCTL_PASSWORD."
        })
      }
      const password = Option.isSome(options.passwordFile) ? yield* passwordIn(options.passwordFile.value) : undefined
      return Etcd.layerEtcdctl({ password, prefix: Option.getOrUndefined(options.prefix) }).pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: env as Record<string, string> }))),
        Layer.provide(NodeFileSystem.layer)
      )
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

/** Whether a variable has no value, which an empty one has not. */
const isAbsent = (value: string | undefined) => value === undefined || value === ""

/** The password in a file, which is read again for each token. */
const passwordIn = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  const read = files.readFileString(path).pipe(
    Effect.map((text) => Redacted.make(text.replace(/\r?\n$/, ""))),
    Effect.mapError((error) =>
      new Misuse({ message: `--password-file: cannot read ${JSON.stringify(path)} (${unreadable(error)})` })
    )
  )
  const password = yield* read
  const { type } = yield* Effect.orElseSucceed(files.stat(path), () => ({ type: "File" }))
  // What comes through a pipe can be read once.
  return type === "File" ? read : password
})
