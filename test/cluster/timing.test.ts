/** When a storage says what, and what it leaves behind when etcd does not answer, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Latch, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import type { PersistenceError } from "effect/cluster/ClusterError"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import { defectOf, failureOf } from "../support/exits.ts"
import { fork, keys, pass, provideMemory } from "../support/inMemory.ts"
import { logs } from "../support/logs.ts"
import { type Config, machine as machineOn, names, runnersOf, shard, shards } from "./machine.ts"

/** Renewed every two seconds, trusted for 9, and gone after 10. */
const config: Config = { shardLockExpiration: "10 seconds", shardLockRefreshInterval: "2 seconds" }

const machine = (port = 1) => Effect.flatMap(Etcd.Etcd, (etcd) => machineOn(etcd, { port, config }))

const faults = Etcd.Faults

const heldKeys = Effect.map(keys, (all) => all.filter((key) => key.includes("/shards/")))

/** The outcome of a call that is made now and ends after so many milliseconds at most. */
const within = <A, E, R>(millis: number, call: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* fork(Effect.exit(call))
    yield* pass(millis)
    return fiber.pollUnsafe() === undefined
      ? assert.fail(`it has not ended after ${millis} ms`)
      : yield* Fiber.join(fiber)
  })

describe("calls", () => {
  for (const how of ["stall", "unreachable"] as const) {
    it.effect(`end within the refresh interval, whatever they are, when etcd is ${how}`, () =>
      Effect.gen(function*() {
        const { [how]: begin } = yield* faults
        const a = yield* machine()
        yield* a.register
        yield* a.acquire(shards(200))
        const { storage } = a
        yield* begin
        const calls: Record<string, Effect.Effect<unknown, unknown>> = {
          register: storage.register(a.runner, true),
          getRunners: storage.getRunners,
          setRunnerHealth: storage.setRunnerHealth(a.address, false),
          acquire: a.acquire(shards(300)),
          refresh: a.refresh(shards(200)),
          confirm: a.refresh([shard(3)]),
          probe: a.refresh([]),
          release: a.release(shard(1)),
          releaseAll: a.releaseAll,
          unregister: storage.unregister(a.address)
        }
        for (const [name, call] of Object.entries(calls)) {
          const exit = yield* within(2000, call)
          assert.isTrue(Exit.isFailure(exit), name)
          if (Exit.isFailure(exit)) assert.match(String(exit.cause), /PersistenceError/, name)
        }
      }).pipe(provideMemory))
  }

  it.effect("that have nobody left to wait for them end at once", () =>
    Effect.gen(function*() {
      const { stall } = yield* faults
      const a = yield* machine()
      yield* a.acquire(shards(3))
      yield* stall
      for (const call of [a.acquire(shards(9)), a.refresh(shards(3)), a.release(shard(1)), a.releaseAll]) {
        const fiber = yield* fork(call)
        yield* Fiber.interrupt(fiber)
      }
      // A lease that is being granted is granted for the next one who asks.
      const b = yield* machine(2)
      yield* Fiber.interrupt(yield* fork(b.acquire(shards(9))))
      yield* Fiber.interrupt(yield* fork(b.register))
    }).pipe(provideMemory))
})

