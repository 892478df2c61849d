/** Holds a lock while a command runs, or until a signal comes. */
import { type Etcd, Lock, type Semaphore, Session } from "effect-etcd-lock"
import { Argument, Flag } from "effect/cli"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { ChildProcessSpawner } from "effect/process"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { constants } from "node:os"
import { json } from "../internal/printable.ts"
import * as Child from "./child.ts"
import { codes, ExitWith, Misuse } from "./ending.ts"
import * as flags from "./flags.ts"
import * as Guardian from "./guardian.ts"
import { root } from "./root.ts"
import { codeOf, Signals, untilSignal } from "./signals.ts"
import * as Stderr from "./stderr.ts"

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

/** What is done to the command when the lock is lost. Unless that is `ignore`, SIGKILL follows. */
export type OnLost =
  | { readonly _tag: "Signal"; readonly signal: NodeJS.Signals }
  | { readonly _tag: "Execute"; readonly line: string }
  | { readonly _tag: "Ignore" }

const onLostOf = (text: string): Option.Option<OnLost> => {
  const [what, rest] = text.split(/:(.*)/s)
  if (text === "kill") return Option.some({ _tag: "Signal", signal: "SIGTERM" })
  if (text === "ignore") return Option.some({ _tag: "Ignore" })
  if (what === "exec" && rest) return Option.some({ _tag: "Execute", line: rest })
  const signal = `SIG${rest?.toUpperCase().replace(/^SIG/, "")}`
  if (what === "signal" && signal in constants.signals) {
    return Option.some({ _tag: "Signal", signal: signal as NodeJS.Signals })
  }
  return Option.none()
}

/** The options of all commands that hold something. */
export const lockFlags = {
  ttl: flags.duration("ttl").pipe(
    Flag.withDescription("How long the lock outlives this process if it dies. Default: 15s."),
    Flag.withDefault(Duration.seconds(15))
  ),
  timeout: flags.duration("timeout").pipe(
    Flag.withAlias("w"),
    Flag.withDescription("How long to wait. Default: for ever."),
    Flag.optional
  ),
  conflictExitCode: flags.exitCode("conflict-exit-code").pipe(
    Flag.withAlias("E"),
    Flag.withDescription("The exit code when it is held, or the time is over. Default: 75."),
    Flag.withDefault(codes.held)
  ),
  lostExitCode: flags.exitCode("lost-exit-code").pipe(
    Flag.withDescription("The exit code when the lock is lost. Default: 76."),
    Flag.withDefault(codes.lost)
  )
}

/** Those of the ones that run a command meanwhile. */
export const commandFlags = {
  shell: Flag.String("command").pipe(
    Flag.withAlias("c"),
    Flag.withMetavar("line"),
    Flag.withDescription("A line for /bin/sh, in the command's place."),
    Flag.optional
  ),
  onLost: Flag.String("on-lost").pipe(
    Flag.withMetavar("kill|signal:SIG|exec:LINE|ignore"),
    Flag.withDescription(
      "What to do to the command when the lock is lost: send SIGTERM, another signal, run a line of shell, or nothing. " +
        "Unless it is ignored, SIGKILL follows after --kill-after, before etcd lets the next one in. Default: kill."
    ),
    Flag.filterMap(
      onLostOf,
      (text) =>
        `--on-lost: ${JSON.stringify(text)} is none of kill, signal:SIG, exec:LINE and ignore. ` +
        "Write signal:USR1, or exec:'echo lost'."
    ),
    Flag.withDefault<OnLost>({ _tag: "Signal", signal: "SIGTERM" })
  ),
  killAfter: flags.duration("kill-after").pipe(
    Flag.withDescription("How long the command has to end after that. Default: a fifth of the TTL."),
    Flag.optional
  ),
  holdFor: flags.duration("hold-for").pipe(
    Flag.withDescription("Hold the lock for at least this long, even if the command ends earlier."),
    Flag.optional
  )
}

export const commandArgument = Argument.String("command").pipe(
  Argument.withDescription("The command and its arguments."),
  Argument.variadic()
)

