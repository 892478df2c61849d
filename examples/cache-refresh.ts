/**
 * Three replicas render pages from a shared cache under a read lock, and one refreshes it under the write lock, so that
 * no page is made of half a refresh.
 *
 *   npm run example -- examples/cache-refresh.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Ref } from "effect"
import { type Lock, ReadWriteLock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

const catalogue = "cache-refresh/catalogue"

// -----------------------------------------------------------------------------
// the cache, of which each entry is written by itself
// -----------------------------------------------------------------------------

const makeCache = Effect.map(Ref.make({ names: 1, prices: 1 }), (entries) => ({
  names: Effect.map(Ref.get(entries), ({ names }) => names),
  prices: Effect.map(Ref.get(entries), ({ prices }) => prices),
  writeNames: (names: number) => Ref.update(entries, (before) => ({ ...before, names })),
  writePrices: (prices: number) => Ref.update(entries, (before) => ({ ...before, prices }))
}))

type Cache = Effect.Success<typeof makeCache>

// -----------------------------------------------------------------------------
// a replica
// -----------------------------------------------------------------------------

/** Renders a page while other replicas do so, too. */
const render = (who: string, cache: Cache) =>
  Effect.gen(function*() {
    const names = yield* cache.names
    yield* Effect.sleep("200 millis")
    const prices = yield* cache.prices
    yield* say(who, `renders names ${names} with prices ${prices}`)
  }).pipe(
    ReadWriteLock.withReadLock(catalogue)
  )

/** Waits until the pages that are being rendered are done, and lets none begin meanwhile. */
const refresh = (who: string, cache: Cache, version: number) =>
  Effect.gen(function*() {
    yield* say(who, `begins refresh ${version}`)
    yield* cache.writeNames(version)
    yield* Effect.sleep("500 millis")
    yield* cache.writePrices(version)
    yield* say(who, `has finished refresh ${version}`)
  }).pipe(
    ReadWriteLock.withWriteLock(catalogue, { timeout: "30 seconds" })
  )

/** A replica has a session of its own, as another machine has. */
const replica = <A, R>(work: Effect.Effect<A, Lock.AcquireError, R>) => Effect.provide(work, Session.layer())

const program = Effect.gen(function*() {
  const cache = yield* makeCache
  const pages = (who: string) => Effect.repeat(render(who, cache), { times: 7 })
  const refreshes = Effect.forEach(
    [2, 3],
    (version) => Effect.delay(refresh("Ada", cache, version), "300 millis"),
    { discard: true }
  )
  const ada = replica(Effect.all([pages("Ada"), refreshes], { concurrency: "unbounded" }))
  yield* Effect.all([ada, replica(pages("Ben")), replica(pages("Cleo"))], { concurrency: "unbounded" })
  yield* say("Cache", `has names ${yield* cache.names} and prices ${yield* cache.prices}`)
})

program.pipe(Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