describe("the leases of a runner", () => {
  it.effect("are renewed by its refreshes alone", () =>
    Effect.gen(function*() {
      const a = yield* machine(1)
      const b = yield* machine(2)
      yield* a.register
      yield* a.acquire(shards(3))
      for (let i = 0; i < 20; i++) {
        yield* pass("2 seconds")
        assert.deepStrictEqual(yield* a.refresh(shards(3)), names(shards(3)))
      }
      // Other calls of a process whose cluster stands still keep nothing alive.
      for (let i = 0; i < 6; i++) {
        yield* pass("2 seconds")
        yield* a.storage.getRunners
        yield* a.storage.setRunnerHealth(a.address, i % 2 === 0)
      }
      assert.deepStrictEqual(yield* runnersOf(b), [])
      assert.deepStrictEqual(yield* b.acquire(shards(3)), names(shards(3)))
    }).pipe(provideMemory))

  it.effect("are two: without shards, the registration lives on and the lease of the shards ends", () =>
    Effect.gen(function*() {
      const { leases } = yield* faults
      const a = yield* machine()
      yield* a.register
      yield* a.acquire(shards(3))
      yield* Effect.forEach(shards(3), a.release)
      assert.lengthOf(yield* leases, 2)
      for (let i = 0; i < 10; i++) {
        yield* pass("2 seconds")
        yield* a.refresh([])
      }
      assert.lengthOf(yield* leases, 1)
      assert.deepStrictEqual(yield* runnersOf(a), [[1, true]])
      // It gets another one when it is given shards again.
      assert.deepStrictEqual(yield* a.acquire(shards(3)), names(shards(3)))
      assert.lengthOf(yield* leases, 2)
      assert.deepStrictEqual(yield* a.refresh(shards(3)), names(shards(3)))
    }).pipe(provideMemory))

  it.effect("are not renewed again within a quarter of the interval", () =>
    Effect.gen(function*() {
      const a = yield* machine()
      yield* a.register
      yield* a.acquire(shards(3))
      const renewals = Effect.map(
        a.requestsOf(Effect.forEach(Array.from({ length: 40 }), () => Effect.andThen(pass(50), a.refresh([shard(1)])))),
        (requests) => requests.filter((method) => method === "leaseKeepAlive").length
      )
      // In two seconds, each of the leases four times.
      assert.strictEqual(yield* renewals, 8)
    }).pipe(provideMemory))
})

describe("the health of a runner", () => {
  it.effect("is not written for one that has left meanwhile", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const b = yield* machine(2)
      yield* b.register
      const key = (yield* keys).find((key) => key.includes("/runners/"))
      const leaving = etcd.txn({ then: [Etcd.remove(key!)] })
      const a = yield* machineOn({ ...etcd, txn: (request) => Effect.andThen(leaving, etcd.txn(request)) }, { config })
      yield* a.storage.setRunnerHealth(b.address, false)
      assert.deepStrictEqual(yield* runnersOf(b), [])
    }).pipe(provideMemory))
})

