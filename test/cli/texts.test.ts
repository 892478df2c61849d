import { assert, describe, it } from "@effect/vitest"
import { Cause, Console, Duration, Effect, Option } from "effect"
import { vi } from "vitest"
import { codes } from "../../src/cli/ending.ts"
import { durationOf } from "../../src/cli/flags.ts"
import { main } from "../../src/cli/main.ts"
import { inOptions } from "../../src/cli/root.ts"
import * as Words from "../../src/cli/words.ts"
import { json, printable } from "../../src/internal/printable.ts"

describe("a duration", () => {
  it.each([
    ["30", 30_000],
    ["0.5", 500],
    ["5s", 5000],
    ["500ms", 500],
    ["1m30s", 90_000],
    ["1.5h", 5_400_000],
    ["2d", 172_800_000]
  ])("%s", (text, millis) => {
    assert.strictEqual(Option.map(durationOf(text), Duration.toMillis).pipe(Option.getOrUndefined), millis)
  })

  it.each(["", "s", "-5", "5 seconds", "5x", "5s later", "1e3", "Infinity"])("is not: %s", (text) => {
    assert.isTrue(Option.isNone(durationOf(text)))
  })
})

describe("text of other clients", () => {
  it.each([
    ["a\u001b[31mb", "a\\u{1b}[31mb"],
    ["a\u009b31mb", "a\\u{9b}31mb"],
    ["a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"],
    ["a\u202eb", "a\\u{202e}b"],
    ["a\ud800b", "a\\u{d800}b"],
    ["größer 世界 🙂", "größer 世界 🙂"]
  ])("%j is printed as %j", (text, printed) => {
    assert.strictEqual(printable(text), printed)
  })

  it("is cut where it is too long", () => {
    assert.strictEqual(printable("x".repeat(1_000_000)).length, 2000)
    assert.strictEqual(printable("abcdef", 4), "abc…")
  })

  it("is printable in JSON, and comes back the same", () => {
    const hostile = "\u001b]0;title\u0007 \u009b31m \u202e \u{e0001} \ud800 \" \\ größer"
    const text = json({ [hostile]: hostile })
    assert.notMatch(text, /[\p{Cc}\p{Cf}\p{Cs}]/u)
    assert.deepStrictEqual(JSON.parse(text), { [hostile]: hostile })
  })

  it.effect("is printable in what is logged, and in its cause", () =>
    Effect.gen(function*() {
      const printed: Array<string> = []
      const console: Console.Console = { ...globalThis.console, error: (line) => void printed.push(line) }
      const hostile = "\u001b[2J\u009b31m"
      yield* Effect.logError(hostile, Cause.die(new Error(hostile))).pipe(
        Effect.provide(Words.layer({ json: false, quiet: false, verbose: false })),
        Effect.provideService(Console.Console, console)
      )
      assert.match(printed.join(), /^etcd-lock: error: \\u\{1b\}\[2J.*\n.*\\u\{1b\}\[2J/)
      assert.notMatch(printed.join(), /(?!\n)\p{Cc}/u)
    }))
})

describe("a variable", () => {
  it.each([
    ["ETCDCTL_ENDPOINTS: etcd's host isn't there", "--endpoints: etcd's host isn't there"],
    ["etcd's ETCDCTL_ENDPOINTS aren't", "etcd's --endpoints aren't"],
    ["ETCDCTL_CACERT", "ETCDCTL_CACERT"],
    ["'ETCDCTL_ENDPOINTS' is held", "'ETCDCTL_ENDPOINTS' is held"],
    ["the name \"a\\\" ETCDCTL_ENDPOINTS\" of ETCDCTL_ENDPOINTS", "the name \"a\\\" ETCDCTL_ENDPOINTS\" of --endpoints"]
  ])("in %j is the option that was given, and no part of a name", (text, renamed) => {
    const none = Option.none()
    const options = {
      endpoints: Option.some("a:1"),
      cacert: none,
      cert: none,
      key: none,
      user: none,
      passwordFile: none,
      prefix: none,
      commandTimeout: none,
      json: false,
      quiet: false,
      verbose: false
    }
    assert.strictEqual(inOptions(options)(text), renamed)
  })
})

describe("an argument", () => {
  it.live("that was not UTF-8 is refused, since neither a lock nor a command would get what was written", () =>
    Effect.gen(function*() {
      const said = vi.spyOn(console, "error").mockImplementation(() => {})
      yield* Effect.addFinalizer(() => Effect.sync(() => said.mockRestore()))
      for (const words of [["run", "\u{fffd}", "true"], ["run", "a", "true", "\u{fffd}"]]) {
        assert.strictEqual(yield* Effect.promise(() => main(words, "0")), codes.misuse)
      }
      assert.lengthOf(said.mock.calls, 2)
    }))
})
