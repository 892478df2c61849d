/** The command never runs on beside a lock that another may have, whatever becomes of `etcd-lock`. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { unique } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { eventually } from "../support/eventually.ts"
import { temporaryDirectory } from "../support/internal/native.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Program from "./Program.ts"

/** A command that says that it is alive, in a file, ten times a second, and ends only when it has to. */
const beating = (file: string) => `trap '' TERM HUP PIPE; while :; do date +%s%N > ${file}; sleep 0.1; done`

const beatOf = (file: string) => Effect.sync(() => Number(Fs.readFileSync(file, "utf8").trim()) / 1e6)

/** Starts such a command, and returns how to wait for its end, and for when that was. */
const start = Effect.fnUntraced(function*(
  name: string,
  options?: Program.Options,
  ttl = "4s",
  more: ReadonlyArray<string> = []
) {
  const file = Path.join(yield* temporaryDirectory(), "beat")
  const program = yield* Program.start(["run", "-v", "--ttl", ttl, ...more, name, "-c", beating(file)], options)
  yield* eventually(Effect.sync(() => assert.isTrue(Fs.existsSync(file))), 40_000)
  // What hits etcd-lock comes when it has the command in its care.
  yield* Effect.sleep("500 millis")
  const beat = beatOf(file)
  const lastBeat: Effect.Effect<number> = Effect.gen(function*() {
    while (true) {
      const before = yield* beat
      yield* Effect.sleep("1500 millis")
      if (before === (yield* beat)) return before
    }
  })
  return { program, lastBeat }
})

/** Waits for the lock, and returns when it came. */
const next = (name: string, options?: Program.Options) =>
  Effect.map(Program.run(["run", name, "date", "+%s%N"], options), ({ stdout }) => Number(stdout.trim()) / 1e6)

/** The write end of a pipe that is full and that nobody reads. */
const fullPipe: Effect.Effect<number, never, Scope.Scope> = Effect.gen(function*() {
  const fifo = Path.join(yield* temporaryDirectory(), "fifo")
  execFileSync("mkfifo", [fifo])
  const filling = Fs.openSync(fifo, Fs.constants.O_RDWR | Fs.constants.O_NONBLOCK)
  const fill = Effect.try(() => Fs.writeSync(filling, Buffer.alloc(512)))
  yield* Effect.ignore(Effect.forever(fill))
  const full = Fs.openSync(fifo, "w")
  yield* Effect.addFinalizer(() => Effect.sync(() => [filling, full].forEach((fd) => Fs.closeSync(fd))))
  return full
})

const outputs = {
  "is read": {},
  "has lost its reader": { leaves: true },
  "is full, and nobody reads it": { stderr: fullPipe },
  "is on a full disk": { stderr: Effect.sync(() => Fs.openSync("/dev/full", "w")) }
}

