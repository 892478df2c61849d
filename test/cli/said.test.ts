/** What the command says of three hundred lines that it refuses: plain words, and advice that it takes itself. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Random } from "effect"
import { Completions } from "effect/cli"
import { vi } from "vitest"
import { codes } from "../../src/cli/ending.ts"
import { durationOf } from "../../src/cli/flags.ts"
import { command, main } from "../../src/cli/main.ts"

interface Input {
  readonly words: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}

const root = Completions.fromCommand(command)
const flagsOf = (name: string) => [
  ...root.flags,
  ...root.subcommands.find((subcommand) => subcommand.name === name)?.flags ?? []
]

/** Enough for a command to begin with. */
const operandsOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  run: ["a", "true"],
  elect: ["a", "true"],
  ls: [],
  forget: ["a", "b"]
}

const wrong = [
  "",
  "n",
  "0",
  "-5",
  ".5s",
  "5 seconds",
  "0.0001",
  "999999999999",
  "a/",
  "/",
  "//",
  "//x",
  "/my-lock/",
  "read",
  "x:y",
  "key=",
  "=",
  "/nope",
  "/tmp",
  "x".repeat(2000),
  "größer 🙂"
]

const hosts = [
  "",
  ",",
  "localhost",
  "localhost:abc",
  "localhost:-1",
  "localhost:99999",
  "a:1;b:2",
  "https://127.0.0.1:1,127.0.0.1:2",
  "ftp://127.0.0.1:1",
  "u:p@127.0.0.1:1",
  "::1",
  "http://127.0.0.1:1/path"
]

/** One kind of mistake each. */
const kinds: ReadonlyArray<ReadonlyArray<Input>> = [
  // a value
  root.subcommands.flatMap(({ name }) =>
    flagsOf(name).filter(({ type }) => type._tag !== "Boolean").flatMap((flag) =>
      wrong.map((value) => ({ words: [name, `--${flag.name}=${value}`, ...operandsOf[name] ?? ["a"]] }))
    )
  ),
  // an option
  root.subcommands.flatMap(({ name }) =>
    [...flagsOf(name).map((flag) => `--${flag.name.slice(0, -1)}`), "-n", "-x", "-Z", "--"].map((option) => ({
      words: [name, option, ...operandsOf[name] ?? ["a"]]
    }))
  ),
  // two options together
  ["run", "hold", "elect"].flatMap((name) => {
    const flags = flagsOf(name).flatMap(({ name, type }) => type._tag === "Boolean" ? [`--${name}`] : [`--${name}=1`])
    return flags.flatMap((a) => flags.map((b) => ({ words: [name, a, b, ...operandsOf[name] ?? ["a"]] })))
  }),
  // an operand
  root.subcommands.flatMap(({ name }) =>
    wrong.flatMap((value) => [{ words: [name, value] }, { words: [name, "a", value] }, { words: [name] }])
  ),
  // slashes
  ["hold", "inspect", "runs"].flatMap((name) =>
    ["/", "//", "/x", "//x", "x/", "/x/", "/read", "a//b"].map((value) => ({ words: [name, value] }))
  ),
  // a command
  ["bogus", "hlep", "holdd", "lock", "a", "-x", "--user"].map((word) => ({ words: [word] })),
  // hosts
  hosts.flatMap((value) => [
    { words: ["ls", "--endpoints", value] },
    { words: ["ls"], env: { ETCDCTL_ENDPOINTS: value } }
  ]),
  // variables
  [
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_USER",
    "ETCDCTL_PASSWORD",
    "ETCDCTL_COMMAND_TIMEOUT",
    "ETCDCTL_DISCOVERY_SRV",
    "ETCDCTL_INSECURE_TRANSPORT",
    "ETCDCTL_INSECURE_SKIP_TLS_VERIFY"
  ].flatMap((variable) => [...wrong, "true"].map((value) => ({ words: ["ls"], env: { [variable]: value } })))
]

const perKind = Math.ceil(300 / kinds.length)

