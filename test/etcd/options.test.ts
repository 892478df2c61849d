/**
 * What can never work is refused before etcd is asked for anything. Each row has the input, and what the defect says
 * of it: the option's name, the value, and a right one.
 */
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Predicate,
  Redacted,
  type Scope,
  Stream
} from "effect"
import { Etcd, Lease, Lock, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as Util from "node:util"
import { connect } from "../support/connect.ts"
import { defectOf } from "../support/exits.ts"
import * as Tls from "../support/Tls.ts"

/** For what the types do not allow. */
const untyped = (value: unknown): any => value

const onNode = Layer.provide(NodeFileSystem.layer)

const asked = () => Effect.die(new Error("etcd was asked"))

/** Fails whatever asks it for anything. */
const silent = Etcd.Etcd.of({
  requestTimeout: Duration.seconds(5),
  txn: asked,
  range: asked,
  leaseGrant: asked,
  leaseRevoke: asked,
  leaseKeepAlive: asked,
  leaseTimeToLive: asked,
  watch: asked,
  subscribe: asked
})

const inMemory = Effect.provide(Session.layer().pipe(Layer.provideMerge(Etcd.layerMemory())))

const exitOf = <A, E>(
  effect: Effect.Effect<A, E, Session.Session | Etcd.Etcd | Scope.Scope>
): Effect.Effect<Exit.Exit<A, E>> =>
  effect.pipe(
    Effect.provide(Session.layer()),
    Effect.scoped,
    Effect.provideService(Etcd.Etcd, silent),
    Effect.exit
  )

interface Row {
  readonly input: string
  readonly use: Effect.Effect<unknown, unknown, Session.Session | Etcd.Etcd | Scope.Scope>
  /** What the message says. */
  readonly says: ReadonlyArray<string>
  /** What is shown nowhere. */
  readonly hides?: ReadonlyArray<string> | undefined
}

const refuse = (rows: ReadonlyArray<Row>) =>
  it.effect.each(rows.map((row) => [row.input, row] as const))(
    "%s",
    ([, { hides = [], says, use }]) =>
      Effect.gen(function*() {
        const exit = yield* exitOf(use)
        const defect = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isDieReason)?.defect : undefined
        assert.instanceOf(defect, RangeError, String(exit))
        for (const said of says) assert.include(defect.message, said)
        assert.isBelow(defect.message.length, 400)
        const shown = `${Util.inspect(defect, { depth: 10, showHidden: true })} ${String(exit)}`
        for (const hidden of hides) assert.notInclude(shown, hidden)
      })
  )

// -----------------------------------------------------------------------------
// durations
// -----------------------------------------------------------------------------

const durations: ReadonlyArray<readonly [unknown, string]> = [
  [Number.NaN, "got NaN"],
  [-1, "got -1 ms"],
  [-Infinity, "got -Infinity"],
  [-5n, "got -5 ns"],
  ["-1 second", "got \"-1 second\""],
  [Duration.seconds(-1), "got -1s"],
  ["15s", "got \"15s\""],
  ["15", "got \"15\""],
  ["", "got \"\""],
  [`1${"0".repeat(100_000)}s`, "… (100002 characters)"],
  [null, "got null"],
  [true, "got true"],
  [{}, "got an object"],
  [{ second: 5 }, "got an object"],
  [{ seconds: Number.NaN }, "got an object"],
  [{ seconds: "5" }, "got an object"],
  [[1, Number.NaN], "got an array"],
  [[1], "got an array"],
  [new Date(0), "got an instance of Date"],
  [Effect.succeed("15 seconds"), "got an Effect"]
]

