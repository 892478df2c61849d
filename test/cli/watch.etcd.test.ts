/** What `etcd-lock watch` shows an operator, in a real terminal. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { Etcd } from "effect-etcd-lock"
import { spawn } from "node:child_process"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import { connect, leased, unique } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Program from "./Program.ts"
import * as Tmux from "./Tmux.ts"

const hold = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env?: Record<string, string>) {
  const holder = yield* Program.start(["hold", ...args], { env: env ?? {} })
  yield* holder.printed(/"token"/)
  return holder
})

/** Puts entries of so many locks, each held and waited for by other programs. */
const fill = Effect.fnUntraced(function*(folder: string, count: number) {
  const etcd = yield* connect()
  const lease = yield* leased(etcd)
  const id = lease.toString(16)
  const names = Array.from({ length: count }, (_, i) => `${folder}/${1000 + i}`)
  for (let start = 0; start < count; start += 50) {
    const some = names.slice(start, start + 50)
    yield* etcd.txn({ then: some.flatMap((name) => [1, 2].map((n) => Etcd.put(`${name}/${id}-${n}`, "", { lease }))) })
  }
  const name = names[0]!
  // Released and taken, over and over.
  const flicker = (times: number) =>
    Effect.repeat(
      Effect.andThen(
        etcd.txn({ then: [Etcd.remove(`${name}/${id}-1`)] }),
        etcd.txn({ then: [Etcd.put(`${name}/${id}-1`, "", { lease })] })
      ),
      { times: times - 1 }
    )
  return { flicker }
})

const green = "\u001b[32m"

describe.skipIf(!Tmux.isThere)("etcd-lock watch in a terminal", () => {
  it.live("says of a dead holder that its lease is not renewed, and does not show it green", () =>
    Effect.gen(function*() {
      const name = unique("dead")
      const holder = yield* hold([name, "--ttl", "20"])
      const terminal = yield* Tmux.start(["watch", name])
      yield* terminal.shows(/holds .* renewed \d+s ago/)
      assert.include(yield* terminal.colours, green)
      yield* holder.send("SIGKILL")
      yield* terminal.shows(/holds .* not renewed for \d+s, ends in \d+s/)
      assert.notInclude(yield* terminal.colours, green)
      // It counts on.
      yield* terminal.shows(/not renewed for 1[2-9]s/)
      yield* terminal.shows(/is free/)
    }).pipe(Effect.scoped))

  it.live("says of a stopped etcd that it does not answer, keeps what was there, and goes on afterwards", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const env = { ETCDCTL_ENDPOINTS: server.endpoint }
      const name = unique("stopped")
      const holder = yield* hold([name, "--ttl", "60"], env)
      const terminal = yield* Tmux.start(["watch", name], env)
      yield* terminal.shows(/holds .* renewed/)
      yield* server.pause
      const stopped = yield* terminal.shows(/etcd has not answered for \d+s: what follows is old/)
      assert.match(stopped, /as of \d\d:\d\d:\d\dZ/)
      assert.include(stopped, `:${holder.pid}`)
      assert.notInclude(yield* terminal.colours, green)
      yield* server.resume
      yield* terminal.shows(/^as of .*\nSTATE/m)
      yield* server.kill
      yield* terminal.shows(/ECONNREFUSED/)
      yield* server.restart
      yield* terminal.shows(/^as of .*\nSTATE/m)
    }).pipe(Effect.scoped))

  it.live("fits 500 locks into 24 rows, and scrolls nothing while they change", () =>
    Effect.gen(function*() {
      const folder = unique("many")
      const { flicker } = yield* fill(folder, 500)
      const terminal = yield* Tmux.start(["watch", `${folder}/`])
      const screen = yield* terminal.shows(/and 4\d\d more/)
      assert.match(screen, /^as of .*500 locks are held; 500 wait\.\nLOCK/)
      const before = yield* terminal.scrolled
      yield* flicker(20)
      yield* Effect.sleep("2 seconds")
      assert.strictEqual(yield* terminal.scrolled, before)
      assert.lengthOf((yield* terminal.screen).trimEnd().split("\n"), 24)
      yield* terminal.resize(60, 10)
      yield* terminal.shows(/^(.*\n){9}and 493 more/)
      yield* terminal.press("C-c")
      // What was on the screen before is there again.
      yield* terminal.shows(/ETCDCTL_ENDPOINTS/)
    }).pipe(Effect.scoped))

  it.live("shows all locks without an argument", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const env = { ETCDCTL_ENDPOINTS: server.endpoint }
      const terminal = yield* Tmux.start(["watch"], env)
      yield* terminal.shows(/No lock is held/)
      yield* hold(["a", "--metadata", "job=x"], env)
      yield* hold(["b/c"], env)
      yield* terminal.shows(/2 locks are held[^]*\na .*"job":"x"/)
    }).pipe(Effect.scoped))

  it.live("has no colours where NO_COLOR is set", () =>
    Effect.gen(function*() {
      const name = unique("plain")
      yield* hold([name])
      const terminal = yield* Tmux.start(["watch", name], { NO_COLOR: "1" })
      yield* terminal.shows(/renewed \d+s ago/)
      assert.notInclude(yield* terminal.colours, "\u001b[3")
    }).pipe(Effect.scoped))

  it.live("gives the shell its screen and its cursor while it is stopped, and has its own again afterwards", () =>
    Effect.gen(function*() {
      const name = unique("ctrl-z")
      const terminal = yield* Tmux.start(["watch", name])
      yield* terminal.shows(/is free/)
      assert.strictEqual(yield* terminal.modes, "1 0")
      for (let i = 0; i < 2; i++) {
        yield* terminal.press("C-z")
        yield* terminal.shows(/Stopped|Suspended/)
        assert.strictEqual(yield* terminal.modes, "0 1")
        yield* terminal.type("fg")
        yield* terminal.press("Enter")
        yield* terminal.shows(/^as of .*is free/)
        assert.strictEqual(yield* terminal.modes, "1 0")
      }
    }).pipe(Effect.scoped))
})

