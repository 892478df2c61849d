/** The command that is run: it has the terminal and the streams as if it were run directly. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import type * as Scope from "effect/Scope"
import { getSystemErrorMessage } from "node:util"
import { codes, ExitWith } from "./ending.ts"
import { codeOf } from "./signals.ts"

/** A program with its arguments, or a line for the shell. */
export type Words = { readonly program: string; readonly args: ReadonlyArray<string> } | { readonly line: string }

export interface Child {
  readonly pid: number
  /** Where its signals go: its process group, as a negative number, or it alone where that is the terminal's. */
  readonly target: number
  /** Waits for its end, and returns its exit code as a shell reports it. */
  readonly ended: Effect.Effect<number>
  /** Passes a signal on that this process has received. */
  readonly send: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Sends a signal, and SIGKILL when the time is over, and waits for the end of all that it reaches. */
  readonly end: (signal: NodeJS.Signals, killAfter: Duration.Duration) => Effect.Effect<void>
}

/**
 * Starts a command. What is left of its process group when the scope closes is ended, so that nothing of it works on
 * without the lock.
 *
 * With a terminal as its stdin it stays in the terminal's foreground group, or it could not read; then only it gets
 * signals, and what it has started does not.
 */
export const start = Effect.fnUntraced(function*(
  words: Words,
  env: Readonly<Record<string, string>>,
  killAfter: Duration.Duration,
  /** Whether it may go on when it has been stopped. */
  mayGoOn = () => true
): Effect.fn.Return<Child, ExitWith, ChildProcessSpawner.ChildProcessSpawner | Scope.Scope> {
  const sharesGroup = process.stdin.isTTY === true
  const options: ChildProcess.CommandOptions = {
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
    env,
    extendEnv: true,
    detached: !sharesGroup,
    forceKillAfter: killAfter
  }
  const child = yield* ("line" in words
    ? ChildProcess.make(words.line, [], { ...options, shell: "/bin/sh" })
    : ChildProcess.make(words.program, words.args, options)).pipe(
      Effect.catch(({ reason }) => reason._tag === "NotFound" ? notFound(words) : cannotRun(words, reason.cause)),
      // Node throws most errors of the kernel, such as that of a path that leads through a file.
      Effect.catchDefect((error) => cannotRun(words, error))
    )
  const target = sharesGroup ? child.pid : -child.pid
  const send = (signal: NodeJS.Signals) => Effect.ignore(Effect.try(() => process.kill(target, signal)))
  if (!sharesGroup) yield* stoppedTogether(send, mayGoOn)
  return {
    pid: child.pid,
    target,
    ended: child.exitCode.pipe(Effect.catch((error) => Effect.succeed(codeOf(signalOf(error))))),
    send: (signal) =>
      // The terminal has sent these to the whole group.
      sharesGroup && (signal === "SIGINT" || signal === "SIGQUIT")
        ? Effect.void
        : send(signal),
    end: (killSignal, forceKillAfter) => Effect.ignore(child.kill({ killSignal, forceKillAfter }))
  }
})

/** Lets Ctrl-Z stop both, where the terminal reaches this process only. */
const stoppedTogether = (send: (signal: NodeJS.Signals) => Effect.Effect<void>, mayGoOn: () => boolean) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const stop = () => {
        Effect.runSync(send("SIGSTOP"))
        process.kill(process.pid, "SIGSTOP")
      }
      const goOn = () => mayGoOn() && Effect.runSync(send("SIGCONT"))
      process.on("SIGTSTP", stop).on("SIGCONT", goOn)
      return () => process.off("SIGTSTP", stop).off("SIGCONT", goOn)
    }),
    (remove) => Effect.sync(remove)
  )

const notFound = (words: Words) => endWith(codes.notFound, `There is no program ${programOf(words)}.`)

/** Says why in the words of the system, where Node has the name of a class and a code. */
const cannotRun = (words: Words, error: unknown) =>
  Predicate.hasProperty(error, "errno") && typeof error.errno === "number"
    ? endWith(codes.notExecutable, `${programOf(words)} cannot be run: ${getSystemErrorMessage(error.errno)}.`)
    : Effect.die(error)

const programOf = (words: Words) => JSON.stringify("line" in words ? "/bin/sh" : words.program)

const endWith = (code: number, what: string) =>
  Effect.andThen(Effect.logError(what), Effect.fail(new ExitWith({ code })))

/** Returns the signal that ended a process, which the spawner has in its message only. */
const signalOf = ({ reason }: PlatformError.PlatformError): NodeJS.Signals =>
  /signal: '(SIG\w+)'$/.exec(String(reason.cause))![1] as NodeJS.Signals