/** The command is given as words or as a line, or not at all. */
export const wordsOf = ({ command: [program, ...args], shell: line }: {
  readonly command: ReadonlyArray<string>
  readonly shell: Option.Option<string>
}): Effect.Effect<Option.Option<Child.Words>, Misuse> => {
  if (program === "" || Option.contains(line, "")) return Effect.fail(new Misuse({ message: "The command is empty." }))
  if (program === undefined) return Effect.succeed(Option.map(line, (line) => ({ line })))
  if (Option.isNone(line)) return Effect.succeedSome({ program, args })
  return Effect.fail(new Misuse({ message: "-c takes the place of a command: give one of them." }))
}

export interface Options {
  readonly name: string
  readonly ttl: Duration.Duration
  readonly conflictExitCode: number
  readonly onLost: OnLost
  readonly killAfter: Option.Option<Duration.Duration>
  readonly lostExitCode: number
  readonly holdFor: Option.Option<Duration.Duration>
}

/** The options about a command, where there is none. */
export const noCommand = {
  onLost: { _tag: "Signal", signal: "SIGTERM" },
  killAfter: Option.some(Duration.zero),
  holdFor: Option.none()
} as const

// -----------------------------------------------------------------------------
// holding
// -----------------------------------------------------------------------------

/** How long the release may take when the command has ended. */
const maxRelease = Duration.seconds(2)

/** How long the waiting takes before the command says whom it waits for. */
const patience = Duration.seconds(1)

export type Work = Effect.Effect<void, ExitWith | Lock.LockLost | Etcd.EtcdError, Lock.Current>

/**
 * Waits for the lock, runs the command under it, releases it, and ends as the command did. The section is one of the
 * library's, which acquires and releases the lock around its body.
 */
export const hold = Effect.fnUntraced(function*<E extends SectionError>(
  options: Options,
  words: Option.Option<Child.Words>,
  section: (body: Work) => Effect.Effect<unknown, E | ExitWith, Session.Session>,
  /** The section is of a run whose success is remembered. */
  isRemembered = false
) {
  if (options.onLost._tag === "Ignore" && Option.isSome(options.killAfter)) {
    return yield* new Misuse({
      message: "--kill-after is for a command that is ended, and --on-lost ignore ends none."
    })
  }
  const killAfter = Option.getOrElse(options.killAfter, () => Duration.times(options.ttl, 0.2))
  const safetyMargin = yield* safetyMarginOf(options.ttl, killAfter)
  const prefix = Option.getOrElse((yield* root).prefix, () => "")
  const services = yield* Effect.context<Etcd.Etcd | Signals | ChildProcessSpawner.ChildProcessSpawner>()
  const entered = yield* Deferred.make<void>()
  /** Nothing is left to do but the release. */
  const ending = yield* Deferred.make<number>()

  const work = Effect.gen(function*() {
    const lock = yield* Lock.Current
    yield* Effect.logDebug(`Holds '${lock.lock}', with the token ${lock.fencingToken}`)
    const least = yield* Effect.forkChild(Effect.sleep(Option.getOrElse(options.holdFor, () => Duration.zero)))
    const holding = Option.isNone(words)
      ? holdAlone(lock, prefix, options)
      : Effect.catchTag(
        runUnder(lock, words.value, environmentOf(lock, prefix), options, killAfter),
        "ExitWith",
        ({ code }) => Effect.succeed(code)
      )
    const code = yield* holding
    const run = yield* Effect.serviceOption(Lock.CurrentRun)
    if (code === 0 && Option.isSome(run)) yield* run.value.succeed
    yield* Fiber.await(least).pipe(
      Effect.raceFirst(Effect.flatMap(Signals, Queue.take)),
      Effect.raceFirst(Effect.ignore(lock.awaitLoss))
    )
    yield* Deferred.succeed(ending, code)
    if (code !== 0) return yield* new ExitWith({ code })
  }).pipe(Effect.provide(services))
  // A loss interrupts the body of a section, and waits for it: this one ends when it has dealt with the loss.
  const body = Effect.andThen(
    Deferred.succeed(entered, undefined),
    Effect.uninterruptible(Effect.flatMap(Effect.forkDetach(Effect.interruptible(work)), Fiber.join))
  )

  // A signal ends the waiting. Those that come later are the command's.
  const signal = Effect.tapError(untilSignal(Deferred.await(entered)), ({ code }) => Deferred.succeed(ending, code))
  const waiting = Effect.timeoutOrElse(Deferred.await(entered), {
    duration: patience,
    orElse: () => announce(options.name)
  })
  const whole = section(body).pipe(
    Effect.raceFirst(Effect.andThen(signal, Effect.never)),
    Effect.raceFirst(Effect.andThen(waiting, Effect.never)),
    Effect.catch((error) => endOf(error, options, entered, ending, isRemembered)),
    Effect.provide(Session.layer({ ttl: options.ttl, safetyMargin }))
  )
  const running = yield* Effect.forkDetach(whole)
  yield* Effect.raceFirst(Fiber.join(running), leftToItsTtl(options, ending))
}, Effect.provide(Stderr.layer))

