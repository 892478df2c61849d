/** What Effect Cluster relies on, on whatever etcd there is. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { eventually } from "../support/eventually.ts"
import {
  type Config,
  type Machine,
  machine as machineOn,
  names,
  runnerAt,
  runnersOf,
  shard,
  shards
} from "./machine.ts"

export interface World {
  /** Each call returns a connection to the same etcd. */
  readonly connect: Effect.Effect<Etcd.Etcd["Service"], never, Scope.Scope>
}

interface MachineOptions {
  readonly port?: number
  readonly prefix?: string
  readonly config?: Config
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

export const suite = (on: string, makeWorld: Effect.Effect<World, never, Scope.Scope>) => {
  /** Machines of a cluster, and the etcd that they leave empty. */
  const cluster = Effect.gen(function*() {
    const world = yield* makeWorld
    const etcd = yield* world.connect
    // The count of the machine IDs that were given stays.
    const left = (prefix = "") =>
      Effect.map(
        etcd.range(Etcd.getPrefix(prefix)),
        ({ kvs }) => kvs.filter(({ key }) => !text(key).endsWith("/machine-ids"))
      )
    yield* Effect.addFinalizer(() =>
      eventually(Effect.map(left(), (kvs) => assert.deepStrictEqual(kvs.map(({ key }) => text(key)), []))).pipe(
        Effect.orDie
      )
    )
    const machine = (options?: MachineOptions) =>
      Effect.flatMap(world.connect, (connection) => machineOn(connection, options))
    const leaseOf = (key: string) =>
      Effect.map(etcd.range(Etcd.get(key)), ({ kvs: [kv] }) => kv?.lease ?? assert.fail(`there is no ${key}`))
    return { etcd, left, leaseOf, machine }
  })

  describe(`a storage on ${on}`, () => {
    it.live("registers runners, each with a machine ID of its own", () =>
      Effect.gen(function*() {
        const { etcd, machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        assert.deepStrictEqual(yield* runnersOf(a), [])
        assert.strictEqual(yield* a.register, 1)
        assert.strictEqual(yield* b.storage.register(b.runner, false), 2)
        for (const some of [a, b]) assert.deepStrictEqual(yield* runnersOf(some), [[1, true], [2, false]])
        const [[runner]] = yield* b.storage.getRunners as Effect.Effect<any, never>
        assert.deepStrictEqual(runner, a.runner)
        // An operator can read it.
        const { kvs: [kv] } = yield* etcd.range(Etcd.get("effect-cluster/runners/10.0.0.7:1"))
        assert.deepStrictEqual(JSON.parse(text(kv!.value)), {
          runner: { address: { host: "10.0.0.7", port: 1 }, groups: ["default"], weight: 1 },
          healthy: true,
          machineId: 1
        })
      }))

    it.live("keeps the machine ID of a runner that registers again, and gives that of one that left to no other", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        const c = yield* machine({ port: 3 })
        yield* a.register
        yield* b.register
        assert.strictEqual(yield* b.storage.register(b.runner, false), 2)
        assert.deepStrictEqual(yield* runnersOf(a), [[1, true], [2, false]])
        yield* a.storage.unregister(a.address)
        assert.strictEqual(yield* b.register, 2)
        assert.strictEqual(yield* c.register, 3)
        assert.strictEqual(yield* a.register, 4)
      }))

    it.live("gives 20 runners that register at the same time 20 machine IDs", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const machines = yield* Effect.forEach(Array.from({ length: 20 }, (_, i) => i), (port) => machine({ port }), {
          concurrency: "unbounded"
        })
        const ids = yield* Effect.forEach(machines, ({ register }) => register, { concurrency: "unbounded" })
        assert.strictEqual(new Set(ids).size, 20)
        assert.lengthOf(yield* machines[0]!.storage.getRunners, 20)
      }))