describe("a machine ID", () => {
  const registered = (machineId: number) => {
    const runner = { address: { host: "10.0.0.8", port: machineId }, groups: ["default"], weight: 1 }
    const value = JSON.stringify({ runner, healthy: true, machineId })
    return Etcd.put(`effect-cluster/runners/10.0.0.8:${machineId}`, value)
  }

  it.effect("is not given again when the lease of its runner is over, since the runner may run on", () =>
    Effect.gen(function*() {
      const { reachable, unreachable } = yield* faults
      const runners = yield* Effect.forEach([1, 2, 3], machine)
      const [a, b, c] = runners as [typeof runners[0], typeof runners[0], typeof runners[0]]
      assert.strictEqual(yield* a.register, 1)
      yield* unreachable
      yield* pass("20 seconds")
      yield* reachable
      assert.deepStrictEqual(yield* runnersOf(b), [])
      assert.strictEqual(yield* b.register, 2)
      assert.strictEqual(yield* c.register, 3)
      assert.strictEqual(yield* a.register, 4)
    }).pipe(provideMemory))

  it.effect("is left out when its answer was lost, and kept when that to the registration was", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const [a, b] = [yield* machine(1), yield* machine(2)]
      yield* drop("Reply", { method: "txn" })
      const registering = yield* fork(a.register)
      yield* pass("2 seconds")
      assert.strictEqual(yield* Fiber.join(registering), 2)
      yield* b.register
      yield* a.storage.unregister(a.address)
      yield* drop("Request", { method: "txn", times: 9 })
      assert.isTrue(Exit.isFailure(yield* within(2000, a.register)))
      yield* (yield* faults).heal
      assert.strictEqual(yield* a.register, 4)
      assert.strictEqual(yield* a.register, 4)
    }).pipe(provideMemory))

  it.effect("is not given again by an etcd that was restored from a backup, with the revisions that it leaps", () =>
    Effect.gen(function*() {
      const { restore, snapshot } = yield* faults
      const [a, b, c, d] = [yield* machine(1), yield* machine(2), yield* machine(3), yield* machine(4)]
      const given = [yield* a.register]
      const backup = yield* snapshot
      given.push(yield* b.register)
      for (const young of [c, d]) {
        yield* restore(backup, { bumpRevision: 1_000_000_000n * BigInt(given.length) })
        yield* pass("1 second")
        given.push(yield* young.register)
      }
      assert.strictEqual(new Set(given).size, 4, given.join())
    }).pipe(provideMemory))

  it.effect("is given to one runner, when another had its turn and registers late, and all others are taken", () =>
    Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      const ids = Array.from({ length: 1022 }, (_, i) => i + 1)
      for (let i = 0; i < ids.length; i += 93) {
        yield* etcd.txn({ then: ids.slice(i, i + 93).map(registered) })
      }
      for (const _ of ids) yield* etcd.txn({ then: [Etcd.put("effect-cluster/machine-ids", "")] })
      // What registers it is a single put.
      const txn = ((request: Etcd.TxnRequest<ReadonlyArray<Etcd.Op>, ReadonlyArray<Etcd.Op>>) =>
        request.then.length === 1 ? Effect.delay(etcd.txn(request), 1000) : etcd.txn(request)) as typeof etcd.txn
      const slow = yield* Effect.provideService(machine(1), Etcd.Etcd, { ...etcd, txn })
      const quick = yield* machine(2)
      const late = yield* fork(slow.register)
      yield* Effect.repeat(pass(1), { times: 20 })
      assert.strictEqual(yield* quick.register, 1023)
      yield* Effect.repeat(pass("1 second"), { times: 10 })
      const { cause } = failureOf(late.pollUnsafe()!) as PersistenceError
      assert.match(String(cause), /^AllMachineIdsTaken/)
    }).pipe(provideMemory))

  it.effect(
    "that a registered runner has is left out when all have been given once, and one too many is refused",
    () =>
      Effect.gen(function*() {
        const etcd = yield* Etcd.Etcd
        const ids = Array.from({ length: 1023 }, (_, i) => i + 1)
        for (let i = 0; i < ids.length; i += 93) {
          yield* etcd.txn({ then: ids.slice(i, i + 93).map(registered) })
        }
        const free = (id: number) => etcd.txn({ then: [Etcd.remove(`effect-cluster/runners/10.0.0.8:${id}`)] })
        yield* free(1023)
        yield* free(700)
        const runners = yield* Effect.forEach([1, 2, 3], machine)
        assert.strictEqual(yield* runners[0]!.register, 700)
        assert.strictEqual(yield* runners[1]!.register, 1023)
        const { cause } = yield* Effect.flip(runners[2]!.register)
        assert.strictEqual(
          String(cause),
          "AllMachineIdsTaken: All 1023 machine IDs are taken, so no other runner can join the cluster"
        )
        yield* free(1)
        assert.strictEqual(yield* runners[2]!.register, 1)
      }).pipe(provideMemory),
    60_000
  )
})

