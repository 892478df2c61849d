/**
 * The mark that a run has succeeded: a key on a lease of its own, so that etcd deletes it when its time is over, by
 * etcd's clock and no other. It stays for days, so it lies where no lock's entries do.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { Current } from "../../Current.ts"
import { CurrentRun } from "../../CurrentRun.ts"
import * as Etcd from "../../Etcd.ts"
import type { Handle, LockLost, OnceOptions } from "../../Lock.ts"
import * as Leases from "../etcd/leases.ts"
import { getKey } from "../line/requests.ts"
import * as Check from "../options.ts"
import { maxSeconds } from "../session/lease.ts"
import { besideLoss } from "../supervise.ts"
import { describe, encode } from "./description.ts"
import { ownedOf } from "./ownership.ts"
import { readAll } from "./pages.ts"

type Service = Etcd.Etcd["Service"]

/** Where the mark of a run is, and for how many seconds it stays. */
export interface Mark {
  readonly key: string
  readonly seconds: number
}

/** Checks the options of a run. The name has been checked. */
export const markOf = (module: string, name: string, options: OnceOptions): Mark => {
  Check.run(module, options?.run)
  const keepFor = Check.duration(keepForIn(module), options.keepFor ?? defaultKeepFor)
  return { key: keyOf(name, options.run), seconds: Math.ceil(Duration.toSeconds(keepFor)) }
}

// No name begins with a slash, not even that of a connection whose prefix is one.
const folderOf = (name: string) => `//done/${name}/`

const keyOf = (name: string, run: string) => folderOf(name) + encodeURIComponent(run)

export const isSet = (etcd: Service, { key }: Mark): Effect.Effect<boolean, Etcd.EtcdError> =>
  Effect.map(etcd.range(getKey(key)), ({ kvs }) => kvs.length > 0)

/** Runs the body of a section and sets the mark, unless it is set already. */
export const unlessSet = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  etcd: Service,
  mark: Mark
): Effect.Effect<Option.Option<A>, E | LockLost | Etcd.EtcdError, Exclude<R, CurrentRun> | Current> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      if (yield* restore(isSet(etcd, mark))) return Option.none()
      const lock = yield* Current
      const succeed = marking(etcd, lock, mark)
      const succeeded = yield* restore(Effect.provideService(self, CurrentRun, { succeed }))
      yield* succeed.pipe(
        Effect.catchCause((cause) =>
          Effect.failCause(isLoss(cause) ? besideLoss(cause, Exit.succeed(succeeded)) : cause)
        )
      )
      return Option.some(succeeded)
    })
  )

/**
 * Sets the mark, once, if the lock is still owned, and takes no longer than one request may. A mark that is not known to be
 * set is taken back, for which nobody waits, and can be set again.
 */
const marking = (etcd: Service, lock: Handle, { key, seconds }: Mark): CurrentRun["Service"]["succeed"] => {
  let isSet = false
  let method = "leaseGrant"
  let lastLease: bigint | undefined
  const set = Effect.gen(function*() {
    // What an earlier attempt has sent may still arrive, and changes nothing if its lease is gone by then.
    if (lastLease !== undefined) {
      method = "leaseRevoke"
      yield* Leases.revoke(etcd, lastLease)
    }
    method = "leaseGrant"
    const { id: lease } = yield* Leases.grant(etcd, seconds)
    lastLease = lease
    const value = encode({ since: yield* Clock.currentTimeMillis, metadata: undefined, id: undefined, span: undefined })
    method = "txn"
    yield* Effect.onError(
      lock.txn({ then: [Etcd.put(key, value, { lease })], idempotent: true }),
      () => Leases.abandon(etcd, lease)
    )
    isSet = true
  }).pipe(
    Effect.timeoutOrElse({ duration: etcd.requestTimeout, orElse: () => notInTime(method) }),
    Effect.tapError((error) => isSilence(error) ? ownedOf(lock).expectSilence : Effect.void),
    // The run is done: an interruption that comes now does not undo it.
    Effect.uninterruptible
  )
  return Semaphore.makeUnsafe(1).withPermits(1)(Effect.suspend(() => isSet ? Effect.void : set))
}

/** No answer for as long as one request may take: the section is not to wait for as long again. */
const isSilence = (error: LockLost | Etcd.EtcdError): boolean =>
  error._tag === "EtcdError" && error.reason === "Timeout"

const isLoss = (cause: Cause.Cause<LockLost | Etcd.EtcdError>): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error._tag === "LockLost")

const notInTime = (method: string) =>
  Effect.fail(
    new Etcd.EtcdError({
      reason: "Timeout",
      method,
      outcome: "Unknown",
      description: "no answer in time to set the mark that the run has succeeded"
    })
  )

/** Returns the runs of a name whose marks are set, oldest first. */
export const list = Effect.fnUntraced(function*(etcd: Service, name: string) {
  const folder = folderOf(name)
  const { kvs } = yield* readAll(etcd, Etcd.getPrefix(folder), identity)
  const oldestFirst = kvs.toSorted((a, b) => Number(a.createRevision - b.createRevision))
  const runs = yield* Effect.forEach(oldestFirst, (kv) => runOf(etcd, kv, folder), { concurrency: 16 })
  return runs.flatMap((run) => run === undefined ? [] : [run])
})

const runOf = Effect.fnUntraced(function*(etcd: Service, kv: Etcd.KeyValue, folder: string) {
  const encoded = Buffer.from(kv.key).toString().slice(folder.length)
  const run = Result.getOrUndefined(Result.try(() => decodeURIComponent(encoded)))
  // A key of another name, which lies deeper, or one that is no mark.
  if (run === undefined || encodeURIComponent(run) !== encoded) return undefined
  const { askedAt: succeededAt, host, pid } = describe(kv)
  if (kv.lease === 0n) return { run, host, pid, succeededAt, remaining: undefined }
  const { remaining } = yield* etcd.leaseTimeToLive(kv.lease)
  // Its time is over since it was read.
  return remaining < 0 ? undefined : { run, host, pid, succeededAt, remaining: Duration.seconds(remaining) }
})

/**
 * Takes a mark away, and returns whether it was set. Its lease is left to expire, since others' keys may be on the lease of
 * a mark that was put by hand.
 */
export const forget = Effect.fnUntraced(function*(etcd: Service, name: string, run: string) {
  const { kvs: [mark] } = yield* etcd.range(getKey(keyOf(name, run)))
  if (mark === undefined) return false
  const { succeeded } = yield* etcd.txn({
    compare: [Etcd.compareCreateRevision(mark.key, "=", mark.createRevision)],
    then: [Etcd.remove(mark.key)]
  })
  return succeeded
})

const defaultKeepFor = "7 days"

const keepForIn = (module: string): Check.DurationOption => ({
  module,
  option: "keepFor",
  range: `from 1 second to ${maxSeconds} seconds`,
  accepts: (keepFor) => Duration.toSeconds(keepFor) >= 1 && Math.ceil(Duration.toSeconds(keepFor)) <= maxSeconds,
  example: defaultKeepFor
})
