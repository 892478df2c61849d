/**
 * Runs examples through `withEtcd.ts` on a PostgreSQL, too, that is started for them and ends with them, unless
 * `DATABASE_URL` names one. Where none can be started, it says what to do.
 *
 *   node --conditions=@effect-etcd-lock/source test/examples/withPostgres.ts examples/cluster-messages.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { spawn } from "node:child_process"
import * as Path from "node:path"
import * as PostgresServer from "../support/PostgresServer.ts"

const args = [
  "--conditions=@effect-etcd-lock/source",
  Path.join(import.meta.dirname, "withEtcd.ts"),
  ...process.argv.slice(2)
]

/** Runs the examples to their end, and ends as they do. */
const run = (environment: Record<string, string>) =>
  Effect.callback<void>((resume) => {
    const child = spawn(process.execPath, args, { env: { ...process.env, ...environment }, stdio: "inherit" })
    child.on("close", (code) => {
      process.exitCode = code ?? 1
      resume(Effect.void)
    })
    return Effect.sync(() => child.kill())
  })

const onOwnPostgres = Effect.gen(function*() {
  const { description, url } = yield* PostgresServer.start
  yield* Console.log(`0.0 s  database ${description}, started for this program`)
  yield* run({ DATABASE_URL: url })
}).pipe(
  Effect.scoped,
  Effect.catch(({ message }) =>
    Effect.andThen(
      Console.error(
        `${message}: install Debian's package postgresql, or set POSTGRES_BIN to the directory of its initdb, ` +
          "or DATABASE_URL to one that runs."
      ),
      Effect.sync(() => {
        process.exitCode = 1
      })
    )
  )
)

NodeRuntime.runMain(process.env.DATABASE_URL === undefined ? onOwnPostgres : run({}))