describe("a refresh", () => {
  it.effect("vouches for two intervals, the next refresh and its failure, or fails", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      for (
        const [began, isTrusted] of [[600, true], [3000, true], [4999, true], [5000, false], [6000, false]] as const
      ) {
        const a = yield* machine()
        yield* a.acquire(shards(3))
        yield* pass(began)
        // Renewals get no answer, while it can read.
        yield* drop("Request", { method: "leaseKeepAlive" })
        const exit = yield* within(2000, a.refresh(shards(3)))
        assert.strictEqual(Exit.isSuccess(exit), isTrusted, `${began} ms after the last renewal`)
        yield* a.close
      }
    }).pipe(provideMemory))

  it.effect("fails once the lease is over, and the log says what was lost and why", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const { reachable, unreachable } = yield* faults
      yield* Effect.gen(function*() {
        const a = yield* machine()
        yield* a.acquire(shards(3))
        const token = a.token(shard(1))
        yield* unreachable
        yield* pass(8999)
        assert.strictEqual(a.token(shard(1)), token)
        assert.deepStrictEqual(logged, [])
        yield* pass(1)
        assert.isUndefined(a.token(shard(1)))
        assert.isUndefined(a.isOwner(shard(1)))
        assert.lengthOf(logged, 1)
        assert.match(logged[0]!, /^Runner 10\.0\.0\.7:1 has lost its 3 shards: .*acknowledged no renewal for 9s/)
        yield* reachable
        assert.match(String((yield* Effect.flip(a.refresh(shards(3)))).cause), /acknowledged no renewal for 9s/)
        // What ended with that is given again after all of it was released.
        assert.deepStrictEqual(yield* a.acquire(shards(3)), [])
        yield* a.releaseAll
        assert.deepStrictEqual(yield* a.acquire(shards(3)), names(shards(3)))
      }).pipe(Effect.provide(logger))
    }).pipe(provideMemory))

  it.effect("survives one renewal that gets no answer", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const a = yield* machine()
      yield* a.acquire(shards(3))
      yield* pass("2 seconds")
      yield* drop("Reply", { method: "leaseKeepAlive" })
      const exit = yield* within(2000, a.refresh(shards(3)))
      assert.deepStrictEqual(exit, Exit.succeed(names(shards(3))))
    }).pipe(provideMemory))
})

describe("shards that the runner was given and has not taken yet", () => {
  it.effect("are vouched for by a refresh that does not name them", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const a = yield* machine(1)
      yield* a.acquire(shards(3))
      for (let i = 0; i < 6; i++) {
        yield* pass("2 seconds")
        assert.deepStrictEqual(yield* a.refresh([]), [])
      }
      yield* pass(5000)
      yield* drop("Request", { method: "leaseKeepAlive" })
      assert.isTrue(Exit.isFailure(yield* within(2000, a.refresh([]))))
      assert.deepStrictEqual(yield* a.refresh(shards(3)), names(shards(3)))
    }).pipe(provideMemory))

  it.effect("are reported as lost to a refresh that does not name them, until it cannot take them any more", () =>
    Effect.gen(function*() {
      const { keys, revokeLease } = yield* faults
      const a = yield* machine()
      yield* a.acquire(shards(3))
      yield* revokeLease((yield* keys).find(({ key }) => Buffer.from(key).includes("/shards/"))!.lease)
      for (const millis of [0, 2000, 1900]) {
        yield* pass(millis)
        assert.match(String((yield* Effect.flip(a.refresh([]))).cause), /was revoked/)
      }
      yield* pass(100)
      assert.deepStrictEqual(yield* a.refresh([]), [])
      assert.deepStrictEqual(yield* a.acquire(shards(3)), [])
      yield* a.releaseAll
      assert.deepStrictEqual(yield* a.acquire(shards(3)), names(shards(3)))
    }).pipe(provideMemory))

  it.effect("are lost with a call that is under way", () =>
    Effect.gen(function*() {
      const { heal, stall } = yield* faults
      const calls = (a: Effect.Success<ReturnType<typeof machine>>) => [
        a.refresh(shards(3)),
        a.refresh([]),
        a.acquire([shard(9)])
      ]
      for (const i of [0, 1, 2]) {
        const a = yield* machine()
        yield* a.acquire(shards(3))
        yield* pass(8500)
        yield* stall
        const exit = yield* within(500, calls(a)[i]!)
        assert.match(String((failureOf(exit) as PersistenceError).cause), /acknowledged no renewal for 9s/, `${i}`)
        yield* heal
        yield* a.close
      }
    }).pipe(provideMemory))
})

describe("a refresh whose renewals hang", () => {
  it.effect("waits for them for half an interval, and keeps what it can vouch for without", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const config: Config = { shardLockExpiration: "35 seconds", shardLockRefreshInterval: "2 seconds" }
      const a = yield* machineOn(yield* Etcd.Etcd, { config })
      yield* a.register
      yield* a.acquire(shards(3))
      yield* drop("Request", { method: "leaseKeepAlive", times: 2 })
      yield* pass("2 seconds")
      assert.deepStrictEqual(yield* within(1000, a.refresh(shards(3))), Exit.succeed(names(shards(3))))
      assert.deepStrictEqual(yield* within(1000, a.refresh([])), Exit.succeed([]))
    }).pipe(provideMemory))
})

