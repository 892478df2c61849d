/** What a client that writes anything can put under a lock's name: random keys and values, with and without a lease. */
import { Arbitrary, Schema } from "effect"

export interface Foreign {
  /** What follows the name of the lock, or of the folder, that it is put under. */
  readonly suffix: Buffer
  readonly value: Buffer
  readonly lease: bigint
  /** How many entries there are, whose keys differ in a number. */
  readonly copies: number
}

const oneOf = <const A extends ReadonlyArray<string | number>>(...literals: A) =>
  Arbitrary.schema(Schema.Literals(literals)) as Arbitrary.Arbitrary<A[number]>

/** One of several, as likely as the others. */
const either = <A>(...members: ReadonlyArray<Arbitrary.Arbitrary<A>>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(oneOf(...members.keys()), (i) => members[i]!)

/** What terminals, readers of JSON, regular expressions and objects take for something else than text. */
const text = oneOf(
  "",
  "a",
  "größer 🙂",
  "\u001b[2J\u001b]0;owned\u0007",
  "\u009b31m",
  "\u202egnp.exe\u2066",
  "\u2028\u2029\u0085",
  "\r\n\t\v",
  "\n",
  "\0",
  "\ufeff\ufffd",
  "\u{e0041}\u{f0000}",
  "\ud800",
  "__proto__",
  "constructor",
  "\"\\",
  "x".repeat(1200)
)

const bytes = Arbitrary.map(
  Arbitrary.array(Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), {
    maxLength: 12
  }),
  (values) => Buffer.from(values)
)

/** UTF-8 that is cut, too long for what it says, or half of a pair. */
const invalid = Arbitrary.map(
  oneOf("ff", "c3", "e282", "eda080", "f09f94", "c080", "80"),
  (hex) => Buffer.from(hex, "hex")
)

// -----------------------------------------------------------------------------
// keys
// -----------------------------------------------------------------------------

const folder = oneOf("/", "/", "/", "/read/", "/write/", "", ".done/", "/x/", "0", "/read", "//")

/** What a lease's own entries end with, and what they do not. */
const own = oneOf("", "7", "7-1", "-5", "-5-1", "7-", "07", "8-1", "7/", "7-1/x")

/** As a semaphore's entries end, with numbers of all kinds. */
const permits = Arbitrary.map(
  Arbitrary.all([
    oneOf("1", "2", "0", "3", "4", "9007199254740993", "9".repeat(400)),
    oneOf("3", "3", "3", "0", "1", "007", "10001", "9007199254740993", "9".repeat(400))
  ]),
  ([permits, of]) => `7-1-${permits}of${of}`
)

const encoded = Arbitrary.map((text: string) => Buffer.from(text))

const suffix = Arbitrary.map(
  Arbitrary.all([
    encoded(folder),
    Arbitrary.map(
      Arbitrary.array(either(encoded(text), invalid, bytes, encoded(oneOf("/", "//", "read/", "-"))), { maxLength: 3 }),
      (parts) => Buffer.concat(parts)
    ),
    either(encoded(own), encoded(permits), encoded(permits))
  ]),
  ([folder, middle, end]) => Buffer.concat([folder, middle, end])
)

// -----------------------------------------------------------------------------
// values
// -----------------------------------------------------------------------------

const quoted = Arbitrary.map(text, (text) => JSON.stringify(text))

const number = oneOf("0", "-1", "1.5", "4711", "9007199254740993", "1e400", "-0", "1e-400", "9".repeat(500))

const date = oneOf(
  "\"2026-11-27T06:00:00.000Z\"",
  "\"2026\"",
  "\"+275760-09-13T00:00:00Z\"",
  "\"-271821-04-20\"",
  "\"now\""
)

const object = Arbitrary.map(
  Arbitrary.array(Arbitrary.all([quoted, either(quoted, number)]), { maxLength: 4 }),
  (fields) => `{${fields.map(([name, value]) => `${name}:${value}`).join(",")}}`
)

/** Deep where it is an object still, and where it is not. */
const deep = Arbitrary.map(
  oneOf(90, 98, 101, 20_000),
  (depth) => `{"a":${"[".repeat(depth)}"]"${"]".repeat(depth)}}`
)

const trace = oneOf("{\"traceId\":\"a\",\"spanId\":\"b\"}", "{\"traceId\":7,\"spanId\":\"b\"}")

const json = either(quoted, number, date, object, deep, trace, oneOf("null", "true", "[]", "{}", "[{}]"))

const field = Arbitrary.map(
  Arbitrary.all([
    oneOf("host", "pid", "since", "metadata", "trace", "id", "key", "leaseId", "remaining", "__proto__", "toJSON"),
    json
  ]),
  ([name, value]) => `"${name}":${value}`
)

/** A description as our own entries have it, as far as each of its fields is right. Fields may be there twice. */
const right = Arbitrary.all([
  Arbitrary.map(quoted, (host) => `"host":${host}`),
  oneOf("\"pid\":4711", "\"pid\":9007199254740991", "\"pid\":-7"),
  Arbitrary.map(date, (since) => `"since":${since}`),
  Arbitrary.map(object, (metadata) => `"metadata":${metadata}`)
])

const description = Arbitrary.map(
  Arbitrary.all([right, Arbitrary.array(field, { maxLength: 3 }), oneOf(0, 2, 3, 4, 4)]),
  ([right, fields, count]) => `{${[...right.slice(0, count), ...fields].join(",")}}`
)

/** Large, and each in another way that could cost more than its size. */
const large = Arbitrary.map(
  Arbitrary.all([
    oneOf("\\\"", "\"", "[", "{\"a\":", "]", "[]", "x", "\u001b", "\\", "{\"metadata\":{\"a\":\"", "0,"),
    oneOf(1000, 1000, 1000, 1000, 1000, 1000, 100_000, 1_000_000)
  ]),
  ([part, size]) => part.repeat(size / part.length)
)

const value = either(
  encoded(description),
  encoded(description),
  encoded(description),
  encoded(json),
  encoded(text),
  bytes,
  Arbitrary.map(Arbitrary.all([encoded(description), invalid]), (parts) => Buffer.concat(parts)),
  Arbitrary.map(Arbitrary.all([large, description]), ([large, text]) => Buffer.from(large + text)),
  Arbitrary.map(Arbitrary.all([description, large]), ([text, large]) => Buffer.from(text + large)),
  // etcd takes 1.5 MB.
  Arbitrary.map(large, (large) => {
    const half = large.slice(0, 500_000)
    return Buffer.from(`{"host":"${half}","pid":1,"since":"2020-01-01","metadata":{"a":"${half}"}}`)
  })
)

/** A lease has any ID that fits into 64 bits. */
export const leases = [7n, -5n]

export const foreign: Arbitrary.Arbitrary<Foreign> = Arbitrary.map(
  Arbitrary.all({ suffix, value, lease: oneOf(7, 7, 7, -5, 0), copies: oneOf(1, 1, 1, 1, 2, 20) }),
  ({ copies, lease, suffix, value }) => ({
    suffix,
    value,
    lease: BigInt(lease),
    copies: value.length > 9999 ? 1 : copies
  })
)

/** The keys of a foreign entry and its copies, under a name. */
export const keysOf = (name: string, { copies, suffix }: Foreign): ReadonlyArray<Buffer> =>
  Array.from({ length: copies }, (_, i) =>
    Buffer.concat([
      Buffer.from(name),
      i === 0 ? suffix : Buffer.from(suffix.toString("latin1").replace(/(?=[^/]*$)/, `${i}`), "latin1")
    ]))
