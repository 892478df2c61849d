/**
 * The runners of a cluster. Each is registered, with its machine ID, on a lease of its own, and leaves with it.
 *
 * Machine IDs are given in turn, and not again when the lease is over: a runner that etcd does not hear from may run on, and
 * make snowflakes. etcd counts by itself, since each put of a key makes its version greater by one. A backup brings back a
 * smaller version, so where its revisions leap, the IDs do, too.
 */
import { Runner } from "effect/cluster/Runner"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Etcd from "../../Etcd.ts"
import type { LeaseImpl } from "../session/lease.ts"
import { TaggedError } from "../taggedError.ts"
import type { CallLease } from "./callLease.ts"
import { type Keys, restAfter } from "./keys.ts"

export interface Registry {
  /** Returns the machine ID, which the runner keeps for as long as its lease lives. */
  readonly register: (
    lease: CallLease,
    address: string,
    runner: Runner,
    healthy: boolean
  ) => Effect.Effect<number, Etcd.EtcdError | AllMachineIdsTaken>
  readonly unregister: (lease: CallLease, address: string) => Effect.Effect<void, Etcd.EtcdError>
  readonly getRunners: Effect.Effect<Array<readonly [runner: Runner, healthy: boolean]>, Etcd.EtcdError>
  readonly setRunnerHealth: (address: string, healthy: boolean) => Effect.Effect<void, Etcd.EtcdError>
}

/** A runner as it stands in etcd. */
const Registration = Schema.fromJsonString(Schema.Struct({
  runner: Runner,
  healthy: Schema.Boolean,
  machineId: Schema.Int
}))

const encode = Schema.encodeSync(Registration)
const decode = Schema.decodeOption(Registration)

const registrationOf = ({ value }: Etcd.KeyValue) => decode(Buffer.from(value).toString())

/** The greatest machine ID: a snowflake has ten bits for it. The smallest is 1. */
const maxMachineId = 1023

/** A restore adds 10^9 revisions as a rule: one or two of these. No cluster makes as many in a short time. */
const leap = 1n << 29n

/**
 * How many IDs a leap leaves out: more than runners register after a backup. It is what the golden ratio makes of all IDs,
 * so that several leaps, too, lead away from where they began.
 */
const leftOutByLeap = 391n

/** With more runners than a snowflake has room for, two of them would make equal ones. */
export class AllMachineIdsTaken
  extends TaggedError<AllMachineIdsTaken>("effect-etcd-lock/EtcdRunnerStorage/AllMachineIdsTaken")(
    "AllMachineIdsTaken",
    {}
  )
{
  override get message(): string {
    return `All ${maxMachineId} machine IDs are taken, so no other runner can join the cluster`
  }
}

export const make = (etcd: Etcd.Etcd["Service"], keys: Keys): Registry => {
  const turns = new WeakMap<LeaseImpl, Turn>()

  const register: Registry["register"] = Effect.fnUntraced(function*(lease, address, runner, healthy) {
    const granted = yield* lease.granted
    while (true) {
      const turn = turns.get(granted) ?? (yield* freeTurn)
      turns.set(granted, turn)
      const { compare, machineId } = turn
      const value = encode({ runner, healthy, machineId })
      const { succeeded } = yield* etcd.txn({
        compare,
        then: [Etcd.put(keys.runner(address), value, { lease: granted.id })],
        idempotent: true
      }).pipe(
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            if (reason === "LeaseNotFound") granted.notFound()
          })
        )
      )
      if (succeeded) {
        turns.set(granted, { compare: [], machineId })
        return machineId
      }
      turns.delete(granted)
    }
  })

  /** An ID whose answer is lost is given to nobody. When all have been given, those of the registered runners are left out. */
  const freeTurn = Effect.gen(function*() {
    let taken: ReadonlySet<number> = new Set()
    while (taken.size < maxMachineId) {
      const turn = yield* nextTurn
      if (taken.has(turn.machineId)) continue
      // Read after the turn has come: who had it when all were given the last time has registered by now, or never will.
      const { kvs } = yield* etcd.range(Etcd.getPrefix(keys.runners))
      taken = new Set(registered(kvs).map(({ machineId }) => machineId))
      if (!taken.has(turn.machineId)) return turn
    }
    return yield* new AllMachineIdsTaken()
  })

  const nextTurn = Effect.map(
    etcd.txn({ then: [Etcd.put(keys.machineIds, ""), Etcd.get(keys.machineIds)], idempotent: true }),
    ({ responses, revision }): Turn => {
      const [, { kvs: [count] }] = responses as Counted
      const { key, version } = count!
      const turn = version - 1n + revision / leap * leftOutByLeap
      return {
        machineId: Number(turn % BigInt(maxMachineId)) + 1,
        compare: [{ key, target: "Version", operator: "<", value: version + BigInt(maxMachineId) }]
      }
    }
  )

  const unregister: Registry["unregister"] = (lease, address) =>
    // The registration of another process has a lease that only that process knows.
    lease.current() === undefined
      ? Effect.asVoid(etcd.txn({ then: [Etcd.remove(keys.runner(address))], idempotent: true }))
      : lease.revoke

  const registered = (kvs: ReadonlyArray<Etcd.KeyValue>) =>
    kvs.flatMap((kv) => {
      // The prefix of another cluster may begin with what this one's keys begin with.
      if (restAfter(keys.runners)(kv.key).includes("/")) return []
      return Option.toArray(registrationOf(kv))
    })

  const getRunners: Registry["getRunners"] = Effect.map(
    etcd.range(Etcd.getPrefix(keys.runners)),
    ({ kvs }) => registered(kvs).map(({ healthy, runner }) => [runner, healthy] as const)
  )

  const setRunnerHealth: Registry["setRunnerHealth"] = Effect.fnUntraced(function*(address, healthy) {
    const key = keys.runner(address)
    while (true) {
      const { kvs: [kv] } = yield* etcd.range(Etcd.get(key))
      const registration = kv === undefined ? undefined : Option.getOrUndefined(registrationOf(kv))
      if (kv === undefined || registration === undefined || registration.healthy === healthy) return
      const isWritten = yield* etcd.txn({
        compare: [Etcd.compareModRevision(key, "=", kv.modRevision)],
        // It is usually another runner's key, and has to end with that runner's lease.
        then: [Etcd.put(key, encode({ ...registration, healthy }), { lease: kv.lease })],
        idempotent: true
      }).pipe(
        Effect.map(({ succeeded }) => succeeded),
        // The runner has left meanwhile.
        Effect.catchIf(({ reason }) => reason === "LeaseNotFound", () => Effect.succeed(true))
      )
      if (isWritten) return
    }
  })

  return { register, unregister, getRunners, setRunnerHealth }
}

/** A machine ID whose turn has come, and that it has not come again, until it is registered. */
interface Turn {
  readonly machineId: number
  readonly compare: ReadonlyArray<Etcd.Compare>
}

type Counted = readonly [Etcd.PutResult, Etcd.RangeResult]