/** A few of each kind, so that a small kind does not go under. */
const inputs = Random.withSeed(
  Effect.map(
    Effect.forEach(kinds, (kind) => Random.shuffle(kind)),
    (kinds) => {
      const first = kinds.flatMap((kind) => [...kind].slice(0, perKind))
      const rest = kinds.flatMap((kind) => [...kind].slice(perKind))
      return [...first, ...rest].slice(0, Math.max(300, first.length))
    }
  ),
  "what it says"
)

const optionOf: Readonly<Record<string, string>> = {
  ETCDCTL_ENDPOINTS: "--endpoints",
  ETCDCTL_CACERT: "--cacert",
  ETCDCTL_CERT: "--cert",
  ETCDCTL_KEY: "--key",
  ETCDCTL_COMMAND_TIMEOUT: "--command-timeout"
}

const saidOf = ({ env, words }: Input) =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const said = vi.spyOn(console, "error").mockImplementation((line) => void lines.push(String(line)))
    const output: Array<string> = []
    const printed = vi.spyOn(console, "log").mockImplementation((line) => void output.push(String(line)))
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        said.mockRestore()
        printed.mockRestore()
        vi.unstubAllEnvs()
      })
    )
    for (const name of Object.keys(process.env)) if (name.startsWith("ETCD")) vi.stubEnv(name, undefined)
    // No etcd is there.
    const variables = { ETCDCTL_ENDPOINTS: "127.0.0.1:1", ETCDCTL_COMMAND_TIMEOUT: "50ms", ...env }
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
    const code = yield* Effect.promise(() => main(words, "0"))
    return { code, text: lines.join("\n"), printed: output.join("\n") }
  }).pipe(Effect.scoped)

