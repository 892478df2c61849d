import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Options } from "../../Etcd.ts"
import type { InvalidOption, Naming } from "../options.ts"

const variables = Config.all({
  endpoints: Config.String("ETCDCTL_ENDPOINTS").pipe(Config.withDefault("127.0.0.1:2379")),
  cacert: Config.option(Config.String("ETCDCTL_CACERT")),
  cert: Config.option(Config.String("ETCDCTL_CERT")),
  key: Config.option(Config.String("ETCDCTL_KEY")),
  user: Config.option(Config.Redacted("ETCDCTL_USER")),
  password: Config.option(Config.Redacted("ETCDCTL_PASSWORD")),
  timeout: Config.String("ETCDCTL_COMMAND_TIMEOUT").pipe(Config.withDefault("5s"))
})

/** Reads the variables that etcdctl reads. */
export const load: Effect.Effect<Options, Config.ConfigError> = Effect.gen(function*() {
  const found = yield* variables
  const ca = yield* readFile("ETCDCTL_CACERT", found.cacert)
  const cert = yield* readFile("ETCDCTL_CERT", found.cert)
  const key = yield* readFile("ETCDCTL_KEY", found.key)
  const auth = yield* credentials(found.user, found.password)
  return {
    hosts: found.endpoints.split(",").map((host) => host.trim()).filter((host) => host !== ""),
    requestTimeout: yield* goDuration("ETCDCTL_COMMAND_TIMEOUT", found.timeout),
    auth: Option.getOrUndefined(auth),
    tls: ca ?? cert ?? key
      ? { ca, cert, key: key === undefined ? undefined : Redacted.make(key) }
      : undefined
  }
}).pipe(Effect.provide(NodeFileSystem.layer))

// The variables that the options come from.
const variableOf: Readonly<Record<string, string>> = {
  hosts: "ETCDCTL_ENDPOINTS",
  auth: "ETCDCTL_USER",
  "auth.username": "ETCDCTL_USER",
  "auth.password": "ETCDCTL_PASSWORD",
  tls: "ETCDCTL_CACERT or ETCDCTL_CERT",
  "tls.ca": "ETCDCTL_CACERT",
  "tls.cert": "ETCDCTL_CERT",
  "tls.key": "ETCDCTL_KEY",
  requestTimeout: "ETCDCTL_COMMAND_TIMEOUT"
}

// Some variables are written in another way than the option.
const cureOf: Readonly<Record<string, string>> = {
  "auth.username": "Write it as name:password, or as a name with ETCDCTL_PASSWORD.",
  requestTimeout: "Write it as 5s, 500ms or 1m30s."
}

const naming: Naming = (option) => variableOf[option] ?? option

/** Fails with the error of a variable, or dies if the option came from none. */
export const refused = (defect: InvalidOption): Effect.Effect<never, Config.ConfigError> =>
  variableOf[defect.option] === undefined
    ? Effect.die(defect)
    : Effect.fail(invalid(defect.describe(naming, cureOf[defect.option]), defect))

const invalid = (message: string, cause?: unknown): Config.ConfigError =>
  new Config.ConfigError(new ConfigProvider.SourceError({ message, cause }))

const readFile = Effect.fnUntraced(function*(variable: string, path: Option.Option<string>) {
  if (Option.isNone(path)) return undefined
  // It may be a key, which no message may show.
  if (path.value.includes("-----BEGIN ")) {
    return yield* Effect.fail(invalid(`${variable} has the content of a PEM file. Write the file's path.`))
  }
  const files = yield* FileSystem.FileSystem
  const text = yield* Effect.mapError(
    files.readFileString(path.value),
    (error) => invalid(`${variable}: cannot read ${JSON.stringify(path.value)} (${error.message})`, error)
  )
  return text.includes("-----BEGIN ")
    ? text
    : yield* Effect.fail(invalid(`${variable}: ${JSON.stringify(path.value)} is no PEM file`))
})

const credentials = (
  user: Option.Option<Redacted.Redacted>,
  password: Option.Option<Redacted.Redacted>
): Effect.Effect<Option.Option<NonNullable<Options["auth"]>>, Config.ConfigError> => {
  if (Option.isNone(user)) return Effect.succeedNone
  if (Option.isSome(password)) {
    return Effect.succeedSome({ username: Redacted.value(user.value), password: password.value })
  }
  const [username, ...rest] = Redacted.value(user.value).split(":")
  return rest.length === 0
    ? Effect.fail(invalid("ETCDCTL_USER has no password; write it as name:password, or set ETCDCTL_PASSWORD"))
    : Effect.succeedSome({ username: username!, password: Redacted.make(rest.join(":")) })
}

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

// Go writes durations like "5s", "1m30s" and "1.5s".
const goDuration = (variable: string, text: string): Effect.Effect<Duration.Duration, Config.ConfigError> => {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)]
  return parts.length > 0 && parts.map(([part]) => part).join("") === text
    ? Effect.succeed(
      Duration.millis(
        parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit as keyof typeof units], 0)
      )
    )
    : Effect.fail(invalid(`${variable}: ${JSON.stringify(text)} is no duration; write it as 5s, 500ms or 1m30s`))
}
