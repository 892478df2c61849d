import { Effect } from "effect"
import type { Etcd } from "effect-etcd-lock"

export interface Observed {
  readonly subscribe: Etcd.Etcd["Service"]["subscribe"]
  /** The keys of all watches that were asked for, oldest first. */
  readonly asked: ReadonlyArray<string>
  /** The keys of those that are open, or are being opened. */
  readonly open: () => ReadonlyArray<string>
}

/** Observes the watches that are opened through its `subscribe`. */
export const observe = (etcd: Etcd.Etcd["Service"]): Observed => {
  const asked: Array<string> = []
  const open = new Map<object, string>()
  const subscribe: Observed["subscribe"] = (options, { onEnd, onEvents }) =>
    Effect.suspend(() => {
      const watch = {}
      const key = Buffer.from(options.key).toString()
      const end = () => void open.delete(watch)
      asked.push(key)
      open.set(watch, key)
      const subscribed = etcd.subscribe(options, {
        onEvents,
        onEnd: (error) => {
          end()
          onEnd(error)
        }
      })
      return subscribed.pipe(
        Effect.map(({ close, revision }) => ({
          revision,
          close: () => {
            end()
            close()
          }
        })),
        Effect.onError(() => Effect.sync(end))
      )
    })
  return { subscribe, asked, open: () => [...open.values()] }
}
