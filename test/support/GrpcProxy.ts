/** etcd's own gRPC proxy, which every etcd binary has in it. */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import { accepts } from "./accepts.ts"
import { until } from "./eventually.ts"
import { freePort } from "./internal/ports.ts"

const binary = process.env.ETCD_BINARY || "etcd"

/** Tests on etcd in a container have no binary. */
export const isThere = ChildProcess.spawnSync(binary, ["grpc-proxy", "start", "--help"]).status === 0

/** Starts a proxy to an etcd, and ends it with the scope. Returns its `host:port`. */
export const start = (endpoint: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function*() {
    const listening = `127.0.0.1:${yield* freePort}`
    const addresses = ["--endpoints", endpoint, "--listen-addr", listening, "--advertise-client-url", listening]
    yield* Effect.acquireRelease(
      Effect.sync(() => ChildProcess.spawn(binary, ["grpc-proxy", "start", ...addresses], { stdio: "ignore" })),
      (proxy) => Effect.sync(() => proxy.kill("SIGKILL"))
    )
    yield* until(`a gRPC proxy at ${listening}`, accepts(listening))
    return listening
  })
