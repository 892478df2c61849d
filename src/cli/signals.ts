/** The signals that end a command, or that go on to the one that it runs. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import { constants } from "node:os"
import { codes, ExitWith } from "./ending.ts"

/**
 * Those that a process can catch and that mean something to a command. The others tell this process alone of its own
 * doings, such as a division by zero, a write to a closed pipe or the end of a child.
 */
const caught = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGALRM",
  "SIGVTALRM",
  "SIGABRT",
  "SIGTRAP",
  "SIGXCPU",
  "SIGXFSZ",
  "SIGIO",
  "SIGPWR",
  "SIGSTKFLT",
  "SIGSYS"
] as const

export type Signal = (typeof caught)[number] | "SIGPIPE"

/** Those that this system has. */
const signals = caught.filter((signal) => signal in constants.signals)

/** The exit code of a process that a signal ends, as shells report it. */
export const codeOf = (signal: NodeJS.Signals): number => 128 + constants.signals[signal]

/** The signals that this process has received, in order. */
export class Signals extends Context.Service<Signals, Queue.Dequeue<Signal>>()("effect-etcd-lock/cli/Signals") {}

export const layer: Layer.Layer<Signals> = Layer.effect(
  Signals,
  Effect.gen(function*() {
    const received = yield* Queue.unbounded<Signal>()
    // A reader that has left, as `head` does when it has enough, ends the command as SIGPIPE would.
    const onOutputError = ({ code }: NodeJS.ErrnoException) => {
      if (code !== "EPIPE") process.exit(codes.output)
      Queue.offerUnsafe(received, "SIGPIPE")
      setTimeout(() => process.exit(codeOf("SIGPIPE")), patience).unref()
    }
    // It stays, since what was printed last may fail when all else has ended.
    process.stdout.on("error", onOutputError)
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        signals.map((signal) => {
          const listener = () => Queue.offerUnsafe(received, signal)
          process.on(signal, listener)
          return () => process.off(signal, listener)
        })
      ),
      (removals) => Effect.sync(() => removals.forEach((remove) => remove()))
    )
    return received
  })
)

/** How long a lock may take to be released when nobody reads what is printed, in milliseconds. */
const patience = 3000

/** Waits for a signal, and ends as a process does that a signal ends. */
export const ended: Effect.Effect<never, ExitWith, Signals> = Signals.pipe(
  Effect.flatMap(Queue.take),
  Effect.flatMap((signal) => Effect.fail(new ExitWith({ code: codeOf(signal) })))
)

/** Runs an effect until it ends, or a signal comes. */
export const untilSignal = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | ExitWith, R | Signals> =>
  Effect.raceFirst(self, ended)

/** Waits for Ctrl-Z, which does not stop this process while it is waited for. */
export const stopAsked: Effect.Effect<void> = Effect.callback<void>((resume) => {
  const listener = () => resume(Effect.void)
  process.once("SIGTSTP", listener)
  return Effect.sync(() => process.off("SIGTSTP", listener))
})

/** Stops this process as Ctrl-Z does, until it is told to go on. */
export const stop: Effect.Effect<void> = Effect.sync(() => process.kill(process.pid, "SIGTSTP"))