    it.live("lets one runner set another one's health, which leaves with its own lease nevertheless", () =>
      Effect.gen(function*() {
        const { leaseOf, machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        yield* a.register
        yield* b.register
        const key = "effect-cluster/runners/10.0.0.7:2"
        const lease = yield* leaseOf(key)
        yield* a.storage.setRunnerHealth(b.address, false)
        assert.deepStrictEqual(yield* runnersOf(b), [[1, true], [2, false]])
        assert.strictEqual(yield* leaseOf(key), lease)
        // Nothing is written where nothing changes.
        const requests = yield* a.requestsOf(a.storage.setRunnerHealth(b.address, false))
        assert.deepStrictEqual(requests, ["range"])
        yield* a.storage.setRunnerHealth(b.address, true)
        assert.deepStrictEqual(yield* runnersOf(b), [[1, true], [2, true]])
        yield* b.close
        assert.deepStrictEqual(yield* runnersOf(a), [[1, true]])
        yield* a.storage.setRunnerHealth(b.address, true)
        assert.deepStrictEqual(yield* runnersOf(a), [[1, true]])
      }))

    it.live("lets a runner unregister, also one of another process", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        yield* a.register
        yield* b.register
        yield* a.storage.unregister(a.address)
        yield* a.storage.unregister(a.address)
        assert.deepStrictEqual(yield* runnersOf(b), [[2, true]])
        yield* a.storage.unregister(b.address)
        assert.deepStrictEqual(yield* runnersOf(b), [])
        assert.strictEqual(yield* b.register, 2)
        assert.deepStrictEqual(yield* runnersOf(a), [[2, true]])
      }))

    it.live("lets a runner take the place of one that has its address and does not answer any more", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const old = yield* machine()
        yield* old.register
        assert.deepStrictEqual(yield* old.acquire(shards(3)), names(shards(3)))
        const young = yield* machine()
        assert.strictEqual(yield* young.register, 2)
        // The address is the same, and the shards are the old one's until its lease ends.
        assert.deepStrictEqual(yield* young.acquire(shards(3)), [])
        yield* old.close
        assert.deepStrictEqual(yield* runnersOf(young), [[1, true]])
        assert.deepStrictEqual(yield* young.acquire(shards(3)), names(shards(3)))
      }))

    it.live("gives each shard to one runner", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        assert.deepStrictEqual(yield* a.acquire(shards(5)), names(shards(5)))
        assert.deepStrictEqual(yield* b.acquire(shards(5)), [])
        assert.deepStrictEqual(yield* b.acquire(shards(8)), names(shards(8).slice(5)))
        // Who holds some of them already gets these again.
        assert.deepStrictEqual(yield* a.acquire([...shards(6), ...shards(3)]), names(shards(5)))
        assert.deepStrictEqual(yield* a.refresh(shards(8)), names(shards(5)))
        assert.deepStrictEqual(yield* b.refresh(shards(8)), names(shards(8).slice(5)))
        assert.deepStrictEqual(yield* a.refresh([shard(2)]), names([shard(2)]))
        assert.deepStrictEqual(yield* a.refresh([shard(7)]), [])
        assert.deepStrictEqual(yield* a.acquire([]), [])
        assert.deepStrictEqual(yield* a.refresh([]), [])
      }))

    it.live("lets no two runners get a shard that both ask for at the same time", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const machines = yield* Effect.forEach([1, 2, 3, 4], (port) => machine({ port }))
        const got = yield* Effect.forEach(machines, ({ acquire }) => acquire(shards(300)), { concurrency: "unbounded" })
        assert.sameMembers(got.flat(), names(shards(300)))
      }))

    it.live("knows nothing of shards that nobody holds", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine()
        assert.deepStrictEqual(yield* a.refresh(shards(3)), [])
        yield* a.release(shard(1))
        yield* a.releaseAll
        assert.isUndefined(a.token(shard(1)))
        assert.isUndefined(a.isOwner(shard(1)))
      }))

    it.live("gives a shard that is released to the next runner, under a greater token", () =>
      Effect.gen(function*() {
        const { etcd, machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        yield* a.acquire(shards(3))
        const token = a.token(shard(2))!
        const isOwner = a.isOwner(shard(2))!
        const write = etcd.txn({ compare: [isOwner], then: [Etcd.put("balance", "1")] })
        assert.isTrue((yield* write).succeeded)
        yield* a.release(shard(2))
        yield* a.release(shard(2))
        assert.isUndefined(a.token(shard(2)))
        assert.deepStrictEqual(yield* b.acquire(shards(3)), names([shard(2)]))
        assert.isTrue(b.token(shard(2))! > token)
        assert.deepStrictEqual(yield* a.refresh(shards(3)), names([shard(1), shard(3)]))
        // The write of one who was frozen in between comes to nothing.
        assert.isFalse((yield* write).succeeded)
        yield* etcd.txn({ then: [Etcd.remove("balance")] })
      }))

    it.live("gives all shards of a runner that releases all to the next one, and gives it others after that", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        yield* a.acquire(shards(40))
        yield* a.releaseAll
        yield* a.releaseAll
        assert.deepStrictEqual(yield* a.refresh(shards(40)), [])
        assert.isUndefined(a.token(shard(2)))
        assert.deepStrictEqual(yield* b.acquire(shards(30)), names(shards(30)))
        assert.deepStrictEqual(yield* a.acquire(shards(40)), names(shards(40).slice(30)))
      }))

    it.live("fails to refresh what was on a lease that is gone, and gives nothing until all is released", () =>
      Effect.gen(function*() {
        const { etcd, leaseOf, machine } = yield* cluster
        const a = yield* machine({ port: 1 })
        const b = yield* machine({ port: 2 })
        yield* a.register
        yield* a.acquire(shards(20))
        yield* etcd.leaseRevoke(yield* leaseOf("effect-cluster/shards/default:7"))
        assert.deepStrictEqual(yield* b.acquire([shard(7)]), names([shard(7)]))
        // The runner would let what it runs end by itself, if it were told which shards it has no more.
        for (const ids of [shards(20), shards(20), [shard(3)]]) {
          const error = yield* Effect.flip(a.refresh(ids))
          assert.strictEqual(error._tag, "PersistenceError")
          assert.match(String(error.cause), /was revoked: etcd has no such lease any more/)
        }
        assert.isUndefined(a.token(shard(3)))
        assert.deepStrictEqual(yield* a.acquire(shards(20)), [])
        assert.deepStrictEqual(yield* a.refresh([]), [])
        yield* a.releaseAll
        assert.deepStrictEqual(yield* a.acquire(shards(20)), names(shards(20).filter((id) => id !== shard(7))))
        assert.deepStrictEqual(yield* runnersOf(a), [[1, true]])
      }))

    it.live("goes on when the lease of a registration is gone, until the runner registers again", () =>
      Effect.gen(function*() {
        const { etcd, leaseOf, machine } = yield* cluster
        const a = yield* machine({ config: { shardLockRefreshInterval: "2 seconds" } })
        yield* a.register
        yield* a.acquire(shards(2))
        yield* etcd.leaseRevoke(yield* leaseOf("effect-cluster/runners/10.0.0.7:1"))
        yield* Effect.sleep(500)
        assert.deepStrictEqual(yield* runnersOf(a), [])
        assert.deepStrictEqual(yield* a.refresh(shards(2)), names(shards(2)))
        assert.strictEqual(yield* a.register, 2)
        assert.deepStrictEqual(yield* runnersOf(a), [[1, true]])
      }))

    it.live("tells of a shard whose key was deleted, and can give it again", () =>
      Effect.gen(function*() {
        const { etcd, machine } = yield* cluster
        const a = yield* machine()
        yield* a.acquire(shards(20))
        const token = a.token(shard(7))!
        yield* etcd.txn({ then: [Etcd.remove("effect-cluster/shards/default:7")] })
        const others = names(shards(20).filter((id) => id !== shard(7)))
        assert.deepStrictEqual(yield* a.refresh(shards(20)), others)
        assert.isUndefined(a.token(shard(7)))
        assert.deepStrictEqual(yield* a.refresh([shard(7)]), [])
        yield* a.release(shard(7))
        assert.deepStrictEqual(yield* a.acquire([shard(7)]), names([shard(7)]))
        assert.isTrue(a.token(shard(7))! > token)
        assert.deepStrictEqual(yield* a.refresh(shards(20)), names(shards(20)))
      }))

    it.live("does not mistake a shard that another one put, or that was put again, for what it holds", () =>
      Effect.gen(function*() {
        const { etcd, leaseOf, machine } = yield* cluster
        const a = yield* machine()
        yield* a.acquire(shards(2))
        const key = "effect-cluster/shards/default:1"
        const lease = yield* leaseOf(key)
        yield* etcd.txn({ then: [Etcd.remove(key)] })
        yield* etcd.txn({ then: [Etcd.put(key, "10.0.0.7:1", { lease })] })
        assert.deepStrictEqual(yield* a.refresh(shards(2)), names([shard(2)]))
      }))

    it.live("keeps clusters with different prefixes apart, also where one begins as the other", () =>
      Effect.gen(function*() {
        const { left, machine } = yield* cluster
        const prefixes = ["shop", "shop/runners", "shop/shards", "shop/machines", "sho"]
        const machines: Array<Machine> = []
        for (const prefix of prefixes) {
          const one = yield* machine({ prefix })
          assert.strictEqual(yield* one.register, 1, prefix)
          assert.deepStrictEqual(yield* one.acquire(shards(20)), names(shards(20)), prefix)
          machines.push(one)
        }
        for (const one of machines) {
          assert.deepStrictEqual(yield* runnersOf(one), [[1, true]])
          assert.deepStrictEqual(yield* one.refresh(shards(20)), names(shards(20)))
        }
        yield* machines[0]!.close
        assert.lengthOf(yield* left("shop/runners/runners/"), 1)
        assert.deepStrictEqual(yield* machines[1]!.refresh(shards(20)), names(shards(20)))
      }))

    it.live("takes several runners of one process for several", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const { storage } = yield* machine()
        const [a, b] = [runnerAt(1), runnerAt(2)]
        assert.strictEqual(yield* storage.register(a, true), 1)
        assert.strictEqual(yield* storage.register(b, true), 2)
        assert.lengthOf(yield* storage.acquire(a.address, shards(2)), 2)
        assert.lengthOf(yield* storage.acquire(b.address, shards(3)), 1)
        yield* storage.unregister(a.address)
        yield* storage.releaseAll(a.address)
        assert.lengthOf(yield* storage.getRunners, 1)
        assert.lengthOf(yield* storage.refresh(b.address, shards(3)), 1)
      }))

    it.live("takes groups of any name", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine()
        const some = [...shards(2, "a/b"), ...shards(2, "a:b"), ...shards(20, "ä")]
        assert.deepStrictEqual(yield* a.acquire(some), names(some))
        assert.deepStrictEqual(yield* a.refresh(some), names(some))
      }))

    it.live("acquires 900 shards with 8 transactions, refreshes them with 1 range, and releases them with 10", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine({ port: 1, config: { shardLockRefreshInterval: "2 seconds" } })
        const b = yield* machine({ port: 2 })
        yield* a.register
        const all = ["default", "orders", "mails"].flatMap((group) => shards(300, group))
        const acquired = yield* a.requestsOf(Effect.map(a.acquire(all), (ids) => assert.lengthOf(ids, 900)))
        assert.deepStrictEqual(acquired, ["leaseGrant", ...Array.from({ length: 8 }, () => "txn")])
        // A renewal is not repeated within a quarter of the interval.
        yield* Effect.sleep(500)
        const refreshed = yield* a.requestsOf(Effect.map(a.refresh(all), (ids) => assert.lengthOf(ids, 900)))
        // Each renewal is followed by a read that shows whether the leader has a quorum.
        assert.sameMembers(refreshed, ["range", "leaseKeepAlive", "txn", "leaseKeepAlive", "txn"])
        const refused = yield* b.requestsOf(Effect.map(b.acquire(all), (ids) => assert.lengthOf(ids, 0)))
        assert.lengthOf(refused.filter((method) => method === "txn"), 8)
        const released = yield* a.requestsOf(Effect.forEach(all, a.release, { concurrency: "unbounded" }))
        assert.isAtMost(released.length, 10)
        assert.deepStrictEqual([...new Set(released)], ["txn"])
        assert.lengthOf(yield* b.acquire(all), 900)
        const ended = yield* b.requestsOf(b.releaseAll)
        assert.deepStrictEqual(ended, ["leaseRevoke"])
      }))

    it.live("confirms one shard with one read", () =>
      Effect.gen(function*() {
        const { machine } = yield* cluster
        const a = yield* machine()
        yield* a.register
        yield* a.acquire(shards(300))
        const requests = yield* a.requestsOf(
          Effect.repeat(a.refresh([shard(7)]), { times: 4 })
        )
        assert.deepStrictEqual(requests, ["txn", "txn", "txn", "txn", "txn"])
      }))

    it.live("leaves no key and no lease behind when it is closed", () =>
      Effect.gen(function*() {
        const { etcd, left, leaseOf, machine } = yield* cluster
        const a = yield* machine()
        yield* a.register
        yield* a.acquire(shards(2))
        const leases = [
          yield* leaseOf("effect-cluster/runners/10.0.0.7:1"),
          yield* leaseOf("effect-cluster/shards/default:1")
        ]
        assert.notStrictEqual(leases[0], leases[1])
        assert.strictEqual(yield* leaseOf("effect-cluster/machine-ids"), 0n)
        const requests = yield* a.requestsOf(a.close)
        assert.deepStrictEqual(requests, ["leaseRevoke", "leaseRevoke"])
        assert.deepStrictEqual(yield* left(), [])
        for (const lease of leases) assert.strictEqual((yield* etcd.leaseTimeToLive(lease)).remaining, -1)
      }))
  })
}