const takeDurations: ReadonlyArray<readonly [string, string, (value: any) => Row["use"]]> = [
  ["Lock: timeout must be ", "withLock", (timeout) => Lock.withLock(Effect.void, "a", { timeout })],
  ["Lock: timeout must be ", "acquire", (timeout) => Lock.acquire("a", { timeout })],
  ["Lease: ttl must be ", "Lease.make", (ttl) => Lease.make({ ttl })],
  ["Lease: ttl must be ", "Session.layer", (ttl) => Layer.build(Session.layer({ ttl }))],
  ["Lease: safetyMargin must be ", "Lease.make", (safetyMargin) => Lease.make({ safetyMargin })],
  ["Lease: safetyMargin must be ", "Session.layer", (safetyMargin) => Layer.build(Session.layer({ safetyMargin }))],
  [
    "Etcd.layer: requestTimeout must be ",
    "Etcd.layer",
    (requestTimeout) => Layer.build(Etcd.layer({ hosts: "etcd:2379", requestTimeout }))
  ],
  [
    "Etcd.layerMemory: requestTimeout must be ",
    "Etcd.layerMemory",
    (requestTimeout) => Layer.build(Etcd.layerMemory({ requestTimeout }))
  ]
]

describe("a duration is refused:", () => {
  refuse(takeDurations.flatMap(([said, where, use]) =>
    durations.map(([value, got]) => ({
      input: `${where}, ${said.split(" ")[1]} ${Util.inspect(value).slice(0, 30)}`,
      use: use(value),
      says: [said, got, "Write it as \"", " seconds\""]
    }))
  ))
})

describe("a duration is accepted:", () => {
  const values: ReadonlyArray<Duration.Input> = [
    2000,
    2_000_000_000n,
    [2, 0],
    "2 seconds",
    { seconds: 2 },
    Duration.seconds(2)
  ]
  it.effect.each(values.map((value) => [Util.inspect(value), value] as const))(
    "%s",
    ([, value]) =>
      Effect.gen(function*() {
        yield* Lock.withLock(Effect.void, "a", { timeout: value })
        const lease = yield* Lease.make({ ttl: value, safetyMargin: { milliseconds: 500, seconds: undefined } as any })
        assert.strictEqual(Duration.toMillis(yield* lease.remaining), 1500)
        yield* Layer.build(Etcd.layer({ hosts: "etcd:2379", requestTimeout: value }))
      }).pipe(inMemory)
  )
})

// -----------------------------------------------------------------------------
// locks
// -----------------------------------------------------------------------------

const tries: Readonly<Record<string, (name: any, options: any) => Row["use"]>> = {
  withLock: (name, options) => Lock.withLock(name, options)(Effect.void),
  tryWithLock: (name, options) => Lock.tryWithLock(Effect.void, name, options),
  withLockIfAvailable: (name, options) => Lock.withLockIfAvailable(Effect.void, name, options),
  acquire: Lock.acquire,
  tryAcquire: Lock.tryAcquire
}

const operations: typeof tries = {
  ...tries,
  inspect: Lock.inspect,
  changes: (name, options) => Stream.runDrain(Lock.changes(name, options)),
  forceRelease: (name, options = {}) =>
    Lock.forceRelease(name, Predicate.isObject(options) ? { createRevision: 1n, ...options } : untyped(options))
}

/** One row for each operation. */
const inEach = (
  of: typeof tries,
  input: string,
  name: unknown,
  options: unknown,
  says: Row["says"],
  hides?: Row["hides"]
): ReadonlyArray<Row> =>
  Object.entries(of).map(([operation, use]) => ({
    input: `${operation}, ${input}`,
    use: Effect.suspend(() => use(name, options)),
    says,
    hides
  }))

describe("a name is refused:", () => {
  const rule = [
    "Lock: cannot use the name ",
    "A name is text of at most 1024 bytes, is not empty, is well-formed Unicode, and has no \"/\" at its ends and no \"//\" in it, such as \"orders/7\"."
  ]
  const long = "x".repeat(2_000_000)
  refuse([
    ...inEach(operations, "undefined", undefined, undefined, [...rule, "undefined"]),
    ...inEach(operations, "5", 5, undefined, [...rule, "5"]),
    ...inEach(operations, "null", null, undefined, [...rule, "null"]),
    ...inEach(operations, "an object", { name: "a" }, undefined, [...rule, "an object"]),
    ...["", "/", "/a", "a/", "a//b", "\ud800"].flatMap((name) =>
      inEach(operations, JSON.stringify(name), name, undefined, [...rule, JSON.stringify(name)])
    ),
    ...inEach(operations, "of 1025 bytes", "x".repeat(1025), undefined, [...rule, "… (1025 characters)"]),
    ...inEach(operations, "of 513 characters in 1026 bytes", "é".repeat(513), undefined, rule),
    ...inEach(operations, "of 2 MB", long, undefined, [...rule, "… (2000000 characters)"], [long.slice(0, 100)])
  ])
})

