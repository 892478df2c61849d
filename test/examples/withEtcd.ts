/**
 * Runs examples, one after the other, on an etcd that is started for them and ends with them, unless the environment names
 * one, or `--memory` asks for none. Where none can be started, they run without, and the output says why.
 *
 *   node --conditions=@effect-etcd-lock/source test/examples/withEtcd.ts examples/tutorial.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { spawn } from "node:child_process"
import * as EtcdServer from "../support/EtcdServer.ts"

const args = process.argv.slice(2)
const examples = args.filter((arg) => arg.endsWith(".ts"))
const options = args.filter((arg) => !arg.endsWith(".ts"))

const run = (environment: Record<string, string>) =>
  Effect.forEach(examples, (example) => runOne(example, environment), { discard: true })

/** Runs an example to its end, and ends as it does. */
const runOne = (example: string, environment: Record<string, string>) =>
  Effect.callback<void>((resume) => {
    const child = spawn(process.execPath, ["--conditions=@effect-etcd-lock/source", example, ...options], {
      env: { ...process.env, ...environment },
      stdio: "inherit"
    })
    child.on("close", (code) => {
      process.exitCode ||= code ?? 1
      resume(Effect.void)
    })
    return Effect.sync(() => child.kill())
  })

const say = (what: string) => Console.log(`0.0 s  etcd     ${what}`)

const onOwnEtcd = Effect.gen(function*() {
  const { description, endpoint } = yield* EtcdServer.start()
  yield* say(`${description}, started for this program`)
  yield* run({ ETCD_ENDPOINTS: endpoint, ETCDCTL_ENDPOINTS: endpoint })
}).pipe(
  Effect.scoped,
  Effect.catch(({ message }) => Effect.andThen(say(`cannot be started: ${message}`), run({})))
)

const isNamed = [process.env.ETCD_ENDPOINTS, process.env.ETCDCTL_ENDPOINTS].some((endpoints) => endpoints !== undefined)

NodeRuntime.runMain(isNamed || args.includes("--memory") ? run({}) : onOwnEtcd)