/** What is wrong with what was said, if something is. */
const faultIn = ({ words }: Input, code: number, text: string): string | undefined => {
  if (code === codes.internal || text.includes("fault of etcd-lock")) return "a fault"
  if (code !== 0 && text === "") return "nothing is said"
  if (/\\u\{/.test(text)) return "an escape"
  if (/\b\w*(Error|Exception)\b|\bundefined\b|\[object/.test(text)) return "a class"
  if (/\b(Lock|ReadWriteLock|Semaphore|Election|Lease|Session|Etcd|FileSystem|Config)(:|\.\w)/.test(text)) {
    return "a module"
  }
  if (/Write it as "\d+ \w+"|milliseconds/.test(text)) return "a duration as programs write it"
  if (/Write [^.]*\b\w+: \d/.test(text)) return "an option as programs write it"
  const [subcommand = ""] = [words.find((word) => root.subcommands.some(({ name }) => name === word))]
  const own = new Set(["--help", ...flagsOf(subcommand).map(({ name }) => `--${name}`)])
  const given = words.flatMap((word) => word.match(/^--[a-z-]*/) ?? [])
  const named = [...text.matchAll(/(?<![\w-])--[a-z][a-z-]*/g)].map(String)
  const refused = named.find((option) =>
    !own.has(option) && !given.includes(option) && !text.includes("etcd-lock hold")
  )
  if (refused !== undefined) return `advises ${refused}, which the command does not have`
  const renamed = Object.entries(optionOf).find(([variable, option]) =>
    given.includes(option) && text.includes(variable)
  )
  if (renamed !== undefined) return `${renamed[1]} is called a variable`
  const twice = given.find((option) => option.length > 2 && text.split(`${option}: `).length > 2)
  if (twice !== undefined) return `says ${twice} twice`
  const examples = /is not a duration.*Write (.*)\./.exec(text)?.[1]?.split(/, | or /) ?? []
  const unread = examples.find((example) => Option.isNone(durationOf(example)))
  return unread === undefined ? undefined : `advises ${unread}, which is no duration`
}

/** The lines that what was said advises, each with what it has against the one before. */
const adviceIn = ({ env = {}, words }: Input, text: string): ReadonlyArray<readonly [Input, refused: string]> => {
  const [, what = "", quoted] = /(the (?:name|prefix)) ("(?:[^"\\]|\\.)*")/.exec(text) ?? []
  const option = /(?:error: )(--[a-z-]+)(?=:| must)/.exec(text)?.[1]
  const [, slashes, prefix] = /"(\/+)" that it begins with as --prefix (.*)\./.exec(text) ?? []
  const given = quoted === undefined ? -1 : words.indexOf(JSON.parse(quoted))
  if (prefix !== undefined) {
    const rest = words.with(given, words[given]!.slice(slashes!.length))
    return [[{ env, words: ["--prefix", prefix, ...rest] }, what]]
  }
  const [, advice = ""] =
    /(?:Write|such as) (?:.*such as |at least |at most )?(.*?)(?:, for example)?\.$/m.exec(text) ?? []
  const values = advice.split(/,? or |, | to /).filter((value) => value !== "" && !value.includes("--"))
  if (given >= 0) {
    return values.map((value) => [{ env, words: words.with(given, value.replaceAll("\"", "")) }, what])
  }
  // A request to no etcd would take as long as is advised.
  if (option === undefined || option === "--command-timeout") return []
  const others = words.filter((word, i) => !word.startsWith(option) && words[i - 1] !== option)
  return values.map((value) => {
    const bare = value.replaceAll("'", "")
    return [{ env, words: [others[0]!, `${option}=${bare}`, ...others.slice(1)] }, option]
  })
}

describe("what the command says", () => {
  it.live("is plain, and takes its own advice", () =>
    Effect.gen(function*() {
      const faults: Array<string> = []
      const taken = new Set<string>()
      const all = yield* inputs
      assert.isAtLeast(all.length, 300)
      for (const input of all) {
        const { code, text } = yield* saidOf(input)
        const fault = faultIn(input, code, text)
        const shown = [...input.words, JSON.stringify(input.env ?? {})].join(" ").slice(0, 120)
        if (fault !== undefined) faults.push(`${fault}: ${shown}\n    ${code} ${text.slice(0, 300)}`)
        for (const [advised, refused] of adviceIn(input, text)) {
          const line = advised.words.join(" ").slice(0, 120)
          if (taken.has(line)) continue
          taken.add(line)
          const then = yield* saidOf(advised)
          // What needs another option beside it is not refused for itself.
          const again = new RegExp(`error: (cannot use )?${refused}(?! needs)`)
          if (again.test(then.text)) {
            faults.push(`refuses its own advice: ${line}\n    ${text.slice(0, 300)}\n    ${then.text.slice(0, 300)}`)
          }
        }
      }
      assert.deepStrictEqual(faults, [])
      assert.isAtLeast(taken.size, 15)
    }), 120_000)

  it("would be seen to have a class of Node's in it", () => {
    const text = "etcd-lock: error: \"/etc/passwd\" cannot be run: Error: spawn /etc/passwd EACCES."
    assert.strictEqual(faultIn({ words: ["run", "a", "/etc/passwd"] }, codes.notExecutable, text), "a class")
  })

  it.live.each<[string, number, RegExp]>([
    [
      "run -w n a true",
      64,
      /^etcd-lock: error: --timeout: "n" is not a duration\. Write 5, 5s or 2\.5s\.\netcd-lock: Try/
    ],
    ["run --tll 5 a true", 64, /^etcd-lock: error: There is no option --tll\. Did you mean --ttl\?\netcd-lock: Try/],
    ["inspect -x a", 64, /^etcd-lock: error: There is no option -x\.\netcd-lock: Try/],
    ["holdd a", 64, /^etcd-lock: error: There is no command "holdd"\. Did you mean hold\?\netcd-lock: Try/],
    ["run --ttl 1 --ttl 2 a true", 64, /^etcd-lock: error: --ttl is given 2 times\. Give it once\.\netcd-lock: Try/],
    ["run --of 0 a true", 64, /error: --of must be a whole number from 1 to 10000, got 0\. .*, such as 8\.$/],
    ["run --ttl 999999999999 a true", 64, /error: --ttl must be from .*\. Write 15s, or 1m30s\.$/],
    ["inspect a/", 64, /error: cannot use the name "a\/"/],
    ["inspect /x", 64, /"orders\/7"\. Give the "\/" that it begins with as --prefix \/\.$/],
    ["inspect //x", 64, /"orders\/7"\. Give the "\/\/" that it begins with as --prefix \/\/\.$/],
    ["--prefix // inspect x", 69, /ECONNREFUSED/],
    ["inspect /", 64, /error: cannot use the name "\/"\. .*, such as "orders\/7"\.$/],
    ["inspect /my-lock/", 64, /error: cannot use the name "\/my-lock\/"\. .*, such as "orders\/7"\.$/],
    ["inspect /read", 64, /error: cannot use the name "\/read"\. .*, such as "orders\/7"\.$/],
    ["--cacert nope ls", 78, /error: --cacert: cannot read "nope" \(there is no such file\)$/],
    ["--endpoints= ls", 64, /error: --endpoints is empty\. Give it a value, or leave it out\.$/],
    ["--cacert= ls", 64, /error: --cacert is empty\./],
    ["--user= --password-file /tmp ls", 64, /error: --user is empty\./],
    ["--prefix= ls", 69, /ECONNREFUSED/],
    ["--endpoints 127.0.0.1:1 inspect /ETCDCTL_ENDPOINTS", 64, /the name "\/ETCDCTL_ENDPOINTS"/],
    ["--password-file /tmp ls", 64, /error: --password-file .* Name the user by --user, or in ETCDCTL_USER\.$/],
    ["--cacert /tmp ls", 78, /error: --cacert: cannot read "\/tmp" \(illegal operation on a directory\)$/],
    [
      "--endpoints localhost:abc ls",
      78,
      /error: cannot use host "localhost:abc" of --endpoints: its port, "abc", is not/
    ],
    ["run --on-lost ignore --kill-after 1 a true", 64, /error: --kill-after is for .* ends none\.$/],
    ["run -x -s a true", 64, /error: -x takes it alone, and -s and --of do not: give one of them\.$/],
    ["elect -n -w 1 a true", 64, /error: -n does not wait, and -w does: give one of them\.$/],
    ["ls -q -v", 64, /error: --quiet and --verbose contradict each other: give one of them\.$/],
    ["ls --json --cacert nope", 78, /^\{.*"message":"--cacert: cannot read /],
    ["run --metadata version a true", 64, /error: --metadata: "version" is not a key with a value\. Write job=report/]
  ])("of %s", ([line, code, text]) =>
    Effect.gen(function*() {
      const said = yield* saidOf({ words: line.split(" ") })
      assert.strictEqual(said.code, code)
      assert.match(said.text, text)
    }))

  it.live.each([
    "--json",
    "--json foo",
    "--json run",
    "--json -z ls",
    "run --json --ttl 1x x true",
    "--json ls \u{fffd}"
  ])(
    "of %s is JSON",
    (line) =>
      Effect.gen(function*() {
        const { code, text } = yield* saidOf({ words: line.split(" ") })
        assert.strictEqual(code, 64)
        for (const said of text.split("\n")) assert.isString(JSON.parse(said).message, said)
      })
  )

  it.live.each(["run --ttl 1x a true --json", "--prefix --json foo", "-- --json"])(
    "of %s is text",
    (line) =>
      Effect.gen(function*() {
        const { text } = yield* saidOf({ words: line.split(" ") })
        assert.match(text, /^etcd-lock: /)
      })
  )

  it.live("is its help, where nothing or help is asked for", () =>
    Effect.gen(function*() {
      const help = yield* saidOf({ words: ["--help"] })
      assert.match(help.printed, /SUBCOMMANDS/)
      assert.deepStrictEqual(yield* saidOf({ words: ["help"] }), help)
      assert.deepStrictEqual(yield* saidOf({ words: [] }), { ...help, code: 64 })
      assert.deepStrictEqual(yield* saidOf({ words: ["--json", "help"] }), help)
      const helpOfRun = yield* saidOf({ words: ["run", "--help"] })
      assert.match(helpOfRun.printed, /etcd-lock run/)
      for (const line of ["help run", "help -v run", "--prefix help help run", "help run a true"]) {
        assert.deepStrictEqual(yield* saidOf({ words: line.split(" ") }), helpOfRun, line)
      }
      const { code, printed, text } = yield* saidOf({ words: ["help", "holdd"] })
      assert.deepStrictEqual([code, printed], [64, ""])
      assert.match(text, /^etcd-lock: error: There is no command "holdd"\. Did you mean hold\?\n/)
    }))
})
