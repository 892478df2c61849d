/**
 * Ends the command when this process cannot: when it was killed, ran out of memory or stands still. A small shell script
 * sleeps in a session of its own until just after the lock is no longer trusted, and ends the command then. Each renewal
 * starts another one and calls off the last. So nothing has to be heard of this process, and nothing lengthens a time that
 * has been set but a renewal.
 */
import type { Lock } from "effect-etcd-lock"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ChildProcess } from "node:child_process"
import * as Aside from "./aside.ts"

/**
 * Its arguments are the seconds until the signal, the signal, whom it reaches, and the seconds from there to SIGKILL. USR2
 * calls it off as long as it sleeps. Without a `sleep` that works, it does nothing.
 */
const script = `
trap 'kill -s KILL "$!" && wait "$!"; exit' USR2
trap '' HUP INT QUIT TERM USR1
sleep "$1" &
wait "$!" || exit
trap '' USR2
kill -s "$2" -- "$3"
kill -s CONT -- "$3"
sleep "$4"
kill -s KILL -- "$3"
`

export interface Guardian {
  /** The lock is lost, and this process ends the command itself: only SIGKILL is left to the guardian, and no later. */
  readonly lost: Effect.Effect<void>
}

/**
 * Guards a process, or a process group by its negative number, until the scope closes. The signal comes a quarter of
 * `killAfter` after the lock is no longer trusted, since this process comes first where it can, and SIGKILL when all of it
 * is over, as it does where this process ends the command.
 */
export const start = Effect.fnUntraced(function*(
  target: number,
  lock: Lock.Handle,
  signal: NodeJS.Signals,
  killAfter: Duration.Duration
): Effect.fn.Return<Guardian, never, Scope.Scope> {
  const patience = Duration.toMillis(killAfter)
  let sleeper: ChildProcess | undefined
  /** When SIGKILL comes, in milliseconds of the monotonic clock. */
  let killAt = Infinity
  let isLost = false

  const arm = (wait: number, signal: string, rest: number) => {
    const words = [secondsOf(wait), signal, String(target), secondsOf(rest)]
    const last = sleeper
    // Without a shell, the command is as safe as this process is.
    sleeper = Aside.start(["/bin/sh", "-c", script, "sh", ...words], "ignore", () => {})
    callOff(last)
  }

  const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

  const guarding = Effect.gen(function*() {
    while (true) {
      if (isLost) return
      const remaining = Duration.toMillis(yield* lock.remaining)
      const end = (yield* now) + remaining + patience
      if (remaining > 0 && (killAt === Infinity || end > killAt + shortest)) {
        killAt = end
        arm(remaining + patience / 4, signal.slice("SIG".length), patience * 3 / 4)
      }
      yield* Effect.sleep("250 millis")
    }
  })

  yield* Effect.addFinalizer(() => Effect.sync(() => callOff(sleeper)))
  yield* Effect.forkScoped(guarding, { startImmediately: true })
  return {
    lost: Effect.map(now, (now) => {
      isLost = true
      killAt = Math.min(killAt, now + patience)
      arm(Math.max(0, killAt - now), "KILL", 0)
    })
  }
})

/** A renewal adds more milliseconds than this to the time for which the lock is trusted. */
const shortest = 50

const secondsOf = (millis: number): string => (millis / 1000).toFixed(3)

/** A script that is not called off yet has its trap, or none and dies: no signal is ignored where Node has started it. */
const callOff = (sleeper: ChildProcess | undefined) => void sleeper?.kill("SIGUSR2")