describe("a name is accepted:", () => {
  const names = [
    ["a", "a"],
    ["a/b", "a/b"],
    ["of 1024 bytes", "x".repeat(1024)],
    ["of 512 characters in 1024 bytes", "é".repeat(512)]
  ] as const
  it.effect.each(names)("%s", ([, name]) =>
    Effect.gen(function*() {
      const lock = yield* Lock.acquire(name)
      assert.strictEqual((yield* Lock.inspect(name)).holder?.key, lock.key)
    }).pipe(inMemory))
})

const cyclic: Record<string, unknown> = { team: "blue" }
cyclic.self = cyclic

const noMetadata: ReadonlyArray<readonly [unknown, string]> = [
  ["blue", "\"blue\""],
  [5, "5"],
  [null, "null"],
  [["blue"], "an array"],
  [() => 1, "a function"],
  [new Date(0), "an instance of Date"],
  [{ toJSON: () => undefined }, "an object"]
]

describe("an option of a lock is refused:", () => {
  const metadata = ["Lock: metadata must be an object of JSON values, such as { version: \"1.4.0\" }, "]
  refuse([
    ...["singlekey", "Queue", "", 1, null].flatMap((layout) =>
      inEach(operations, `layout ${JSON.stringify(layout)}`, "a", { layout }, [
        `Lock: layout must be "queue" or "single-key", got ${JSON.stringify(layout)}`
      ])
    ),
    ...inEach(tries, "cyclic metadata", "a", { metadata: cyclic }, [...metadata, "circular structure"]),
    ...inEach(tries, "metadata with a bigint", "a", { metadata: { revision: 1n } }, [...metadata, "BigInt"]),
    ...inEach(tries, "metadata that is too deep", "a", {
      metadata: { deep: JSON.parse("[".repeat(20_000) + "]".repeat(20_000)) }
    }, [...metadata, "call stack"]),
    ...inEach(tries, "metadata that cannot be written", "a", {
      metadata: {
        toJSON: () => {
          throw new Error("not today")
        }
      }
    }, [...metadata, "not today"]),
    ...noMetadata.flatMap(([value, got]) =>
      inEach(tries, `metadata ${Util.inspect(value)}`, "a", { metadata: value }, [...metadata, `got ${got}`])
    ),
    ...inEach(tries, "a lease that is its ID", "a", { lease: 5n }, [
      "Lock: lease must be a Lease, as Lease.make returns it, got 5n"
    ]),
    ...inEach(tries, "a lease that was not made", "a", { lease: Lease.make() }, [
      "Lock: lease must be a Lease, as Lease.make returns it, got an Effect. Write it as yield* Lease.make()."
    ]),
    ...inEach(tries, "no lease", "a", { lease: null }, [
      "Lock: lease must be a Lease, as Lease.make returns it, got null"
    ]),
    ...([["15 seconds", "text"], [5000, "a number"], [null, "null"]] as const).flatMap(([options, got]) =>
      inEach(operations, `${JSON.stringify(options)} for all options`, "a", options, [
        `Lock: options must be an object, such as { timeout: "15 seconds" }, got ${got}`
      ])
    ),
    ...[undefined, 5, "5", null].map((createRevision): Row => ({
      input: `forceRelease, createRevision ${JSON.stringify(createRevision)}`,
      use: Lock.forceRelease("a", { createRevision: untyped(createRevision) }),
      says: [
        "Lock: createRevision must be a bigint, as inspect and LockHeld report it, got ",
        `${JSON.stringify(createRevision)}. Write it as holder.createRevision.`
      ]
    })),
    {
      input: "forceRelease without options",
      use: Effect.suspend(() => Lock.forceRelease("a", untyped(undefined))),
      says: ["Lock: createRevision must be a bigint, as inspect and LockHeld report it, got undefined"]
    }
  ])

  it.effect("only when the effect runs, and not when it is made", () =>
    Effect.sync(() => {
      const made = [
        ...Object.values(operations).map((use) => use(undefined, { layout: "singlekey", metadata: cyclic })),
        ...takeDurations.map(([, , use]) => use("15s"))
      ]
      for (const effect of made) assert.isTrue(Effect.isEffect(effect))
    }))
})

