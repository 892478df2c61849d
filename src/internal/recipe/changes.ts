/**
 * Looks at some keys, and again whenever they have changed.
 *
 * A watch reports what changes. That it reports nothing is no news, since a member may be silent, so etcd is also asked
 * from time to time whether there was more. That is one transaction, however many keys there are and however large. It
 * cannot tell what a backup brings back, since restored keys are older than what was seen; but a restore ends all watches,
 * and a look follows whenever one was opened.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type * as Etcd from "../../Etcd.ts"
import { giveUp } from "../etcd/subscriber.ts"
import { idOf } from "../line/entryKey.ts"
import { Outage } from "../outage.ts"

type Service = Etcd.Etcd["Service"]

/** What a look has shown, the keys that it shows, and how many keys there were at which revision of which cluster. */
export interface Seen<A> extends Pick<Etcd.Header, "clusterId" | "revision"> {
  readonly shown: A
  readonly kvs: ReadonlyArray<Etcd.KeyValue>
  readonly count: number
}

export interface View<A> {
  /** What is looked at, as the log names it. */
  readonly subject: string
  readonly range: Pick<Etcd.Range, "key" | "rangeEnd">
  readonly look: Effect.Effect<Seen<A>, Etcd.EtcdError>
  /** Whether to look again after an event. Default: after all. */
  readonly matters?: (event: Etcd.WatchEvent) => boolean
}

/**
 * Emits what a look shows: now, and after every change. Until the first look has succeeded, it fails as any request does.
 * After that, it waits until an outage is over, and fails with what waiting cannot cure.
 */
export const changes = <A>(etcd: Service, view: View<A>): Stream.Stream<A, Etcd.EtcdError> =>
  Stream.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new Onlooker(etcd, view)),
        (onlooker) => Effect.sync(() => onlooker.close())
      ),
      (onlooker) => Stream.fromEffectRepeat(onlooker.next)
    )
  )

/** A lock with the default TTL has its entries renewed as often. */
const askAfter = "5 seconds"

const openAfter = "200 millis"

/** An event may come after the answer to a question that shows the same. */
const mayBeLateBy = "2 seconds"

interface Watch {
  subscription: Etcd.Subscription | undefined
  /** The revision of the latest change that matters, or that the watch has ended. What came before does not matter then. */
  readonly reports: Queue.Dequeue<bigint | "Ended">
  /** Whether it has reported anything since etcd was last asked. */
  hasReported: boolean
  /** It should have reported something, as etcd's answer has shown. If it still does not, what it comes from is silent. */
  isDoubted: boolean
}

interface Latest<A> extends Omit<Seen<A>, "kvs"> {
  /** Differs where the keys do. */
  readonly versions: string
}

const versionsOf = (kvs: ReadonlyArray<Etcd.KeyValue>): string =>
  kvs.map((kv) => `${idOf(kv)} ${kv.createRevision} ${kv.modRevision} ${kv.lease}`).join("\n")

class Onlooker<A> {
  readonly #etcd: Service
  readonly #view: View<A>
  readonly #outage = new Outage()
  #watch: Watch | undefined
  #seen: Latest<A> | undefined

  constructor(etcd: Service, view: View<A>) {
    this.#etcd = etcd
    this.#view = view
  }

  close() {
    this.#watch?.subscription?.close()
    this.#watch = undefined
  }

  /**
   * Waits until there is something new to show. A loop rather than a retry: a retry keeps the last error in the context of
   * the next attempt, and the stack of an error keeps the context of its own, so that an outage would keep them all.
   */
  get next(): Effect.Effect<A, Etcd.EtcdError> {
    return Effect.gen({ self: this }, function*() {
      while (true) {
        const isNew = yield* Effect.result(this.#isNew)
        if (Result.isFailure(isNew)) yield* this.#failed(isNew.failure)
        else if (isNew.success) return this.#seen!.shown
      }
    })
  }

  get #isNew(): Effect.Effect<boolean, Etcd.EtcdError> {
    return Effect.gen({ self: this }, function*() {
      if (this.#watch === undefined) yield* this.#open
      else if (this.#seen !== undefined && !(yield* this.#isChanged(this.#watch, this.#seen))) return false
      const { kvs, ...seen } = yield* this.#view.look
      this.#outage.end()
      const versions = versionsOf(kvs)
      const isNew = this.#seen?.versions !== versions
      this.#seen = { ...seen, versions }
      return isNew
    })
  }

  /** Waits for a report, or until etcd is to be asked. */
  #isChanged(watch: Watch, seen: Latest<A>): Effect.Effect<boolean, Etcd.EtcdError> {
    return Effect.gen({ self: this }, function*() {
      const { isDoubted } = watch
      const report = Option.getOrUndefined(
        yield* Effect.timeoutOption(Queue.take(watch.reports), isDoubted ? mayBeLateBy : askAfter)
      )
      if (report === "Ended") {
        // Etcd may have compacted what it had to report, so whatever has ended the watch, it is opened again.
        this.close()
        yield* Effect.sleep(openAfter)
        return false
      }
      if (report !== undefined && report <= seen.revision) return false
      const isSilent = !watch.hasReported
      watch.hasReported = watch.isDoubted = false
      if (report !== undefined) return true
      if (isDoubted && isSilent) {
        // It would be opened again on the same stream.
        giveUp(watch.subscription!)
        this.close()
        return false
      }
      const isChanged = yield* this.#askWhetherChanged(seen)
      this.#outage.end()
      watch.isDoubted = isChanged && isSilent
      return isChanged
    })
  }

  get #open(): Effect.Effect<void, Etcd.EtcdError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const { matters = () => true, range: { key, rangeEnd } } = this.#view
        const reports = yield* Queue.sliding<bigint | "Ended">(1)
        const watch: Watch = { reports, hasReported: false, isDoubted: false, subscription: undefined }
        watch.subscription = yield* restore(this.#etcd.subscribe({ key, rangeEnd }, {
          onEvents: (events) => {
            watch.hasReported = true
            const last = events.findLast(matters)
            if (last !== undefined) Queue.offerUnsafe(reports, last.kv.modRevision)
          },
          onEnd: () => void Queue.offerUnsafe(reports, "Ended")
        }))
        this.#watch = watch
      })
    )
  }

  /** Whether keys were put or deleted since a look. */
  #askWhetherChanged({ clusterId, count, revision }: Latest<A>): Effect.Effect<boolean, Etcd.EtcdError> {
    const { key, rangeEnd } = this.#view.range
    const any: Etcd.Range = { _tag: "Range", key, rangeEnd, limit: 1, keysOnly: true }
    return Effect.map(
      this.#etcd.txn({
        compare: [{ key, rangeEnd, target: "ModRevision", operator: "<", value: revision + 1n }],
        then: [any]
      }),
      // A restored etcd may have fewer revisions, or be another cluster.
      (now) =>
        !now.succeeded || now.responses[0].count !== count || now.revision < revision || now.clusterId !== clusterId
    )
  }

  #failed(error: Etcd.EtcdError): Effect.Effect<void, Etcd.EtcdError> {
    this.close()
    return this.#seen === undefined || !error.isTransient
      ? Effect.fail(error)
      : Effect.andThen(this.#outage.tell(`${this.#view.subject} cannot be seen`, error), Effect.sleep(openAfter))
  }
}