describe("etcd-lock watch whose terminal goes away", () => {
  /** Takes the terminal away, and returns how the command has ended and what it has said. */
  const bereaved = (lineOf: (command: string) => string) =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(Path.join(Os.tmpdir(), "watch-"))),
        (folder) => Effect.promise(() => rm(folder, { recursive: true }))
      )
      const watch = `${process.execPath} ${Program.program} watch ${unique("gone")} 2> said`
      const line = `cd ${folder}; ${lineOf(watch)}; echo $? > code`
      const terminal = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn("script", ["--quiet", "--flush", "--command", line, "/dev/null"], {
            env: { ...process.env, ETCDCTL_ENDPOINTS: inject("etcdEndpoint") },
            stdio: ["pipe", "pipe", "ignore"]
          })
        ),
        (terminal) => Effect.sync(() => void terminal.kill("SIGKILL"))
      )
      yield* Effect.callback<void>((resume) => {
        let shown = ""
        terminal.stdout.on("data", (chunk) => {
          shown += String(chunk)
          if (shown.includes("is free")) resume(Effect.void)
        })
      })
      terminal.kill("SIGKILL")
      const read = (file: string) => Effect.promise(() => readFile(Path.join(folder, file), "utf8").catch(() => ""))
      const code = yield* read("code").pipe(
        Effect.filterOrFail((code) => code !== "", () => "it still runs"),
        Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 200 })
      )
      return [Number(code), yield* read("said")] as const
    })

  it.live("ends by SIGHUP, or where none comes, as a command that cannot print, and has nothing to say", () =>
    Effect.gen(function*() {
      // The signal reaches the leader of the session only.
      assert.deepStrictEqual(yield* bereaved((watch) => `trap '' HUP; ${watch}`), [74, ""])
      const [code, said] = yield* bereaved((watch) => `${watch} & trap "kill -HUP $!" HUP; wait $!; wait $!`)
      assert.include([74, 129], code)
      assert.strictEqual(said, "")
    }).pipe(Effect.scoped))
})
