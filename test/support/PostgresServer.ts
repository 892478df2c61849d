import { Data, Effect, Schedule, type Scope } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Native from "./internal/native.ts"
import { freePort } from "./internal/ports.ts"

export class PostgresNotFound extends Data.TaggedError("PostgresNotFound")<{ readonly message: string }> {}

class StartFailed extends Data.TaggedError("StartFailed")<{ readonly message: string }> {}

export interface PostgresServer {
  /** `postgres://postgres@127.0.0.1:23791/postgres` */
  readonly url: string
  /** `PostgreSQL 15.18 (/usr/lib/postgresql/15/bin)` */
  readonly description: string
}

/** The directory of the programs of PostgreSQL: where `POSTGRES_BIN` says, where Debian has them, or on the `PATH`. */
export const find: Effect.Effect<string, PostgresNotFound> = Effect.suspend(() => {
  const { PATH = "", POSTGRES_BIN } = process.env
  const debian = "/usr/lib/postgresql"
  const versions = Fs.existsSync(debian) ? Fs.readdirSync(debian).toSorted((a, b) => Number(b) - Number(a)) : []
  const directories = POSTGRES_BIN !== undefined
    ? [POSTGRES_BIN]
    : [...versions.map((version) => Path.join(debian, version, "bin")), ...PATH.split(Path.delimiter)]
  const directory = directories.find((path) => Fs.existsSync(Path.join(path, "initdb")))
  return directory === undefined
    ? Effect.fail(
      new PostgresNotFound({
        message: `There is no PostgreSQL ${
          POSTGRES_BIN === undefined ? `in ${debian} or on the PATH` : `in ${POSTGRES_BIN}`
        }`
      })
    )
    : Effect.succeed(directory)
})

/** Starts a private PostgreSQL on a free port with its own data; both are gone when the scope closes. */
export const start: Effect.Effect<PostgresServer, PostgresNotFound, Scope.Scope> = Effect.flatMap(
  find,
  (bin) =>
    launch(bin).pipe(
      // Between choosing a free port and listening on it, another program may have taken it.
      Effect.retry({ times: 3, while: ({ message }) => message.includes("already in use") }),
      Effect.catchTag("StartFailed", Effect.die)
    )
)

// PostgreSQL refuses to run as root, so root has `nobody` run it.
const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}

const launch = Effect.fnUntraced(function*(bin: string) {
  const directory = yield* Native.temporaryDirectory()
  yield* Effect.sync(() => user.uid !== undefined && Fs.chownSync(directory, user.uid, user.gid))
  const version = yield* run(Path.join(bin, "initdb"), [
    `--pgdata=${directory}`,
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync"
  ]).pipe(Effect.andThen(run(Path.join(bin, "postgres"), ["--version"])))
  const port = yield* freePort
  const server = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Native.run(
        Path.join(bin, "postgres"),
        [
          "-D",
          directory,
          "-p",
          String(port),
          ...["listen_addresses=127.0.0.1", "unix_socket_directories="].flatMap((set) => ["-c", set])
        ],
        directory,
        user
      )
    ),
    // It stops at once, and leaves no shared memory behind, as it would after SIGKILL.
    ({ end }) => end("SIGQUIT")
  )
  const failed = (what: string) => new StartFailed({ message: `${what}\n${server.output()}` })
  const isReady = Effect.sync(() => server.output().includes("ready to accept connections"))
  yield* isReady.pipe(
    Effect.repeat({ until: (ready) => ready, schedule: Schedule.spaced("50 millis") }),
    Effect.raceFirst(Effect.flatMap(server.closed, () => failed("PostgreSQL ended at its start"))),
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => failed("PostgreSQL was not ready within 60 s")
    })
  )
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    description: `PostgreSQL ${/\d+(\.\d+)?/.exec(version)?.[0]} (${bin})`
  }
})

const run = (binary: string, args: ReadonlyArray<string>) =>
  Effect.callback<string, StartFailed>((resume) => {
    execFile(binary, args, { ...user, cwd: "/", timeout: 60_000 }, (error, stdout, stderr) => {
      resume(
        error === null ? Effect.succeed(stdout) : Effect.fail(new StartFailed({ message: stderr || error.message }))
      )
    })
  })
