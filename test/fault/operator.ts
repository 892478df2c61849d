/**
 * What an operator can do to a lock: look at its line, and take entries away.
 */
import { Effect } from "effect"
import type { CallFailed, Cluster } from "./cluster.ts"
import type { Taken } from "./history.ts"

export interface Entry extends Taken {
  readonly key: string
  readonly createRevision: string
}

/** The keys of a lock, in order, whichever its layout. */
export const line = (cluster: Cluster, lock: string): Effect.Effect<ReadonlyArray<Entry>, CallFailed> =>
  Effect.gen(function*() {
    const ranges = [{ key: btoa(lock) }, { key: btoa(`${lock}/`), range_end: btoa(`${lock}0`) }]
    const found = yield* Effect.forEach(ranges, (range) => cluster.askAny("kv/range", range))
    return found.flatMap(({ kvs = [] }) => kvs.map((kv: any) => entryOf(lock, kv)) as Array<Entry>)
      .sort((a, b) => Number(a.createRevision) - Number(b.createRevision))
  })

const entryOf = (lock: string, kv: any): Entry => ({
  lock,
  key: atob(kv.key),
  lease: BigInt(kv.lease ?? 0).toString(16),
  pid: pidOf(kv.value),
  createRevision: kv.create_revision
})

const pidOf = (value: string | undefined): number | undefined => {
  const text = value === undefined ? "" : atob(value)
  return text.startsWith("{") ? JSON.parse(text).pid : undefined
}

/**
 * Deletes entries, and none that came after them. Answers when, where etcd says so: an attempt whose answer is lost may have
 * deleted the entry before.
 */
export const remove = (cluster: Cluster, entries: ReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<Taken>> =>
  Effect.forEach(entries, (entry) => {
    const { createRevision, key } = entry
    const deleted = cluster.askAny("kv/txn", {
      compare: [{ key: btoa(key), target: "CREATE", result: "EQUAL", create_revision: createRevision }],
      success: [{ request_delete_range: { key: btoa(key) } }]
    })
    return Effect.match(deleted, {
      onSuccess: ({ header, succeeded }): Taken => succeeded === true ? { ...entry, revision: header.revision } : entry,
      onFailure: () => entry
    })
  }, { concurrency: "unbounded" })

/** Revokes a lease. Answers when its keys were deleted, where etcd says so. */
export const revoke = (cluster: Cluster, lease: string): Effect.Effect<string | undefined> =>
  Effect.match(cluster.askAny("lease/revoke", { ID: BigInt(`0x${lease}`).toString() }), {
    onSuccess: ({ header }) => header.revision as string,
    onFailure: () => undefined
  })

export const compact = (cluster: Cluster): Effect.Effect<void, CallFailed> =>
  Effect.gen(function*() {
    const { header } = yield* cluster.askAny("kv/range", { key: btoa("compact") })
    yield* cluster.askAny("kv/compaction", { revision: header.revision, physical: true })
    yield* Effect.forEach(cluster.members, (member) => Effect.ignore(cluster.ask(member, "maintenance/defragment", {})))
  })
