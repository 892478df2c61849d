/**
 * What operators see of a line, and what they can do to it. It needs no session: it reads
 * etcd, and takes no part in the line.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Etcd from "../../Etcd.ts"
import { Holder } from "../../Holder.ts"
import type { Layout } from "../line/layout.ts"
import { conflictOf, describe } from "./description.ts"

type Service = Etcd.Etcd["Service"]

export const inspect = Effect.fnUntraced(function*(etcd: Service, layout: Layout, prefix: string) {
  const isEntry = (kv: Etcd.KeyValue) => layout.isEntry(prefix, kv)
  const { kvs } = yield* etcd.range({ ...layout.range(prefix), sort: "CreateAscending", keysOnly: true })
  const entries = yield* withValues(etcd, kvs.filter(isEntry))
  const leases = new Map<bigint, Duration.Duration>()
  yield* Effect.forEach(
    new Set(entries.map(({ lease }) => lease)),
    (lease) =>
      Effect.map(etcd.leaseTimeToLive(lease), ({ remaining }) => {
        leases.set(lease, Duration.seconds(Math.max(0, remaining)))
      }),
    { concurrency: 16 }
  )
  const [holder, ...queue] = entries.map((kv) => new Holder({ ...describe(kv), remaining: leases.get(kv.lease) }))
  return { holder, queue, conflicts: kvs.filter((kv) => !isEntry(kv)).map(conflictOf) }
})

/** Looks now, and again after every change in the range. */
export const changes = <A>(
  etcd: Service,
  { key, rangeEnd }: Etcd.Range,
  look: Effect.Effect<A, Etcd.EtcdError>
): Stream.Stream<A, Etcd.EtcdError> =>
  Stream.unwrap(Effect.gen(function*() {
    // However much happens between two looks, the second one sees the latest state.
    const changed = yield* Queue.sliding<void, Etcd.EtcdError>(1)
    const subscribed = etcd.subscribe({ key, rangeEnd }, {
      onEvents: () => Queue.offerUnsafe(changed, undefined),
      onEnd: (error) => Queue.failCauseUnsafe(changed, Cause.fail(error))
    })
    yield* Effect.acquireRelease(subscribed, ({ close }) => Effect.sync(close), { interruptible: true })
    return Stream.concat(Stream.fromEffect(look), Stream.fromEffectRepeat(Effect.andThen(Queue.take(changed), look)))
  })).pipe(
    // A watch that ended is opened again.
    Stream.retry(Schedule.while(Schedule.spaced("200 millis"), ({ input }) => (input as Etcd.EtcdError).isTransient))
  )

/** Deletes the key of the range that was created at a revision. Returns whether it was still there. */
export const forceRelease = Effect.fnUntraced(function*(etcd: Service, range: Etcd.Range, createRevision: bigint) {
  const { kvs } = yield* etcd.range({ ...range, keysOnly: true })
  const entry = kvs.find((kv) => kv.createRevision === createRevision)
  if (entry === undefined) return false
  const { succeeded } = yield* etcd.txn({
    compare: [Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)],
    then: [Etcd.remove(entry.key)]
  })
  return succeeded
})

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** Reads the values of entries, those that are still there, in as many answers as they need. */
const withValues = (etcd: Service, entries: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(
    Effect.forEach(Arr.chunksOf(entries, 64), (chunk) => readAll(etcd, chunk)),
    (chunks) => chunks.flat().filter((kv, i) => kv?.createRevision === entries[i]!.createRevision)
  ) as Effect.Effect<ReadonlyArray<Etcd.KeyValue>, Etcd.EtcdError>

const readAll = (
  etcd: Service,
  entries: ReadonlyArray<Etcd.KeyValue>
): Effect.Effect<ReadonlyArray<Etcd.KeyValue | undefined>, Etcd.EtcdError> =>
  etcd.txn({ then: entries.map(({ key }) => Etcd.get(key)) }).pipe(
    Effect.map(({ responses }) => (responses as ReadonlyArray<Etcd.RangeResult>).map(({ kvs }) => kvs[0])),
    Effect.catchIf(
      // The answer is too large to receive.
      ({ reason }) => reason === "InvalidArgument" && entries.length > 1,
      () => {
        const half = entries.length >> 1
        const halves = [entries.slice(0, half), entries.slice(half)]
        return Effect.map(Effect.forEach(halves, (some) => readAll(etcd, some)), (read) => read.flat())
      }
    )
  )
