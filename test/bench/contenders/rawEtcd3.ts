import { noop } from "cockatiel"
import { Etcd3 } from "etcd3"
import { type Contender, promiseLoops, promiseTries } from "../contender.ts"

/** The floor: a put and a delete through the client that this library uses, and nothing else. It excludes nobody. */
export const make = async (endpoint: string): Promise<Contender> => {
  const { kv } = new Etcd3({ hosts: endpoint, faultHandling: { global: noop, host: () => noop } })
  const value = Buffer.from(String(process.pid))
  const put = (name: string) => {
    const key = Buffer.from(`${name}/raw`)
    return kv.put({ key, value }).then(() => () => kv.deleteRange({ key }))
  }
  return {
    loops: promiseLoops(put),
    tries: promiseTries((name) => {
      const key = Buffer.from(`${name}/`)
      const rangeEnd = Buffer.from(`${name}0`)
      return kv.txn({
        compare: [{ key, range_end: rangeEnd, target: "Create", result: "Equal", create_revision: "0" }],
        success: [{ request_put: { key: Buffer.from(`${name}/raw`), value } }],
        failure: [{ request_range: { key, range_end: rangeEnd, limit: 1, sort_target: "Create" } }]
      }).then(({ succeeded }) => succeeded ? () => kv.deleteRange({ key, range_end: rangeEnd }) : undefined)
    }),
    hold: (names) => Promise.all(names.map(put)).then(() => undefined)
  }
}
