import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { connect } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { suite } from "./contract.ts"
import { machine, runnersOf, shards } from "./machine.ts"

suite("etcd", Effect.sync(() => ({ connect: connect({ prefix: `cluster-${crypto.randomUUID()}/` }) })))

it.live("a storage at rest has etcd's members agree on nothing", () =>
  Effect.gen(function*() {
    // It has an etcd of its own, whose members agree on nothing else.
    const { endpoint } = yield* EtcdServer.start()
    const a = yield* machine(yield* connect({ hosts: endpoint }))
    const metric = Effect.map(
      Effect.promise(() => fetch(`http://${endpoint}/metrics`).then((response) => response.text())),
      (metrics) => Number(/^etcd_server_proposals_committed_total (\S+)$/m.exec(metrics)?.[1])
    )
    const before = yield* metric
    yield* a.register
    assert.lengthOf(yield* a.acquire(shards(900)), 900)
    const acquired = yield* metric
    // Two leases, a machine ID, a registration, and 900 shards in 8 transactions.
    assert.strictEqual(acquired - before, 2 + 1 + 1 + 8)
    for (let i = 0; i < 5; i++) {
      assert.lengthOf(yield* a.refresh(shards(900)), 900)
      assert.lengthOf(yield* runnersOf(a), 1)
      yield* a.refresh(shards(1))
      yield* a.refresh([])
    }
    assert.strictEqual(yield* metric, acquired)
  }))
