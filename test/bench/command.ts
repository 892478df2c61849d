/**
 * Measures how long `etcd-lock run x true` takes, beside `etcdctl lock x true`, and how much memory it has while it holds;
 * fails if that is too much. Needs etcd and etcdctl:
 *
 *   npm run bench:command
 */
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as EtcdServer from "../support/EtcdServer.ts"
import { machine } from "./results.ts"
import { quantile } from "./statistics.ts"

const rounds = 21
const limits = { milliseconds: 350, megabytes: 80 }
const program = new URL("../../dist/bin.js", import.meta.url).pathname

const write = (text: string) => process.stdout.write(`${text}\n`)

const median = (values: ReadonlyArray<number>) => quantile(values, 0.5)

const milliseconds = (file: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv): number => {
  const began = performance.now()
  execFileSync(file, args, { env, stdio: "ignore" })
  return performance.now() - began
}

/** The memory of a process that holds a lock, as Linux counts what is resident. */
const megabytes = (env: NodeJS.ProcessEnv): Promise<number> =>
  new Promise((resolve) => {
    const holder = spawn(process.execPath, [program, "hold", "memory"], { env })
    holder.stdout.once("data", () => {
      const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(Fs.readFileSync(`/proc/${holder.pid}/status`, "utf8"))!
      holder.once("exit", () => resolve(Number(kilobytes) / 1024))
      holder.kill()
    })
  })

const measure = Effect.gen(function*() {
  const { description, endpoint } = yield* EtcdServer.start()
  const env = { ...process.env, ETCDCTL_ENDPOINTS: endpoint, ETCDCTL_API: "3" }
  // In turns, since what else the machine does changes all the time.
  const samples = Array.from({ length: rounds }, (_, i) => ({
    bare: milliseconds(process.execPath, ["--eval", "0"], env),
    usage: milliseconds(process.execPath, [program, "--version"], env),
    ours: milliseconds(process.execPath, [program, "run", `x${i}`, "true"], env),
    etcdctl: milliseconds(process.env.ETCDCTL_BINARY ?? "etcdctl", ["lock", `x${i}`, "true"], env)
  }))
  const held = yield* Effect.promise(() => megabytes(env))
  const line = (value: number, what: string) => write(`${value.toFixed(0).padStart(5)}  ${what}`)
  const ours = median(samples.map(({ ours }) => ours))
  write(`On ${machine()}, ${description}, median milliseconds of ${rounds} processes each:`)
  line(median(samples.map(({ bare }) => bare)), "node that does nothing")
  line(median(samples.map(({ usage }) => usage)), "etcd-lock --version")
  line(ours, `etcd-lock run x true, where ${limits.milliseconds} are allowed`)
  line(median(samples.map(({ etcdctl }) => etcdctl)), "etcdctl lock x true")
  line(held, `megabytes while it holds, where ${limits.megabytes} are allowed`)
  if (ours > limits.milliseconds || held > limits.megabytes) process.exitCode = 1
})

await Effect.runPromise(Effect.scoped(measure))
