/**
 * The private servers of a measurement: an etcd and, for the peers that need one, a
 * Redis that writes to its disk before it answers, as etcd does.
 */
import { Data, Effect, Option, Schedule, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Native from "../support/internal/native.ts"
import { freePort } from "../support/internal/ports.ts"

export interface Store {
  readonly endpoint: string
  readonly meter: Effect.Effect<Meter>
}

/** What a store has done since it started, as far as it tells. */
export interface Meter {
  /** Raft proposals, each of which is written to the disk. */
  readonly commits?: number
  /** Revisions, each of which has written or deleted keys. */
  readonly writes?: number
  /** Requests to open or close a watch. */
  readonly watchRequests?: number
  /** Watches that are open. */
  readonly watches?: number
  readonly renewals?: number
  /** Messages of watches, and bytes of all kinds, that it has sent to clients. */
  readonly watchMessages?: number
  readonly sentBytes?: number
  readonly cpuMillis: number
  readonly residentBytes: number
}

export class StoreFailed extends Data.TaggedError("StoreFailed")<{ readonly message: string }> {}

export type Disk = "tmpfs" | "disk"

const directories: { readonly [K in Disk]: string } = {
  tmpfs: "/dev/shm",
  disk: Path.resolve(import.meta.dirname, "../../.cache/bench/data")
}

export const isThere = (disk: Disk): boolean => disk === "disk" || Fs.existsSync(directories.tmpfs)

const directoryOf = (disk: Disk): string => {
  Fs.mkdirSync(directories[disk], { recursive: true })
  return directories[disk]
}

// -----------------------------------------------------------------------------
// etcd
// -----------------------------------------------------------------------------

export interface Etcd extends Store {
  readonly description: string
}

export const startEtcd = (disk: Disk): Effect.Effect<Etcd, EtcdServer.EtcdNotFound, Scope.Scope> =>
  Effect.map(
    EtcdServer.start({
      dataDir: directoryOf(disk),
      // ten thousand locks that come and go are no reason to stop
      args: ["--quota-backend-bytes=4294967296", "--snapshot-count=100000"]
    }),
    ({ description, endpoint }) => ({ description, endpoint, meter: etcdMeter(endpoint) })
  )

const etcdMeter = (endpoint: string): Effect.Effect<Meter> =>
  Effect.promise(async () => {
    const metrics = await (await fetch(`http://${endpoint}/metrics`)).text()
    const value = (name: string) => Number(metrics.split(`\n${name} `)[1]?.split("\n", 1)[0] ?? NaN)
    return {
      commits: value("etcd_server_proposals_committed_total"),
      writes: value("etcd_debugging_mvcc_current_revision"),
      watchRequests: value(
        `grpc_server_msg_received_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`
      ),
      watches: value("etcd_debugging_mvcc_watcher_total"),
      renewals: value("etcd_debugging_lease_renewed_total"),
      watchMessages: value(
        `grpc_server_msg_sent_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`
      ),
      sentBytes: value("etcd_network_client_grpc_sent_bytes_total"),
      cpuMillis: value("process_cpu_seconds_total") * 1000,
      residentBytes: value("process_resident_memory_bytes")
    }
  })

// -----------------------------------------------------------------------------
// Redis
// -----------------------------------------------------------------------------

const redisBinary = process.env.REDIS_BINARY ?? "redis-server"

/** `7.0.15`, where there is a Redis. */
export const redisVersion: Option.Option<string> = Option.liftThrowable(() =>
  /v=(\S+)/.exec(execFileSync(redisBinary, ["--version"], { encoding: "utf8" }))?.[1] ?? "of an unknown version"
)()

export const startRedis = (disk: Disk): Effect.Effect<Store, StoreFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const port = yield* freePort
    const data = yield* Native.temporaryDirectory(directoryOf(disk))
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        Native.run(
          redisBinary,
          [
            ["--port", port],
            ["--bind", "127.0.0.1"],
            ["--dir", data],
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"]
          ].flat().map(String),
          data
        )
      ),
      ({ end }) => end("SIGKILL")
    )
    const endpoint = `127.0.0.1:${port}`
    const meter = redisMeter(port)
    yield* Effect.retry(meter, { times: 100, schedule: Schedule.spaced("50 millis") }).pipe(
      Effect.mapError(() => new StoreFailed({ message: `Redis did not start\n${server.output()}` }))
    )
    return { endpoint, meter: Effect.orDie(meter) }
  })

const redisMeter = (port: number): Effect.Effect<Meter, StoreFailed> =>
  Effect.callback((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => socket.end("INFO\r\nQUIT\r\n"))
    let info = ""
    socket.on("data", (chunk) => {
      info += String(chunk)
    })
    socket.on("error", (error) => resume(Effect.fail(new StoreFailed({ message: error.message }))))
    socket.on("close", () => {
      const value = (name: string) => Number(new RegExp(`\n${name}:(.*)\r`).exec(info)?.[1])
      resume(Effect.succeed({
        cpuMillis: (value("used_cpu_user") + value("used_cpu_sys")) * 1000,
        residentBytes: value("used_memory_rss")
      }))
    })
  })