describe("an acquisition", () => {
  it.effect("vouches for what it gives as a refresh does, and renews the lease for that", () =>
    Effect.gen(function*() {
      const a = yield* machine()
      yield* a.acquire([shard(1)])
      yield* pass(4999)
      assert.deepStrictEqual(yield* a.requestsOf(a.acquire([shard(2)])), ["txn"])
      yield* pass(1)
      assert.deepStrictEqual(yield* a.requestsOf(a.acquire([shard(3)])), ["txn", "leaseKeepAlive", "txn"])
    }).pipe(provideMemory))

  it.effect("gives nothing that it cannot vouch for, and leaves it to others", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const a = yield* machine(1)
      const b = yield* machine(2)
      yield* a.acquire([shard(1)])
      yield* pass(5000)
      yield* drop("Request", { method: "leaseKeepAlive" })
      assert.isTrue(Exit.isFailure(yield* within(2000, a.acquire([shard(2)]))))
      assert.isUndefined(a.token(shard(2)))
      assert.deepStrictEqual(yield* a.refresh([shard(1)]), names([shard(1)]))
      yield* pass(0)
      assert.deepStrictEqual(yield* b.acquire(shards(2)), names([shard(2)]))
    }).pipe(provideMemory))
})

describe("an acquisition without an answer", () => {
  const interrupted = Effect.gen(function*() {
    const { drop } = yield* faults
    const a = yield* machine(1)
    const b = yield* machine(2)
    yield* a.acquire([shard(9)])
    yield* drop("Reply", { method: "txn" })
    const asking = yield* fork(a.acquire(shards(4)))
    yield* pass(100)
    yield* Fiber.interrupt(asking)
    // It has what it does not know of.
    assert.deepStrictEqual(yield* b.acquire(shards(4)), [])
    return { a, b }
  })

  it.effect("gives what it got to the next one of the same runner", () =>
    Effect.gen(function*() {
      const { a } = yield* interrupted
      assert.isUndefined(a.token(shard(1)))
      assert.deepStrictEqual(yield* a.acquire(shards(4)), names(shards(4)))
      assert.deepStrictEqual(yield* a.refresh(shards(4)), names(shards(4)))
      yield* pass("2 seconds")
      assert.deepStrictEqual(yield* a.refresh(shards(4)), names(shards(4)))
      assert.lengthOf(yield* heldKeys, 5)
    }).pipe(provideMemory))

  it.effect("is not taken for left behind by a refresh while it is asked for again", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const etcd = yield* Etcd.Etcd
      const heard = Latch.makeUnsafe(true)
      const txn: typeof etcd.txn = (request) => Effect.tap(etcd.txn(request), () => heard.await)
      const a = yield* machineOn({ ...etcd, txn }, { port: 1, config })
      const b = yield* machine(2)
      yield* a.acquire([shard(9)])
      yield* drop("Reply", { method: "txn" })
      const unanswered = yield* fork(a.acquire([shard(1)]))
      yield* pass(100)
      yield* Fiber.interrupt(unanswered)
      heard.closeUnsafe()
      const asking = yield* fork(a.acquire([shard(1)]))
      yield* pass(1)
      yield* a.refresh([shard(9)])
      yield* pass(1)
      heard.openUnsafe()
      assert.deepStrictEqual(yield* Fiber.join(asking), names([shard(1)]))
      assert.deepStrictEqual(yield* b.acquire([shard(1)]), [])
    }).pipe(provideMemory))

  it.effect("gives nothing that is being deleted, in whatever order the answers come", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const etcd = yield* Etcd.Etcd
      const [sent, heard] = [Latch.makeUnsafe(true), Latch.makeUnsafe(true)]
      // A delete is sent late, and the answer to another transaction comes late.
      const txn: typeof etcd.txn = (request) =>
        request.then.some(({ _tag }) => _tag === "Delete")
          ? Effect.andThen(sent.await, etcd.txn(request))
          : Effect.tap(etcd.txn(request), () => heard.await)
      const a = yield* machineOn({ ...etcd, txn }, { port: 1, config })
      const b = yield* machine(2)
      yield* a.acquire([shard(9)])
      yield* drop("Reply", { method: "txn" })
      const unanswered = yield* fork(a.acquire([shard(1)]))
      yield* pass(100)
      yield* Fiber.interrupt(unanswered)
      sent.closeUnsafe()
      yield* a.refresh([shard(9)])
      yield* pass(0)
      heard.closeUnsafe()
      const asking = yield* fork(a.acquire([shard(1)]))
      yield* pass(1)
      sent.openUnsafe()
      yield* pass(1)
      assert.deepStrictEqual(yield* b.acquire([shard(1)]), names([shard(1)]))
      heard.openUnsafe()
      assert.deepStrictEqual(yield* Fiber.join(asking), [])
    }).pipe(provideMemory))

  for (const ids of [[shard(9)], []]) {
    it.effect(`loses what it got and nobody asks for again with the next refresh of ${ids.length} shards`, () =>
      Effect.gen(function*() {
        const { a, b } = yield* interrupted
        assert.deepStrictEqual(yield* a.acquire([shard(2)]), names([shard(2)]))
        assert.deepStrictEqual(yield* a.refresh(ids), names(ids))
        yield* pass(0)
        assert.deepStrictEqual(yield* b.acquire(shards(4)), names([shard(1), shard(3), shard(4)]))
        assert.deepStrictEqual(yield* a.refresh([shard(2), shard(9)]), names([shard(2), shard(9)]))
      }).pipe(provideMemory))
  }

  it.effect("loses what comes to stand in etcd after that, too, and asks for little when that cannot be any more", () =>
    Effect.gen(function*() {
      const { delay, heal } = yield* faults
      const a = yield* machine(1)
      const b = yield* machine(2)
      yield* a.acquire([shard(9)])
      // Half of the delay passes until etcd applies it.
      yield* delay("3 seconds")
      const asking = yield* fork(a.acquire(shards(4)))
      yield* pass(100)
      yield* Fiber.interrupt(asking)
      yield* heal
      assert.deepStrictEqual(yield* a.refresh([shard(9)]), names([shard(9)]))
      assert.lengthOf(yield* heldKeys, 1)
      yield* pass(1500)
      assert.lengthOf(yield* heldKeys, 5)
      assert.deepStrictEqual(yield* a.refresh([shard(9)]), names([shard(9)]))
      yield* pass(0)
      assert.deepStrictEqual(yield* b.acquire(shards(4)), names(shards(4)))
      const methodOf = (requests: ReadonlyArray<string>) => requests.filter((method) => method !== "leaseKeepAlive")
      assert.deepStrictEqual(methodOf(yield* a.requestsOf(a.refresh([shard(9)]))), ["range"])
      for (let i = 0; i < 8; i++) {
        yield* pass("2 seconds")
        yield* a.refresh([shard(9)])
      }
      assert.deepStrictEqual(methodOf(yield* a.requestsOf(a.refresh([shard(9)]))), ["txn"])
    }).pipe(provideMemory))

  it.effect("keeps what it was given for all others, and fails where it was given nothing", () =>
    Effect.gen(function*() {
      const { drop } = yield* faults
      const a = yield* machine()
      yield* a.acquire([shard(999)])
      yield* drop("Request", { method: "txn", times: 1 })
      // One of two transactions is lost, and is sent again after a third of the request's time.
      assert.deepStrictEqual(yield* within(2000, a.acquire(shards(200))), Exit.succeed(names(shards(200))))
    }).pipe(provideMemory))

  it.effect("holds nothing of a lease that was granted for it and that nobody waited for", () =>
    Effect.gen(function*() {
      const { heal, leases, stall } = yield* faults
      const a = yield* machine()
      yield* stall
      const asking = yield* fork(a.acquire(shards(4)))
      yield* Fiber.interrupt(asking)
      yield* heal
      yield* pass(0)
      assert.lengthOf(yield* leases, 1)
      assert.deepStrictEqual(yield* a.acquire(shards(4)), names(shards(4)))
      assert.lengthOf(yield* leases, 1)
    }).pipe(provideMemory))
})

