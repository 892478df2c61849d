import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Lock } from "effect-etcd-lock"
import { provideMemory, session } from "../support/inMemory.ts"

const names = new Map<string, unknown>([
  ["orders/7", 7],
  ["orders/9007199254740993", 9007199254740993n],
  ["orders/-1.5", -1.5],
  ["orders/123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"],
  ["orders/a.b_c~d", "a.b_c~d"],
  ["orders/a%2Fb", "a/b"],
  ["orders/%2F", "/"],
  ["orders/%2E%2E", ".."],
  ["orders/%2E", "."],
  ["orders/%empty", ""],
  ["orders/%25empty", "%empty"],
  ["orders/%72ead", "read"],
  ["orders/%77rite", "write"],
  ["orders/reads", "reads"],
  ["orders/%00", "\0"],
  ["orders/%20", " "],
  ["orders/%C3%BC%F0%9F%94%92", "ü🔒"],
  ["orders/%uD83D", "\ud83d"],
  ["orders/%25uD83D", "%uD83D"],
  [`orders/${"x".repeat(72)}`, "x".repeat(72)],
  ["orders/%sha256-71b07785703e311e58ec20b25a30357f6cf1c290f181492c4b429bb984de61ca", "x".repeat(73)]
])

/** What a user may come up with. */
const part = Schema.Literals([
  "",
  "a",
  "b",
  "read",
  "write",
  "1",
  "/",
  "//",
  "..",
  ".",
  "-",
  ":",
  "%",
  "%2F",
  "%empty",
  "%sha256-",
  "%uD83D",
  " ",
  "\0",
  "\n",
  "ü",
  "🔒",
  "\ud83d",
  "\udd12",
  "\uffff",
  "x".repeat(40)
])
const input = Schema.Array(part)

/** Names that seem alike to a reader of the text. */
const templates: ReadonlyArray<(a: string, b: string) => string> = [
  (a, b) => Lock.name`orders/${a}/${b}`,
  (a, b) => Lock.name`orders/${a}:${b}/items`,
  (a, b) => Lock.name`${a} for ${b}`
]

describe("the template of a name", () => {
  it.each([...names])("makes %s", (name, value) => {
    assert.strictEqual(Lock.name`orders/${value as string}`, name)
  })

  it("makes names of text alone, of values alone and of several values", () => {
    assert.strictEqual(Lock.name`orders`, "orders")
    assert.strictEqual(Lock.name`${"orders"}`, "orders")
    assert.strictEqual(Lock.name`${"a/b"}/of ${1n}`, "a%2Fb/of 1")
    assert.strictEqual(Lock.name`${"read"}/of ${"write"}`, "read/of write")
  })

  it.effect.prop(
    "makes names that work, and that are different for different values",
    { a: input, b: input, c: input, d: input },
    ({ a, b, c, d }) =>
      Effect.sync(() => {
        const [first, second] = [[a.join(""), b.join("")], [c.join(""), d.join("")]] as const
        for (const template of templates) {
          const name = template(...first)
          assert.isAtMost(Buffer.byteLength(name), 1024)
          assert.isTrue(name.isWellFormed())
          assert.isFalse(name.startsWith("/") || name.endsWith("/") || name.includes("//"))
          // the values are in their places, and have no part of the text's in them
          assert.strictEqual(name.split("/").length, template("a", "b").split("/").length)
          assert.strictEqual(name === template(...second), first[0] === second[0] && first[1] === second[1])
        }
      }),
    { arbitrary: { runs: 2000 } }
  )

  it("does not take one value for two, however they are cut", () => {
    const values = ["", "a", "aa", "-", "a-", "-a", "%", ":", "a:", ":a", "/", "a/", "/a", "%3A", "%3Aa"]
    for (const template of templates) {
      const made = values.flatMap((a) => values.map((b) => template(a, b)))
      assert.strictEqual(new Set(made).size, made.length)
    }
  })

  it.each(
    [
      ["undefined", undefined],
      ["null", null],
      ["an object", {}],
      ["NaN", Number.NaN],
      ["Infinity", Number.POSITIVE_INFINITY],
      ["true", true]
    ] as const
  )("refuses %s as a value, which would be one lock for all", (shown, value) => {
    assert.throws(
      () => Lock.name`orders/${value as unknown as string}`,
      RangeError,
      `Lock: a value in a name must be text, a number or a bigint, got ${shown}`
    )
  })

  it("refuses two values that nothing sets apart, whatever they are", () => {
    for (
      const make of [() => Lock.name`${"a"}${"b"}`, () => Lock.name`x/${1}-${2}`, () => Lock.name`x/${1}%2F${2}/${3}`]
    ) {
      assert.throws(make, RangeError, "with two values and")
    }
  })

  it("refuses text that can be no name", () => {
    assert.throws(() => Lock.name`/orders/${7}`, RangeError, "cannot use the name")
    assert.throws(() => Lock.name`orders/${7}/`, RangeError, "cannot use the name")
    assert.throws(() => Lock.name``, RangeError, "cannot use the name")
    assert.throws(() => Lock.name`orders/${7}/read`, RangeError, "cannot use the name")
  })

  it("lets no value make the name of a read-write lock's folder, not even with the text before it", () => {
    assert.strictEqual(Lock.name`${"write"}`, "%77rite")
    assert.strictEqual(Lock.name`orders/re${"ad"}`, "orders/re%61d")
    assert.strictEqual(Lock.name`orders/${"wri"}te`, "orders/%77rite")
  })

  it.effect("makes names of locks that can be held beside each other", () =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      const holding = [...names.values()].reduce<Effect.Effect<void, unknown, any>>(
        (inner, value) => Lock.tryWithLock(inner, Lock.name`orders/${value as string}`),
        Effect.void
      )
      yield* run(holding)
    })))
})
