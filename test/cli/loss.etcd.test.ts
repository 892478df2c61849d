import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { connect, elapsed, unique } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { eventually } from "../support/eventually.ts"
import * as Program from "./Program.ts"

/** A command that prints the PID of what it has started itself, and ends only when it has to. */
const stubborn = "trap '' TERM; sleep 100 & echo child $!; while :; do wait; done"

/** A command that ends when it is asked to, and says so. */
const obedient = "trap 'echo asked to end; exit 0' TERM; sleep 100 & echo child $!; wait"

const pidOf = ({ stdout }: Program.Program) => Number(/child (\d+)/.exec(stdout())![1])

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Deletes the holder's key, as an operator does. */
const takeAway = (name: string) =>
  Effect.map(Program.run(["release", "--force", name]), ({ code }) => assert.strictEqual(code, 0))

describe("a command whose lock is lost", () => {
  it.live("is asked to end, and the exit code says why", () =>
    Effect.gen(function*() {
      for (const [options, code] of [[[], 76], [["--lost-exit-code", "9"], 9]] as const) {
        const name = unique("asked")
        const child = yield* Program.start(["run", ...options, name, "-c", obedient])
        yield* child.printed(/child/)
        yield* takeAway(name)
        assert.strictEqual(yield* child.ended, code)
        assert.match(child.stdout(), /asked to end\n$/)
        assert.match(child.stderr(), /Lock '.*' was lost after .*: its key was deleted from etcd/)
        assert.isFalse(isAlive(pidOf(child)))
      }
    }).pipe(Effect.scoped))

  it.live("is asked to end when its lease is revoked", () =>
    Effect.gen(function*() {
      const name = unique("revoked")
      const child = yield* Program.start(["run", name, "-c", obedient])
      yield* child.printed(/child/)
      const etcd = yield* connect()
      const { holder } = yield* Effect.provideService(Lock.inspect(name), Etcd.Etcd, etcd)
      yield* etcd.leaseRevoke(holder!.leaseId)
      assert.strictEqual(yield* child.ended, 76)
      assert.match(child.stderr(), /error: '.*' is lost \((LeaseExpired|KeyDeleted)\)\n$/)
    }).pipe(Effect.scoped))

  it.live("is killed when it does not end, with all that it has started", () =>
    Effect.gen(function*() {
      const name = unique("killed")
      const child = yield* Program.start(["run", "--kill-after", "1s", name, "-c", stubborn])
      yield* child.printed(/child/)
      yield* takeAway(name)
      assert.strictEqual(yield* child.ended, 76)
      assert.isFalse(isAlive(pidOf(child)))
    }).pipe(Effect.scoped))

  it.live("gets another signal, where that is asked for", () =>
    Effect.gen(function*() {
      const name = unique("signal")
      const line = "trap 'echo lost; exit 0' USR1; sleep 100 & echo child $!; wait"
      const child = yield* Program.start(["run", "--on-lost", "signal:usr1", name, "-c", line])
      yield* child.printed(/child/)
      yield* takeAway(name)
      assert.strictEqual(yield* child.ended, 76)
      assert.match(child.stdout(), /lost\n$/)
    }).pipe(Effect.scoped))

  it.live("is ended by a line of shell, where that is asked for", () =>
    Effect.gen(function*() {
      const name = unique("exec")
      const onLost = "exec:echo lost $ETCD_LOCK_NAME by $ETCD_LOCK_LOST; kill $ETCD_LOCK_PID"
      const child = yield* Program.start(["run", "--on-lost", onLost, name, "-c", obedient])
      yield* child.printed(/child/)
      yield* takeAway(name)
      assert.strictEqual(yield* child.ended, 76)
      assert.include(child.stdout(), `lost ${name} by KeyDeleted\n`)
      assert.include(child.stdout(), "asked to end\n")
    }).pipe(Effect.scoped))

  it.live("ends no earlier than that line, which may have more to do", () =>
    Effect.gen(function*() {
      const name = unique("notify")
      const onLost = "exec:kill $ETCD_LOCK_PID; sleep 1.5; echo told"
      const child = yield* Program.start(["run", "--on-lost", onLost, name, "-c", obedient])
      yield* child.printed(/child/)
      yield* takeAway(name)
      assert.strictEqual(yield* child.ended, 76)
      assert.match(child.stdout(), /asked to end\ntold\n$/)
    }).pipe(Effect.scoped))

  it.live("goes on, where that is asked for, and ends as it would", () =>
    Effect.gen(function*() {
      const name = unique("ignore")
      const child = yield* Program.start(["run", "--on-lost", "ignore", name, "-c", "echo child; read x; exit 5"])
      yield* child.printed(/child/)
      yield* takeAway(name)
      yield* child.printed(/warning: .*The command goes on, and another one may run beside it/)
      yield* child.write("\n")
      assert.strictEqual(yield* child.ended, 5)
    }).pipe(Effect.scoped))

  it.live("goes on, where that is asked for, and says that its run is not remembered", () =>
    Effect.gen(function*() {
      const name = unique("unremembered")
      const once = ["run", "--on-lost", "ignore", "--once", "tonight", name, "-c"]
      for (const [code, ended] of [[0, 76], [5, 5]] as const) {
        const child = yield* Program.start([...once, `echo child; read x; exit ${code}`])
        yield* child.printed(/child/)
        yield* takeAway(name)
        yield* child.printed(/warning: .*The command goes on/)
        yield* child.write("\n")
        assert.strictEqual(yield* child.ended, ended)
        assert.strictEqual(
          /error: '.*' is lost \(KeyDeleted\), so etcd does not remember that this run has succeeded\n$/.test(
            child.stderr()
          ),
          code === 0
        )
      }
      assert.include(yield* Program.run([...once, "echo again"]), { code: 0, stdout: "again\n" })
    }).pipe(Effect.scoped))

  it.live("undoes no success that is remembered, in a hold that goes on after it", () =>
    Effect.gen(function*() {
      const name = unique("held-on")
      const child = yield* Program.start(["run", "--once", "tonight", "--hold-for", "1h", name, "echo", "works"])
      yield* child.printed(/works/)
      const again = Program.run(["run", "--once", "tonight", name, "echo", "twice"])
      const { code, stderr, stdout } = yield* again
      assert.deepStrictEqual([code, stdout], [0, ""])
      assert.match(stderr, /has succeeded already/)
      assert.strictEqual((yield* Program.run(["run", "-n", name, "true"])).code, 75)
      yield* takeAway(name)
      assert.strictEqual(yield* child.ended, 0)
      assert.strictEqual((yield* again).stdout, "")
    }).pipe(Effect.scoped))

  it.live("is over when its holder has no command", () =>
    Effect.gen(function*() {
      const name = unique("alone")
      const holder = yield* Program.start(["hold", name])
      yield* holder.printed(/token/)
      yield* takeAway(name)
      assert.strictEqual(yield* holder.ended, 76)
    }).pipe(Effect.scoped))
})

