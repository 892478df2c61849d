/**
 * The shards that one runner holds: a key for each, on one lease for all of them.
 *
 * The runner believes what it was last told for as long as two refreshes may take. So nothing here says that a shard is
 * held unless its lease can be trusted for that long.
 *
 * It prepares shards that it was given, for an interval at most, before it takes them and names them to a refresh. So a
 * refresh answers for all that was given, whatever it names.
 */
import * as Arr from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Etcd from "../../Etcd.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import type { Background } from "../background.ts"
import type { Batch } from "../etcd/batch.ts"
import * as Limits from "../etcd/limits.ts"
import { proposalTimeout } from "../line/cleanup.ts"
import * as Log from "../log.ts"
import { monotonicMillis } from "../monotonic.ts"
import type { LeaseImpl } from "../session/lease.ts"
import type { CallLease } from "./callLease.ts"
import { type Keys, restAfter } from "./keys.ts"

export interface Shards {
  /** Returns those of the shards that are held now. */
  readonly acquire: (
    ids: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<string>, LeaseExpired | Etcd.EtcdError>
  /**
   * Returns those of the shards that are still held, and will be until the next refresh has ended or failed. It fails if
   * that cannot be said of these and of those that the runner has yet to take, since only a failure makes it stop what runs
   * on them at once.
   */
  readonly refresh: (
    ids: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<string>, LeaseExpired | Etcd.EtcdError>
  readonly release: (id: string) => Effect.Effect<void, Etcd.EtcdError>
  /** Succeeds when etcd has none of the runner's shards any more, whatever requests are under way. */
  readonly releaseAll: Effect.Effect<void, Etcd.EtcdError>
  readonly fencingToken: (id: string) => bigint | undefined
}

/** Up to this many shards are read one by one, which is cheaper than to read all shards of the cluster. */
const few = 16

export const make = (options: {
  readonly etcd: Etcd.Etcd["Service"]
  readonly clock: Clock.Clock
  readonly background: Background
  readonly batch: Batch
  readonly keys: Keys
  readonly address: string
  readonly lease: CallLease
  /** How far apart refreshes are, in milliseconds, and how long each may take. */
  readonly interval: number
}): Shards => {
  const { address, background, batch, clock, etcd, interval, keys, lease } = options
  /** How long after its request a put may still come. */
  const latest = Duration.toMillis(etcd.requestTimeout) + proposalTimeout
  /** The lease that all of these are on. */
  let on: LeaseImpl | undefined
  /** The create revisions of the shards that the runner was told it holds. */
  const held = new Map<string, bigint>()
  /** The create revisions of what is being deleted. */
  const leaving = new Map<string, bigint>()
  /** Shards whose put got no answer, and until when the put may still come without the runner's knowledge. */
  const strays = new Map<string, number>()
  /** Shards whose put is under way. */
  const asked = new Set<string>()
  /** Shards that the runner was given last and has yet to take, which it does in one step, and until when it may. */
  const given = new Set<string>()
  let takenBy = 0

  const limits = Limits.of(etcd)
  const now = () => monotonicMillis(clock)
  const idOf = restAfter(keys.shards)

  const forget = () => {
    for (const known of [held, leaving, strays, given]) known.clear()
    on = undefined
  }

  const granted = Effect.tap(lease.granted, (granted) =>
    Effect.sync(() => {
      if (on === granted) return
      forget()
      on = granted
      granted.onLoss((loss) => {
        if (on !== granted || loss.reason === "Released" || held.size === 0) return
        background(Log.warning(`Runner ${address} has lost its ${held.size} shards: ${loss.message}`, {
          runner: address,
          lease: granted.id.toString(16),
          shards: held.size
        }))
      })
    }))

  // ---------------------------------------------------------------------------
  // acquire
  // ---------------------------------------------------------------------------

  const acquire: Shards["acquire"] = Effect.fnUntraced(function*(ids) {
    // The runner has yet to hear that it has lost what it holds, and a new lease would hide it.
    if (held.size > 0 && on?.isAlive() === false) return []
    const current = yield* granted
    const unanswered = new Set(ids)
    const got = new Map<string, bigint>()
    const asking = put(current, [...unanswered], (ids, revisions) => {
      for (const id of ids) unanswered.delete(id)
      for (const [id, revision] of revisions) got.set(id, revision)
    })
    for (const id of unanswered) asked.add(id)
    return yield* asking.pipe(
      Effect.flatMap((exits) => got.size > 0 ? vouchAfterwards(current) : Exit.asVoidAll(exits)),
      whileAlive(current),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          for (const id of ids) asked.delete(id)
          for (const id of unanswered) strays.set(id, now() + latest)
          if (Exit.isSuccess(exit)) give(got)
          else for (const id of got.keys()) strays.set(id, now() + latest)
        })
      ),
      Effect.map(() => ids.filter((id) => got.has(id)))
    )
  })

  const give = (got: ReadonlyMap<string, bigint>) => {
    given.clear()
    for (const [id, revision] of got) {
      held.set(id, revision)
      given.add(id)
    }
    // The runner's time begins a little later than this.
    takenBy = now() + 2 * interval
  }

  type Revisions = ReadonlyArray<readonly [id: string, revision: bigint]>

  /**
   * Puts shards by as few transactions as etcd takes. Each that is answered has the create revisions of those of its
   * shards that are held.
   */
  const put = (
    current: LeaseImpl,
    ids: ReadonlyArray<string>,
    onAnswer: (ids: ReadonlyArray<string>, revisions: Revisions) => void
  ): Effect.Effect<ReadonlyArray<Exit.Exit<void, Etcd.EtcdError>>> => {
    const parts = ids.map((id) => ({ id, txn: putOne(current, id) }))
    const sizeOf = ({ txn }: typeof parts[number]) => Limits.measure(txn)
    const putSome = (some: Readonly<typeof parts>) => {
      const ids = some.map(({ id }) => id)
      return Effect.flatMap(Effect.exit(putTogether(current, some)), (exit) => {
        const error = Option.getOrUndefined(Exit.findErrorOption(exit))
        if (error !== undefined && some.length > 1 && limits.learn(Limits.together(some.map(sizeOf)), error)) {
          return put(current, ids, onAnswer)
        }
        if (Exit.isSuccess(exit)) onAnswer(ids, exit.value)
        return Effect.succeed([Exit.asVoid(exit)])
      })
    }
    return Effect.map(
      Effect.forEach(Limits.chunks(limits, parts, sizeOf), putSome, { concurrency: "unbounded" }),
      Arr.flatten
    )
  }

  const putOne = (current: LeaseImpl, id: string) => {
    const key = keys.shard(id)
    return Etcd.nested({
      compare: [Etcd.compareCreateRevision(key, "=", 0n)],
      then: [Etcd.put(key, address, { lease: current.id })],
      // An earlier request that got no answer may have put it.
      else: [Etcd.get(key)]
    })
  }

  const putTogether = (
    current: LeaseImpl,
    parts: ReadonlyArray<{ readonly id: string; readonly txn: ReturnType<typeof putOne> }>
  ): Effect.Effect<Revisions, Etcd.EtcdError> => {
    // Their deletes may be answered first, although etcd applies them after this.
    const deleted = parts.map(({ id }) => leaving.get(id))
    return etcd.txn({ then: parts.map(({ txn }) => txn), idempotent: true }).pipe(
      Effect.map(({ responses, revision }) =>
        parts.flatMap(({ id }, i): Revisions => {
          const response = responses[i]!
          if (response.succeeded) return [[id, revision]]
          const [kv] = response.responses[0].kvs
          const isOurs = kv?.lease === current.id && kv.createRevision !== deleted[i]
          return isOurs ? [[id, kv.createRevision]] : []
        })
      ),
      Effect.tapError(({ reason }) =>
        Effect.sync(() => {
          if (reason === "LeaseNotFound") current.notFound()
        })
      )
    )
  }

  /** Vouches until the end of the next refresh, which may begin one interval from now, and take another to fail. */
  const vouchAfterwards = (current: LeaseImpl) =>
    Effect.gen(function*() {
      const isTrusted = Duration.toMillis(yield* current.remaining) > 2 * interval
      const renewed = yield* Effect.exit(isTrusted ? Effect.void : current.renew)
      yield* vouch(current, 2 * interval, renewed)
    })

  // ---------------------------------------------------------------------------
  // refresh
  // ---------------------------------------------------------------------------

  const refresh: Shards["refresh"] = Effect.fnUntraced(function*(ids) {
    if (ids.some((id) => given.has(id))) given.clear()
    const current = on
    if (ids.length === 0 && !mayTakeMore(current)) return yield* Effect.as(probe, [])
    if (current === undefined || (held.size === 0 && !current.isAlive())) return []
    return yield* whileAlive(current)(refreshOn(current, ids))
  })

  /** Whether the runner may yet take shards that it was given. Once it cannot, it has heard of the loss of their lease. */
  const mayTakeMore = (current: LeaseImpl | undefined): boolean =>
    given.size > 0 && (current?.isAlive() === true || now() < takenBy)

  const refreshOn = Effect.fnUntraced(function*(current: LeaseImpl, ids: ReadonlyArray<string>) {
    const began = now()
    const all = given.size === 0 ? ids : [...ids, ...given]
    const revisions = all.map((id) => held.get(id) ?? leaving.get(id))
    const [renewed, seen] = yield* Effect.all([Effect.exit(lease.renewIfDue), read(current, all)], {
      concurrency: "unbounded"
    })
    yield* vouch(current, 2 * interval - (now() - began), renewed)
    sweep(seen, began)
    const isKept = (id: string, i: number) => revisions[i] !== undefined && seen.get(id) === revisions[i]
    const kept = ids.filter(isKept)
    if (kept.length === all.length) return ids
    const lost = all.filter((id, i) => held.has(id) && held.get(id) === revisions[i] && !isKept(id, i))
    if (lost.length === 0) return kept
    // If they have gone with the lease, what runs on them has to stop at once.
    yield* current.renew
    for (const id of lost) held.delete(id)
    yield* Log.warning(`Runner ${address} has lost shards, whose keys were deleted: ${lost.join(", ")}`, {
      runner: address,
      shards: lost.length
    })
    return kept
  })

  /** Fails as soon as the lease is lost: what runs on it has to stop, whatever etcd answers, and however late. */
  const whileAlive =
    ({ awaitLoss }: LeaseImpl) => <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E | LeaseExpired> =>
      Effect.raceFirst(awaitLoss, self)

  /** Whether etcd answers, where there is nothing to keep. */
  const probe = Effect.suspend(() => {
    const current = on
    if (strays.size === 0 || current?.isAlive() !== true) return etcd.range(Etcd.get(keys.runner(address)))
    const began = now()
    return Effect.map(read(current, []), (seen) => sweep(seen, began))
  })

  /** Returns the create revisions of the shards that are on the lease: of these, or of all. */
  const read = (current: LeaseImpl, ids: ReadonlyArray<string>) => {
    const size = { operations: ids.length, bytes: 0 }
    const all = Effect.map(etcd.range(Etcd.getPrefix(keys.shards)), ({ kvs }) => kvs)
    const found = ids.length > few || strays.size > 0 || !limits.allow(size)
      ? all
      : etcd.txn({ then: ids.map((id) => Etcd.get(keys.shard(id))) }).pipe(
        Effect.map(({ responses }) => responses.flatMap(({ kvs }) => kvs)),
        Effect.catchIf((error) => limits.learn(size, error), () => all)
      )
    return Effect.map(found, (kvs) => {
      const seen = new Map<string, bigint>()
      for (const { createRevision, key, lease } of kvs) if (lease === current.id) seen.set(idOf(key), createRevision)
      return seen
    })
  }

  /** Fails unless the lease can be trusted for longer than `millis`, with the reason why it was not renewed. */
  const vouch = (
    current: LeaseImpl,
    millis: number,
    renewed: Exit.Exit<unknown, LeaseExpired | Etcd.EtcdError>
  ): Effect.Effect<void, LeaseExpired | Etcd.EtcdError> =>
    Effect.flatMap(current.remaining, (remaining) => {
      if (Duration.toMillis(remaining) > millis) return Effect.void
      if (!current.isAlive()) return current.awaitLoss
      return Effect.andThen(renewed, notVouched)
    })

  // ---------------------------------------------------------------------------
  // release
  // ---------------------------------------------------------------------------

  /** Deletes the keys that the runner does not know of, as a read saw them that began at `began`. */
  const sweep = (seen: ReadonlyMap<string, bigint>, began: number) => {
    for (const [id, until] of strays) {
      const revision = seen.get(id)
      const isStray = revision !== undefined && revision !== held.get(id) && !asked.has(id) &&
        revision === (leaving.get(id) ?? revision)
      if (isStray) background(remove(id, revision))
      else if (began > until) strays.delete(id)
    }
  }

  // Guarded by the revision: a request that comes late must not delete what is there by then.
  const remove = (id: string, revision: bigint) =>
    Effect.suspend(() => {
      leaving.set(id, revision)
      const key = keys.shard(id)
      const removal = Etcd.nested({
        compare: [Etcd.compareCreateRevision(key, "=", revision)],
        then: [Etcd.remove(key)]
      })
      return Effect.callback<unknown, Etcd.EtcdError>((resume) => batch.send(key, removal, resume))
    }).pipe(Effect.andThen(Effect.sync(() => {
      if (leaving.get(id) === revision) leaving.delete(id)
    })))

  const release: Shards["release"] = (id) =>
    Effect.suspend(() => {
      const revision = held.get(id) ?? leaving.get(id)
      held.delete(id)
      given.delete(id)
      return revision === undefined ? Effect.void : remove(id, revision)
    })

  const releaseAll: Shards["releaseAll"] = Effect.suspend(() => {
    // Nothing runs on them any more, whatever comes of the revoke: a runner that starts again gets shards on a new lease.
    held.clear()
    given.clear()
    return Effect.andThen(lease.revoke, Effect.sync(forget))
  })

  const fencingToken: Shards["fencingToken"] = (id) => on?.isAlive() === true ? held.get(id) : undefined

  return { acquire, refresh, release, releaseAll, fencingToken }
}

const notVouched = Effect.fail(
  new Etcd.EtcdError({
    reason: "Timeout",
    method: "leaseKeepAlive",
    outcome: "Unknown",
    description: "the last renewal was acknowledged too long ago for the shards to be safe until the next refresh"
  })
)
