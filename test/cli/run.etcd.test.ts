import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, Schedule } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Auth from "../support/Auth.ts"
import { connect, unique } from "../support/connect.ts"
import { until } from "../support/eventually.ts"
import { temporaryDirectory } from "../support/internal/native.ts"
import * as Program from "./Program.ts"

/** Holds a lock as a client of another kind would, while an effect runs. */
const whileHeld = (name: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const holder = yield* Program.start(["hold", name])
    yield* holder.printed(/"token"/)
    yield* Effect.addFinalizer(() => Effect.andThen(holder.send("SIGTERM"), holder.ended))
    return yield* self
  }))

const isFree = (name: string) =>
  Effect.gen(function*() {
    const etcd = yield* connect()
    const { holder, queue } = yield* Effect.provideService(Lock.inspect(name), Etcd.Etcd, etcd)
    return holder === undefined && queue.length === 0
  }).pipe(Effect.scoped)

describe("etcd-lock run", () => {
  it.live("runs the command as if it were run directly, ends as it does, and releases the lock", () =>
    Effect.gen(function*() {
      const name = unique("direct")
      const { code, stderr, stdout } = yield* Program.run(["run", name, "sh", "-c", "echo out; echo err >&2; exit 3"])
      assert.deepStrictEqual([code, stdout, stderr], [3, "out\n", "err\n"])
      assert.isTrue(yield* isFree(name))
    }))

  it.live("gives the command its stdin", () =>
    Effect.gen(function*() {
      const child = yield* Program.start(["run", unique("stdin"), "head", "-n", "1"])
      yield* child.write("one\ntwo\n")
      assert.strictEqual(yield* child.ended, 0)
      assert.strictEqual(child.stdout(), "one\n")
    }))

  it.live("runs a line of shell", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Program.run(["run", unique("line"), "-c", "echo $((1 + 1)) && exit 4"])
      assert.deepStrictEqual([code, stdout], [4, "2\n"])
    }))

  it.live("names the lock, its key and its token in the environment, also in a run inside of another", () =>
    Effect.gen(function*() {
      const [outer, inner] = [unique("outer"), unique("inner")]
      const print = "echo $ETCD_LOCK_NAME $ETCD_LOCK_KEY $ETCD_LOCK_REV $ETCD_LOCK_TOKEN"
      const nested = `${print}; ${process.execPath} ${Program.program} run ${inner} -c '${print}'`
      const { stdout } = yield* Program.run(["run", outer, "-c", nested])
      const [first, second] = stdout.trim().split("\n").map((line) => line.split(" "))
      for (const [[name, key, revision, token], lock] of [[first!, outer], [second!, inner]] as const) {
        assert.strictEqual(name, lock)
        assert.match(key!, new RegExp(`^${lock}/[0-9a-f]+-\\d+$`))
        assert.match(revision!, /^\d+$/)
        assert.strictEqual(token, revision)
      }
      assert.isAbove(Number(second![3]), Number(first![3]))
    }))

  it.live("runs one command at a time, in the order in which they asked", () =>
    Effect.gen(function*() {
      const name = unique("line")
      const started = yield* whileHeld(name)(Effect.forEach([1, 2, 3], (place) =>
        Effect.gen(function*() {
          const child = yield* Program.start(["run", name, "date", "+%s%N"])
          yield* waits(name, place)
          return child
        })))
      yield* Effect.forEach(started, ({ ended }) => ended)
      const times = started.map(({ stdout }) => BigInt(stdout().trim()))
      assert.deepStrictEqual(times.toSorted((a, b) => Number(a - b)), times)
    }).pipe(Effect.scoped))

  it.live("does nothing when the lock is held and it is not to wait, or not so long", () =>
    Effect.gen(function*() {
      const name = unique("held")
      yield* whileHeld(name)(Effect.gen(function*() {
        for (const option of ["-n", "-w0.3"]) {
          const { code, stderr, stdout } = yield* Program.run(["run", option, name, "echo", "never"])
          assert.deepStrictEqual([code, stdout], [75, ""])
          assert.match(stderr, /^etcd-lock: warning: Lock '.*' .* held by .* \(process \d+\) since .*Z\n$/)
        }
        const quiet = yield* Program.run(["run", "-nq", "-E", "0", name, "echo", "never"])
        assert.deepStrictEqual(quiet, { code: 0, stdout: "", stderr: "" })
      }))
    }))

  it.live("says whom it waits for, and leaves the line at Ctrl-C", () =>
    Effect.gen(function*() {
      const name = unique("waiting")
      yield* whileHeld(name)(Effect.gen(function*() {
        for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129], ["SIGQUIT", 131]] as const) {
          const child = yield* Program.start(["run", name, "echo", "never"])
          yield* child.printed(/etcd-lock: Waits for '.*', held by .* \(process \d+\) since /)
          yield* child.send(signal)
          assert.strictEqual(yield* child.ended, code)
          assert.strictEqual(child.stdout(), "")
          yield* waits(name, 0)
        }
      }))
      assert.isTrue(yield* isFree(name))
    }).pipe(Effect.scoped))

  it.live("passes signals on to the command, and ends as it does", () =>
    Effect.gen(function*() {
      for (const signal of ["INT", "TERM", "HUP", "QUIT"]) {
        const name = unique("signals")
        const line = `trap 'echo got ${signal}; exit 7' ${signal}; echo ready; sleep 30 & wait`
        const child = yield* Program.start(["run", name, "-c", line])
        yield* child.printed(/ready/)
        yield* child.send(`SIG${signal}` as NodeJS.Signals)
        assert.strictEqual(yield* child.ended, 7)
        assert.strictEqual(child.stdout(), `ready\ngot ${signal}\n`)
        assert.isTrue(yield* isFree(name))
      }
    }).pipe(Effect.scoped))

  it.live.each([["TERM", 143], ["KILL", 137], ["SEGV", 139]])(
    "ends with 128 and the signal that ends the command: %s",
    ([signal, code]) =>
      Effect.gen(function*() {
        const ended = yield* Program.run(["run", unique("killed"), "-c", `kill -${signal} $$`])
        assert.strictEqual(ended.code, code)
      })
  )

  it.live("ends as a shell tells where a real-time signal ends the command, which Node does not", () =>
    Effect.gen(function*() {
      const name = unique("real-time")
      const once = ["run", "--once", "tonight", name, "-c"]
      assert.strictEqual((yield* Program.run([...once, "sh -c 'kill -34 $$' || exit"])).code, 128 + 34)
      assert.strictEqual((yield* Program.run([...once, "echo again"])).stdout, "again\n")
    }))

  it.live("leaves a command alone with what nohup keeps from it, and with the descriptors of a shell", () =>
    Effect.gen(function*() {
      const child = yield* Program.start(["run", unique("nohup"), "nohup", "sh", "-c", "echo ready; read x; echo done"])
      yield* child.printed(/ready/)
      yield* child.send("SIGHUP")
      yield* child.write("\n")
      assert.strictEqual(yield* child.ended, 0)
      assert.match(child.stdout(), /done\n$/)
      const { stdout } = yield* Program.shell(
        `${process.execPath} ${Program.program} run ${unique("descriptor")} cat <(echo substituted)`
      )
      assert.strictEqual(stdout, "substituted\n")
    }).pipe(Effect.scoped))

  it.live("ends what the command leaves behind, before it releases the lock", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Program.run(["run", unique("orphan"), "-c", "sleep 100 & echo $!"])
      assert.strictEqual(code, 0)
      assert.isFalse(isAlive(Number(stdout)))
    }))

  it.live("runs beside others that share the lock, and not beside one that does not", () =>
    Effect.gen(function*() {
      const name = unique("shared")
      const readers = yield* Effect.forEach([1, 2], () => Program.start(["hold", "-s", name]))
      yield* Effect.forEach(readers, (reader) => reader.printed(/"token"/))
      assert.strictEqual((yield* Program.run(["run", "-n", name, "true"])).code, 75)
      assert.strictEqual((yield* Program.run(["run", "-ns", name, "true"])).code, 0)
    }).pipe(Effect.scoped))

  it.live("runs as many at once as a semaphore has permits", () =>
    Effect.gen(function*() {
      const name = unique("permits")
      const holder = yield* Program.start(["hold", "--permits", "2", "--of", "3", name])
      yield* holder.printed(/"token"/)
      assert.strictEqual((yield* Program.run(["run", "-n", "--of", "3", name, "true"])).code, 0)
      const refused = yield* Program.run(["run", "-n", "--permits=2", "--of=3", name, "true"])
      assert.strictEqual(refused.code, 75)
      assert.match(refused.stderr, /has 1 of its 3 permits left, and 2 were asked for/)
      const mismatch = yield* Program.run(["run", "-n", "--of", "4", name, "true"])
      assert.strictEqual(mismatch.code, 78)
    }).pipe(Effect.scoped))

  it.live("releases a lock that it holds alone when the reader of its output has left", () =>
    Effect.gen(function*() {
      const name = unique("reader")
      const program = `${process.execPath} ${Program.program}`
      const { stdout } = yield* Program.shell(`${program} hold ${name} | true; echo "\${PIPESTATUS[0]}"`)
      assert.match(stdout, /^(141|0)\n$/)
      assert.isTrue(yield* isFree(name))
    }))

  it.live("ends with a code of its own when it loses its place in the line", () =>
    Effect.gen(function*() {
      const name = unique("displaced")
      yield* whileHeld(name)(Effect.gen(function*() {
        const child = yield* Program.start(["run", name, "echo", "never"])
        yield* child.printed(/Waits for/)
        const etcd = yield* connect()
        const { queue } = yield* Effect.provideService(Lock.inspect(name), Etcd.Etcd, etcd)
        yield* etcd.txn({ then: [Etcd.remove(queue[0]!.key)] })
        assert.strictEqual(yield* child.ended, 79)
        assert.match(child.stderr(), /The place in the line of '.*' is lost \(KeyDeleted\), and nothing was run/)
        assert.strictEqual(child.stdout(), "")
      }))
    }).pipe(Effect.scoped))

  it.live("holds the lock until a signal comes where there is no command, and prints what a script needs", () =>
    Effect.gen(function*() {
      const name = unique("alone")
      const child = yield* Program.start(["hold", name])
      yield* child.printed(/\n/)
      const { createRevision, key, lease, lock, token } = JSON.parse(child.stdout())
      assert.deepStrictEqual([lock, token], [name, createRevision])
      assert.strictEqual(key, `${name}/${lease}-1`)
      yield* child.send("SIGTERM")
      assert.strictEqual(yield* child.ended, 0)
      assert.isTrue(yield* isFree(name))
    }).pipe(Effect.scoped))

  it.live("holds the lock for at least so long", () =>
    Effect.gen(function*() {
      const name = unique("least")
      const [time, { code }] = yield* Effect.timed(Program.run(["run", "--hold-for", "1.5s", name, "false"]))
      assert.strictEqual(code, 1)
      assert.isAtLeast(Duration.toMillis(time), 1500)
      const child = yield* Program.start(["run", "--hold-for", "1h", name, "echo", "done"])
      yield* child.printed(/done/)
      assert.strictEqual((yield* Program.run(["run", "-n", name, "true"])).code, 75)
      yield* child.send("SIGTERM")
      assert.strictEqual(yield* child.ended, 0)
      assert.isTrue(yield* isFree(name))
    }).pipe(Effect.scoped))

  it.live("runs once, on whichever machine, and again where a run has failed", () =>
    Effect.gen(function*() {
      const name = unique("once")
      const once = (...line: ReadonlyArray<string>) => Program.run(["run", "--once", "2026-11-27", name, ...line])
      assert.strictEqual((yield* once("false")).code, 1)
      const [first, second] = [yield* once("echo", "works"), yield* once("echo", "works")]
      assert.deepStrictEqual(first, { code: 0, stdout: "works\n", stderr: "" })
      assert.deepStrictEqual([second.code, second.stdout], [0, ""])
      assert.match(second.stderr, /^etcd-lock: The run "2026-11-27" of '.*' has succeeded already\n$/)
    }))

  it.live("shows which runs it remembers, for as long as it does, and forgets one", () =>
    Effect.gen(function*() {
      const name = unique("runs")
      assert.deepStrictEqual(yield* Program.run(["runs", name]), {
        code: 0,
        stdout: `No run of '${name}' is remembered.\n`,
        stderr: ""
      })
      yield* Program.run(["run", "--once", "2026/11\n27", "--keep-for", "2h", name, "true"])
      const json = JSON.parse((yield* Program.run(["runs", "--json", name])).stdout)
      assert.strictEqual(json.run, "2026/11\n27")
      const kept = Date.parse(json.keptUntil) - Date.parse(json.succeededAt)
      assert.isTrue(kept > 7_100_000 && kept <= 7_205_000, String(kept))
      const [header, row] = (yield* Program.run(["runs", name])).stdout.split("\n")
      assert.match(header!, /^RUN +SUCCEEDED AT +ON +KEPT UNTIL$/)
      assert.match(row!, /^2026\/11\\u\{a\}27 +\S+Z +\S+:\d+ +\S+Z$/)
      const forget = Program.run(["forget", name, "2026/11\n27"])
      assert.deepStrictEqual([(yield* forget).code, (yield* forget).code], [0, 1])
      const again = yield* Program.run(["run", "--once", "2026/11\n27", name, "echo", "again"])
      assert.strictEqual(again.stdout, "again\n")
      const alone = yield* Program.run(["run", "--keep-for", "1h", name, "true"])
      assert.strictEqual(alone.code, 64)
      assert.match(alone.stderr, /--keep-for needs --once/)
    }))

  it.live("stands in the line of a lock of etcdctl whose name begins with a slash, by a prefix", () =>
    Effect.gen(function*() {
      const name = unique("slash")
      const rooted = ["--prefix", "/"]
      const print = "echo $ETCD_LOCK_KEY; etcdctl get --keys-only --prefix $ETCD_LOCK_KEY"
      const { stdout } = yield* Program.run(["run", ...rooted, name, "-c", print])
      const [told, found] = stdout.trim().split("\n")
      assert.match(told!, new RegExp(`^/${name}/[\\da-f]+-1$`))
      assert.strictEqual(found, told)
      const holder = yield* Program.start(["hold", ...rooted, name])
      yield* holder.printed(/"token"/)
      assert.match(JSON.parse(holder.stdout()).key, new RegExp(`^/${name}/`))
      const theirs = yield* Effect.forkChild(
        Program.shell(`ETCDCTL_API=3 timeout 20 etcdctl lock /${name} echo theirs`)
      )
      const inspected = Program.run(["inspect", "--json", ...rooted, name])
      yield* until("etcdctl", Effect.map(inspected, ({ stdout }) => JSON.parse(stdout).queue.length === 1))
      assert.strictEqual((yield* Program.run(["run", name, "echo", "apart"])).stdout, "apart\n")
      yield* holder.send("SIGTERM")
      assert.match((yield* Fiber.join(theirs)).stdout, /theirs/)
      const refused = yield* Program.run(["run", `/${name}`, "true"])
      assert.strictEqual(refused.code, 64)
      assert.match(refused.stderr, /Give the "\/" that it begins with as --prefix \/\.$/m)
    }).pipe(Effect.scoped))

  it.live("takes -x for what it does anyway, and metadata without a text", () =>
    Effect.gen(function*() {
      const name = unique("exclusive")
      const line = `${process.execPath} ${Program.program} inspect --json ${name}`
      const { code, stdout } = yield* Program.run([
        "run",
        "-nx",
        "--metadata",
        "version=",
        "--metadata=job=a=b",
        name,
        "-c",
        line
      ])
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(JSON.parse(stdout).holders[0].metadata, { version: "", job: "a=b" })
    }))

  it.live("does not wait for a leader where it is not to", () =>
    Effect.gen(function*() {
      const name = unique("led")
      const leader = yield* Program.start(["elect", name])
      yield* leader.printed(/"token"/)
      const { code, stderr, stdout } = yield* Program.run(["elect", "-n", name, "echo", "never"])
      assert.deepStrictEqual([code, stdout], [75, ""])
      assert.match(stderr, /^etcd-lock: warning: /)
    }).pipe(Effect.scoped))

  it.live("lets one of fifty run that cron starts at once", () =>
    Effect.gen(function*() {
      const name = unique("herd")
      const ended = yield* Effect.forEach(
        Array.from({ length: 50 }),
        () => Program.run(["run", "--once", "tonight", name, "echo", "works"]),
        { concurrency: 8 }
      )
      assert.deepStrictEqual(ended.map(({ code }) => code), ended.map(() => 0))
      assert.deepStrictEqual(ended.map(({ stdout }) => stdout).filter((stdout) => stdout !== ""), ["works\n"])
    }), 120_000)

  it.live("prints each step, or nothing, or JSON", () =>
    Effect.gen(function*() {
      const name = unique("verbose")
      assert.match(
        (yield* Program.run(["run", "-v", name, "true"])).stderr,
        new RegExp(`^etcd-lock: Holds '${name}', with the token \\d+\\n$`)
      )
      const lines = (yield* Program.run(["run", "-v", "--json", name, "true"])).stderr.trim().split("\n")
      assert.deepInclude(JSON.parse(lines[0]!), { level: "DEBUG" })
    }))

  it.live("shows its metadata to others", () =>
    Effect.gen(function*() {
      const name = unique("metadata")
      const child = yield* Program.start(["hold", "--metadata", "job=nightly", "--metadata", "by=cron", name])
      yield* child.printed(/"token"/)
      const { holders } = JSON.parse((yield* Program.run(["inspect", name, "--json"])).stdout)
      assert.deepStrictEqual(holders[0].metadata, { job: "nightly", by: "cron" })
    }).pipe(Effect.scoped))
})