describe("an option of a lock is accepted:", () => {
  const metadata = { at: "\"}", deep: [[["a"]]], none: null, unset: untyped(undefined) }
  it.effect.each(["queue", "single-key"] as const)(
    "metadata, which others see, %s",
    (layout) =>
      Effect.gen(function*() {
        yield* Lock.acquire("a", { layout, metadata })
        const { holder } = yield* Lock.inspect("a", { layout })
        assert.deepStrictEqual(holder?.metadata, JSON.parse(JSON.stringify(metadata)))
        assert.strictEqual(holder?.pid, process.pid)
      }).pipe(inMemory)
  )
})

describe("an option of a lease is refused:", () => {
  const says = ["Lease: options must be an object, such as { ttl: \"15 seconds\" }, got text"]
  refuse([
    { input: "Lease.make, all of them as text", use: Lease.make(untyped("30 seconds")), says },
    { input: "Session.layer, all of them as text", use: Layer.build(Session.layer(untyped("30 seconds"))), says }
  ])
})

// -----------------------------------------------------------------------------
// connections
// -----------------------------------------------------------------------------

const connecting = (input: string, options: unknown, says: Row["says"], hides?: Row["hides"]): Row => ({
  input,
  use: Layer.build(Etcd.layer(untyped(options))),
  says,
  hides
})

describe("a host is refused:", () => {
  const shape = "Etcd: hosts must be a host or an array of hosts, such as [\"127.0.0.1:2379\"], got "
  const credentials = [
    "it has more than a host and a port",
    "Pass the name and the password of a user as username and password."
  ]
  refuse([
    connecting("no options", undefined, [`${shape}undefined`]),
    connecting("no hosts", {}, [`${shape}undefined`]),
    connecting("null", { hosts: null }, [`${shape}null`]),
    connecting("a number", { hosts: 2379 }, [`${shape}2379`]),
    connecting("an object", { hosts: { host: "etcd", port: 2379 } }, [`${shape}an object`]),
    connecting("an Effect", { hosts: Effect.succeed("etcd:2379") }, [`${shape}an Effect`]),
    connecting("an array with a number", { hosts: ["etcd:2379", 2379] }, [`${shape}an array with 2379 in it`]),
    connecting("an array with undefined", { hosts: [undefined] }, [`${shape}an array with undefined in it`]),
    connecting("an array with a URL", { hosts: [new URL("http://u:hunter2@etcd:2379")] }, [
      `${shape}an array with an instance of URL in it`
    ], ["hunter2"]),
    connecting("a text for all options", "etcd:2379", [
      "Etcd.layer: options must be an object, such as { hosts: [\"127.0.0.1:2379\"] }, got text"
    ]),
    connecting("several in one text", { hosts: "a:2379,b:2379" }, [
      "Etcd: hosts has several hosts in one text, \"a:2379,b:2379\". Pass an array: [\"a:2379\", \"b:2379\"]."
    ]),
    connecting("several in one text of an array", { hosts: ["a:2379, https://b:2379"] }, [
      "Pass an array: [\"a:2379\", \"https://b:2379\"]."
    ]),
    connecting("with a password", { hosts: "http://root:hunter2@etcd:2379" }, [
      "Etcd: cannot use host \"http://<redacted>@etcd:2379\" of hosts: ",
      ...credentials
    ], ["hunter2", "root"]),
    connecting("with a password and no scheme", { hosts: "root:hunter2@etcd:2379" }, [
      "\"<redacted>@etcd:2379\"",
      ...credentials
    ], ["hunter2"]),
    connecting("with a password, no port", { hosts: "https://root:hunter2@etcd" }, credentials, ["hunter2"]),
    connecting("with a password that has every sign", { hosts: "http://root:hun/t@r,2?#:x\n@etcd:2379" }, [
      "\"http://<redacted>@etcd:2379\"",
      ...credentials
    ], ["hun", "t@r", "r,2", "2?#", ":x"]),
    connecting("with a password, second of two", { hosts: ["a:2379", "http://root:hunter2@b:2379"] }, credentials, [
      "hunter2"
    ]),
    connecting("with a password, behind a wrong one", { hosts: ["a", "http://root:hunter2@b:2379"] }, credentials, [
      "hunter2"
    ]),
    connecting(
      "with a password, several in one text",
      {
        hosts: "http://root:hunter2@a:2379,http://root:hunter2@b:2379"
      },
      credentials,
      ["hunter2"]
    ),
    connecting("with a password, of a wrong scheme", { hosts: "ftp://root:hunter2@a:2379" }, credentials, ["hunter2"]),
    connecting("with a password, and tls", { hosts: "http://root:hunter2@a:2379", tls: {} }, credentials, ["hunter2"]),
    connecting("with a token in the query", { hosts: "https://etcd:2379?token=hunter2" }, [
      "\"https://etcd:2379?<redacted>\"",
      "it has more than a host and a port"
    ], ["hunter2"])
  ])
})

