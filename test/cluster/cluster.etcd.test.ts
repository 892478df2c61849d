/** Real clusters on a real etcd: nothing runs twice by the one clock of the machine, and all runs again in time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { inject } from "vitest"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Proxy from "../support/Proxy.ts"
import * as Cluster from "./cluster.ts"
import { now } from "./runner.ts"

describe.concurrent("a real cluster of three", () => {
  it.live("hands over in order, survives a black hole, and what an operator takes away", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const proxy = yield* Proxy.make(server.endpoint)
      const cluster = yield* Cluster.make(server.endpoint)
      const a = yield* cluster.start()
      const b = yield* cluster.start(proxy.endpoint)
      const c = yield* cluster.start()
      yield* cluster.settled([a, b, c])

      // One ends, and another one joins.
      yield* a.stop
      assert.deepStrictEqual(cluster.runningOn(a.port), [])
      yield* cluster.settled([b, c])
      const d = yield* cluster.start()
      yield* cluster.settled([b, c, d])
      yield* cluster.once

      // The owner's way to etcd swallows everything: it stops before another one starts, and comes back.
      const cut = now()
      yield* proxy.blackHole
      yield* cluster.until("the end of what was cut off", () =>
        cluster.runningOn(b.port).length === 0, 4000 + Cluster.slack)
      yield* cluster.settled([c, d])
      assert.isBelow(now() - cut, Cluster.bound + Cluster.slack)
      yield* cluster.once
      yield* proxy.resume
      yield* cluster.settled([b, c, d])
      yield* cluster.once

      const keyOf = (kind: string, address: string) =>
        Effect.map(
          etcd.range(Etcd.getPrefix(`${cluster.prefix}/${kind}/`)),
          ({ kvs }) =>
            kvs.find(({ key, value }) =>
              `${key} ${value}`.includes(address)
            ) ?? assert.fail(`${address} has no key`)
        )

      // The lease of its registration is revoked: it registers again, and nothing stops.
      const address = `127.0.0.1:${c.port}`
      yield* cluster.still
      const before = cluster.runningOn(c.port)
      yield* etcd.leaseRevoke((yield* keyOf("runners", address)).lease)
      yield* Effect.sleep("3 seconds")
      yield* keyOf("runners", address)
      assert.sameMembers(cluster.runningOn(c.port), before)

      // The lease of its shards is revoked: it stops, and has them again.
      yield* etcd.leaseRevoke((yield* keyOf("shards", address)).lease)
      yield* cluster.until("the end of what it ran", () => cluster.runningOn(c.port).length === 0, 3000 + Cluster.slack)
      yield* cluster.settled([b, c, d])
      yield* cluster.once

      // A shard's key is deleted: the runner takes it again.
      const { key } = yield* keyOf("shards", address)
      yield* etcd.txn({ then: [Etcd.remove(key)] })
      yield* Effect.sleep("3 seconds")
      yield* cluster.settled([b, c, d])
      assert.strictEqual((yield* etcd.range(Etcd.get(key))).count, 1)
      yield* cluster.once

      // etcd is gone for a while: all stop, and go on when it is back.
      yield* server.kill
      yield* cluster.until("the end of all", () =>
        [b, c, d].every(({ port }) =>
          cluster.runningOn(port).length === 0
        ), 12_000)
      yield* server.restart
      const back = now()
      yield* cluster.settled([b, c, d])
      yield* Effect.sleep("2 seconds")
      assert.isAbove(cluster.runsSince(back), 0)
      yield* cluster.once
    }), 240_000)

  it.live("of processes survives kill -9, and a freeze that outlasts the leases", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.make(inject("etcdEndpoint"))
      const [a, b, c] = yield* Effect.all([cluster.startProcess(), cluster.startProcess(), cluster.startProcess()])
      yield* cluster.settled([a, b, c], 60_000)

      const killed = now()
      yield* a.signal("SIGKILL")
      yield* cluster.settled([b, c])
      assert.isBelow(now() - killed, Cluster.bound + Cluster.slack)
      yield* cluster.once

      const frozen = now()
      yield* b.signal("SIGSTOP")
      yield* cluster.settled([c])
      assert.isBelow(now() - frozen, Cluster.bound + Cluster.slack)
      yield* cluster.once
      yield* Effect.sleep("2 seconds")
      yield* b.signal("SIGCONT")
      // It stops what it ran when it stood still, and joins again.
      yield* cluster.settled([b, c])
      yield* cluster.once

      // The other one ends in order, and leaves it all to the one that was frozen.
      yield* c.stop
      yield* cluster.settled([b])
      yield* cluster.once
    }), 240_000)

  it.live("goes on when a member of etcd is lost, whichever it is", () =>
    Effect.gen(function*() {
      const members = yield* EtcdServer.startCluster(3)
      const cluster = yield* Cluster.make(members.map(({ endpoint }) => endpoint))
      const runners = [yield* cluster.start(), yield* cluster.start(), yield* cluster.start()]
      // One of the three leads the others.
      for (const { kill, restart } of members) {
        yield* cluster.settled(runners)
        yield* kill
        yield* Effect.sleep("4 seconds")
        yield* cluster.settled(runners)
        yield* restart
        yield* cluster.once
      }
      const since = now()
      yield* Effect.sleep("2 seconds")
      assert.isAbove(cluster.runsSince(since), 0)
    }), 240_000)

  it.live(
    "less one has the old owner stop before the next one starts, black hole after black hole",
    () =>
      Effect.gen(function*() {
        const endpoint = inject("etcdEndpoint")
        const cluster = yield* Cluster.make(endpoint)
        const one = yield* Proxy.make(endpoint)
        const other = yield* Proxy.make(endpoint)
        const a = yield* cluster.start(one.endpoint)
        const b = yield* cluster.start(other.endpoint)
        for (const [cutOff, proxy, left] of [[a, one, b], [b, other, a]] as const) {
          yield* cluster.settled([a, b])
          yield* proxy.blackHole
          yield* cluster.settled([left])
          assert.deepStrictEqual(cluster.runningOn(cutOff.port), [])
          yield* proxy.resume
        }
        yield* cluster.settled([a, b])
        yield* cluster.once
      }),
    240_000
  )
})