describe("a release without an answer", () => {
  it.effect("can be repeated, and does not take what the runner was given again", () =>
    Effect.gen(function*() {
      const { delay, heal } = yield* faults
      const a = yield* machine()
      yield* a.acquire(shards(2))
      // It arrives when the shard has been released and acquired again.
      yield* delay("3 seconds")
      const releasing = yield* fork(a.release(shard(1)))
      yield* pass(100)
      yield* Fiber.interrupt(releasing)
      assert.isUndefined(a.token(shard(1)))
      yield* heal
      // It may be deleted at any moment.
      assert.deepStrictEqual(yield* a.acquire([shard(1)]), [])
      // A batch waits for the one before it, though not for long.
      assert.deepStrictEqual(yield* within(50, a.release(shard(1))), Exit.void)
      assert.deepStrictEqual(yield* a.acquire([shard(1)]), names([shard(1)]))
      yield* pass("3 seconds")
      assert.deepStrictEqual(yield* a.refresh(shards(2)), names(shards(2)))
    }).pipe(provideMemory))

  it.effect("of all shards is none, and what comes late stands on no lease", () =>
    Effect.gen(function*() {
      const { delay, drop, heal } = yield* faults
      const a = yield* machine(1)
      yield* a.acquire(shards(2))
      yield* delay("3 seconds")
      const asking = yield* fork(a.acquire(shards(9)))
      yield* pass(100)
      yield* Fiber.interrupt(asking)
      yield* heal
      yield* drop("Request", { method: "leaseRevoke", times: 9 })
      assert.isTrue(Exit.isFailure(yield* within(2000, a.releaseAll)))
      yield* heal
      assert.lengthOf(yield* heldKeys, 9)
      yield* a.releaseAll
      yield* pass("3 seconds")
      assert.deepStrictEqual(yield* heldKeys, [])
      assert.deepStrictEqual(yield* a.acquire(shards(9)), names(shards(9)))
    }).pipe(provideMemory))
})

