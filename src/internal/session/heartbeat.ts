/**
 * A heartbeat of a lease: renews it, and reads what hangs on it.
 *
 * A renewal by itself shows too little. A leader that has lost its quorum may acknowledge it, a member that has fallen behind
 * passes it on, and a watch that is silent does not say what has become of the keys. So a linearizable read follows, and the
 * renewal counts once that has been answered in the same term: the leader that renewed the lease had a quorum afterwards.
 * Whichever members answer, a term has one leader.
 *
 * One request names all keys on the lease, as its leader has them in memory. Those that it should name and does not are
 * read. For entries that wait, what is ahead of them is read, too.
 */
import * as Effect from "effect/Effect"
import * as Etcd from "../../Etcd.ts"
import { EtcdError, type EtcdErrorReason } from "../../EtcdError.ts"
import type { Background } from "../background.ts"
import { toText } from "../etcd/bytes.ts"
import * as Limits from "../etcd/limits.ts"
import { Patience } from "../etcd/retry.ts"
import type { Entry } from "../line/entry.ts"
import { keyOf } from "../line/entryKey.ts"
import { wasReleased } from "../line/layout.ts"
import type { EntryLease } from "../line/leaseRef.ts"
import type { Question } from "../line/line.ts"
import { getKey } from "../line/requests.ts"
import * as Log from "../log.ts"

type Service = Etcd.Etcd["Service"]

export interface Heartbeat {
  /**
   * Returns the TTL of the renewed lease in seconds; 0 if there is no such lease. The renewal takes at most so many
   * milliseconds, and so does the read after it.
   */
  (timeout: number): Effect.Effect<number, EtcdError>
}

/** What is renewed, and the entries that it looks after. */
type Kept = Pick<EntryLease, "id" | "entries">

export const make = (etcd: Service, background: Background, lease: Kept): Heartbeat => {
  const beat = Effect.fnUntraced(function*(timeout: number) {
    const entries = [...lease.entries]
    const [renewal, answer] = yield* within(
      timeout,
      Effect.all([
        etcd.leaseKeepAlive(lease.id, timeout),
        // Without it, all entries are read.
        entries.length === 0 ? Effect.undefined : Effect.timeoutOrElse(keysOnLease, {
          duration: timeout / 2,
          orElse: () => Effect.undefined
        })
      ], { concurrency: 2 })
    )
    const any = nothing(entries[0]?.key ?? lease.id.toString(16))
    if (renewal.ttl <= 0) {
      // etcd may be another one than before, which the answer to a read shows.
      yield* Effect.ignore(within(timeout, ask(etcd, [any], renewal)))
      return 0
    }
    const shown = answer?.term === renewal.term ? answer.keys : undefined
    const isNamed = ({ id, line }: Entry) => line.etcd === etcd && shown?.has(id) === true
    const doubtful = entries.filter((entry) => entry.state === "Waiting" || !isNamed(entry))
    const byConnection = Map.groupBy(doubtful, ({ line }) => line.etcd)
    const questions = (byConnection.get(etcd) ?? []).map((entry) => entry.line.question(entry))
    for (const { id } of entries) shown?.delete(id)
    for (const key of shown?.values() ?? []) if (wasReleased(lease, key) !== undefined) questions.push(removal(key))
    // Any read shows whether there is a quorum.
    const asked = [ask(etcd, questions.length === 0 ? [any] : questions, renewal)]
    // Sessions of another connection, which may have a prefix of its own, may have entries on the lease.
    for (const [through, entries] of byConnection) {
      if (through !== etcd) asked.push(ask(through, entries.map((entry) => entry.line.question(entry)), renewal))
    }
    yield* within(timeout, Effect.all(asked, { concurrency: "unbounded", discard: true }))
    return renewal.ttl
  })

  /** The keys on the lease by their `idOf`; undefined where etcd does not say, as if the user may not read one of them. */
  const keysOnLease = Effect.suspend(() => etcd.leaseTimeToLive(lease.id, { keys: true })).pipe(
    Effect.map(({ keys, term }) => ({ term, keys: new Map(keys.map((key) => [toText(key), key])) })),
    Effect.catch(() => Effect.undefined)
  )

  /** Asks all in as few requests as etcd answers. What it refuses to answer is no reason to doubt the rest. */
  const ask = (
    etcd: Service,
    questions: ReadonlyArray<Question>,
    renewal: Etcd.Header
  ): Effect.Effect<void, EtcdError> => {
    const limits = Limits.of(etcd)
    const then = questions.flatMap(({ reads }) => reads)
    const size = { operations: then.length, bytes: Limits.measure(Etcd.nested({ then })).bytes }
    const half = questions.length >> 1
    const inHalves = Effect.suspend(() =>
      Effect.all([ask(etcd, questions.slice(0, half), renewal), ask(etcd, questions.slice(half), renewal)], {
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
      Effect.catch((error) => {
        if (!isOfPart(error)) return Effect.fail(error)
        limits.learn(size, error)
        if (half > 0) return inHalves
        return isAnswered(error) ? Effect.void : Effect.fail(error)
      })
    )
  }

  /** Removes a released key that a backup has brought back: it would stand in its line for as long as the lease lives. */
  const removal = (key: Uint8Array): Question => ({
    reads: [getKey(key)],
    onAnswer: ([found]) => {
      const [kv] = found!.kvs
      if (kv === undefined || kv.createRevision !== wasReleased(lease, key)) return
      const compare = [Etcd.compareCreateRevision(key, "=", kv.createRevision)]
      background(Effect.andThen(
        Effect.ignore(etcd.txn({ compare, then: [Etcd.remove(key)], idempotent: true })),
        Log.warning(`'${keyOf(kv)}' is removed: a backup has brought it back since it was released`, {
          lease: lease.id.toString(16)
        })
      ))
    }
  })

  return beat
}

const within = <A>(timeout: number, self: Effect.Effect<A, EtcdError>): Effect.Effect<A, EtcdError> =>
  self.pipe(
    Effect.provideService(Patience, { budget: timeout, attempt: Math.max(timeout / 2, Math.min(timeout, 1000)) }),
    Effect.timeoutOrElse({ duration: timeout, orElse: () => notInTime })
  )

const nothing = (key: string): Question => ({ reads: [getKey(key)], onAnswer: () => {} })

/** The user may not read one of the keys, or all of them are too much for one request. */
const isOfPart = ({ reason }: EtcdError): boolean => reason === "PermissionDenied" || reason === "InvalidArgument"

/** etcd checks permissions once its leader has proved its quorum, and what is too large to receive it has answered. */
const isAnswered = ({ outcome, reason }: EtcdError): boolean => reason === "PermissionDenied" || outcome === "Unknown"

const unheard = (reason: EtcdErrorReason, description: string) =>
  Effect.fail(new EtcdError({ reason, method: "leaseKeepAlive", outcome: "Unknown", description }))

const notInTime = unheard("Timeout", "no answer in time")
const electedMeanwhile = unheard("Unavailable", "another leader was elected meanwhile")
