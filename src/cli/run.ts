/** `etcd-lock run`: a command under a lock. */
import { Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import { Argument, Command, Flag } from "effect/cli"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Words } from "./child.ts"
import { connection } from "./connection.ts"
import { Misuse } from "./ending.ts"
import { hold, holdingFlags, type Work } from "./holding.ts"
import { spoken } from "./words.ts"

export const run = Command.make("run", {
  nonblock: Flag.Boolean("nonblock").pipe(
    Flag.withAlias("n"),
    Flag.withDescription("Do not wait: end at once when it is held."),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  ...holdingFlags,
  shared: Flag.Boolean("shared").pipe(
    Flag.withAlias("s"),
    Flag.withDescription("Take it beside others that share it. Without this, it is exclusive."),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  permits: Flag.Int("permits").pipe(
    Flag.withDescription("How many permits of a semaphore to take. Default: 1."),
    Flag.optional
  ),
  of: Flag.Int("of").pipe(
    Flag.withDescription("How many permits the semaphore has. That many commands run at once."),
    Flag.optional
  ),
  once: Flag.String("once").pipe(
    Flag.withMetavar("run-id"),
    Flag.withDescription(
      "Do nothing if the run of this ID has succeeded already, on whichever machine, in the last 7 days."
    ),
    Flag.optional
  ),
  metadata: Flag.KeyValuePair("metadata").pipe(
    Flag.withDescription("What others can see of this holder, as key=value. May be given several times."),
    Flag.withDefault(undefined)
  ),
  shell: Flag.String("command").pipe(
    Flag.withAlias("c"),
    Flag.withMetavar("line"),
    Flag.withDescription("A line for /bin/sh, in the command's place."),
    Flag.optional
  ),
  name: Argument.String("name").pipe(Argument.withDescription("The lock's name.")),
  command: Argument.String("command").pipe(
    Argument.withDescription("The command and its arguments. Without one, it holds the lock until a signal comes."),
    Argument.variadic()
  )
}, (options) =>
  Effect.gen(function*() {
    const words = yield* wordsOf(options.shell, options.command)
    const section = yield* sectionOf(options, words)
    yield* hold(options, words, section, Option.isSome(options.once))
  }).pipe(Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Run a command under a lock."),
    Command.withDescription(
      "Waits for the lock, runs the command, and releases the lock when the command has ended. Ends as the command did."
    ),
    Command.withExamples([
      { command: "etcd-lock run nightly-report -- ./report.sh --all", description: "One at a time, on all machines" },
      { command: "etcd-lock run -n -E 0 backup ./backup.sh", description: "Do nothing if another machine does it" },
      { command: "etcd-lock run --once \"$(date +%F)\" nightly ./job.sh", description: "Once a day on many machines" },
      { command: "etcd-lock run --of 4 crawler ./crawl.sh", description: "Four at a time" },
      { command: "etcd-lock run -w 30s deploy -c 'make && make install'", description: "Wait for half a minute" }
    ])
  )

/** The command is given as words or as a line, or not at all. */
export const wordsOf = (
  line: Option.Option<string>,
  [program, ...args]: ReadonlyArray<string>
): Effect.Effect<Option.Option<Words>, Misuse> => {
  if (program === undefined) return Effect.succeed(Option.map(line, (line) => ({ line })))
  if (Option.isNone(line)) return Effect.succeedSome({ program, args })
  return Effect.fail(new Misuse({ message: "-c takes the place of a command: give one of them." }))
}

interface Claim {
  readonly name: string
  readonly nonblock: boolean
  readonly timeout: Option.Option<Duration.Duration>
  readonly shared: boolean
  readonly permits: Option.Option<number>
  readonly of: Option.Option<number>
  readonly once: Option.Option<string>
  readonly metadata: Readonly<Record<string, string>> | undefined
}

/** The options of which only one can be given, and those that need another one. */
const refused = (claim: Claim, words: Option.Option<Words>): string | undefined => {
  const once = Option.isSome(claim.once)
  const isSemaphore = Option.isSome(claim.of)
  if (claim.nonblock && Option.isSome(claim.timeout)) return "-n does not wait, and -w does: give one of them."
  if (claim.shared && isSemaphore) return "--shared and --of are two kinds of locks: give one of them."
  if (Option.isSome(claim.permits) && !isSemaphore) return "--permits needs --of, the number of all permits."
  if (once && (claim.shared || isSemaphore)) return "--once needs an exclusive lock: leave out --shared and --of."
  if (once && Option.isNone(words)) return "--once needs a command, whose success it remembers."
  return undefined
}

/** The section of the library that holds what is asked for. */
const sectionOf = Effect.fnUntraced(function*(claim: Claim, words: Option.Option<Words>) {
  const message = refused(claim, words)
  if (message !== undefined) return yield* new Misuse({ message })
  const { metadata, name, nonblock } = claim
  const timeout = Option.getOrUndefined(claim.timeout)
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
    const section = Lock.withLockOnce(name, { metadata, timeout: nonblock ? 0 : timeout, run })
    const done = Effect.logInfo(`The run ${JSON.stringify(run)} of '${name}' has succeeded already`)
    return (body: Work) =>
      Effect.flatMap(section(body), Option.match({ onNone: () => done, onSome: () => Effect.void }))
  }
  return nonblock ? Lock.tryWithLock(name, { metadata }) : Lock.withLock(name, { metadata, timeout })
})