describe("a runner that starts again in the same process", () => {
  it.effect("is given shards, although etcd could not be reached when it had ended", () =>
    Effect.gen(function*() {
      const { reachable, unreachable } = yield* faults
      const a = yield* machine()
      yield* a.register
      yield* a.acquire(shards(3))
      yield* unreachable
      // Sharding tries that once when it closes, and leaves the rest to the lease.
      assert.isTrue(Exit.isFailure(yield* within(2000, a.releaseAll)))
      yield* pass("20 seconds")
      yield* reachable
      yield* a.register
      assert.deepStrictEqual(yield* a.refresh([]), [])
      assert.deepStrictEqual(yield* a.acquire(shards(3)), names(shards(3)))
      assert.deepStrictEqual(yield* a.refresh(shards(3)), names(shards(3)))
    }).pipe(provideMemory))
})

describe("a storage that closes", () => {
  it.effect("waits for etcd no longer than one request may take, with both leases", () =>
    Effect.gen(function*() {
      const { stall } = yield* faults
      const a = yield* machine()
      yield* a.register
      yield* a.acquire(shards(2))
      yield* stall
      const exit = yield* within(5000, a.close)
      assert.isTrue(Exit.isSuccess(exit))
    }).pipe(provideMemory))
})

describe("options", () => {
  const make = (config: Config, options?: EtcdRunnerStorage.Options) =>
    Layer.build(EtcdRunnerStorage.layer(options)).pipe(
      Effect.provideService(ShardingConfig.ShardingConfig, { ...ShardingConfig.defaults, ...config }),
      Effect.scoped,
      Effect.exit,
      Effect.map(defectOf)
    )

  it.effect.each(
    [
      [
        { shardLockExpiration: 0 },
        "shardLockExpiration must be longer than 1 second, and at most 9000000000 seconds, got 0 ms"
      ],
      [{ shardLockExpiration: "1 second" }, "shardLockExpiration must be longer than 1 second"],
      [{ shardLockExpiration: Number.NaN }, "got NaN. Write it as \"10 seconds\""],
      [{ shardLockExpiration: "35s" }, "shardLockExpiration must be longer than 1 second"],
      [{ shardLockExpiration: Infinity }, "shardLockExpiration must be longer than 1 second"],
      [
        { shardLockRefreshInterval: 0 },
        "shardLockRefreshInterval must be longer than 0, got 0 ms. Write it as \"3 seconds\""
      ],
      [{ shardLockRefreshInterval: -1 }, "shardLockRefreshInterval must be longer than 0"]
    ] as unknown as ReadonlyArray<[Config, string]>
  )("that can never work are defects: %o", ([config, message]) =>
    Effect.gen(function*() {
      const defect = yield* make(config)
      assert.instanceOf(defect, RangeError)
      assert.include(defect.message, `EtcdRunnerStorage: `)
      assert.include(defect.message, message)
    }).pipe(provideMemory))

  it.effect.each([[""], ["/a"], ["a/"], ["a//b"], [7]] as ReadonlyArray<[string]>)(
    "that cannot be a prefix are defects: %o",
    ([prefix]) =>
      Effect.gen(function*() {
        const defect = yield* make({}, { prefix })
        assert.instanceOf(defect, RangeError)
        assert.include(defect.message, "EtcdRunnerStorage: cannot use the prefix ")
        assert.include(defect.message, "such as \"effect-cluster\"")
      }).pipe(provideMemory)
  )

  it.effect("that work leave time for two refreshes and for what stops, whatever they are", () =>
    Effect.gen(function*() {
      for (let millis = 1100; millis < 100_000; millis += 300) {
        assert.isUndefined(yield* make({ shardLockExpiration: millis }))
        const ttl = Math.ceil(millis / 1000) * 1000
        const interval = Math.min(10_000, millis / 3)
        // What the lease is trusted for, when it was renewed a quarter of the interval before the last refresh began.
        const trusted = Duration.toMillis(Duration.millis(ttl)) - Math.max(ttl / 10, 300) - interval / 4
        assert.isAbove(trusted, 2 * interval, `${millis} ms`)
      }
    }).pipe(provideMemory))
})

