import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as Os from "node:os"
import { connect, leased, unique } from "../support/connect.ts"
import * as Program from "./Program.ts"

/** Starts a holder, and waits until it holds. */
const hold = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const holder = yield* Program.start(["hold", ...args])
  yield* holder.printed(/"token"/)
  return holder
})

/** Starts a waiter, and waits until it waits. */
const wait = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const waiter = yield* Program.start(["hold", ...args])
  yield* waiter.printed(/Waits for/)
  return waiter
})

/** What was printed, without what is different in each run; columns are as wide as their cells in that run. */
const picture = (text: string, name: string, processes: ReadonlyArray<Program.Program> = []) =>
  processes.reduce(
    (text, { pid }, i) => text.replaceAll(`:${pid}`, `:${i + 1}`),
    text
      .replaceAll(name, "NAME")
      .replaceAll(Os.hostname(), "HOST")
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
      .replaceAll(/\b\d+(s|m)\b( \d+ms)?/g, "12s")
  ).replaceAll(/ {2,}/g, "  ").replaceAll(/ {2}\d{1,} {2}(?=\{|$)/gm, "  REVISION  ").replaceAll(
    / {2}\d+$/gm,
    "  REVISION"
  )

describe("etcd-lock ls", () => {
  it.live.each(["ls /", "ls /my", "watch /", "watch //", "watch /my/"])(
    "refuses what no name begins with: %s",
    (line) =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* Program.run(line.split(" "))
        assert.deepStrictEqual([code, stdout], [64, ""])
        assert.match(stderr, /cannot use the prefix "\/.*Give the "(\/+)" that it begins with as --prefix \1\.\n$/)
      })
  )

  it.live("lists the locks under a prefix, of all kinds", () =>
    Effect.gen(function*() {
      const folder = unique("ls")
      const a = yield* hold(`${folder}/a`, "--metadata", "job=nightly")
      const b = [yield* hold("-s", `${folder}/b`), yield* hold("-s", `${folder}/b`)] as const
      yield* wait(`${folder}/b`)
      const c = yield* hold("--of", "2", `${folder}/c`)
      const { code, stdout } = yield* Program.run(["ls", `${folder}/`])
      assert.strictEqual(code, 0)
      assert.strictEqual(
        stdout.replaceAll(/(\d{4}-\S+Z)/g, "TIME").replaceAll(/\b\d+s\b/g, "12s").replaceAll(/ {2,}/g, "  "),
        [
          "LOCK  HELD BY  HELD SINCE  ASKED AT  LEASE  HOLD  WAIT  FOR  VALUE",
          `${folder}/a  ${Os.hostname()}:${a.pid}  TIME  TIME  renewed 12s ago  1  0  {"job":"nightly"}`,
          `${folder}/b  ${Os.hostname()}:${b[0].pid}  TIME  TIME  renewed 12s ago  2  1  12s`,
          `${folder}/c  ${Os.hostname()}:${c.pid}  TIME  renewed 12s ago  1  0`,
          ""
        ].join("\n")
      )
      const lines = (yield* Program.run(["ls", "--json", `${folder}/`])).stdout.trim().split("\n")
      const locks = lines.map((line) => JSON.parse(line))
      assert.deepStrictEqual(
        locks.map(({ holder: { host, pid }, holding, layout, lock, waiting }) => (
          { lock, layout, holding, waiting, host, pid }
        )),
        [[a, 1, 0, "a"], [b[0], 2, 1, "b"], [c, 1, 0, "c"]].map(([holder, holding, waiting, name]) => ({
          lock: `${folder}/${name}`,
          layout: "queue",
          holding,
          waiting,
          host: Os.hostname(),
          pid: (holder as Program.Program).pid
        }))
      )
      const [{ holder, next }, { next: waiter }] = locks
      assert.deepStrictEqual(holder.metadata, { job: "nightly" })
      assert.isBelow(holder.notRenewedFor, 15_000)
      assert.isAtLeast(Date.parse(holder.heldSince), Date.parse(holder.askedAt))
      assert.deepStrictEqual([next, waiter.host], [null, Os.hostname()])
    }).pipe(Effect.scoped))

  it.live("ends quietly where its reader has left", () =>
    Effect.gen(function*() {
      const name = unique("pipe")
      const script = `${process.execPath} ${Program.program} watch ${name} | head -n 1; echo "\${PIPESTATUS[0]}"`
      const changes = Effect.forever(Program.run(["run", name, "true"]))
      const { code, stderr, stdout } = yield* Effect.raceFirst(Program.shell(script), changes)
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /\n141\n$/)
    }).pipe(Effect.scoped))

  it.live("prints all of a long answer to a reader that is slow", () =>
    Effect.gen(function*() {
      const name = unique("slow")
      const etcd = yield* connect()
      const lease = yield* leased(etcd)
      const metadata = { job: "x".repeat(500_000) }
      yield* etcd.txn({ then: [Etcd.put(`${name}/1`, JSON.stringify({ metadata }), { lease })] })
      const script = `${process.execPath} ${Program.program} ls --json ${name} | { sleep 1; wc --bytes; }`
      const { code, stdout } = yield* Program.shell(script)
      assert.strictEqual(code, 0)
      assert.isAbove(Number(stdout), 500_000)
    }).pipe(Effect.scoped))

  it.live("says that no lock is held", () =>
    Effect.gen(function*() {
      const folder = unique("none")
      assert.strictEqual((yield* Program.run(["ls", folder])).stdout, `No lock under '${folder}' is held.\n`)
      assert.strictEqual((yield* Program.run(["ls", "--json", folder])).stdout, "")
    }))
})

