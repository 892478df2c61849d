/** What to hold: an exclusive lock, a shared one, or permits of a semaphore. */
import { Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { Argument, Flag } from "effect/cli"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Misuse } from "./ending.ts"
import * as flags from "./flags.ts"
import type { Work } from "./holding.ts"

export const claimFlags = {
  nonblock: Flag.Boolean("nonblock").pipe(
    Flag.withAlias("n"),
    Flag.withDescription("Do not wait: end at once when it is held."),
    flags.offByDefault
  ),
  shared: Flag.Boolean("shared").pipe(
    Flag.withAlias("s"),
    Flag.withDescription("Take it beside others that share it. Without this, it is exclusive."),
    flags.offByDefault
  ),
  exclusive: Flag.Boolean("exclusive").pipe(
    Flag.withAlias("x"),
    Flag.withDescription("Take it alone, which is the default."),
    flags.offByDefault
  ),
  permits: flags.count("permits").pipe(
    Flag.withDescription("How many permits of a semaphore to take. Default: 1."),
    Flag.optional
  ),
  of: flags.count("of").pipe(
    Flag.withDescription("How many permits the semaphore has. That many commands run at once."),
    Flag.optional
  ),
  metadata: Flag.String("metadata").pipe(
    Flag.withMetavar("key=value"),
    Flag.withDescription("What others can see of this holder. May be given several times."),
    Flag.filterMap(
      (text) => Option.fromNullishOr(/^([^=]+)=(.*)$/s.exec(text)),
      (text) => `--metadata: ${JSON.stringify(text)} is not a key with a value. Write job=report, for example.`
    ),
    Flag.atLeast(0),
    Flag.map((pairs) =>
      pairs.length === 0 ? undefined : Object.fromEntries(pairs.map(([, key, value]) => [key!, value!]))
    )
  )
}

export const name = Argument.String("name").pipe(Argument.withDescription("The lock's name."))

export interface Claim {
  readonly name: string
  readonly nonblock: boolean
  readonly timeout: Option.Option<Duration.Duration>
  readonly shared: boolean
  readonly exclusive: boolean
  readonly permits: Option.Option<number>
  readonly of: Option.Option<number>
  readonly once: Option.Option<string>
  readonly keepFor: Option.Option<Duration.Duration>
  readonly metadata: Readonly<Record<string, string>> | undefined
}

/** The options that exclude each other, and those that need another one. */
const refused = (claim: Claim): string | undefined => {
  const once = Option.isSome(claim.once)
  const isSemaphore = Option.isSome(claim.of)
  if (claim.exclusive && (claim.shared || isSemaphore)) {
    return "-x takes it alone, and -s and --of do not: give one of them."
  }
  if (claim.shared && isSemaphore) return "--shared and --of are two kinds of locks: give one of them."
  if (Option.isSome(claim.permits) && !isSemaphore) return "--permits needs --of, the number of all permits."
  if (Option.isSome(claim.keepFor) && !once) return "--keep-for needs --once, whose successes it is about."
  if (once && (claim.shared || isSemaphore)) return "--once needs an exclusive lock: leave out --shared and --of."
  return undefined
}

/** How long to wait: zero asks once, and undefined waits for ever. */
export const timeoutOf = ({ nonblock, timeout }: Pick<Claim, "nonblock" | "timeout">) =>
  nonblock && Option.isSome(timeout)
    ? Effect.fail(new Misuse({ message: "-n does not wait, and -w does: give one of them." }))
    : Effect.succeed(nonblock ? 0 : Option.getOrUndefined(timeout))

/** The section of the library that holds what is asked for. */
export const sectionOf = Effect.fnUntraced(function*(claim: Claim) {
  const message = refused(claim)
  if (message !== undefined) return yield* new Misuse({ message })
  const { metadata, name, nonblock } = claim
  const timeout = yield* timeoutOf(claim)
  if (Option.isSome(claim.of)) {
    const options = { of: claim.of.value, permits: Option.getOrUndefined(claim.permits), metadata }
    return nonblock ? Semaphore.tryWithPermits(name, options) : Semaphore.withPermits(name, { ...options, timeout })
  }
  if (claim.shared) {
    return nonblock
      ? ReadWriteLock.tryWithReadLock(name, { metadata })
      : ReadWriteLock.withReadLock(name, { metadata, timeout })
  }
  if (Option.isSome(claim.once)) {
    const run = claim.once.value
    const section = Lock.withLockOnce(name, {
      metadata,
      timeout,
      run,
      keepFor: Option.getOrUndefined(claim.keepFor)
    })
    const done = Effect.logInfo(`The run ${JSON.stringify(run)} of '${name}' has succeeded already`)
    return (body: Work) =>
      Effect.flatMap(section(body), Option.match({ onNone: () => done, onSome: () => Effect.void }))
  }
  return nonblock ? Lock.tryWithLock(name, { metadata }) : Lock.withLock(name, { metadata, timeout })
})
