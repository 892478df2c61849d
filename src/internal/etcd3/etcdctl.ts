/** The connection that etcdctl would make from its environment. */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Options } from "../../Etcd.ts"
import { configError, refusing } from "../config.ts"
import * as Log from "../log.ts"
import type { Naming } from "../options.ts"
import { unreadable } from "../unreadable.ts"
import { checkTls } from "./secrets.ts"

export interface Environment {
  readonly options: Options
  /** Names the variable that an option came from, and the file where it is one. */
  readonly naming: Naming
}

// -----------------------------------------------------------------------------
// values as Go writes them
// -----------------------------------------------------------------------------

const boolean = (variable: string): Config.Config<boolean | undefined> =>
  Config.String(variable).pipe(
    Config.mapEffect((text) =>
      /^(1|0|t|f|true|false)$/i.test(text)
        ? Effect.succeed(/^(1|t)/i.test(text))
        : Effect.fail(configError(`${variable}: ${JSON.stringify(text)} is neither true nor false`))
    ),
    Config.withDefault(undefined)
  )

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

const duration = (variable: string): Config.Config<Duration.Duration> =>
  Config.mapEffect(Config.String(variable), (text) => {
    const parts = [...text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)/g)]
    return parts.length > 0 && parts.map(([part]) => part).join("") === text
      ? Effect.succeed(
        Duration.millis(
          parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit as keyof typeof units], 0)
        )
      )
      : Effect.fail(
        configError(`${variable}: ${JSON.stringify(text)} is not a duration; write it as 5s, 500ms or 1m30s`)
      )
  })

// -----------------------------------------------------------------------------
// variables
// -----------------------------------------------------------------------------

const variables = Config.all({
  endpoints: Config.String("ETCDCTL_ENDPOINTS").pipe(Config.withDefault("127.0.0.1:2379")),
  cacert: Config.option(Config.String("ETCDCTL_CACERT")),
  cert: Config.option(Config.String("ETCDCTL_CERT")),
  key: Config.option(Config.String("ETCDCTL_KEY")),
  user: Config.option(Config.Redacted("ETCDCTL_USER")),
  password: Config.option(Config.Redacted("ETCDCTL_PASSWORD")),
  timeout: duration("ETCDCTL_COMMAND_TIMEOUT").pipe(Config.withDefault(Duration.seconds(5))),
  insecureTransport: boolean("ETCDCTL_INSECURE_TRANSPORT"),
  insecureSkipVerify: boolean("ETCDCTL_INSECURE_SKIP_TLS_VERIFY"),
  discovery: Config.option(Config.String("ETCDCTL_DISCOVERY_SRV"))
})

type Variables = Config.Success<typeof variables>

/** What shapes etcdctl's connection and not this one. The other variables are about etcdctl's output. */
const unread = [
  "ETCDCTL_DIAL_TIMEOUT",
  "ETCDCTL_KEEPALIVE_TIME",
  "ETCDCTL_KEEPALIVE_TIMEOUT",
  "ETCDCTL_MAX_REQUEST_BYTES",
  "ETCDCTL_MAX_RECV_BYTES"
]

const warnOfUnread = Effect.gen(function*() {
  const values = yield* Config.all(unread.map((variable) => Config.option(Config.String(variable))))
  const set = unread.filter((_, i) => Option.isSome(values[i]!))
  if (set.length > 0) {
    yield* Log.warning(`Etcd.layerEtcdctl does not read ${set.join(", ")}, which etcdctl reads.`)
  }
})

/** Reads the variables that etcdctl reads, and checks the files that they name. A password that is given goes first. */
export const load: (
  password: Options["password"]
) => Effect.Effect<Environment, Config.ConfigError, FileSystem.FileSystem> = Effect.fnUntraced(function*(password) {
  const found = yield* variables
  if (found.insecureSkipVerify === true) {
    return yield* Effect.fail(configError(
      "ETCDCTL_INSECURE_SKIP_TLS_VERIFY is true, but etcd's certificate is always verified. " +
        "Unset it, and set ETCDCTL_CACERT to the file of the authority that signed etcd's certificate."
    ))
  }
  // For etcdctl, the members that it finds there take precedence over ETCDCTL_ENDPOINTS, and another etcd has other
  // locks.
  if (Option.isSome(found.discovery)) {
    return yield* Effect.fail(configError(
      "ETCDCTL_DISCOVERY_SRV is set, but members are not looked up in DNS. " +
        "Unset it, and set ETCDCTL_ENDPOINTS to the members."
    ))
  }
  const naming = namingOf(found, password)
  const options: Options = {
    hosts: found.endpoints.split(",").map((host) => host.trim()).filter((host) => host !== ""),
    requestTimeout: found.timeout,
    ...yield* userOf(found, password),
    ...yield* tlsOf(found, naming)
  }
  yield* warnOfUnread
  return { options, naming }
})