describe("etcd-lock inspect", () => {
  it.live("shows who holds a lock and who waits, in order", () =>
    Effect.gen(function*() {
      const name = unique("inspect")
      const processes = [
        yield* hold(name, "--metadata", "job=nightly"),
        yield* wait("-s", name),
        yield* wait(name)
      ]
      const { stdout } = yield* Program.run(["inspect", name])
      assert.strictEqual(
        picture(stdout, name, processes),
        [
          "'NAME' is held by HOST:1; 2 wait.",
          "STATE  CLAIM  CLIENT  HELD SINCE  ASKED AT  LEASE  REVISION  VALUE",
          "holds  exclusive  HOST:1  TIME  TIME  renewed 12s ago  REVISION  {\"job\":\"nightly\"}",
          "waits  shared  HOST:2  TIME  renewed 12s ago  REVISION",
          "waits  exclusive  HOST:3  TIME  renewed 12s ago  REVISION",
          ""
        ].join("\n")
      )
    }).pipe(Effect.scoped))

  it.live("shows a semaphore, a single key, and a lock that is free", () =>
    Effect.gen(function*() {
      const name = unique("kinds")
      const holder = yield* hold("--permits", "2", "--of", "3", name)
      assert.include(
        picture((yield* Program.run(["inspect", name])).stdout, name, [holder]),
        "holds  2 of 3  HOST:1  TIME  renewed 12s ago  REVISION"
      )
      const etcd = yield* connect()
      const single = unique("single")
      const lease = yield* leased(etcd)
      yield* etcd.txn({ then: [Etcd.put(single, "", { lease })] })
      assert.include(
        picture((yield* Program.run(["inspect", single])).stdout, single),
        `'NAME' is held by lease ${lease.toString(16)}.\n`
      )
      const free = unique("free")
      assert.strictEqual((yield* Program.run(["inspect", free])).stdout, `'${free}' is free.\n`)
      assert.deepStrictEqual(JSON.parse((yield* Program.run(["inspect", free, "--json"])).stdout), {
        lock: free,
        holders: [],
        queue: [],
        conflicts: []
      })
    }).pipe(Effect.scoped))

  it.live("shows who leads an election and who stands in it, other programs included, as ls does", () =>
    Effect.gen(function*() {
      const name = unique("election")
      const leader = yield* Program.start(["elect", name, "--value", "10.0.0.7:8080"])
      yield* leader.printed(/"token"/)
      // As `etcdctl elect` stands.
      const etcd = yield* connect()
      const lease = yield* leased(etcd)
      yield* etcd.txn({ then: [Etcd.put(`${name}/${lease.toString(16)}`, "w2", { lease })] })
      assert.match(
        (yield* Program.run(["inspect", name])).stdout,
        /VALUE\nholds .* 10\.0\.0\.7:8080\nwaits .* w2\n$/
      )
      const data = JSON.parse((yield* Program.run(["inspect", "--json", name])).stdout)
      assert.deepStrictEqual([data.holders[0].value, data.queue[0].value], ["10.0.0.7:8080", "w2"])
      assert.match((yield* Program.run(["ls", name])).stdout, /VALUE\n.* 10\.0\.0\.7:8080\n$/)
    }).pipe(Effect.scoped))

  it.live("names what blocks a lock", () =>
    Effect.gen(function*() {
      const name = unique("blocked")
      const etcd = yield* connect()
      yield* etcd.txn({ then: [Etcd.put(`${name}/plain`, "")] })
      yield* Effect.addFinalizer(() => Effect.ignore(etcd.txn({ then: [Etcd.remove(`${name}/plain`)] })))
      const { stdout } = yield* Program.run(["inspect", name])
      assert.include(stdout, `'${name}/plain' is in its place (PlainKey): no client can acquire it.`)
    }).pipe(Effect.scoped))
})

