/** How calls and streams move between the members of a cluster, and what is made of a host that is of another one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as Members from "../../src/internal/etcd3/members.ts"
import { protobuf } from "../../src/internal/etcd3/packages.ts"
import { connect } from "../support/connect.ts"
import * as GrpcServer from "../support/GrpcServer.ts"

const timeout = new Etcd.EtcdError({ reason: "Timeout", method: "range", outcome: "Unknown", description: "no answer" })

const make = (hosts: ReadonlyArray<string>) => Members.make({ hosts }, 5000, undefined)

describe("streams", () => {
  it.live("move when calls have moved on from their member and are answered elsewhere", () =>
    Effect.gen(function*() {
      const members = yield* make(["127.0.0.1:1", "127.0.0.1:2"])
      const moved: Array<string> = []
      const first = members.current()
      yield* members.onMove(first, () => void moved.push("first"))
      members.succeeded(first)
      members.failed(first, timeout)
      const second = members.current()
      yield* members.onMove(second, () => void moved.push("second"))
      assert.notStrictEqual(second, first)
      assert.deepStrictEqual(moved, [])
      // A late answer of the first one says nothing of the second.
      members.succeeded(first)
      assert.deepStrictEqual(moved, [])
      members.succeeded(second)
      members.succeeded(second)
      assert.deepStrictEqual(moved, ["first"])
    }).pipe(Effect.scoped))

  it.live("stay where there is no other member", () =>
    Effect.gen(function*() {
      const members = yield* make(["127.0.0.1:1"])
      let hasMoved = false
      yield* members.onMove(members.current(), () => {
        hasMoved = true
      })
      members.failed(members.current(), timeout)
      members.succeeded(members.current())
      assert.isFalse(hasMoved)
    }).pipe(Effect.scoped))
})

describe("a host of another cluster", () => {
  /** A member that answers reads as long as it is up. */
  const member = (cluster: number) =>
    Effect.gen(function*() {
      const state = { isUp: true, cluster }
      const endpoint = yield* GrpcServer.start({
        KV: {
          Range: () => {
            if (!state.isUp) throw Object.assign(new Error("down"), { code: 14, details: "etcdserver: no leader" })
            return { header: { cluster_id: state.cluster, revision: 1, raft_term: 1 }, kvs: [], count: 0 }
          }
        }
      })
      return { endpoint, state }
    })

  it.live("is named by an error, and what it says is not believed", () =>
    Effect.gen(function*() {
      const [a, b] = [yield* member(0xa), yield* member(0xb)]
      const etcd = yield* connect({ hosts: [a.endpoint, b.endpoint], requestTimeout: "1500 millis" })
      const read = etcd.range(Etcd.get("x"))
      assert.strictEqual((yield* read).clusterId, 0xan)
      a.state.isUp = false
      const error = yield* Effect.flip(read)
      assert.strictEqual(error.reason, "Unavailable")
      b.state.isUp = true
      a.state.isUp = true
      assert.strictEqual((yield* read).clusterId, 0xan)
      assert.include(
        error.description + (yield* otherErrors(etcd, a)),
        `host ${b.endpoint} is of another cluster, b instead of a; name the members of one cluster`
      )
    }).pipe(Effect.scoped))

  /** What calls fail with while the first member is down. */
  const otherErrors = (etcd: Etcd.Etcd["Service"], { state }: Effect.Success<ReturnType<typeof member>>) =>
    Effect.gen(function*() {
      state.isUp = false
      const errors = yield* Effect.forEach(Array.from({ length: 4 }), () => Effect.flip(etcd.range(Etcd.get("x"))))
      return errors.map(({ description }) => description).join("\n")
    })

  it.live("is none where the ID of the cluster is a large number, whatever is asked", () =>
    Effect.gen(function*() {
      const header = {
        cluster_id: new protobuf.util.Long(0xabde9c05, 0xf50077fa, true),
        revision: 1,
        raft_term: 1
      }
      const member = GrpcServer.start({
        KV: { Range: () => ({ header, kvs: [], count: 0 }) },
        Lease: { LeaseTimeToLive: ({ ID }) => ({ header, ID, TTL: 7, grantedTTL: 9 }) }
      })
      const etcd = yield* connect({ hosts: [yield* member, yield* member] })
      for (let i = 0; i < 3; i++) {
        assert.strictEqual((yield* etcd.range(Etcd.get("x"))).clusterId, 0xf50077faabde9c05n)
        assert.strictEqual((yield* etcd.leaseTimeToLive(7n)).clusterId, 0xf50077faabde9c05n)
      }
    }).pipe(Effect.scoped))

  it.live("is the cluster once all hosts are of it", () =>
    Effect.gen(function*() {
      const [a, b] = [yield* member(0xa), yield* member(0xa)]
      const etcd = yield* connect({ hosts: [a.endpoint, b.endpoint] })
      const read = etcd.range(Etcd.get("x"))
      assert.strictEqual((yield* read).clusterId, 0xan)
      a.state.cluster = b.state.cluster = 0xc
      assert.strictEqual((yield* read).clusterId, 0xcn)
    }).pipe(Effect.scoped))
})