describe("etcd-lock elect", () => {
  it.live("runs the command when it leads, with what observers see of it", () =>
    Effect.gen(function*() {
      const name = unique("elect")
      const observer = yield* Program.start(["observe", name])
      yield* observer.printed(/No candidate leads/)
      const leader = yield* Program.start(["elect", name, "--value", "10.0.0.7:8080", "--", "sleep", "60"])
      yield* observer.printed(/^10\.0\.0\.7:8080$/m)
      const next = yield* Program.start(["elect", name, "--value", "10.0.0.8:8080"])
      yield* leader.send("SIGTERM")
      assert.strictEqual(yield* leader.ended, 143)
      yield* next.printed(/"token"/)
      yield* observer.printed(/^10\.0\.0\.8:8080$/m)
      yield* observer.send("SIGINT")
      assert.strictEqual(yield* observer.ended, 130)
    }).pipe(Effect.scoped))

  it.live("stands in one election with programs", () =>
    Effect.gen(function*() {
      const name = unique("together")
      const child = yield* Program.start(["elect", name, "--value", "command"])
      yield* child.printed(/"token"/)
      const etcd = yield* connect()
      const leader = yield* Effect.provideService(Election.leader(name), Etcd.Etcd, etcd)
      assert.strictEqual(Option.map(leader, ({ value }) => value).pipe(Option.getOrUndefined), "command")
    }).pipe(Effect.scoped))
})

