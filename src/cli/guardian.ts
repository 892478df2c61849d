/**
 * Ends the command when this process cannot: when it was killed, ran out of memory or stands still. A few lines of shell in
 * the command's process group hear on a pipe for how long the lock can be trusted, and act when they have not heard of it
 * in time, or when the pipe has closed.
 */
import type { Lock } from "effect-etcd-lock"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"

/**
 * The shell starts the guardian and becomes the command. So there is one from the beginning, the command has the process ID
 * that is known here, and the guardian is no child that the command would not expect.
 *
 * A line on descriptor 3 is a number of seconds for which the lock is trusted from now on; `lost` when this process is ending
 * the command itself; or `done` when that has ended. What stops or ends all other processes leaves the guardian as it is.
 */
const script = `
target=$1$$ signal=$2 patience=$3 trusted=$4
shift 4
( (
  exec <&3 3<&- >/dev/null 2>&1
  trap '' HUP INT QUIT TERM USR1 USR2 ALRM VTALRM ABRT TRAP XCPU XFSZ IO SYS TSTP TTIN TTOU
  timer=
  finish() { kill -s KILL -- "$target"; }
  end() { kill -s "$signal" -- "$target"; kill -s CONT -- "$target"; sleep "$patience"; finish; }
  forget() { [ -z "$timer" ] || kill -s PROF "$timer"; }
  later() {
    forget
    { trap 'kill -s KILL "$asleep"; exit' PROF; sleep "$1" & asleep=$!; wait "$asleep"; "$2"; } &
    timer=$!
  }
  trap : PROF
  later "$trusted" end
  while read -r line; do
    case $line in
      done) forget; exit ;;
      lost) later "$patience" finish ;;
      *) later "$line" end ;;
    esac
  done
  forget
  end
) & )
exec "$@" 3<&-
`

export interface Guardian {
  /** The words that run a command with a guardian beside it, where all signals go to its group, or to it alone. */
  readonly beside: (command: ReadonlyArray<string>, to: "group" | "command") => Effect.Effect<ReadonlyArray<string>>
  /** Tells the guardian through its pipe what becomes of the lock, and that the command has ended when the scope closes. */
  readonly tell: (pipe: Sink.Sink<void, Uint8Array, never, PlatformError.PlatformError>) => Effect.Effect<
    void,
    never,
    Scope.Scope
  >
  /** The lock is lost, and this process ends the command itself. */
  readonly lost: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(
  lock: Lock.Handle,
  signal: NodeJS.Signals,
  killAfter: Duration.Duration
) {
  const lines = yield* Queue.unbounded<string, Cause.Done>()
  const millis = Duration.toMillis(killAfter)
  // This process comes first, where it can.
  const grace = millis / 4
  const trusted = Effect.map(lock.remaining, (remaining) => secondsOf(Duration.toMillis(remaining) + grace))

  /** Passes each renewal on. */
  const vouching = Effect.gen(function*() {
    let until = 0
    while (true) {
      const now = Number(yield* Clock.monotonicTimeNanos) / 1e6
      const end = now + Duration.toMillis(yield* lock.remaining)
      if (end > until + atLeast) {
        yield* Queue.offer(lines, yield* trusted)
        until = end
      }
      yield* Effect.sleep("250 millis")
    }
  })

  const guardian: Guardian = {
    beside: (command, to) =>
      Effect.map(trusted, (trusted) => {
        const foreign = Object.entries(process.env).filter(([name]) => !/^[A-Za-z_]\w*$/.test(name))
        // A shell may keep from the command what it could not name itself.
        const environment = foreign.map(([name, value]) => `${name}=${value}`)
        const words = environment.length === 0 ? command : ["env", ...environment, ...command]
        const target = to === "group" ? "-" : ""
        return ["/bin/sh", "-c", script, "sh", target, nameOf(signal), secondsOf(millis - grace), trusted, ...words]
      }),
    tell: Effect.fnUntraced(function*(pipe) {
      const bytes = Stream.encodeText(Stream.map(Stream.fromQueue(lines), (line) => `${line}\n`))
      // A guardian that somebody has ended is no reason to end the command.
      const telling = yield* Effect.forkScoped(Effect.ignore(Stream.run(bytes, pipe)), { startImmediately: true })
      yield* Effect.forkScoped(vouching, { startImmediately: true })
      yield* Effect.addFinalizer(() =>
        Queue.offer(lines, "done").pipe(
          Effect.andThen(Queue.end(lines)),
          Effect.andThen(Fiber.await(telling)),
          Effect.timeoutOption("1 second")
        )
      )
    }),
    lost: Effect.asVoid(Queue.offer(lines, "lost"))
  }
  return guardian
})

/** A renewal adds more milliseconds than this to the time for which the lock is trusted. */
const atLeast = 50

const secondsOf = (millis: number): string => (millis / 1000).toFixed(3)

const nameOf = (signal: NodeJS.Signals): string => signal.slice("SIG".length)