const good = Tls.certificates(Tls.client)

describe("a credential is refused:", () => {
  const hosts = "https://etcd.invalid:2379"
  const password = Redacted.make("hunter2")
  const wiped = Redacted.make("hunter3")
  Redacted.wipeUnsafe(wiped)
  const user = (user: object) => ({ hosts, ...user })
  const tls = (tls: unknown) => ({ hosts, tls })
  const secret = good.key.pipe(Redacted.value).slice(100, 140)
  const hides = ["hunter2"]
  refuse([
    connecting("a password in the open", user({ username: "ann", password: "hunter2" }), [
      "Etcd: password must be Redacted, got text. Write it as Redacted.make(password)."
    ], hides),
    connecting("no password", user({ username: "ann" }), [
      "Etcd: username is set without password. A user needs both."
    ]),
    connecting("a password that is no text", user({ username: "ann", password: Redacted.make(undefined) }), [
      "Etcd: password must be Redacted text, got undefined in it"
    ]),
    connecting("no user name", user({ password }), [
      "Etcd: password is set without username. A user needs both."
    ], hides),
    connecting("no user name for a password that is read", user({ password: Effect.succeed(password) }), [
      "Etcd: password is set without username. A user needs both."
    ], hides),
    connecting("an empty user name", user({ username: "", password }), [
      "Etcd: username must be a user's name, got empty text"
    ], hides),
    connecting("a redacted user name", user({ username: Redacted.make("hunter2"), password }), [
      "Etcd: username must be a user's name, got a Redacted"
    ], hides),
    connecting("null for a user name", user({ username: null, password }), [
      "Etcd: username must be a user's name, got null"
    ], hides),
    connecting("a password that was wiped", user({ username: "ann", password: wiped }), [
      "Etcd: password must be Redacted text, got undefined in it"
    ]),
    connecting("null for a password", user({ username: "ann", password: null }), [
      "Etcd: password must be Redacted, got null"
    ]),
    connecting("a key in the open", tls({ ...good, key: Redacted.value(good.key) }), [
      "Etcd: tls.key must be Redacted, got text. Write it as Redacted.make(key)."
    ], [secret]),
    connecting("a key that is no text", tls({ ...good, key: Redacted.make(Buffer.from("hunter2")) }), [
      "Etcd: tls.key must be Redacted text, got an instance of Buffer in it"
    ], hides),
    connecting("a certificate as bytes", tls({ ...good, cert: Buffer.from(good.cert) }), [
      "Etcd: tls.cert must be PEM text, got an instance of Buffer"
    ]),
    connecting("an authority as bytes", tls({ ca: Buffer.from(good.ca) }), [
      "Etcd: tls.ca must be PEM text, got an instance of Buffer. Read its file as \"utf8\"."
    ]),
    connecting("a redacted authority", tls({ ca: Redacted.make("hunter2") }), [
      "Etcd: tls.ca must be PEM text, got a Redacted"
    ], hides),
    connecting("a key for a certificate", tls({ ...good, cert: Redacted.value(good.key) }), [
      "Etcd: tls.cert cannot be used: "
    ], [secret]),
    connecting("true for tls", tls(true), ["Etcd: tls must be an object, such as { ca }, got a boolean"]),
    connecting("a path for tls", tls("ca.pem"), ["Etcd: tls must be an object, such as { ca }, got text"])
  ])
})