type SectionError = Lock.AcquireError | Lock.LockHeld | Semaphore.AcquireError | Semaphore.PermitsUnavailable

/** SIGKILL has to land before etcd ends the lease, so the time that the command has is part of the margin. */
const safetyMarginOf = Effect.fnUntraced(function*(ttl: Duration.Duration, killAfter: Duration.Duration) {
  if (Duration.isLessThan(ttl, Duration.seconds(1))) {
    return yield* new Misuse({ message: `--ttl: ${Duration.format(ttl)} is too short. Write at least 1s.` })
  }
  const drift = Duration.max(Duration.times(ttl, 0.1), Duration.millis(300))
  const most = Duration.subtract(Duration.times(ttl, 0.5), drift)
  if (Duration.isGreaterThan(killAfter, most)) {
    return yield* new Misuse({
      message:
        `--kill-after: ${Duration.format(killAfter)} is too long for a TTL of ${Duration.format(ttl)}, since the ` +
        `command has to be dead before its lease is. Write at most ${Duration.format(most)}, or a longer --ttl.`
    })
  }
  return Duration.sum(killAfter, drift)
})

const announce = (name: string) =>
  Effect.gen(function*() {
    // An inspection would ask for the lease of every other command that waits.
    const seen = yield* Stream.runHead(Lock.changes(name))
    const holder = Option.flatMapNullishOr(seen, ({ holder }) => holder)
    yield* Effect.logInfo(
      process.env.ETCD_LOCK_NAME === name
        ? `Waits for '${name}', under which it runs itself, by ETCD_LOCK_NAME`
        : `Waits for '${name}'${Option.match(holder, { onNone: () => "", onSome: (holder) => `, held by ${holder}` })}`
    )
  }).pipe(Effect.ignore)

/** Says why there was no lock, or none any more, and ends with the code for that. */
const endOf = Effect.fnUntraced(function*(
  error: SectionError | ExitWith,
  options: Options,
  entered: Deferred.Deferred<void>,
  ending: Deferred.Deferred<number>,
  isRemembered: boolean
) {
  switch (error._tag) {
    case "LockHeld":
    case "LockTimeout":
    case "PermitsUnavailable": {
      yield* Effect.logWarning(error.message)
      return yield* new ExitWith({ code: options.conflictExitCode })
    }
    case "LockLost": {
      if (!Deferred.isDoneUnsafe(entered)) {
        yield* Effect.logError(
          `The place in the line of '${error.lock}' is lost (${error.reason}), and nothing was run`
        )
        return yield* new ExitWith({ code: codes.displaced })
      }
      // A success that was to be remembered and is not has no code here.
      const code = Deferred.isDoneUnsafe(ending) ? yield* Deferred.await(ending) : undefined
      const goesOn = options.onLost._tag === "Ignore"
      if (code === 0 && (goesOn || isRemembered)) return
      if (code !== undefined && goesOn) return yield* new ExitWith({ code })
      // The library has logged how it came to that.
      const lost = `'${error.lock}' is lost (${error.reason})`
      yield* Effect.logError(goesOn ? `${lost}, so etcd does not remember that this run has succeeded` : lost)
      return yield* new ExitWith({ code: options.lostExitCode })
    }
    default: {
      return yield* error
    }
  }
})

/** Ends as the command did when the release takes too long: etcd cannot be reached, and the lease ends by itself. */
const leftToItsTtl = Effect.fnUntraced(function*({ name, ttl }: Options, ending: Deferred.Deferred<number>) {
  const code = yield* Deferred.await(ending)
  yield* Effect.sleep(maxRelease)
  yield* Effect.logWarning(
    `etcd does not confirm the release of '${name}'. It is free ${Duration.format(ttl)} after the last renewal.`
  )
  if (code !== 0) return yield* new ExitWith({ code })
})