/** Returns what reads the files again. They are read at once as well, to refuse those that cannot be used. */
const tlsOf = Effect.fnUntraced(function*({ cacert, cert, insecureTransport, key }: Variables, naming: Naming) {
  const files = [
    ["ETCDCTL_CACERT", cacert],
    ["ETCDCTL_CERT", cert],
    ["ETCDCTL_KEY", key]
  ] as const
  if (files.every(([, path]) => Option.isNone(path)) && insecureTransport !== false) return {}
  const readers = yield* Effect.forEach(files, ([variable, path]) => fileReader(variable, path))
  const tls = Effect.map(Effect.all(readers.map(({ read }) => read)), ([ca, cert, key]) => ({
    ca,
    cert,
    key: key === undefined ? undefined : Redacted.make(key)
  }))
  yield* blamingVariables(naming)(Effect.map(tls, checkTls))
  return { tls }
})

const fileReader = Effect.fnUntraced(function*(variable: string, path: Option.Option<string>) {
  if (Option.isNone(path)) return { read: Effect.undefined }
  // It may be a key, which no message may show: PEM text as it is, or in base64.
  if (/-----BEGIN |^LS0tLS1/.test(path.value)) {
    return yield* Effect.fail(configError(`${variable} has the content of a PEM file. Write the file's path.`))
  }
  const files = yield* FileSystem.FileSystem
  const read = Effect.gen(function*() {
    const text = yield* Effect.mapError(
      files.readFileString(path.value),
      (error) => configError(`${variable}: cannot read ${JSON.stringify(path.value)} (${unreadable(error)})`, error)
    )
    return text.includes("-----BEGIN ")
      ? text
      : yield* Effect.fail(configError(`${variable}: ${JSON.stringify(path.value)} is not a PEM file`))
  })
  const text = yield* read
  // What comes through a pipe can be read once.
  const isPipe = Effect.map(files.stat(path.value), ({ type }) => type !== "File")
  return { read: (yield* Effect.orElseSucceed(isPipe, () => false)) ? Effect.succeed(text) : read }
})

const userOf = (
  { password: variable, user }: Variables,
  given: Options["password"]
): Effect.Effect<Pick<Options, "username" | "password">, Config.ConfigError> => {
  if (Option.isNone(user)) {
    const set = given !== undefined ? "`password`" : Option.isSome(variable) ? "ETCDCTL_PASSWORD" : undefined
    return set === undefined
      ? Effect.succeed({})
      : Effect.fail(configError(`${set} is set without ETCDCTL_USER. Set that to the user's name.`))
  }
  const [username = "", ...rest] = Redacted.value(user.value).split(":")
  if (given !== undefined) return Effect.succeed({ username, password: given })
  if (Option.isNone(variable)) {
    return rest.length === 0
      ? Effect.fail(configError("ETCDCTL_USER has no password; write it as name:password, or set ETCDCTL_PASSWORD"))
      : Effect.succeed({ username, password: Redacted.make(rest.join(":")) })
  }
  // Messages show a user's name.
  return rest.length === 0
    ? Effect.succeed({ username, password: variable.value })
    : Effect.fail(configError(
      "ETCDCTL_USER has a password, and ETCDCTL_PASSWORD is set as well. " +
        "Write the name alone into ETCDCTL_USER, or unset ETCDCTL_PASSWORD."
    ))
}

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

const namingOf = (
  { cacert, cert, insecureTransport, key }: Variables,
  password: Options["password"]
): Naming => {
  const file = (variable: string, path: Option.Option<string>) =>
    Option.isNone(path) ? variable : `${variable} (${JSON.stringify(path.value)})`
  const tls = [
    ...Option.isSome(cacert) ? ["ETCDCTL_CACERT"] : [],
    ...Option.isSome(cert) ? ["ETCDCTL_CERT"] : [],
    ...insecureTransport === false ? ["ETCDCTL_INSECURE_TRANSPORT=false"] : []
  ]
  const variableOf: Readonly<Record<string, string>> = {
    hosts: "ETCDCTL_ENDPOINTS",
    username: "ETCDCTL_USER",
    ...password === undefined ? { password: "ETCDCTL_PASSWORD" } : {},
    tls: tls.length === 0 ? "ETCDCTL_CACERT" : tls.join(" and "),
    "tls.ca": file("ETCDCTL_CACERT", cacert),
    "tls.cert": file("ETCDCTL_CERT", cert),
    "tls.key": file("ETCDCTL_KEY", key),
    requestTimeout: "ETCDCTL_COMMAND_TIMEOUT"
  }
  return (option) => variableOf[option] ?? option
}

// Some variables are written in another way than the option.
const cureOf: Readonly<Record<string, string>> = {
  username: "Write it as name:password, or as a name with ETCDCTL_PASSWORD.",
  requestTimeout: "Write it as 5s, 500ms or 1m30s."
}

/** Names the variable that an option came from. An option that came from none is a mistake in the code. */
export const blamingVariables = (naming: Naming) =>
  refusing((defect) =>
    naming(defect.option) === defect.option
      ? undefined
      : configError(defect.describe(naming, cureOf[defect.option]), defect)
  )
