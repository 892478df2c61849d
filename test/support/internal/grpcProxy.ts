import { Effect, Schedule, type Scope } from "effect"
import { StartFailed } from "./launcher.ts"
import * as Native from "./native.ts"
import { freePort } from "./ports.ts"

/** Starts the gRPC proxy of an etcd binary in front of an endpoint without TLS, and answers the proxy's own endpoint. */
export const inFrontOf = Effect.fnUntraced(function*(
  binary: string,
  endpoint: string
): Effect.fn.Return<string, StartFailed, Scope.Scope> {
  const dataDir = yield* Native.temporaryDirectory()
  const proxy = `127.0.0.1:${yield* freePort}`
  const process = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Native.run(binary, [
        "grpc-proxy",
        "start",
        `--endpoints=${endpoint}`,
        `--listen-addr=${proxy}`,
        `--advertise-client-url=${proxy}`,
        `--data-dir=${dataDir}`
      ], dataDir)
    ),
    (process) => process.end("SIGKILL")
  )
  const ended = Effect.flatMap(
    process.closed,
    () => new StartFailed({ message: `The gRPC proxy ended at its start\n${process.output()}` })
  )
  yield* Effect.raceFirst(untilHealthy(proxy), ended)
  return proxy
})

// It reads a key of the etcd behind it to answer that.
const untilHealthy = (proxy: string): Effect.Effect<void, StartFailed> =>
  Effect.tryPromise((signal) => fetch(`http://${proxy}/health`, { signal }).then((response) => response.text())).pipe(
    Effect.filterOrFail((text) => text.includes(`"health":"true"`)),
    Effect.timeout("2 seconds"),
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.orDie,
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => new StartFailed({ message: `The gRPC proxy on ${proxy} was not ready within 60 s` })
    }),
    Effect.asVoid
  )
