/**
 * A heartbeat of a lease: renews it, and reads what hangs on it.
 *
 * A renewal by itself shows too little. A leader that has lost its quorum may acknowledge it, a member that has fallen behind
 * passes it on, and a watch that is silent does not say what has become of the keys. So a linearizable read follows, and the
 * renewal counts once that has been answered in the same term: the leader that renewed the lease had a quorum afterwards.
 *
 * One request names all keys on the lease, as its leader has them in memory. Those that it should name and does not are
 * read, and so are those that it should not name. For entries that wait, what is ahead of them is read, too.
 */
import * as Effect from "effect/Effect"
import * as Etcd from "../../Etcd.ts"
import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import type { Background } from "../background.ts"
import { toText } from "../etcd/bytes.ts"
import * as Limits from "../etcd/limits.ts"
import { Patience } from "../etcd/retry.ts"
import { keyOf } from "../line/entryKey.ts"
import { isStray } from "../line/layout.ts"
import type { EntryLease } from "../line/leaseRef.ts"
import type { Question } from "../line/line.ts"
import { getKey } from "../line/requests.ts"
import * as Log from "../log.ts"

export interface Heartbeat {
  /** Returns the TTL of the renewed lease in seconds; 0 if there is no such lease. It takes at most so many milliseconds. */
  (timeout: number): Effect.Effect<number, EtcdError>
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  background: Background,
  lease: EntryLease
): Heartbeat => {
  const limits = Limits.of(etcd)

  const beat = Effect.fnUntraced(function*(timeout: number) {
    const entries = [...lease.entries]
    const [renewal, shown] = yield* Effect.all([
      etcd.leaseKeepAlive(lease.id, timeout),
      entries.length === 0 ? Effect.undefined : keysOnLease
    ], { concurrency: 2 })
    const any = nothing(entries[0]?.key ?? lease.id.toString(16))
    if (renewal.ttl <= 0) {
      // etcd may be another one than before, which the answer to a read shows.
      yield* Effect.ignore(ask([any], renewal))
      return 0
    }
    const missing = entries.filter(({ id, state }) => state === "Waiting" || shown?.has(id) !== true)
    const questions = missing.map((entry) => entry.line.question(entry))
    for (const { id } of entries) shown?.delete(id)
    for (const key of shown?.values() ?? []) if (isStray(lease, key)) questions.push(removal(key))
    // Any read shows whether there is a quorum.
    yield* ask(questions.length === 0 ? [any] : questions, renewal)
    return renewal.ttl
  })

  /** The keys on the lease by their `idOf`; undefined where etcd does not say, since the user may not read one of them. */
  const keysOnLease = Effect.map(
    etcd.leaseTimeToLive(lease.id, { keys: true }),
    ({ keys }) => new Map(keys.map((key) => [toText(key), key]))
  ).pipe(Effect.catchIf(isOfPart, () => Effect.undefined))

  /** Asks all in as few requests as etcd answers. What it refuses to answer is no reason to doubt the rest. */
  const ask = (questions: ReadonlyArray<Question>, renewal: Etcd.Header): Effect.Effect<void, EtcdError> => {
    const then = questions.flatMap(({ reads }) => reads)
    const size = { operations: then.length, bytes: Limits.measure(Etcd.nested({ then })).bytes }
    const half = questions.length >> 1
    const inHalves = Effect.suspend(() =>
      half === 0
        ? Effect.void
        : Effect.all([ask(questions.slice(0, half), renewal), ask(questions.slice(half), renewal)], {
          concurrency: 2,
          discard: true
        })
    )
    if (half > 0 && !limits.allow(size)) return inHalves
    // A transaction of ranges alone is a read. With others nested in it, etcd would write it to its log.
    return etcd.txn({ then }).pipe(
      Effect.flatMap(({ responses, revision, term }) => {
        if (term !== renewal.term) return electedMeanwhile
        let rest = responses as ReadonlyArray<Etcd.RangeResult>
        for (const { onAnswer, reads } of questions) {
          onAnswer(rest.slice(0, reads.length), revision)
          rest = rest.slice(reads.length)
        }
        return Effect.void
      }),
      Effect.catchIf(isOfPart, (error) => {
        limits.learn(size, error)
        return inHalves
      })
    )
  }

  /** Removes a key that no entry owns: it would stand in its line for as long as the lease lives. */
  const removal = (key: Uint8Array): Question => ({
    reads: [getKey(key)],
    onAnswer: ([found]) => {
      const [kv] = found!.kvs
      if (kv === undefined || !isStray(lease, key)) return
      const compare = [Etcd.compareCreateRevision(key, "=", kv.createRevision)]
      const removed = Effect.ignore(etcd.txn({ compare, then: [Etcd.remove(key)], idempotent: true }))
      const annotations = { lease: lease.id.toString(16) }
      const text = keyOf(kv)
      background(
        Effect.andThen(
          removed,
          Log.warning(`'${text}' is removed: it is the key of no lock that this process has`, annotations)
        )
      )
    }
  })

  return (timeout) =>
    beat(timeout).pipe(
      // It leaves time for another member.
      Effect.provideService(Patience, { budget: timeout, attempt: Math.max(timeout / 2, Math.min(timeout, 1000)) }),
      Effect.timeoutOrElse({ duration: timeout, orElse: () => notInTime })
    )
}

const nothing = (key: string): Question => ({ reads: [getKey(key)], onAnswer: () => {} })

/** The user may not read one of the keys, or all of them are too much for one request. */
const isOfPart = ({ reason }: EtcdError): boolean => reason === "PermissionDenied" || reason === "InvalidArgument"

const unheard = (reason: EtcdErrorReason, description: string) =>
  Effect.fail(new EtcdError({ reason, method: "leaseKeepAlive", outcome: "Unknown", description }))

const notInTime = unheard("Timeout", "no answer in time")
const electedMeanwhile = unheard("Unavailable", "another leader was elected meanwhile")
