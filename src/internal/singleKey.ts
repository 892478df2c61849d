/**
 * A line of one: the key itself is the lock, and whoever creates it holds it.
 *
 * There is nowhere to stand and wait, so whoever finds the key taken waits for its
 * delete and tries again, along with everybody else who does.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Etcd from "../Etcd.ts"
import type { Background } from "./background.ts"
import * as Line from "./line.ts"

const layout: Line.Layout = { range: Etcd.get, key: (name) => name }

export const make = (etcd: Etcd.Etcd["Service"], clock: Clock.Clock, background: Background): Line.Lines => {
  const lines = Line.make(etcd, clock, background, layout)

  const join: Line.Lines["join"] = Effect.fnUntraced(function*(name, options) {
    const joined = yield* lines.tryJoin(name, options)
    if ("line" in joined) return joined
    if (!Line.isEntry(name, joined)) return yield* Effect.fail(new Line.ForeignEntry(name))
    return new Line.Occupied(joined, untilLeft(name, joined.createRevision))
  })

  const untilLeft = (name: string, createRevision: bigint): Effect.Effect<void, Etcd.EtcdError> =>
    Effect.scoped(Effect.gen(function*() {
      const watch = yield* etcd.watch({ ...layout.range(name), only: "Delete" })
      const { kvs: [kv] } = yield* etcd.range(layout.range(name))
      if (kv?.createRevision === createRevision && Line.isEntry(name, kv)) yield* watch.next
    })).pipe(Line.persistently)

  // etcd does not delete and put one key in one commit
  return { ...lines, join, handOver: undefined }
}
