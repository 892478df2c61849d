/**
 * Certificates, keys and passwords: what makes them valid, and how they are read. They are read for each new connection
 * and for each token, so that whoever renews them does not have to restart the program.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import { X509Certificate } from "node:crypto"
import { createSecureContext } from "node:tls"
import type { Options, Tls } from "../../Etcd.ts"
import type { Background } from "../background.ts"
import * as Check from "../options.ts"

/** Whether a source could not be read, or its value not be used. gRPC reports that as text. */
export const isUnreadable = (option: Option, text: string): boolean => text.startsWith(problem[option])

type Option = "tls" | "password"

const problem: Readonly<Record<Option, string>> = {
  tls: "cannot read `tls` for a new connection: ",
  password: "cannot read `password` for a token: "
}

/**
 * Reads a source and checks its value. All who ask while a read is under way share it, so that one that takes longer than
 * an attempt goes on into the next. It rejects with what `isUnreadable` knows.
 */
export interface Read<A> {
  (): Promise<A>
}

export interface Reading {
  readonly background: Background
  /** Whether the connection's scope is closed. `background` would still run the first steps of an effect then. */
  readonly isClosed: () => boolean
  /** For how many milliseconds at most. */
  readonly timeout: number
}

const reader = <A, B>(
  { background, isClosed, timeout }: Reading,
  option: Option,
  source: A | Effect.Effect<A, unknown>,
  check: (value: A) => B
): Read<B> => {
  const read = Effect.suspend(() =>
    Effect.isEffect(source) ? source as Effect.Effect<A, unknown> : Effect.succeed(source)
  )
    .pipe(
      Effect.map(check),
      // Whatever holds it up holds up the connection, and with it all calls.
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(`it took longer than \`requestTimeout\` (${Duration.format(Duration.millis(timeout))})`)
      })
    )
  const start = () =>
    new Promise<B>((resolve, reject) => {
      const fail = (failure: unknown) => reject(unreadable(option, failure))
      if (isClosed()) return fail("the connection is closed")
      background(read).addObserver((exit) =>
        Exit.isSuccess(exit) ? resolve(exit.value) : fail(Cause.squash(exit.cause))
      )
    })
  let underWay: Promise<B> | undefined
  return () =>
    underWay ??= start().finally(() => {
      underWay = undefined
    })
}

// A user's own failure may carry the secret itself, so nothing of it goes on but its text.
const unreadable = (option: Option, failure: unknown): Error =>
  failure instanceof Check.InvalidOption
    // Written as in other errors, where the names of variables take the place of these.
    ? new Error(`${problem[option]}${failure.describe((option) => `\`${option}\``)}`, { cause: failure })
    : new Error(`${problem[option]}${textOf(failure)}`)

const textOf = (failure: unknown): string => {
  if (typeof failure === "string") return failure
  if (failure instanceof Error && failure.message !== "") return failure.message
  return Predicate.hasProperty(failure, "_tag") && typeof failure._tag === "string" ? failure._tag : "it failed"
}

const invalid = (problem: Omit<Check.Problem, "module">) => new Check.InvalidOption({ module: "Etcd", ...problem })

// -----------------------------------------------------------------------------
// users
// -----------------------------------------------------------------------------

export interface User {
  readonly username: string
  readonly readPassword: Read<string>
}

export const user = ({ password, username }: Options, reading: Reading): User | undefined => {
  if (password === undefined && username === undefined) return undefined
  if (username === undefined) throw half("password", "username")
  if (typeof username !== "string" || username === "") {
    throw invalid({
      option: "username",
      // Some users write the password into it.
      problem: (name) => `${name("username")} must be a user's name, got ${Check.kindOf(username)}`,
      cure: () => "Write it as \"ann\"."
    })
  }
  if (password === undefined) throw half("username", "password")
  const check = (password: Redacted.Redacted) => Check.secret("Etcd", "password", password)
  if (!Effect.isEffect(password)) check(password)
  return { username, readPassword: reader(reading, "password", password, check) }
}

const half = (given: string, missing: string) =>
  invalid({
    option: given,
    problem: (name) => `${name(given)} is set without ${name(missing)}`,
    cure: () => "A user needs both."
  })

// -----------------------------------------------------------------------------
// certificates
// -----------------------------------------------------------------------------

/** What a connection is made with: PEM text. */
export interface Pem {
  readonly ca?: Buffer | undefined
  readonly cert?: Buffer | undefined
  readonly key?: Buffer | undefined
}

/** Undefined where the hosts are spoken to without TLS. */
export const certificates = (
  { hosts, tls }: Pick<Options, "hosts" | "tls">,
  secure: boolean,
  reading: Reading
): Read<Pem> | undefined => {
  if (tls === undefined) return secure ? reader(reading, "tls", {}, checkTls) : undefined
  const plain = (typeof hosts === "string" ? [hosts] : hosts).find((host) => /^\s*http:\/\//i.test(host))
  if (plain !== undefined) {
    throw invalid({
      option: "tls",
      problem: (name) => `${name("tls")} is set, but host ${Check.show(plain)} of ${name("hosts")} says http://`,
      cure: () => "Write it with https://."
    })
  }
  if (!Effect.isEffect(tls)) checkTls(tls)
  return reader(reading, "tls", tls, checkTls)
}

export const checkTls = (tls: Tls): Pem => {
  Check.object("Etcd", "tls", tls, "{ ca }")
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    const [given, missing] = tls.cert === undefined ? ["key", "cert"] : ["cert", "key"]
    throw invalid({
      option: `tls.${given}`,
      problem: (name) => `${name(`tls.${given}`)} is set without ${name(`tls.${missing}`)}`,
      cure: () => "A client certificate needs both."
    })
  }
  // The client takes a broken authority for none, and does not say which part of the others is wrong.
  const ca = tls.ca === undefined ? undefined : pem("tls.ca", tls.ca, "CERTIFICATE")
  if (ca !== undefined) readable("tls.ca", () => new X509Certificate(ca))
  if (tls.cert === undefined || tls.key === undefined) return { ca }
  const cert = pem("tls.cert", tls.cert, "CERTIFICATE")
  const key = pem("tls.key", Check.secret("Etcd", "tls.key", tls.key), "PRIVATE KEY")
  readable("tls.cert", () => new X509Certificate(cert))
  readable("tls.key", () => createSecureContext({ cert, key }))
  return { ca, cert, key }
}

const pem = (option: string, text: unknown, kind: string): Buffer => {
  if (typeof text !== "string") {
    throw invalid({
      option,
      problem: (name) => `${name(option)} must be PEM text, got ${Check.kindOf(text)}`,
      cure: () => "Read its file as \"utf8\"."
    })
  }
  if (!/-----BEGIN [A-Z ]+-----/.test(text)) {
    throw invalid({
      option,
      problem: (name) => `${name(option)} is not PEM text ("-----BEGIN ${kind}-----")`,
      cure: () => "Pass the file's content, not its path."
    })
  }
  return Buffer.from(text)
}

const readable = (option: string, read: () => unknown) => {
  try {
    read()
  } catch (cause) {
    throw invalid({
      option,
      problem: (name) => `${name(option)} cannot be used: ${(cause as Error).message}`,
      cause
    })
  }
}
