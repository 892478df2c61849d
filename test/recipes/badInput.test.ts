/** What every way to take a read-write lock or permits, or to lead, does with input that can never work. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, type Scope, Stream } from "effect"
import { Election, type Etcd, ReadWriteLock, Semaphore, type Session } from "effect-etcd-lock"
import { defectOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory, session, stop } from "../support/inMemory.ts"

type Use = (
  body: Effect.Effect<void>,
  name: string,
  options: any
) => Effect.Effect<unknown, unknown, Session.Session | Etcd.Etcd | Scope.Scope>

const waiting: { readonly [name: string]: Use } = {
  "ReadWriteLock.withReadLock": ReadWriteLock.withReadLock,
  "ReadWriteLock.withWriteLock": ReadWriteLock.withWriteLock,
  "ReadWriteLock.acquireRead": (_, name, options) => ReadWriteLock.acquireRead(name, options),
  "ReadWriteLock.acquireWrite": (_, name, options) => ReadWriteLock.acquireWrite(name, options),
  "Semaphore.withPermits": Semaphore.withPermits,
  "Semaphore.acquire": (_, name, options) => Semaphore.acquire(name, options),
  "Election.campaign": (_, name, options) => Election.campaign(name, options),
  "Election.withLeadership": Election.withLeadership
}

const leading: { readonly [name: string]: Use } = {
  "Election.whileLeader": Election.whileLeader,
  "Election.layer": (body, name, options) => Layer.launch(Election.layer(name, Layer.effectDiscard(body), options))
}

const trying: { readonly [name: string]: Use } = {
  "ReadWriteLock.tryWithReadLock": ReadWriteLock.tryWithReadLock,
  "ReadWriteLock.tryWithWriteLock": ReadWriteLock.tryWithWriteLock,
  "ReadWriteLock.withReadLockIfAvailable": ReadWriteLock.withReadLockIfAvailable,
  "ReadWriteLock.withWriteLockIfAvailable": ReadWriteLock.withWriteLockIfAvailable,
  "ReadWriteLock.tryAcquireRead": (_, name, options) => ReadWriteLock.tryAcquireRead(name, options),
  "ReadWriteLock.tryAcquireWrite": (_, name, options) => ReadWriteLock.tryAcquireWrite(name, options),
  "Semaphore.tryWithPermits": Semaphore.tryWithPermits,
  "Semaphore.withPermitsIfAvailable": Semaphore.withPermitsIfAvailable,
  "Semaphore.tryAcquire": (_, name, options) => Semaphore.tryAcquire(name, options)
}

const operating: { readonly [name: string]: Use } = {
  "ReadWriteLock.inspect": (_, name) => ReadWriteLock.inspect(name),
  "ReadWriteLock.changes": (_, name) => Stream.runDrain(ReadWriteLock.changes(name)),
  "ReadWriteLock.forceRelease": (_, name) => ReadWriteLock.forceRelease(name, { createRevision: 1n }),
  "Semaphore.inspect": (_, name) => Semaphore.inspect(name),
  "Semaphore.changes": (_, name) => Stream.runDrain(Semaphore.changes(name)),
  "Semaphore.forceRelease": (_, name) => Semaphore.forceRelease(name, { createRevision: 1n }),
  "Election.leader": (_, name) => Election.leader(name),
  "Election.observe": (_, name) => Stream.runDrain(Election.observe(name))
}

const of = 8

/** What is wrong, and the message after the name of the module. */
type Wrong = readonly [what: string, name: any, options: any, message: RegExp]

const folders: ReadonlyArray<Wrong> = ["orders/read", "orders/write", "a/read/write", "read", "write"].map((name) => [
  `name ${name}`,
  name,
  { of },
  new RegExp(
    `^cannot use the name "${name}"\\. The last part of a name is neither "read" nor "write": under such a name, a ` +
      `read-write lock has its readers or its writers\\. Write "${name}-lock", for example\\.$`
  )
])

const others: ReadonlyArray<Wrong> = [["", /""/], ["/a", /"\/a"/], ["a//b", /"a\/\/b"/], [7, /7/], [
  undefined,
  /undefined/
]]
  .map(([name, shown]) => [
    `name ${JSON.stringify(name)}`,
    name,
    { of },
    new RegExp(`^cannot use the name ${(shown as RegExp).source}\\. A name is text of .*, such as "orders/7"\\.$`)
  ])

const wrongName = [...others, ...folders]

const wrongOptions: ReadonlyArray<Wrong> = [
  ["options that are text", "a", "30 seconds", /^options must be an object, such as \{ .* \}, got text$/]
]

const deep = { a: JSON.parse(`${"[".repeat(100)}${"]".repeat(100)}`) }

const wrongMetadata: ReadonlyArray<Wrong> = [
  ["metadata that is a number", "a", { of, metadata: 7 }, /^metadata must be an object of JSON values, .*, got 7$/],
  ["metadata that is too deep", "a", { of, metadata: deep }, /^metadata must be nested at most 100 levels deep$/]
]

