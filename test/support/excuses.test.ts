/** What the excuses of the checkers do not excuse. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Etcd } from "effect-etcd-lock"
import { Misfortunes, ofSchedules } from "./excuses.ts"
import { type Entry, isThere, Past } from "./Past.ts"
import { play } from "./play.ts"
import type { Request, Schedule, Step } from "./Schedule.ts"

type World = (etcd: Etcd.Etcd["Service"], process: number) => Etcd.Etcd["Service"]

const request = (process: Request["process"], some: Partial<Request> = {}): Request => ({
  _tag: "Request",
  process,
  name: "a",
  claim: "lock",
  how: "withLock",
  hold: 4000,
  unwinding: 0,
  ending: "succeed",
  timeout: "none",
  ...some
})

const pass = (millis: Extract<Step, { readonly _tag: "Advance" }>["millis"]): Step => ({ _tag: "Advance", millis })
const deleteFirst: Step = { _tag: "DeleteKey", key: 0 }

const schedule = (...steps: ReadonlyArray<Step>): Schedule => ({
  processes: 2,
  ttl: 5,
  layout: "queue",
  idles: false,
  shortLine: 8,
  steps
})

/** What the checker finds where etcd is as it should be, and in another world. */
const judged = (schedule: Schedule, through: World) =>
  Effect.all({ here: play(schedule), there: play(schedule, { through }) })

const finds = (schedule: Schedule, through: World, what: RegExp) =>
  Effect.map(judged(schedule, through), ({ here, there }) => {
    assert.deepStrictEqual(here, [])
    assert.match(there.join("\n"), what)
  })

// -----------------------------------------------------------------------------
// other worlds
// -----------------------------------------------------------------------------

const unavailable = (method: Etcd.Method) =>
  new Etcd.EtcdError({ reason: "Unavailable", method, outcome: "Refused", description: "for no reason" })

/** No watch reports anything. */
const silent: World = (etcd) => ({
  ...etcd,
  subscribe: (options, listener) => etcd.subscribe(options, { ...listener, onEvents: () => {} })
})

/** No process gets an answer to a transaction. */
const refusing: World = (etcd) => ({ ...etcd, txn: () => Effect.fail(unavailable("txn")) })

/** Renewals are acknowledged and not made, and the first process hears of nothing. */
const forgetful: World = (etcd, process) => ({
  ...process === 0 ? silent(etcd, process) : etcd,
  leaseKeepAlive: (id) => Effect.map(etcd.leaseTimeToLive(id), (lease) => ({ ...lease, ttl: lease.granted }))
})

/** The second process's leases are gone when it asks. */
const expiring: World = (etcd, process) => ({
  ...etcd,
  leaseKeepAlive: (id, timeout) =>
    Effect.map(etcd.leaseKeepAlive(id, timeout), (renewed) => process === 1 ? { ...renewed, ttl: 0 } : renewed)
})

/** Revokes are acknowledged and not made. */
const keeping: World = (etcd) => ({ ...etcd, leaseRevoke: () => Effect.void })

/** Transactions are answered with something else. */
const answering = (etcd: Etcd.Etcd["Service"], change: (answer: any, txn: any) => unknown): Etcd.Etcd["Service"] => {
  const txn = (txn: any) => Effect.map(etcd.txn(txn), (answer) => change(answer, txn))
  return { ...etcd, txn: txn as any }
}

/** Every key to delete was there. */
const flattering: World = (etcd) =>
  answering(etcd, (answer, { then }) =>
    then.length === 1 && then[0]._tag === "Delete"
      ? { ...answer, succeeded: true, responses: [{ _tag: "Delete", deleted: 1 }] }
      : answer)

/** A crowd that etcd has never had stands ahead of all. */
const crowded: World = (etcd) => {
  const crowding = (i: number) => entryOf(`a/${i}-1-1of12`, 1n)
  const crowd = (response: any): unknown => {
    if (response._tag === "Txn") return { ...response, responses: response.responses.map(crowd) }
    const isLine = response._tag === "Range" && response.kvs.length > 0 && response.kvs[0].value.length === 0
    return isLine
      ? { ...response, kvs: [...Array.from({ length: 12 }, (_, i) => crowding(i)), ...response.kvs] }
      : response
  }
  return answering(etcd, (answer) => ({ ...answer, responses: answer.responses.map(crowd) }))
}