describe("a prefix is refused:", () => {
  const says = (got: string) => ["prefix must be text, such as \"my-application/\", got ", got]
  const prefixes: ReadonlyArray<readonly [unknown, string]> = [
    [5, "5"],
    [null, "null"],
    [{}, "an object"],
    [new Uint8Array(2), "an instance of Uint8Array"],
    ["\ud800", JSON.stringify("\ud800")]
  ]
  const layers: Readonly<Record<string, (prefix: any) => Layer.Layer<any, unknown>>> = {
    layer: (prefix) => Etcd.layer({ hosts: "etcd:2379", prefix }),
    layerMemory: (prefix) => Etcd.layerMemory({ prefix }),
    layerEtcdctl: (prefix) => onNode(Etcd.layerEtcdctl({ prefix }))
  }
  refuse(prefixes.flatMap(([prefix, got]) =>
    Object.entries(layers).map(([name, layer]) => ({
      input: `Etcd.${name}, ${Util.inspect(prefix)}`,
      use: Layer.build(layer(prefix)),
      says: says(got)
    }))
  ))
  refuse([{
    input: "Etcd.layerEtcdctl, for all options",
    use: Layer.build(onNode(Etcd.layerEtcdctl(untyped("my-application/")))),
    says: ["Etcd.layerEtcdctl: options must be an object, such as { prefix: \"my-application/\" }, got text"]
  }])
})

describe("an option of a connection", () => {
  const hosts = "https://etcd.invalid:2379"
  it.effect.each(
    [
      [{ hosts: [] }, "Etcd: hosts is empty. Name at least one member, such as \"127.0.0.1:2379\"."],
      [{ hosts: "" }, "Etcd: cannot use host \"\" of hosts: it names no host"],
      [{ hosts: ":2379" }, "it names no host"],
      [
        { hosts: "etcd" },
        "Etcd: cannot use host \"etcd\" of hosts: it has no port (etcd's own is 2379). Write it as \"host:port\""
      ],
      [{ hosts: "http://etcd/" }, "Etcd: cannot use host \"http://etcd/\" of hosts: it has no port"],
      [{ hosts: "etcd:" }, "Etcd: cannot use host \"etcd:\""],
      [{ hosts: "etcd:99999" }, "there is no port 99999"],
      [
        { hosts: "localhost:abc" },
        "Etcd: cannot use host \"localhost:abc\" of hosts: its port, \"abc\", is not a number."
      ],
      [{ hosts: "https://localhost:-1" }, "its port, \"-1\", is not a number"],
      [{ hosts: "[::1]:x" }, "its port, \"x\", is not a number"],
      [
        { hosts: "a:1;b:2" },
        "Etcd: hosts has several hosts in one text, \"a:1;b:2\". Pass an array: [\"a:1\", \"b:2\"]."
      ],
      [{ hosts: "a:1 b:2" }, "Pass an array: [\"a:1\", \"b:2\"]."],
      [{ hosts: "::1" }, "an IPv6 address needs brackets, as in \"[::1]:2379\""],
      [{ hosts: "::1:2379" }, "an IPv6 address needs brackets, as in \"[::1]:2379\""],
      [{ hosts: "ftp://etcd:2379" }, "the scheme \"ftp\" is none that etcd speaks"],
      [{ hosts: "http://etcd:2379/v3" }, "it has more than a host and a port"],
      [
        { hosts: ["https://a:2379", "b:2379"] },
        "Etcd: hosts mixes https:// with plain addresses (https://a:2379, b:2379)"
      ],
      [{ hosts: "http://etcd:2379", tls: {} }, "Etcd: tls is set, but host \"http://etcd:2379\" of hosts says http://"],
      [{ hosts, tls: { ca: "/etc/ca.pem" } }, "Etcd: tls.ca is not PEM text"],
      [{ hosts, tls: { ...good, cert: "client.pem" } }, "Pass the file's content, not its path."],
      [{ hosts, tls: { ...good, key: Redacted.make("x") } }, "Etcd: tls.key is not PEM text"],
      [
        { hosts, tls: { cert: good.cert } },
        "Etcd: tls.cert is set without tls.key. A client certificate needs both."
      ],
      [{ hosts, tls: { key: good.key } }, "Etcd: tls.key is set without tls.cert"],
      [
        { hosts, tls: { ca: "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----" } },
        "Etcd: tls.ca cannot be used: "
      ],
      [{ hosts, tls: { ...good, cert: good.cert.slice(0, 200) } }, "Etcd: tls.cert cannot be used: "],
      [{ hosts, tls: { ...good, key: Tls.certificates(Tls.foreignClient).key } }, "Etcd: tls.key cannot be used: "],
      [{ hosts, requestTimeout: 0 }, "requestTimeout must be between 1 millisecond and 24 days, got 0 ms"],
      [{ hosts, requestTimeout: -1 }, "requestTimeout must be between 1 millisecond and 24 days, got -1 ms"],
      [
        { hosts, requestTimeout: Infinity },
        "requestTimeout must be between 1 millisecond and 24 days, got Infinity"
      ],
      [
        { hosts, requestTimeout: "30 days" },
        "requestTimeout must be between 1 millisecond and 24 days, got \"30 days\""
      ]
    ].map(([options, told]) => [told, options]) as ReadonlyArray<[string, Etcd.Options]>
  )("is a defect: %s", ([told, options]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(connect(options))
      const defect = defectOf(exit)
      assert.instanceOf(defect, RangeError)
      assert.include(defect.message, told)
    }))
})

