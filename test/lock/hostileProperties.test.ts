/**
 * Whatever other clients put under the name of a lock: it can be read, and our own clients stay what they are.
 *
 * `PROPS_SEED` repeats a run. There is a case for every ten schedules of `properties.test.ts`, so 100 by default.
 */
import { assert, it } from "@effect/vitest"
import { Arbitrary, Cause, DateTime, Effect, Exit, Option, Schema, Stream } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore } from "effect-etcd-lock"
import * as Line from "../../src/cli/line.ts"
import * as Ls from "../../src/cli/ls.ts"
import { json } from "../../src/internal/printable.ts"
import { type Foreign, foreign, keysOf, leases } from "../support/hostile.ts"
import { counted, fork, pass, provideMemory } from "../support/inMemory.ts"
import * as Recipes from "../support/recipes.ts"

const runs = Math.ceil(Number(process.env.PROPS_RUNS ?? 1000) / 10)
const seed = process.env.PROPS_SEED ?? crypto.randomUUID().slice(0, 8)

const recipes = {
  lock: Recipes.lock(),
  election: Recipes.election,
  read: Recipes.read,
  write: Recipes.write,
  permits: Recipes.permits(1, 3)
}

const recipe = Schema.Literals(["lock", "election", "read", "write", "permits"])

interface Case {
  readonly holder: keyof typeof recipes
  readonly waiter: keyof typeof recipes
  /** Those that are there before our own entries, and those that come between the two. */
  readonly before: ReadonlyArray<Foreign>
  readonly between: ReadonlyArray<Foreign>
}

const Case: Arbitrary.Arbitrary<Case> = Arbitrary.all({
  holder: Arbitrary.schema(recipe),
  waiter: Arbitrary.schema(recipe),
  before: Arbitrary.array(foreign, { maxLength: 2 }),
  between: Arbitrary.array(foreign, { maxLength: 3 })
})

/** Puts foreign entries. Two can have one key: the first one stays. */
const put = Effect.fnUntraced(function*(name: string, entries: ReadonlyArray<Foreign>) {
  const etcd = yield* Etcd.Etcd
  for (const entry of entries) {
    for (const key of keysOf(name, entry)) {
      const isNew = { key, target: "CreateRevision", operator: "=", value: 0n } as const
      const lease = entry.lease === 0n ? undefined : entry.lease
      yield* etcd.txn({ compare: [isNew], then: [Etcd.put(key, entry.value, { lease })] })
    }
  }
})

const keyText = ({ key }: Etcd.KeyValue) => Buffer.from(key).toString()

/** What a reader is to see of a value: all of its description, or nothing of it. */
const described = (value: Uint8Array): Record<string, unknown> => {
  const text = Buffer.from(value).toString()
  const parsed = Exit.getSuccess(Effect.runSyncExit(Effect.sync(() => JSON.parse(text)))).pipe(Option.getOrUndefined)
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed) || depth(text) > 100) return {}
  const { host, metadata, pid, since, trace } = parsed
  const isRight = [
    typeof host === "string",
    Number.isSafeInteger(pid),
    typeof since === "string" && !Number.isNaN(Date.parse(since)),
    metadata === undefined || (isObject(metadata) && isFinite(metadata)),
    trace === undefined || (isObject(trace) && typeof trace.traceId === "string" && typeof trace.spanId === "string")
  ]
  return isRight.every(Boolean) ? { host, metadata, pid, since: Date.parse(since), trace } : {}
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** JSON has numbers that are too large to be one. */
const isFinite = (value: unknown): boolean =>
  typeof value === "object" && value !== null
    ? Object.values(value).every(isFinite)
    : typeof value !== "number" || Number.isFinite(value)

/** How many brackets of JSON are open at once. A field may be there twice, and deep where it does not count. */
const depth = (json: string): number => {
  let [depth, deepest] = [0, 0]
  for (let i = 0; i < json.length; i++) {
    if (json[i] === "\"") { while (json[++i] !== "\"") if (json[i] === "\\") i++ }
    else if (json[i] === "[" || json[i] === "{") deepest = Math.max(deepest, ++depth)
    else if (json[i] === "]" || json[i] === "}") depth--
  }
  return deepest
}

/** A client as the library shows it, without how long its lease lasts. */
const shown = ({ askedAt, createRevision, host, key, leaseId, metadata, pid, trace }: Lock.Holder) => ({
  key,
  leaseId,
  createRevision,
  host,
  pid,
  since: askedAt && DateTime.toEpochMillis(askedAt),
  metadata: metadata && JSON.stringify(metadata),
  trace: trace && { traceId: trace.traceId, spanId: trace.spanId }
})