/** Who asks for the holder is told the first one, ever again. */
const stuck: World = (etcd) => {
  let first: Etcd.RangeResult["kvs"] = []
  return {
    ...etcd,
    range: (range) =>
      Effect.map(etcd.range(range), (answer) => {
        if (range.limit !== 1) return answer
        if (first.length === 0) first = answer.kvs
        return { ...answer, kvs: first }
      })
  }
}

/** All but the first put of each process are refused, although nobody stands in the line. */
const taken: World = (etcd) => {
  let puts = 0
  const txn = (txn: any): Effect.Effect<any, Etcd.EtcdError> =>
    txn.then[0]?._tag !== "Put" || ++puts === 1
      ? etcd.txn(txn)
      : Effect.map(etcd.range(Etcd.get("nothing")), (nothing) => ({
        ...nothing,
        _tag: "Txn",
        succeeded: false,
        repeated: false,
        responses: txn.else.map(() => nothing)
      }))
  return { ...etcd, txn: txn as any }
}

/** Answers to waiters show nothing ahead of them. */
const shortSighted: World = (etcd) => ({
  ...etcd,
  range: (range) =>
    Effect.map(
      etcd.range(range),
      (answer) => ({ ...answer, kvs: answer.kvs.slice(-1), count: Math.min(1, answer.count) })
    )
})

// -----------------------------------------------------------------------------
// each excuse
// -----------------------------------------------------------------------------

const ttl = 3000
const requestTimeout = 2000
const misfortunes = () => new Misfortunes({ requestTimeout, ttl })

const entryOf = (key: string, createRevision: bigint): Entry => ({
  key: Buffer.from(key),
  value: Buffer.alloc(0),
  createRevision,
  modRevision: createRevision,
  version: 1n,
  lease: 1n
})

const mine = entryOf("a/1", 5n)

