import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { unique } from "../support/connect.ts"
import * as Program from "./Program.ts"

describe("on a terminal", () => {
  it.live("a command has the terminal, and stays in its foreground group", () =>
    Effect.gen(function*() {
      // Only a group of the terminal's session can open it.
      const line = "test -t 0 && test -t 1 && test -t 2 && read -p 'name? ' x < /dev/tty && echo hello $x"
      const child = yield* Program.start(["run", unique("read"), "--", "bash", "-c", line], { terminal: true })
      yield* child.printed(/name\? /)
      yield* child.write("Ada\n")
      assert.strictEqual(yield* child.ended, 0)
      assert.match(child.stdout(), /hello Ada/)
    }).pipe(Effect.scoped))

  it.live("Ctrl-C reaches the command, and the wrapper ends as the command does", () =>
    Effect.gen(function*() {
      const script = "process.on('SIGINT', () => process.exit(7)); setInterval(() => {}, 1000); console.log('ready')"
      const line = ["run", unique("ctrl-c"), "--", process.execPath, "-e", script]
      const child = yield* Program.start(line, { terminal: true })
      yield* child.printed(/ready/)
      yield* child.write("\u0003")
      assert.strictEqual(yield* child.ended, 7)
    }).pipe(Effect.scoped))

  it.live("Ctrl-C does not reach a command that has left the terminal, since the wrapper passes none on", () =>
    Effect.gen(function*() {
      const script = "for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { " +
        "console.log('got ' + signal); if (signal === 'SIGTERM') process.exit(0) }); " +
        "setInterval(() => {}, 1000); console.log('wrapper ' + process.ppid)"
      const line = ["run", unique("ctrl-c"), "--", "setsid", process.execPath, "-e", script]
      const child = yield* Program.start(line, { terminal: true })
      yield* child.printed(/wrapper \d+/)
      yield* child.write("\u0003")
      yield* child.printed(/\^C/)
      // The wrapper passes its signals on in order.
      process.kill(Number(/wrapper (\d+)/.exec(child.stdout())![1]), "SIGTERM")
      assert.strictEqual(yield* child.ended, 0)
      assert.deepStrictEqual(child.stdout().match(/got \w+/g), ["got SIGTERM"])
    }).pipe(Effect.scoped))

  it.live("watch redraws in place", () =>
    Effect.gen(function*() {
      const name = unique("redraw")
      const watch = yield* Program.start(["watch", name], { terminal: true })
      yield* watch.printed(/is free/)
      const holder = yield* Program.start(["hold", name])
      yield* watch.printed(/holds {2}exclusive/)
      assert.notInclude(watch.stdout(), "\u001b[2J")
      yield* holder.send("SIGTERM")
      yield* watch.printed(/is free[^]*holds[^]*is free/)
      yield* watch.write("\u0003")
      assert.strictEqual(yield* watch.ended, 130)
      // The cursor and the screen of before are there again.
      const [, ...entered] = watch.stdout().split("\u001b[?1049h")
      assert.include(entered.join(""), "\u001b[?25h\u001b[?1049l")
    }).pipe(Effect.scoped))

  it.live("ls has a bold header, and none where NO_COLOR is set", () =>
    Effect.gen(function*() {
      const name = unique("bold")
      const holder = yield* Program.start(["hold", name])
      yield* holder.printed(/token/)
      const bold = yield* Program.run(["ls", name], { terminal: true })
      assert.include(bold.stdout, "\u001b[1mLOCK")
      const plain = yield* Program.run(["ls", name], { terminal: true, env: { NO_COLOR: "1" } })
      assert.notInclude(plain.stdout, "\u001b")
    }).pipe(Effect.scoped))

  it.live("release shows whom it takes the lock from, and asks", () =>
    Effect.gen(function*() {
      const name = unique("ask")
      const holder = yield* Program.start(["hold", name, "--metadata", "job=nightly"])
      yield* holder.printed(/token/)
      const refused = yield* Program.start(["release", name], { terminal: true })
      yield* refused.printed(/holds {2}exclusive .*"job":"nightly"[^]*Take it away\?/)
      yield* refused.write("n")
      assert.strictEqual(yield* refused.ended, 1)
      const agreed = yield* Program.start(["release", name], { terminal: true })
      yield* agreed.printed(/Take it away\?/)
      yield* agreed.write("y")
      assert.strictEqual(yield* agreed.ended, 0)
      assert.strictEqual(yield* holder.ended, 76)
    }).pipe(Effect.scoped))
})
