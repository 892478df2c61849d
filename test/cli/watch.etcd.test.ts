/** What `etcd-lock watch` shows an operator, in a real terminal. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
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
})
