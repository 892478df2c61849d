import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { accepts } from "../support/accepts.ts"
import * as Cluster from "./cluster.ts"

describe.skipIf(process.env.ETCD_FROM === "docker")("a cluster whose members come and go", () => {
  it.live("has a spare member learn, vote and leave", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.start({ spare: true })
      const spare = cluster.spare!
      const read = cluster.ask(spare, "kv/range", { key: btoa("a") })
      const voters = Effect.map(
        cluster.askAny("cluster/member/list", {}),
        ({ members }) => members.filter(({ isLearner }: { readonly isLearner?: boolean }) => isLearner !== true).length
      )
      assert.lengthOf(yield* cluster.client(), 4)
      assert.isFalse(yield* accepts(spare.endpoint))

      yield* cluster.addLearner(spare)
      assert.strictEqual(yield* voters, 3)
      assert.include((yield* Effect.flip(read)).message, "rpc not supported for learner")

      yield* cluster.promote(spare)
      assert.strictEqual(yield* voters, 4)
      yield* read

      yield* cluster.remove(spare)
      assert.strictEqual(yield* voters, 3)
      assert.isFalse(yield* accepts(spare.endpoint))
      yield* cluster.healthy
    }))

  it.live("replaces a member by a fresh one at its address", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.start()
      const [, member] = cluster.members
      const { id } = member!
      yield* cluster.askAny("kv/put", { key: btoa("a"), value: btoa("1") })
      yield* cluster.remove(member!)
      assert.isFalse(yield* accepts(member!.endpoint))
      yield* cluster.add(member!)
      yield* cluster.healthy
      assert.notStrictEqual(member!.id, id)
      const { header, kvs } = yield* cluster.ask(member!, "kv/range", { key: btoa("a") })
      assert.deepStrictEqual([header.member_id, atob(kvs[0].value)], [member!.id, "1"])
    }))

  it.live("upgrades its members one by one, until it speaks their version", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.start()
      const before = cluster.description()
      const binary = /\((.+)\)$/.exec(cluster.members[0]!.description)![1]!
      for (const member of cluster.members) {
        yield* cluster.upgrade(member, binary)
        yield* cluster.healthy
      }
      yield* cluster.upgraded
      assert.strictEqual(cluster.description(), before)
    }))
})
