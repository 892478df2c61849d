/**
 * Ends the command when this process cannot: when it was killed, ran out of memory or stands still. A few lines of shell
 * in a process and a session of their own hear through a pipe for how long the lock can be trusted, and act when they hear
 * no more, or that the pipe has closed.
 */
import type { Lock } from "effect-etcd-lock"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"

/**
 * The first three lines that it reads name what it may have to end, the first signal, and the seconds until SIGKILL. Then
 * comes a line for each renewal, with the seconds for which the lock is trusted, `lost` when the command is being ended, and
 * `done` when it has ended. Nothing but SIGKILL ends it earlier: whatever stops all processes must reach the command first.
 */
const script = `
trap '' HUP INT QUIT TERM USR1 USR2 TSTP TTIN TTOU
read -r target && read -r signal && read -r patience || exit 0
finish() { kill -s KILL -- "$target"; }
end() { kill -s "$signal" -- "$target"; kill -s CONT -- "$target"; sleep "$patience"; finish; }
timer=
later() {
  [ -z "$timer" ] || kill -s ALRM "$timer"
  { trap 'kill -s KILL "$asleep"; exit' ALRM; sleep "$1" & asleep=$!; wait "$asleep"; "$2"; } &
  timer=$!
}
while read -r line; do
  case $line in
    done) [ -z "$timer" ] || kill -s ALRM "$timer"; exit ;;
    lost) later "$patience" finish ;;
    *) later "$line" end ;;
  esac
done
[ -z "$timer" ] || kill -s ALRM "$timer"
end
`

export interface Guardian {
  /** From now on it ends a process, or a process group by its negative number, unless it hears of the lock in time. */
  readonly guard: (target: number) => Effect.Effect<void, never, Scope.Scope>
  /** The lock is lost, and this process ends the command itself. */
  readonly lost: Effect.Effect<void>
}

/** Starts a guardian, which is gone when the scope has closed. */
export const start = Effect.fnUntraced(function*(
  lock: Lock.Handle,
  signal: NodeJS.Signals,
  killAfter: Duration.Duration
): Effect.fn.Return<Guardian, never, Scope.Scope> {
  const { stdin } = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const guardian = spawn("/bin/sh", ["-c", script], { detached: true, stdio: ["pipe", "ignore", "ignore"] })
      // Without it, or without a shell, the command is as safe as this process is.
      guardian.on("error", () => {})
      guardian.stdin.on("error", () => {})
      guardian.unref()
      return guardian
    }),
    ({ stdin }) => Effect.sync(() => stdin.end("done\n"))
  )
  const tell = (...lines: ReadonlyArray<string>) => Effect.sync(() => void stdin.write(`${lines.join("\n")}\n`))
  const millis = Duration.toMillis(killAfter)
  // This process comes first, where it can.
  const grace = millis / 4

  /** Passes each renewal on. */
  const vouching = Effect.gen(function*() {
    let until = 0n
    while (true) {
      const remaining = Duration.toMillis(yield* lock.remaining)
      const end = (yield* Clock.monotonicTimeNanos) + BigInt(Math.round(remaining * 1e6))
      if (end > until) yield* tell(((remaining + grace) / 1000).toFixed(3))
      if (end > until) until = end + shortest
      yield* Effect.sleep("250 millis")
    }
  })

  return {
    guard: (target) =>
      Effect.andThen(
        tell(
          String(target),
          signal.slice("SIG".length),
          ((millis - grace) / 1000).toFixed(3)
        ),
        Effect.asVoid(Effect.forkScoped(vouching, { startImmediately: true }))
      ),
    lost: tell("lost")
  }
})

/** That of a command which goes on without the lock. */
export const none: Guardian = { guard: () => Effect.void, lost: Effect.void }

/** A renewal adds more than this to the time for which the lock is trusted, in nanoseconds. */
const shortest = 50_000_000n