// -----------------------------------------------------------------------------
// variables
// -----------------------------------------------------------------------------

describe("a variable is refused:", () => {
  const credentials = [
    "of ETCDCTL_ENDPOINTS: it has more than a host and a port",
    "Pass the name and the password of a user as ETCDCTL_USER and ETCDCTL_PASSWORD."
  ]
  const rows: ReadonlyArray<readonly [Record<string, string>, ReadonlyArray<string>, ReadonlyArray<string>?]> = [
    [{ ETCDCTL_ENDPOINTS: "http://root:hunter2@etcd:2379" }, credentials, ["hunter2"]],
    [{ ETCDCTL_ENDPOINTS: "a:2379,http://root:hunter2@etcd:2379" }, credentials, ["hunter2"]],
    [{ ETCDCTL_ENDPOINTS: "http://root:hunter2,hunter3@etcd:2379" }, credentials, ["hunter2", "hunter3"]],
    [{ ETCDCTL_ENDPOINTS: "root:hunter2@etcd" }, credentials, ["hunter2"]],
    [{ ETCDCTL_ENDPOINTS: "etcd" }, ["host \"etcd\" of ETCDCTL_ENDPOINTS", "it has no port", "\"host:port\""]],
    [{ ETCDCTL_ENDPOINTS: "etcd", ETCDCTL_USER: "ann:hunter2" }, ["ETCDCTL_ENDPOINTS"], ["hunter2"]],
    [{ ETCDCTL_USER: ":hunter2" }, ["ETCDCTL_USER must be a user's name", "name:password"], ["hunter2"]],
    [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: Redacted.value(good.key) }, [
      "ETCDCTL_KEY has the content of a PEM file. Write the file's path."
    ], [Redacted.value(good.key).slice(100, 140)]],
    [{ ETCDCTL_COMMAND_TIMEOUT: "0s" }, [
      "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days, got 0",
      "Write it as 5s, 500ms or 1m30s."
    ]],
    [{ ETCDCTL_COMMAND_TIMEOUT: "5 seconds" }, ["ETCDCTL_COMMAND_TIMEOUT", "\"5 seconds\"", "5s, 500ms or 1m30s"]],
    [{ ETCDCTL_COMMAND_TIMEOUT: "-5s" }, ["ETCDCTL_COMMAND_TIMEOUT", "\"-5s\"", "5s, 500ms or 1m30s"]],
    [{ ETCDCTL_COMMAND_TIMEOUT: "NaN" }, ["ETCDCTL_COMMAND_TIMEOUT", "\"NaN\"", "5s, 500ms or 1m30s"]]
  ]
  it.effect.each(rows.map((row) => [JSON.stringify(row[0]).slice(0, 100), row] as const))(
    "%s",
    ([, [env, says, hides = []]]) =>
      Effect.gen(function*() {
        const exit = yield* Layer.build(onNode(Etcd.layerEtcdctl())).pipe(
          Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })),
          Effect.scoped,
          Effect.exit
        )
        const error = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
        assert.instanceOf(error, Config.ConfigError, String(exit))
        for (const said of says) assert.include(error.message, said)
        const shown = `${Util.inspect(exit, { depth: 10, showHidden: true })} ${String(exit)} ${error.message}`
        for (const hidden of hides) assert.notInclude(shown, hidden)
      })
  )
})