const notExcused: { readonly [K in keyof typeof ofSchedules]: () => Effect.Effect<void> } = {
  takenAway: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      world.take([mine], 100)
      assert.strictEqual(world.takenAt(mine), 100)
      assert.isUndefined(world.takenAt(entryOf("a/1", 6n)), "the key's next life")
      assert.isUndefined(world.takenAt(entryOf("a/2", 5n)), "another key")
      // A holder that hears of it from no watch, though none is late, is told too late by its heartbeat.
      yield* finds(schedule(request(0), pass(500), deleteFirst, pass(2500)), silent, /P1: .* is not told/)
    }),
  onTheWay: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      assert.strictEqual(world.arrivesBy(0, 100), 100, "nothing takes any time where there is no fault")
      const fault = world.begin("delay", 50, 1)
      fault.to = 200
      assert.strictEqual(world.arrivesBy(0, 100), 100, "the fault of another process")
      assert.strictEqual(world.arrivesBy(1, 100), 200 + requestTimeout)
      assert.strictEqual(world.arrivesBy(1, 5000), 5000, "a fault that is over")
      // A turn that no answer can have shown is none, whatever was deleted elsewhere.
      const steps = [request(0), pass(1), request(1), pass(1), { _tag: "DeletePrefix", name: "b" } as const, pass(1000)]
      yield* finds({ ...schedule(...steps), shortLine: 1 }, shortSighted, /P1: .* starts behind/)
    }),
  toldBefore: () =>
    // It was not told that its lease had expired.
    finds(
      { ...schedule(request(0), pass(1), request(1), pass(7000)), ttl: 2 },
      forgetful,
      /P1: .* its lease expired (and it was not told|within \d+ ms)/
    ),
  outOfReach: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      const fault = world.begin("isolated", 100, 0)
      fault.to = 200
      assert.isFalse(world.hasRecovered(0, 200 + ttl))
      assert.isTrue(world.hasRecovered(0, 201 + ttl), "a TTL later")
      assert.isTrue(world.hasRecovered(1, 200), "another process")
      yield* finds(schedule(request(1), pass(7000)), expiring, /P3: .* is told of a loss without a cause/)
    }),
  unanswered: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      world.begin("a lost txn", 100, 0).to = 200
      assert.isUndefined(world.faultOf(0, 201), "a fault that is over")
      assert.isUndefined(world.faultOf(1, 100), "that of another process")
      assert.strictEqual(world.endsBy(0, 201 + requestTimeout), 201 + requestTimeout)
      yield* finds(schedule(request(0, { hold: 1 }), pass(7000)), refusing, /P3: .* fails without a cause: EtcdError/)
    }),
  unsaid: () =>
    // A success although the key was deleted, as etcd would have said.
    finds(
      schedule(request(0, { hold: 30 }), pass(20), deleteFirst, pass(20)),
      flattering,
      /P3: .* though its key had been deleted/
    ),
  underWay: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      world.begin("a lost txn", 100, 0).to = 200
      assert.strictEqual(world.endsBy(0, 150), 150 + requestTimeout)
      assert.strictEqual(world.endsBy(1, 150), 150, "the join of another process")
      assert.strictEqual(world.endsBy(0, 201 + requestTimeout), 201 + requestTimeout, "a fault that is over")
      // A request that ended without a fault left no join behind, and keeps no place.
      const steps = [request(0, { hold: 1 }), pass(100), request(0, { how: "tryWithLock" }), pass(100)]
      yield* finds(schedule(...steps), taken, /P3: .* fails without a cause: LockHeld/)
      // One that ended in a fault does, until its join has ended.
      const lost: Step = { _tag: "Drop", what: "Reply", method: "txn", times: 1 }
      const given: ReadonlyArray<Step> = [lost, request(0), pass(100), { _tag: "Interrupt", request: 0 }, pass(100)]
      const tried = [request(0, { how: "tryWithLock", hold: 1 }), pass(100)]
      assert.deepStrictEqual(yield* play(schedule(...given, ...tried)), [])
      yield* finds(schedule(...given, pass(2500), ...tried), taken, /P3: .* fails without a cause: LockHeld/)
    }),
  outdated: () => {
    // Its own process waits, and then holds, so that it asks etcd only for the holder.
    const tried = request(1, { how: "tryWithLock" })
    const steps = [request(0, { hold: 300 }), pass(1), request(1), pass(20), tried, pass(500), tried, pass(20)]
    return finds(schedule(...steps), stuck, /P3: .* fails without a cause: LockHeld/)
  },
  closing: () =>
    // The session of another process closes.
    finds(
      schedule(request(0, { hold: 1 }), { _tag: "Close", process: 1 }, pass(7000)),
      refusing,
      /P3: .* without a cause/
    ),
  late: () =>
    Effect.gen(function*() {
      const world = misfortunes()
      world.delayWatches(20_000, 100)
      const heartbeat = ttl / 3 + 1000
      assert.strictEqual(world.knownBy(0, 150), 150 + heartbeat, "a heartbeat tells of it sooner")
      assert.strictEqual(world.knownBy(0, 50), 50, "what happened before is not late")
      world.delayWatches(0, 200)
      assert.strictEqual(world.knownBy(0, 20_000), 20_200, "what comes after may not overtake it")
      assert.strictEqual(world.knownBy(0, 20_200), 20_200)
      world.hurryWatches(5000)
      assert.strictEqual(world.knownBy(0, 5000), 5000)
      // That watches were late before says nothing of one that is silent now.
      const steps: ReadonlyArray<Step> = [
        { _tag: "DelayWatches", millis: 100 },
        request(0),
        pass(250),
        deleteFirst,
        pass(2500)
      ]
      yield* finds(schedule(...steps), silent, /P1: .* is not told/)
    }),
  leftToExpire: () =>
    finds(schedule(request(0, { hold: 1 }), pass(20)), keeping, /P5: leases are left when all is closed/),
  atOnce: () =>
    Effect.sync(() => {
      const past = new Past()
      past.see(4n, () => [], 0)
      past.see(5n, () => [mine], 1)
      past.see(6n, () => [mine], 2)
      past.see(9n, () => [], 3)
      const known = past.find("a/1", 5n)!
      assert.deepStrictEqual([4n, 5n, 6n, 7n, 8n, 9n].map((revision) => isThere(known, revision)), [
        "No",
        "Yes",
        "Yes",
        "Unsaid",
        "Unsaid",
        "No"
      ])
      assert.deepStrictEqual([6n, 7n, 8n, 9n].map((revision) => past.isUnseen(revision)), [false, true, true, false])
      assert.deepStrictEqual([7n, 8n].map((revision) => past.hasUnseenSince(revision)), [true, false])
    })
}

describe("in the checker of schedules", () => {
  for (const [id, { ends, excuses }] of Object.entries(ofSchedules)) {
    it.live(`${id} does not excuse more (${excuses}. It ends: ${ends})`, () =>
      notExcused[id as keyof typeof notExcused]())
  }

  it.live("a refusal names a state that was read", () => {
    const permits: Partial<Request> = { claim: 1, how: "tryAcquire" }
    const many: Schedule = { ...schedule(request(0, permits), request(1, permits), pass(1)), permits: 12 }
    return finds(many, crowded, /P3: .* fails without a cause: PermitsUnavailable/)
  })
})