describe("the exit code", () => {
  it.live.each<[string, number, ReadonlyArray<string>, RegExp]>([
    ["an unknown option", 64, ["run", "--nosuch", "x", "true"], /There is no option --nosuch/],
    ["an unknown command", 64, ["nosuch"], /There is no command "nosuch"/],
    ["no name", 64, ["run"], /Missing required argument: name/],
    ["a wrong name", 64, ["run", "a//b", "true"], /cannot use the name "a\/\/b"/],
    ["a wrong duration", 64, ["run", "-w", "soon", "x", "true"], /--timeout: "soon" is not a duration/],
    ["options that exclude each other", 64, ["run", "-n", "-w1", "x", "true"], /give one of them/],
    ["permits without their number", 64, ["run", "--permits", "2", "x", "true"], /--permits needs --of/],
    ["no command", 64, ["run", "x"], /run needs a command\. .*write etcd-lock hold "x"\./],
    ["no command behind its mark", 64, ["run", "x", "--"], /run needs a command/],
    ["an empty command", 64, ["run", "x", ""], /The command is empty/],
    ["an empty line of shell", 64, ["run", "x", "-c", ""], /The command is empty/],
    ["an empty command of a leader", 64, ["elect", "x", ""], /The command is empty/],
    ["a command twice", 64, ["run", "x", "-c", "true", "true"], /-c takes the place of a command/],
    [
      "a time to die that the lease has not",
      64,
      ["run", "--ttl=5s", "--kill-after=4s", "x", "true"],
      /Write at most 2s,/
    ],
    ["a way to deal with a loss that there is not", 64, ["run", "--on-lost", "pray", "x", "true"], /none of kill, /],
    ["a password in the arguments", 64, ["ls", "--user", "root:secret"], /--user takes a name alone/],
    [
      "a user without a password",
      64,
      ["ls", "--user", "ann"],
      /--user is given without a password\. .*--password-file/
    ],
    [
      "a password without a user",
      64,
      ["ls", "--password-file", "/etc/hostname"],
      /--password-file is given without a user\. Name the user by --user, or in ETCDCTL_USER\./
    ],
    [
      "a file of a password that there is not",
      64,
      ["ls", "--user", "ann", "--password-file", "/no/such"],
      /--password-file: cannot read "\/no\/such" \(there is no such file\)/
    ],
    ["a program that there is not", 127, ["run", unique("x"), "/no/such"], /There is no program "\/no\/such"/],
    [
      "a program that is none",
      126,
      ["run", unique("x"), import.meta.filename],
      /" cannot be run: permission denied\.$/m
    ],
    [
      "a path that leads through a file",
      126,
      ["run", unique("x"), "/etc/passwd/x"],
      /" cannot be run: not a directory\.$/m
    ],
    ["an etcd that cannot be reached", 69, ["--endpoints=127.0.0.1:1", "--command-timeout=1s", "ls"], /ECONNREFUSED/],
    ["a lock on it", 69, ["--endpoints=127.0.0.1:1", "--command-timeout=1s", "run", "x", "true"], /ECONNREFUSED/],
    ["a certificate that there is not", 78, ["--cacert", "/no/such.pem", "ls"], /--cacert: cannot read/],
    ["TLS where there is none", 78, ["--cacert", "/etc/ssl/certs/ca-certificates.crt", "ls"], /./]
  ])("of %s is %d", ([, code, args, message]) =>
    Effect.gen(function*() {
      const ended = yield* Program.run(args)
      assert.strictEqual(ended.code, code, ended.stderr)
      assert.match(ended.stderr, message)
      assert.match(ended.stderr, /^etcd-lock: error: /)
      assert.notInclude(ended.stderr, "secret")
      assert.strictEqual(ended.stdout, "")
    }))

  it.live("of help, the version and completions is 0, and they are on stdout", () =>
    Effect.gen(function*() {
      for (
        const [args, pattern] of [
          [["--help"], /^DESCRIPTION\n[^]*SUBCOMMANDS\n {2}run/],
          [["run", "--help"], /EXAMPLES\n[^]*etcd-lock run -n -E 0 backup/],
          [["--version"], /^etcd-lock v\d+\.\d+\.\d+\n$/],
          [["--completions", "bash"], /complete .*etcd-lock/],
          [["--completions", "zsh"], /#compdef etcd-lock/],
          [["--completions", "fish"], /complete -c etcd-lock/]
        ] as const
      ) {
        const { code, stderr, stdout } = yield* Program.run(args)
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.match(stdout, pattern)
      }
    }))

  it.live("of a user who is not known or may not is 77, and no password is seen", () =>
    Effect.gen(function*() {
      const { endpoint } = yield* Auth.start({ users: { ada: { password: "secret-1", prefix: "ada/" } } })
      const directory = yield* temporaryDirectory()
      const [right, wrong] = [Path.join(directory, "right"), Path.join(directory, "wrong")]
      Fs.writeFileSync(right, "secret-1\n")
      Fs.writeFileSync(wrong, "secret-2\n")
      const env = { ETCDCTL_ENDPOINTS: endpoint }
      for (
        const [args, more, code] of [
          [["run", "ada/x", "true"], {}, 77],
          [["--user", "ada", "--password-file", wrong, "run", "ada/x", "true"], {}, 77],
          [["--user", "ada", "--password-file", right, "run", "ben/x", "true"], {}, 77],
          [["--user", "ada", "--password-file", right, "run", "ada/x", "true"], {}, 0],
          [["--password-file", right, "run", "ada/x", "true"], { ETCDCTL_USER: "ada:secret-2" }, 0],
          [["run", "ada/x", "true"], { ETCDCTL_USER: "ada", ETCDCTL_PASSWORD: "secret-1" }, 0]
        ] as const
      ) {
        const ended = yield* Program.run(["-v", ...args], { env: { ...env, ...more } })
        assert.strictEqual(ended.code, code, ended.stderr)
        assert.notInclude(ended.stderr + ended.stdout, "secret")
      }
      // A pipe can be read once, and the password in it is for all tokens.
      const args = ["--user", "ada", "run", "ada/x", "echo", "works"]
      const piped = execFileSync(
        "bash",
        [
          "-c",
          "\"$1\" \"$2\" --password-file <(echo secret-1) \"${@:3}\"",
          "-",
          process.execPath,
          Program.program,
          ...args
        ],
        { env: { PATH: process.env.PATH, ...env }, encoding: "utf8" }
      )
      assert.strictEqual(piped, "works\n")
    }).pipe(Effect.scoped))
})

const waits = (name: string, count: number) =>
  Effect.gen(function*() {
    const etcd = yield* connect()
    const { queue } = yield* Effect.provideService(Lock.inspect(name), Etcd.Etcd, etcd)
    return queue.length
  }).pipe(
    Effect.scoped,
    Effect.repeat({ until: (waiting) => waiting === count, schedule: Schedule.spaced("50 millis") })
  )

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