// -----------------------------------------------------------------------------
// no time, and all of it
// -----------------------------------------------------------------------------

describe.each(["queue", "single-key"] as const)("a timeout on a lock, %s,", (layout) => {
  it.effect.each(
    [0, "0 seconds", 0n, Duration.zero, { seconds: 0 }] as ReadonlyArray<Duration.Input>
  )("of %s takes it if it is free", (timeout) =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      assert.strictEqual(yield* Lock.withLock(Effect.succeed("in"), "a", { timeout, layout }), "in")
      yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Lock.acquire("a", { timeout, layout })
        assert.deepStrictEqual((yield* faults.keys).map(({ key }) => String(key)), [lock.key])
      }))
      assert.deepStrictEqual(yield* faults.keys, [])
    }).pipe(inMemory))

  it.effect("of zero takes it though etcd takes its time to say that it is free", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* faults.delay("1 second")
      const fiber = yield* Effect.forkChild(Lock.withLock(Effect.succeed("in"), "a", { timeout: 0, layout }))
      yield* TestClock.adjust("10 seconds")
      yield* faults.heal
      assert.strictEqual(yield* Fiber.join(fiber), "in")
    }).pipe(inMemory))

  it.effect("of zero fails at once if it is held, naming the holder, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const other = yield* Session.make()
      const held = yield* Lock.acquire("a", { layout }).pipe(Effect.provideService(Session.Session, other))
      // by another process, and by another fiber of the same
      for (const session of [yield* Session.Session, other]) {
        const error = yield* Lock.withLock(Effect.void, "a", { timeout: 0, layout }).pipe(
          Effect.provideService(Session.Session, session),
          Effect.flip
        )
        assert.instanceOf(error, Lock.LockTimeout)
        assert.strictEqual(error.holder?.key, held.key)
        assert.strictEqual(Duration.toMillis(error.waited), 0)
        assert.match(error.message, /^Lock 'a' was not acquired at once; it is held by .*process/)
        assert.deepStrictEqual((yield* faults.keys).map(({ key }) => String(key)), [held.key])
      }
    }).pipe(inMemory))

  it.effect("of zero fails with what etcd says if etcd cannot be reached", () =>
    Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      yield* faults.unreachable
      const fiber = yield* Effect.forkChild(Effect.flip(Lock.withLock(Effect.void, "a", { timeout: 0, layout })))
      yield* TestClock.adjust("10 seconds")
      yield* faults.heal
      assert.instanceOf(yield* Fiber.join(fiber), Etcd.EtcdError)
    }).pipe(inMemory))

  it.effect.each(["Infinity", Infinity, Duration.infinity] as ReadonlyArray<Duration.Input>)(
    "of %s waits for ever",
    (timeout) =>
      Effect.gen(function*() {
        const other = yield* Session.make()
        const held = yield* Lock.acquire("a", { layout }).pipe(Effect.provideService(Session.Session, other))
        const fiber = yield* Effect.forkChild(Lock.withLock(Effect.succeed("in"), "a", { timeout, layout }))
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(fiber.pollUnsafe())
        yield* held.release
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "in")
      }).pipe(inMemory)
  )
})