const wrongValue: ReadonlyArray<Wrong> = [7, null, "\ud800"].map((value) => [
  `value ${JSON.stringify(value)}`,
  "a",
  { value },
  /^value must be well-formed text, got .*\. Write what observers are to see of this candidate, such as value: ".*"\.$/
])

const wrongTimeout: ReadonlyArray<Wrong> = ["soon", -1, Number.NaN].map((timeout) => [
  `timeout ${timeout}`,
  "a",
  { of, timeout },
  /^timeout must be .*, got .*\. Write it as ".*", or as a number of milliseconds\.$/
])

const wrongPermits: ReadonlyArray<Wrong> = [
  ...[0, -1, 1.5, Number.NaN, Infinity, 10_001, "8", undefined].map((of): Wrong => [
    `${of} permits in all`,
    "a",
    { of },
    /^of must be a whole number from 1 to 10000, got .*\. Write how many permits there are for all clients, such as of: 8\.$/
  ]),
  ...[0, -1, 1.5, Number.NaN, 9, "1"].map((permits): Wrong => [
    `${permits} permits of 8`,
    "a",
    { of, permits },
    /^permits must be a whole number from 1 to the 8 that there are, got .*$/
  ])
]

const wrongAcceptOf: Wrong = [
  "an acceptOf that is a number",
  "a",
  { of, acceptOf: 8 },
  /^acceptOf must be a function, got a number\. Write it as acceptOf: \(theirs\) => theirs === 8\.$/
]

const rows = (uses: { readonly [name: string]: Use }, wrong: ReadonlyArray<Wrong>) =>
  Object.entries(uses).flatMap(([which, use]) =>
    wrong.map((wrong) => [`${which}, ${wrong[0]}`, which, use, wrong] as const)
  )

const isOf = (module: string) => ([which]: readonly [string, ...ReadonlyArray<unknown>]) => which.startsWith(module)
const onlySemaphore = isOf("Semaphore")
const onlyElection = isOf("Election")

describe("bad input is a defect that says what is wrong, runs nothing, and leaves nothing in etcd:", () => {
  it.effect.each([
    ...rows(waiting, [...wrongName, ...wrongOptions, ...wrongTimeout]),
    ...rows({ ...trying, ...leading }, [...wrongName, ...wrongOptions]),
    ...rows({ ...waiting, ...trying }, wrongMetadata).filter((row) => !onlyElection(row)),
    ...rows({ ...waiting, ...leading }, wrongValue).filter(onlyElection),
    ...rows(operating, wrongName),
    ...rows({ ...waiting, ...trying }, [...wrongPermits, wrongAcceptOf]).filter(onlySemaphore)
  ])("%s", ([, which, use, [, name, options, message]]) =>
    provideMemory(Effect.gen(function*() {
      const { run } = yield* session()
      let hasRun = false
      const body = Effect.sync(() => void (hasRun = true))
      const defect = defectOf(yield* Effect.exit(Effect.scoped(run(use(body, name, options))))) as Error
      const module = which.split(".")[0]!
      assert.strictEqual(defect.message.slice(0, module.length + 2), `${module}: `)
      assert.match(defect.message.slice(module.length + 2), message)
      assert.isFalse(hasRun)
      assert.deepStrictEqual(yield* keys, [])
    })))
})

describe("another number of permits", () => {
  const permits = Object.entries({ ...waiting, ...trying }).filter(onlySemaphore)
  it.effect.each(permits.flatMap(([which, use]) => [4, 9].map((of) => [which, of, use] as const)))(
    "fails %s with a SemaphoreMismatch that names both and the cure, for %i",
    ([, of, use]) =>
      provideMemory(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { of: 8 })))
        yield* pass(1)
        const before = yield* keys
        const error = yield* Effect.flip(Effect.scoped(b.run(use(Effect.void, "pool", { of }))))
        assert.instanceOf(error, Semaphore.SemaphoreMismatch)
        assert.strictEqual(
          error.message,
          `Semaphore 'pool' has ${of} permits here, and 8 for the client of '${
            before[0]
          }'. Use one number everywhere, or ` +
            "accept theirs by acceptOf while it is being changed."
        )
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, before)
        yield* stop(holding)
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, [])
      }))
  )

  it.effect.each(permits)(
    "is a defect of %s where acceptOf throws, and stays with the caller",
    ([, use]) =>
      provideMemory(Effect.gen(function*() {
        const [a, b] = yield* Effect.all([session(), session()])
        const holding = yield* fork(a.run(Semaphore.withPermits(Effect.never, "pool", { of: 8 })))
        yield* pass(1)
        const acceptOf = () => {
          throw new Error("of no use")
        }
        const trying = yield* fork(Effect.scoped(b.run(use(Effect.void, "pool", { of: 9, acceptOf }))))
        yield* pass(10)
        assert.propertyVal(defectOf(trying.pollUnsafe()!), "message", "of no use")
        assert.lengthOf(yield* keys, 1)
        yield* stop(holding)
        yield* pass(10)
        assert.deepStrictEqual(yield* keys, [])
      }))
  )
})