describe("an etcd that stops", () => {
  it.live("has the command dead before another can get the lock", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const env = { ETCDCTL_ENDPOINTS: server.endpoint }
      const name = unique("stops")
      // As much of it as is allowed is for the command to end by itself. The last tenth is what a machine may be late by.
      const ttl = 40
      const child = yield* Program.start(
        ["run", "--ttl", `${ttl}s`, "--kill-after", "16s", name, "-c", stubborn],
        { env }
      )
      yield* child.printed(/child/)
      const [, alive] = yield* elapsed(Effect.gen(function*() {
        yield* server.pause
        yield* eventually(Effect.sync(() => assert.isFalse(isAlive(pidOf(child)))), 80_000)
      }))
      // The last renewal may have been sent just before the pause, and no later.
      assert.isBelow(alive, ttl * 1000)
      // The release cannot be confirmed, and is not waited for.
      const [code, closing] = yield* elapsed(child.ended)
      assert.strictEqual(code, 76)
      assert.isBelow(closing, 10_000)
      yield* server.resume
    }).pipe(Effect.scoped), 180_000)

  it.live("does not keep a command that has ended", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const child = yield* Program.start(["run", unique("ended"), "-c", "echo child; read x; exit 3"], {
        env: { ETCDCTL_ENDPOINTS: server.endpoint }
      })
      yield* child.printed(/child/)
      yield* server.pause
      yield* child.write("\n")
      assert.strictEqual(yield* child.ended, 3)
      assert.match(child.stderr(), /etcd does not confirm the release of '.*'\. It is free 15s after the last renewal/)
      yield* server.resume
    }).pipe(Effect.scoped), 60_000)

  it.live(
    "is waited for by a run that is to succeed once, until it knows of the success",
    () =>
      Effect.gen(function*() {
        const server = yield* EtcdServer.start()
        const env = { ETCDCTL_ENDPOINTS: server.endpoint }
        const once = (line: string) => ["run", "--once", "tonight", "nightly", "-c", line]
        const child = yield* Program.start(once("echo child; read x"), { env })
        yield* child.printed(/child/)
        yield* server.pause
        yield* child.write("\n")
        // Longer than a release is waited for, and not as long as a request may take.
        yield* Effect.sleep("3 seconds")
        yield* server.resume
        assert.strictEqual(yield* child.ended, 0)
        const { code, stdout } = yield* Program.run(once("echo again"), { env })
        assert.deepStrictEqual([code, stdout], [0, ""])
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("fails a run that is to succeed once and that it does not know of", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const env = { ETCDCTL_ENDPOINTS: server.endpoint }
      const child = yield* Program.start(
        ["run", "--once", "tonight", "nightly", "--command-timeout", "2s", "-c", "echo child; read x"],
        { env }
      )
      yield* child.printed(/child/)
      yield* server.pause
      yield* child.write("\n")
      assert.strictEqual(yield* child.ended, 69)
      yield* server.resume
    }).pipe(Effect.scoped), 60_000)

  it.live("is soon left by a waiter at Ctrl-C", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const name = unique("waiter")
      const env = { ETCDCTL_ENDPOINTS: server.endpoint }
      const holder = yield* Program.start(["hold", name], { env })
      yield* holder.printed(/token/)
      const waiter = yield* Program.start(["run", name, "true"], { env })
      yield* waiter.printed(/Waits for/)
      yield* server.pause
      yield* waiter.send("SIGINT")
      assert.strictEqual(yield* waiter.ended, 130)
      yield* server.resume
    }).pipe(Effect.scoped), 60_000)
})
