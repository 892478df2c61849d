/** The runners of a cluster. Each is registered, with its machine ID, on a lease of its own, and leaves with it. */
import * as Arr from "effect/Array"
import { Runner } from "effect/cluster/Runner"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Etcd from "../../Etcd.ts"
import { TaggedError } from "../taggedError.ts"
import type { CallLease } from "./callLease.ts"
import { type Keys, restAfter } from "./keys.ts"

export interface Registry {
  /** Returns the machine ID, which no other runner has as long as this one's lease lives. */
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

/** A snowflake has ten bits for the machine. */
const machineIds = Arr.range(1, 1023)

/** With more runners than a snowflake has room for, two of them would make equal ones. */
export class AllMachineIdsTaken
  extends TaggedError<AllMachineIdsTaken>("effect-etcd-lock/EtcdRunnerStorage/AllMachineIdsTaken")(
    "AllMachineIdsTaken",
    {}
  )
{
  override get message(): string {
    return `All ${machineIds.length} machine IDs are taken, so no other runner can join the cluster`
  }
}

export const make = (etcd: Etcd.Etcd["Service"], keys: Keys): Registry => {
  const idOf = ({ key }: Etcd.KeyValue) => Number(restAfter(keys.machines)(key))

  const register: Registry["register"] = Effect.fnUntraced(function*(lease, address, runner, healthy) {
    for (let attempt = 1;; attempt++) {
      const granted = yield* lease.granted
      const { kvs } = yield* etcd.range(Etcd.getPrefix(keys.machines))
      // A runner that registers again keeps its ID.
      const own = kvs.find((kv) => kv.lease === granted.id)
      const free = own === undefined ? freeBeside(kvs.map(idOf)) : [idOf(own)]
      // Of all runners that register at the same moment, one gets the smallest ID. The others choose at random, to
      // rarely collide.
      const machineId = attempt === 1 ? free[0] : free[yield* Random.nextIntBetween(0, free.length - 1)]
      if (machineId === undefined) return yield* new AllMachineIdsTaken()
      const { succeeded } = yield* etcd.txn({
        compare: [Etcd.compareCreateRevision(keys.machine(machineId), "=", own?.createRevision ?? 0n)],
        then: [
          Etcd.put(keys.machine(machineId), address, { lease: granted.id }),
          Etcd.put(keys.runner(address), encode({ runner, healthy, machineId }), { lease: granted.id })
        ],
        idempotent: true
      }).pipe(Effect.tapError(({ reason }) =>
        Effect.sync(() => {
          if (reason === "LeaseNotFound") granted.notFound()
        })
      ))
      if (succeeded) return machineId
    }
  })

  const unregister: Registry["unregister"] = (lease, address) =>
    // The registration of another process has a lease that only that process knows.
    lease.current() === undefined
      ? Effect.asVoid(etcd.txn({ then: [Etcd.remove(keys.runner(address))], idempotent: true }))
      : lease.revoke

  const getRunners: Registry["getRunners"] = Effect.map(
    etcd.range(Etcd.getPrefix(keys.runners)),
    ({ kvs }) =>
      kvs.flatMap((kv) => {
        // The prefix of another cluster may begin with what this one's keys begin with.
        if (restAfter(keys.runners)(kv.key).includes("/")) return []
        return Option.match(registrationOf(kv), {
          onNone: () => [],
          onSome: ({ healthy, runner }) => [[runner, healthy] as const]
        })
      })
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

const freeBeside = (taken: ReadonlyArray<number>): ReadonlyArray<number> => {
  const free = new Set(machineIds)
  for (const id of taken) free.delete(id)
  return [...free]
}