describe.concurrent("the command that etcd-lock runs", () => {
  for (const signal of ["SIGKILL", "SIGSTOP", "SIGSEGV"] as const) {
    it.live(`has ended before the next one starts when ${signal} has hit etcd-lock`, () =>
      Effect.gen(function*() {
        const name = unique(signal)
        const { lastBeat, program } = yield* start(name)
        yield* program.send(signal)
        const began = yield* next(name)
        assert.isBelow(yield* lastBeat, began)
        yield* program.send("SIGCONT").pipe(Effect.catchDefect(() => Effect.void))
        assert.strictEqual(yield* program.ended, signal === "SIGSTOP" ? 76 : signal)
      }).pipe(Effect.scoped), 60_000)
  }

  for (const [what, { leaves, stderr }] of Object.entries(outputs) as Array<[string, Output]>) {
    it.live(`has ended before the next one starts after an outage, where stderr ${what}`, () =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const proxy = yield* Proxy.make(server.endpoint)
        const [name, env] = [unique("outage"), { ETCDCTL_ENDPOINTS: proxy.endpoint }]
        const { lastBeat, program } = yield* start(
          name,
          stderr === undefined ? { env } : { env, stderr: yield* stderr }
        )
        if (leaves === true) yield* program.leave
        yield* proxy.refuse
        yield* proxy.cut
        const began = yield* next(name, { env: { ETCDCTL_ENDPOINTS: server.endpoint } })
        assert.isBelow(yield* lastBeat, began)
        assert.strictEqual(yield* program.ended, 76)
      }).pipe(Effect.scoped), 60_000)
  }

  it.live(
    "goes on through an outage that its lease outlives, where stderr has lost its reader",
    () =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const proxy = yield* Proxy.make(server.endpoint)
        const env = { ETCDCTL_ENDPOINTS: proxy.endpoint }
        const { lastBeat, program } = yield* start(unique("short-outage"), { env }, "12s")
        yield* program.leave
        yield* proxy.refuse
        yield* proxy.cut
        // The last renewal was four seconds ago at most, and the lock is trusted for eight.
        yield* Effect.sleep("2500 millis")
        yield* proxy.accept
        const ended = yield* Effect.forkScoped(lastBeat)
        // Longer than a lease that nothing renews.
        yield* Effect.sleep("13 seconds")
        assert.isUndefined(ended.pollUnsafe())
        yield* program.send("SIGKILL")
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("gets every signal that etcd-lock can catch", () =>
    Effect.gen(function*() {
      const names = [
        "INT",
        "TERM",
        "HUP",
        "QUIT",
        "USR1",
        "USR2",
        "ALRM",
        "VTALRM",
        "ABRT",
        "TRAP",
        "XCPU",
        "XFSZ",
        "IO",
        "SYS"
      ]
      yield* Effect.forEach(names, (signal) =>
        Effect.gen(function*() {
          const line = `trap 'echo got; exit 7' ${signal}; echo ready; while :; do sleep 0.1; done`
          const child = yield* Program.start(["run", unique(signal), "-c", line])
          yield* child.printed(/ready/)
          yield* child.send(`SIG${signal}` as NodeJS.Signals)
          assert.deepStrictEqual([signal, yield* child.ended, child.stdout()], [signal, 7, "ready\ngot\n"])
        }), { concurrency: 4 })
    }).pipe(Effect.scoped), 60_000)

  it.live(
    "has ended before the next one starts when etcd-lock wakes up between the signal and SIGKILL",
    () =>
      Effect.gen(function*() {
        const name = unique("wakes")
        const { lastBeat, program } = yield* start(name, {}, "6s", ["--kill-after", "2s"])
        yield* program.send("SIGSTOP")
        yield* Effect.delay(program.send("SIGCONT"), "4800 millis").pipe(Effect.forkScoped)
        const began = yield* next(name)
        assert.isBelow(yield* lastBeat, began)
        assert.strictEqual(yield* program.ended, 76)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("does not go on after Ctrl-Z when its lock is lost meanwhile", () =>
    Effect.gen(function*() {
      const name = unique("too-late")
      const { lastBeat, program } = yield* start(name)
      yield* program.send("SIGTSTP")
      const began = yield* next(name)
      yield* program.send("SIGCONT")
      assert.strictEqual(yield* program.ended, 76)
      assert.isBelow(yield* lastBeat, began)
    }).pipe(Effect.scoped), 60_000)

  it.live("ends by itself, many renewals later, and at once where it is short", () =>
    Effect.gen(function*() {
      const long = yield* Effect.forkScoped(Effect.all(
        Array.from({ length: 4 }, () => Program.run(["run", "--ttl", "3s", unique("long"), "sleep", "9"])),
        { concurrency: "unbounded" }
      ))
      const [time, { code }] = yield* Effect.timed(Program.run(["run", "--ttl", "60s", unique("brief"), "true"]))
      assert.deepStrictEqual([code, Duration.toSeconds(time) < 10], [0, true])
      for (const { code, stderr } of yield* Fiber.join(long)) assert.deepStrictEqual([code, stderr], [0, ""])
    }).pipe(Effect.scoped), 60_000)

  it.live(
    "stops and goes on with etcd-lock at Ctrl-Z, where the terminal reaches that alone",
    () =>
      Effect.gen(function*() {
        const { lastBeat, program } = yield* start(unique("stopped"), {}, "30s")
        yield* program.send("SIGTSTP")
        const stopped = yield* lastBeat
        yield* program.send("SIGCONT")
        const running = yield* Effect.forkScoped(lastBeat)
        yield* Effect.sleep("4 seconds")
        assert.isUndefined(running.pollUnsafe())
        yield* program.send("SIGKILL")
        assert.isAbove(yield* lastBeat, stopped)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("leaves no process behind when it ends by itself", () =>
    Effect.gen(function*() {
      const name = unique("alone")
      assert.strictEqual((yield* Program.run(["run", name, "-c", "exit 3"])).code, 3)
      yield* eventually(Effect.sync(() =>
        assert.notInclude(
          Fs.readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).map(environmentOf).join("\n"),
          `ETCD_LOCK_NAME=${name}\0`
        )
      ))
    }))
})

interface Output {
  readonly leaves?: boolean
  readonly stderr?: Effect.Effect<number, never, Scope.Scope>
}

const environmentOf = (pid: string): string => {
  try {
    return Fs.readFileSync(`/proc/${pid}/environ`, "utf8")
  } catch {
    return ""
  }
}