const expected = (kv: Etcd.KeyValue) => {
  const { host, metadata, pid, since, trace } = described(kv.value) as any
  return {
    key: keyText(kv),
    leaseId: kv.lease,
    createRevision: kv.createRevision,
    host,
    pid,
    since,
    metadata: metadata && JSON.stringify(metadata),
    trace: trace && { traceId: trace.traceId, spanId: trace.spanId }
  }
}

const head = <A, E, R>(stream: Stream.Stream<A, E, R>) => Effect.map(Stream.runHead(stream), Option.getOrThrow)

/** Those who look on at changes see the remaining time of the first holder alone. */
const withoutTimes = (seen: unknown) =>
  JSON.parse(JSON.stringify(
    seen,
    (key, value) =>
      key === "remaining" || key === "notRenewedFor" ? undefined : typeof value === "bigint" ? String(value) : value
  ))

const unprintable = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u

const room = { columns: Infinity, cell: Infinity, canColor: false }

/** What the command prints for people. */
const assertPrintable = (text: string, lines: number) => {
  assert.notInclude(text, "undefined")
  assert.notMatch(text, unprintable)
  assert.strictEqual(text.split("\n").length, lines)
}

/** What the command prints for programs. */
const assertJson = (text: string): any => {
  assert.notMatch(text, /\n/)
  assert.notMatch(text, unprintable)
  return JSON.parse(text)
}

/** Reads a line in all ways, which agree. */
const assertShown = Effect.fnUntraced(function*(name: string) {
  const etcd = yield* Etcd.Etcd
  const { kvs } = yield* etcd.range({ ...Etcd.getPrefix(`${name}/`), sort: "CreateAscending" })
  const isEntry = (kv: Etcd.KeyValue) =>
    kv.lease !== 0n && /^(read\/|write\/)?[^/]+$/.test(keyText(kv).slice(name.length + 1))
  const entries = kvs.filter(isEntry).map(expected)
  const conflicts = kvs.filter((kv) => !isEntry(kv)).map((kv) => ({
    key: keyText(kv),
    kind: kv.lease === 0n ? "PlainKey" : "NestedLock"
  }))

  const lock = yield* Lock.inspect(name)
  assert.deepStrictEqual([lock.holder, ...lock.queue].flatMap((client) => client ? [shown(client)] : []), entries)
  const shared = yield* ReadWriteLock.inspect(name)
  const permits = yield* Semaphore.inspect(name)
  for (const { holders, queue } of [shared, permits]) {
    assert.deepStrictEqual([...holders, ...queue].map(({ client }) => shown(client)), entries)
  }
  for (const inspection of [lock, shared, permits]) assert.deepStrictEqual([...inspection.conflicts], conflicts)
  assert.deepStrictEqual(withoutTimes(yield* head(Lock.changes(name))), withoutTimes(lock))
  assert.deepStrictEqual(withoutTimes(yield* head(ReadWriteLock.changes(name))), withoutTimes(shared))
  assert.deepStrictEqual(withoutTimes(yield* head(Semaphore.changes(name))), withoutTimes(permits))

  const leader = yield* Election.leader(name)
  assert.deepStrictEqual(yield* head(Election.observe(name)), leader)
  const first = kvs[0]
  assert.deepStrictEqual(
    Option.getOrUndefined(Option.map(leader, ({ key, value }) => ({ key, value }))),
    first !== undefined && isEntry(first)
      ? { key: keyText(first), value: Buffer.from(first.value).toString() }
      : undefined
  )

  const line = yield* Line.lineOf(name)
  const rows = line.holders.length + line.queue.length
  assertPrintable(Line.text(line, room), 1 + (rows === 0 ? 0 : 1 + rows) + line.conflicts.length)
  assertPrintable(Line.summary(line), 1)
  const data = assertJson(json(Line.toData(line)))
  assert.deepStrictEqual(data.lock, name)
  assert.deepStrictEqual(data.conflicts, conflicts)
  if (entries.length > 0) {
    assert.deepStrictEqual(
      [...data.holders, ...data.queue].map(({ host, key, metadata, pid }) => ({ host, key, metadata, pid })),
      entries.map(({ host, key, metadata, pid }) => ({
        host,
        key,
        metadata: metadata && JSON.parse(metadata),
        // JSON has no zero below zero.
        pid: pid === undefined ? undefined : pid + 0
      }))
    )
  }
})