// -----------------------------------------------------------------------------
// under the lock
// -----------------------------------------------------------------------------

/** Prints what a script needs to know of the lock, and holds it until a signal comes. */
const holdAlone = (lock: Lock.Handle, prefix: string, options: Options) => {
  const { createRevision, fencingToken, key, leaseId } = lock
  const line = json({
    lock: lock.lock,
    key: prefix + key,
    token: Number(fencingToken),
    createRevision: Number(createRevision),
    lease: leaseId.toString(16)
  })
  const lost = Effect.orElseSucceed(lock.awaitLoss, () => options.lostExitCode)
  const released = Effect.map(
    Effect.flatMap(Signals, Queue.take),
    (signal) => signal === "SIGPIPE" ? codeOf(signal) : 0
  )
  return Effect.andThen(Console.log(line), Effect.raceFirst(lost, released))
}

/** Runs the command, and returns the exit code of the whole. */
const runUnder = (
  lock: Lock.Handle,
  words: Child.Words,
  env: Environment,
  options: Options,
  killAfter: Duration.Duration
) =>
  // The guardian is there until all of the command's group has ended.
  Effect.scoped(Effect.flatMap(Effect.scope, (guarded) =>
    Effect.scoped(Effect.gen(function*() {
      const { onLost } = options
      const mayGoOn = () => onLost._tag === "Ignore" || lock.isHeldUnsafe()
      const child = yield* Child.start(words, env, killAfter, mayGoOn)
      const guardian = onLost._tag === "Ignore"
        ? undefined
        : yield* Scope.provide(guardianOf(child, lock, onLost, killAfter), guarded)
      // One that ends when its lock is lost has been made to.
      const ended = Effect.filterOrElse(child.ended, () => lock.isHeldUnsafe(), () => Effect.never)
      const lost = Effect.catch(
        lock.awaitLoss,
        (loss) => Effect.andThen(guardian?.lost ?? Effect.void, lose(loss, env, child, options, killAfter))
      )
      const forwarding = Effect.forever(Effect.flatMap(Effect.flatMap(Signals, Queue.take), child.send))
      return yield* Effect.raceFirst(ended, lost).pipe(Effect.raceFirst(forwarding))
    }))))

const guardianOf = (
  { target }: Child.Child,
  lock: Lock.Handle,
  onLost: Exclude<OnLost, { readonly _tag: "Ignore" }>,
  killAfter: Duration.Duration
) =>
  // A line of shell is what this process would have run.
  Guardian.start(target, lock, onLost._tag === "Signal" ? onLost.signal : "SIGTERM", killAfter)

/** What scripts for `etcdctl lock` read, and the name. The revision is that of etcdctl and Go, which is the token. */
const environmentOf = ({ fencingToken, key, lock }: Lock.Handle, prefix: string) => ({
  ETCD_LOCK_NAME: lock,
  ETCD_LOCK_KEY: prefix + key,
  ETCD_LOCK_REV: String(fencingToken),
  ETCD_LOCK_TOKEN: String(fencingToken)
})

type Environment = ReturnType<typeof environmentOf>

/** Ends a command whose lock is lost, or lets it go on, and returns the exit code of the whole. */
const lose = Effect.fnUntraced(function*(
  loss: Lock.LockLost,
  env: Environment,
  child: Child.Child,
  { lostExitCode, onLost }: Options,
  killAfter: Duration.Duration
) {
  switch (onLost._tag) {
    case "Ignore": {
      yield* Effect.logWarning(`${loss.message}. The command goes on, and another one may run beside it.`)
      return yield* child.ended
    }
    case "Signal": {
      yield* child.end(onLost.signal, killAfter)
      return lostExitCode
    }
    case "Execute": {
      const known = { ...env, ETCD_LOCK_LOST: loss.reason, ETCD_LOCK_PID: String(child.pid) }
      const handler = yield* Child.start({ line: onLost.line }, known, Duration.zero)
      yield* Effect.timeoutOption(Effect.andThen(child.ended, handler.ended), killAfter)
      yield* child.end("SIGKILL", Duration.zero)
      return lostExitCode
    }
  }
})
