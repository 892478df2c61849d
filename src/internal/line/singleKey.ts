/**
 * A line of one: the key itself is the lock, and whoever creates it holds it.
 *
 * There is no line to wait in, so a caller that finds the key taken waits for its
 * delete and tries again, along with all others that do.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import { Entry, ForeignEntry, isEntry } from "./entry.ts"
import type { Layout } from "./layout.ts"
import * as Line from "./line.ts"
import { persistently } from "./watch.ts"

const layout: Layout = { range: Etcd.get, key: (name) => name }

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  lengths: Parameters<typeof Line.make>[3]
): Line.Lines => {
  const lines = Line.make(etcd, clock, background, lengths, layout)

  const join: Line.Lines["join"] = (name, options, done) =>
    lines.tryJoin(name, options, (exit) => {
      if (Exit.isFailure(exit) || exit.value instanceof Entry) return done(exit)
      const holder = exit.value.holder!
      done(
        isEntry(name, holder)
          ? Exit.succeed(new Line.Refused(holder, untilReleased(name, holder.createRevision)))
          : Exit.fail(new ForeignEntry(name))
      )
    })

  const untilReleased = (name: string, createRevision: bigint): Effect.Effect<void, Etcd.EtcdError> =>
    Effect.scoped(Effect.gen(function*() {
      const watch = yield* etcd.watch({ ...layout.range(name), only: "Delete" })
      const { kvs: [kv] } = yield* etcd.range(layout.range(name))
      if (kv?.createRevision === createRevision && isEntry(name, kv)) yield* watch.next
    })).pipe(persistently)

  // Etcd does not delete and put one key in one commit.
  return { ...lines, join, handOver: undefined, describe: undefined }
}