describe("etcd-lock watch", () => {
  it.live("ends with the error of the connection where etcd cannot be reached, as observe does", () =>
    Effect.gen(function*() {
      const looking = ["watch", "observe"].map((word) =>
        Program.run([word, unique("away"), "--endpoints", "127.0.0.1:1"])
      )
      for (const { code, stderr } of yield* Effect.all(looking, { concurrency: "unbounded" })) {
        assert.strictEqual(code, 69)
        assert.match(stderr, /ECONNREFUSED/)
      }
    }).pipe(Effect.scoped))

  it.live("prints a line for each change of a lock", () =>
    Effect.gen(function*() {
      const name = unique("watch")
      const watch = yield* Program.start(["watch", name])
      yield* watch.printed(/is free\n/)
      const first = yield* hold(name)
      yield* watch.printed(new RegExp(`:${first.pid}\n`))
      const second = yield* wait(name)
      yield* watch.printed(/; 1 waits\n/)
      yield* first.send("SIGTERM")
      yield* watch.printed(new RegExp(`:${second.pid}\n`))
      yield* second.send("SIGTERM")
      yield* watch.printed(/is free\n[^]*is free\n/)
      yield* watch.send("SIGINT")
      assert.strictEqual(yield* watch.ended, 130)
      assert.strictEqual(
        picture(watch.stdout(), name, [first, second]),
        [
          "TIME 'NAME' is free",
          "TIME 'NAME' is held by HOST:1",
          "TIME 'NAME' is held by HOST:1; 1 waits",
          "TIME 'NAME' is held by HOST:2",
          "TIME 'NAME' is free",
          ""
        ].join("\n")
      )
    }).pipe(Effect.scoped))

  it.live("prints a line for each change of a single key", () =>
    Effect.gen(function*() {
      const name = unique("watch-single")
      const etcd = yield* connect()
      const lease = yield* leased(etcd)
      const watch = yield* Program.start(["watch", name])
      yield* watch.printed(/is free\n/)
      yield* etcd.txn({ then: [Etcd.put(name, "", { lease })] })
      yield* watch.printed(/is held by lease /)
      yield* etcd.txn({ then: [Etcd.remove(name)] })
      yield* watch.printed(/is free\n[^]*is free\n/)
    }).pipe(Effect.scoped))

  it.live("prints a line for each lock under a prefix that has changed", () =>
    Effect.gen(function*() {
      const folder = unique("prefix")
      const a = yield* hold(`${folder}/a`)
      const [watch, json] = [
        yield* Program.start(["watch", `${folder}/`]),
        yield* Program.start(["watch", "--json", `${folder}/`])
      ]
      yield* watch.printed(/\/a'/)
      yield* json.printed(/\/a"/)
      const b = yield* hold(`${folder}/b`)
      yield* watch.printed(/\/b'/)
      yield* json.printed(/\/b"/)
      yield* a.send("SIGTERM")
      yield* watch.printed(/free/)
      yield* json.printed(/"holder":null/)
      assert.strictEqual(
        picture(watch.stdout(), folder, [a, b]),
        ["TIME 'NAME/a' is held by HOST:1", "TIME 'NAME/b' is held by HOST:2", "TIME 'NAME/a' is free", ""].join("\n")
      )
      const lines = json.stdout().trim().split("\n").map((line) => JSON.parse(line))
      for (const { time } of lines) assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
      assert.deepStrictEqual(lines.map(({ holder, lock }) => [lock, holder?.pid ?? null]), [
        [`${folder}/a`, a.pid],
        [`${folder}/b`, b.pid],
        [`${folder}/a`, null]
      ])
    }).pipe(Effect.scoped))
})

describe("etcd-lock release", () => {
  it.live("asks on a terminal alone, and takes the lock away with --force", () =>
    Effect.gen(function*() {
      const name = unique("release")
      const free = yield* Program.run(["release", "--force", name])
      assert.strictEqual(free.code, 75)
      assert.match(free.stderr, /is held by nobody/)
      const holder = yield* hold(name)
      const refused = yield* Program.run(["release", name])
      assert.strictEqual(refused.code, 64)
      assert.match(refused.stderr, /is held by .*\. Without a terminal to ask on, --force is needed/)
      const released = yield* Program.run(["release", "--force", name])
      assert.strictEqual(released.code, 0)
      assert.match(released.stderr, new RegExp(`is taken away from .*:${holder.pid}\n$`))
      assert.strictEqual(yield* holder.ended, 76)
    }).pipe(Effect.scoped))
})

describe("hostile metadata", () => {
  const hostile = "\u001b]0;owned\u0007\u001b[2J\u009b31m\r\n\u202egnp.exe"
  const own = { pid: 1, since: "2020-01-01T00:00:00Z" }

  it.live.each<[string, string]>([
    ["escape sequences", JSON.stringify({ metadata: { [hostile]: hostile }, host: hostile, ...own })],
    ["a megabyte", JSON.stringify({ metadata: { job: `${"x".repeat(1_000_000)}${hostile}` }, host: "box", ...own })],
    ["what is not JSON", `${hostile}{`],
    ["JSON that is deep", `{"metadata":{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}}`]
  ])("never reaches the terminal raw: %s", ([, value]) =>
    Effect.gen(function*() {
      const name = `${unique("hostile")}${hostile}`
      const etcd = yield* connect()
      const lease = yield* leased(etcd)
      const key = `${name}/${lease.toString(16)}`
      yield* etcd.txn({ then: [Etcd.put(key, value, { lease })] })
      for (const args of [["ls", name.slice(0, 40)], ["inspect", name], ["release", "--force", name]] as const) {
        for (const json of [[], ["--json"]]) {
          if (args[0] === "release" && json.length === 0) continue
          const { code, stderr, stdout } = yield* Program.run([...args, ...json])
          assert.strictEqual(code, 0, stderr)
          assert.notMatch(stdout + stderr, /(?!\n)[\p{Cc}\p{Cf}]/u)
          if (json.length === 0) assert.isBelow(stdout.length, 5000)
        }
      }
    }).pipe(Effect.scoped))
})
