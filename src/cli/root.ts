/** The command of all commands, with the options that all of them take. */
import { Command, Flag } from "effect/cli"
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as flags from "./flags.ts"

const connection = {
  endpoints: Flag.String("endpoints").pipe(
    Flag.withMetavar("hosts"),
    Flag.withDescription("The members of etcd, separated by commas. Default: ETCDCTL_ENDPOINTS, or 127.0.0.1:2379."),
    Flag.optional
  ),
  cacert: Flag.String("cacert").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("The certificate of the authority that signed etcd's. Default: ETCDCTL_CACERT."),
    Flag.optional
  ),
  cert: Flag.String("cert").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("The client's certificate. Default: ETCDCTL_CERT."),
    Flag.optional
  ),
  key: Flag.String("key").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("The key of the client's certificate. Default: ETCDCTL_KEY."),
    Flag.optional
  ),
  user: Flag.String("user").pipe(
    Flag.withMetavar("name"),
    Flag.withDescription("The user, without the password. Default: ETCDCTL_USER."),
    Flag.optional
  ),
  // No Flag.File: it refuses a pipe.
  passwordFile: Flag.Path("password-file").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("A file that holds the user's password. Default: ETCDCTL_PASSWORD."),
    Flag.optional
  ),
  prefix: Flag.String("prefix").pipe(
    Flag.withMetavar("text"),
    Flag.withDescription("What comes before every key: / with the name my-lock is the lock /my-lock of etcdctl."),
    Flag.optional
  ),
  commandTimeout: flags.duration("command-timeout").pipe(
    Flag.withDescription("How long a request to etcd may take. Default: ETCDCTL_COMMAND_TIMEOUT, or 5s."),
    Flag.optional
  )
}

const output = {
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print JSON: one object per line, and messages likewise."),
    flags.offByDefault
  ),
  quiet: Flag.Boolean("quiet").pipe(
    Flag.withAlias("q"),
    Flag.withDescription("Print errors only. A held lock is not one."),
    flags.offByDefault
  ),
  verbose: Flag.Boolean("verbose").pipe(
    Flag.withAlias("v"),
    Flag.withDescription("Print each step: who is waited for, the token, the release."),
    flags.offByDefault
  )
}

export const root = Command.make("etcd-lock").pipe(
  Command.withSharedFlags({ ...connection, ...output }),
  Command.withDescription(
    "Runs a command on one machine of many, under a lock on etcd, and shows who holds what."
  )
)

type Options = Effect.Success<typeof root>

/** The option that takes the place of a variable. */
export const optionOf = (variable: string): string =>
  `--${variable.slice("ETCDCTL_".length).toLowerCase().replaceAll("_", "-")}`

/**
 * Lets a text speak of the options that were given, where it speaks of the variables in whose place they are. What it quotes,
 * such as a name, stays.
 */
export const inOptions = (options: Options) => (text: string): string =>
  text.replaceAll(/"(?:[^"\\]|\\.)*"|(?<!\w)'[^']*'(?!\w)|\bETCDCTL_[A-Z_]+/g, (found) => {
    if (!found.startsWith("ETCDCTL_")) return found
    const option = optionOf(found).slice(2).replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    const given: Option.Option<unknown> | undefined =
      (options as Partial<typeof options>)[option as keyof typeof connection]
    return given !== undefined && Option.isSome(given) ? optionOf(found) : found
  })