describe("an etcd that is restored from a backup", () => {
  for (const bumpRevision of [0n, 1_000_000_000n]) {
    it.effect(`has no shard that nobody runs, with its revision bumped by ${bumpRevision}`, () =>
      Effect.gen(function*() {
        const { restore, snapshot } = yield* faults
        const [a, b] = [yield* machine(1), yield* machine(2)]
        yield* a.register
        yield* b.register
        yield* a.acquire(shards(3))
        const backup = yield* snapshot
        yield* a.release(shard(2))
        // More is written than what comes after the restore.
        yield* Effect.repeat(Effect.andThen(b.acquire([shard(9)]), b.release(shard(9))), { times: 20 })
        yield* b.acquire([shard(2)])
        yield* pass("1 second")
        yield* restore(backup, { bumpRevision })
        // Each of them hears of it with its next refresh at the latest, and what it had ends.
        yield* pass("2 seconds")
        assert.isTrue(Exit.isFailure(yield* within(2000, a.refresh([shard(1), shard(3)]))))
        assert.isTrue(Exit.isFailure(yield* within(2000, b.refresh([shard(2)]))))
        yield* a.releaseAll
        yield* b.releaseAll
        yield* pass("3 seconds")
        assert.deepStrictEqual(yield* heldKeys, [])
        assert.deepStrictEqual(yield* b.acquire(shards(3)), names(shards(3)))
        assert.deepStrictEqual(yield* b.refresh(shards(3)), names(shards(3)))
      }).pipe(provideMemory))
  }
})