/** Lists all locks, each as those who inspect it see it. */
const assertListed = Effect.fnUntraced(function*() {
  const locks = yield* Lock.list()
  assert.deepStrictEqual(withoutTimes(yield* head(Lock.listChanges())), withoutTimes(locks))
  assertPrintable(Ls.toText("", locks, 0, room), locks.length === 0 ? 1 : 1 + locks.length)
  assert.strictEqual(new Set(locks.map(({ layout, lock }) => `${layout} ${lock}`)).size, locks.length)
  for (const lock of locks) {
    assertPrintable(Ls.summary(lock), 1)
    const data = assertJson(json(Ls.toData(lock)))
    assert.deepInclude(data, { lock: lock.lock, layout: lock.layout, holding: lock.holding, waiting: lock.waiting })
    assert.isAtLeast(lock.holding, 1)
    const { holder, queue } = yield* Lock.inspect(lock.lock, { layout: lock.layout })
    assert.include(
      [holder, ...queue].map((client) => client && JSON.stringify(shown(client), asText)),
      JSON.stringify(shown(lock.holder), asText),
      `'${lock.lock}' is listed, and is not there`
    )
    assert.notInclude(`${lock.holder}`, "undefined")
  }
  return locks
})

const asText = (_: string, value: unknown) => typeof value === "bigint" ? `${value}` : value

/** What our own entries say of themselves, which has a key of the name `__proto__`. */
const metadata = JSON.parse("{\"__proto__\":{\"a\":\"\\u001b[2J\"},\"constructor\":7,\"job\":\"größer\\n\"}")

const check = ({ before, between, holder, waiter }: Case) =>
  Effect.gen(function*() {
    const etcd = yield* Etcd.Etcd
    const faults = yield* Etcd.Faults
    for (const lease of leases) yield* etcd.leaseGrant(lease, 600)
    const [process, other] = [yield* counted(), yield* counted()]

    // Behind foreign entries it gets its turn, or an error that says why not.
    yield* put("job", before)
    yield* assertShown("job")
    yield* assertListed()
    const first = yield* fork(Effect.exit(
      Effect.scoped(
        Effect.andThen(recipes[holder].acquire("job", { metadata }), Effect.never)
      ).pipe(process.run)
    ))
    yield* pass(100)
    yield* put("job", between)
    const second = yield* fork(Effect.exit(
      Effect.scoped(recipes[waiter].acquire("job", { metadata })).pipe(other.run)
    ))
    yield* pass(3000)
    yield* assertShown("job")
    const locks = yield* assertListed()

    // No work without end.
    for (const { counts } of [process, other]) {
      for (const [method, count] of Object.entries(counts)) assert.isBelow(count, 100, method)
    }

    // Our own entries are in the list, and say what they were to say.
    const own = (yield* etcd.range(Etcd.getPrefix("job/"))).kvs.filter(({ lease }) =>
      lease !== 0n && !leases.includes(lease)
    )
    const clients = Object.values(yield* Lock.inspect("job")).flat().filter((part) => part instanceof Lock.Holder)
    for (const { createRevision, value } of own) {
      assert.isDefined(locks.find(({ layout, lock }) => layout === "queue" && lock === "job"))
      const client = clients.find((client) => client.createRevision === createRevision)
      const text = client?.metadata === undefined ? Buffer.from(value).toString() : JSON.stringify(client.metadata)
      assert.strictEqual(text, JSON.stringify(metadata))
    }

    // Without the foreign entries, and without the first one, the second one has its turn.
    for (const lease of leases) yield* faults.revokeLease(lease)
    for (const { key, lease } of yield* faults.keys) if (lease === 0n) yield* etcd.txn({ then: [Etcd.remove(key)] })
    first.interruptUnsafe()
    yield* pass(3000)
    const ended = second.pollUnsafe()
    assert.isDefined(ended, "the second one waits for ever")
    const exit = Exit.isSuccess(ended!) ? ended.value : assert.fail("interrupted")
    if (Exit.isFailure(exit)) {
      const error = Cause.squash(exit.cause)
      assert.isTrue(
        error instanceof Lock.LockNameConflict || error instanceof Semaphore.SemaphoreMismatch,
        Cause.pretty(exit.cause)
      )
    }
    return true
  }).pipe(Effect.scoped, provideMemory, Effect.catchCause((cause) => Effect.fail(Cause.squash(cause) as Error)))

const showCase = ({ before, between, holder, waiter }: Case) =>
  JSON.stringify({ holder, waiter, before: before.map(showForeign), between: between.map(showForeign) })

const showForeign = ({ copies, lease, suffix, value }: Foreign) => ({
  suffix: suffix.toString("latin1"),
  value: value.toString("latin1").slice(0, 200),
  size: value.length,
  lease: Number(lease),
  copies
})

it.effect(
  `${runs} random lines with foreign entries are read by all, and stop none of our clients`,
  () =>
    Effect.gen(function*() {
      const result = yield* Arbitrary.checkEffect(Case, check, { runs, seed, maxShrinks: 500 })
      if (result._tag === "Passed") return
      if (result._tag !== "Falsified") return assert.fail(Arbitrary.formatCheckFailure(result)!)
      const error = result.failure._tag === "PropertyError" ? result.failure.error : undefined
      assert.fail(`in run ${result.runs} with PROPS_SEED=${seed}: ${showCase(result.shrunkInput)}\n${error?.stack}`)
    }),
  600_000
)
