/** What an election looks like to a program that only reads its keys. */
import { Effect, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"

/**
 * Collects the values of the first key after each revision, as Go's observers see them: undefined while there is none. A
 * term of the same value is another element.
 */
export const history = (
  name: string
): Effect.Effect<ReadonlyArray<string | undefined>, Etcd.EtcdError, Etcd.Etcd | Scope.Scope> =>
  Effect.gen(function*() {
    const etcd = yield* Etcd.Etcd
    const line = new Map<string, Etcd.KeyValue>()
    const seen: Array<string | undefined> = [undefined]
    let last = 0n
    const note = () => {
      const [first] = [...line.values()].sort((a, b) => Number(a.createRevision - b.createRevision))
      if (last === (first?.modRevision ?? 0n)) return
      last = first?.modRevision ?? 0n
      seen.push(first === undefined ? undefined : Buffer.from(first.value).toString())
    }
    const subscribed = etcd.subscribe(Etcd.getPrefix(`${name}/`), {
      onEvents: (events) => {
        events.forEach(({ _tag, kv }, i) => {
          const key = Buffer.from(kv.key).toString()
          if (_tag === "Put") line.set(key, kv)
          else line.delete(key)
          if (events[i + 1]?.kv.modRevision !== kv.modRevision) note()
        })
      },
      onEnd: () => {}
    })
    yield* Effect.acquireRelease(subscribed, ({ close }) => Effect.sync(close))
    return seen
  })

/** The value of the first key. */
export const first = (name: string) =>
  Effect.gen(function*() {
    const etcd = yield* Etcd.Etcd
    const { kvs } = yield* etcd.range({ ...Etcd.getPrefix(`${name}/`, { sort: "CreateAscending" }), limit: 1 })
    return kvs.length === 0 ? undefined : Buffer.from(kvs[0]!.value).toString()
  })
