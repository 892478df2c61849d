/**
 * The handle of every recipe: an entry whose turn has come, with all that its owner can
 * do until it is lost or released.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Current } from "../../Current.ts"
import * as Etcd from "../../Etcd.ts"
import type { Handle, LockLost } from "../../Lock.ts"
import { type Entry, EntryLost, giveAway } from "../line/entry.ts"
import { getKey, guard } from "../line/requests.ts"
import type { LockRecorder } from "../metrics.ts"
import { monotonicMillis } from "../monotonic.ts"
import type { Contention } from "../session/contention.ts"
import type { SessionImpl } from "../session/engine.ts"
import { awaitLoss, superviseIn } from "../supervise.ts"
import { enter } from "./enclosing.ts"

/** Makes the error of a loss. */
export interface ToLost {
  (lock: string, loss: EntryLost, held: Held | undefined): LockLost
}

/** What was lost, when its turn had come already. */
export interface Held {
  readonly fencingToken: bigint
  readonly heldFor: Duration.Duration
}

export interface OwnershipOptions {
  readonly lock: string
  readonly entry: Entry
  readonly session: SessionImpl
  readonly contention: Contention
  readonly toLost: ToLost
  readonly recorder: LockRecorder
  readonly isOneOfSeveral?: boolean
}

export class Ownership implements Handle {
  readonly lock: string
  readonly isOneOfSeveral: boolean
  readonly #entry: Entry
  readonly #session: SessionImpl
  readonly #contention: Contention
  readonly #toLost: ToLost
  readonly #recorder: LockRecorder
  #controller: AbortController | undefined
  #heldFor: Duration.Duration | undefined
  #release: Effect.Effect<void> | undefined

  constructor(options: OwnershipOptions) {
    this.lock = options.lock
    this.isOneOfSeveral = options.isOneOfSeveral === true
    this.#entry = options.entry
    this.#session = options.session
    this.#contention = options.contention
    this.#toLost = options.toLost
    this.#recorder = options.recorder
  }

  /** It counts as held from here on, until it is lost or released. */
  begin(): void {
    const entry = this.#entry
    this.#recorder.taken()
    const loss = entry.checkLoss()
    if (loss === undefined) entry.ownership = this
    else this.lost(loss)
  }

  /** It does not count as held any more. */
  lost(loss: EntryLost): void {
    const entry = this.#entry
    const lostAt = this.#now
    const isLost = loss.reason !== "Released"
    this.#recorder.ended(lostAt - entry.since, isLost ? loss.reason : undefined)
    if (!isLost) return
    const { lease } = entry.ref
    const { bodies } = lease
    if (bodies.isRunning(entry)) bodies.onEnd(entry, () => this.#recorder.stopped(this.#now - lostAt))
    const { message } = this.#toLoss(loss)
    const annotations = { lock: this.lock, lease: lease.id.toString(16), token: this.fencingToken.toString() }
    this.#session.logLoss(lease, { message, annotations })
  }

  get key(): string {
    return this.#entry.key
  }

  get permits(): number {
    return this.#entry.claim.permits
  }

  get leaseId(): bigint {
    return this.#entry.ref.lease.id
  }

  get fencingToken(): bigint {
    return this.#entry.fencingToken
  }

  get createRevision(): bigint {
    return this.#entry.createRevision
  }

  get isOwner(): Handle["isOwner"] {
    return [guard(this.#entry)]
  }

  get awaitLoss(): Handle["awaitLoss"] {
    return awaitLoss((listener) => this.#onLoss(listener))
  }

  get whileHeld(): Handle["whileHeld"] {
    return <A, E, R>(self: Effect.Effect<A, E, R>) => {
      const entry = this.#entry
      return superviseIn(
        self,
        (context: Context.Context<Exclude<R, Current>>) => enter(context, this) as Context.Context<R>,
        (listener) => this.#onLoss(listener),
        entry.ref.lease.bodies,
        entry
      )
    }
  }

  /** Whether a body runs under it, and a caller of this name would wait for it. */
  isRunning(name: string, contention: Contention): boolean {
    const entry = this.#entry
    return this.lock === name && this.#contention === contention && entry.ref.lease.bodies.isRunning(entry)
  }

  get check(): Handle["check"] {
    return Effect.suspend(() => {
      const loss = this.#entry.checkLoss()
      return loss === undefined ? Effect.void : Effect.fail(this.#toLoss(loss))
    })
  }

  get isHeldUnsafe(): Handle["isHeldUnsafe"] {
    return () => this.#entry.checkLoss() === undefined
  }

  // Made for the first caller that asks: most locks are held without one.
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = this.#controller = new AbortController()
      this.#onLoss((loss) => controller.abort(loss))
    }
    return this.#controller.signal
  }

  get remaining(): Handle["remaining"] {
    return Effect.flatMap(
      this.#entry.ref.lease.remaining,
      (remaining) => Effect.match(this.check, { onSuccess: () => remaining, onFailure: () => Duration.zero })
    )
  }

  get verify(): Handle["verify"] {
    return Effect.flatMap(
      this.#session.etcd.range(Etcd.get(this.key)),
      ({ kvs }) => kvs[0]?.createRevision === this.createRevision ? Effect.void : this.notOwner
    )
  }

  get txn(): Handle["txn"] {
    return txnOf(this.#session.etcd, [this])
  }

  // An interruption ends the wait for the release and not the release itself, which no other fiber would finish.
  get release(): Handle["release"] {
    return Effect.suspend(() => {
      if (this.#release !== undefined) return this.#release
      const entry = this.#entry
      entry.lose(new EntryLost("Released"))
      return this.#release = giveAway(entry, (done) => this.#contention.release(entry, done))
    })
  }

  #onLoss(listener: (loss: LockLost) => void): () => void {
    return this.#entry.onLoss((loss) => listener(this.#toLoss(loss)))
  }

  /** etcd has said that the key is not there. */
  get notOwner(): Effect.Effect<never, LockLost> {
    return Effect.failSync(() => {
      const loss = new EntryLost("KeyDeleted")
      this.#entry.lose(loss)
      return this.#toLoss(this.#entry.loss ?? loss)
    })
  }

  get #now(): number {
    return monotonicMillis(this.#session.clock)
  }

  #toLoss(loss: EntryLost): LockLost {
    const { fencingToken } = this
    this.#heldFor ??= Duration.millis(Math.round(this.#now - this.#entry.since))
    return this.#toLost(this.lock, loss, { fencingToken, heldFor: this.#heldFor })
  }
}

/** Runs transactions that etcd applies only if all of these are still owned. */
export const txnOf =
  (etcd: Etcd.Etcd["Service"], owned: ReadonlyArray<Ownership>): Handle["txn"] =>
  ({ compare, else: otherwise, idempotent, then }) =>
    etcd.txn({
      compare: owned.flatMap(({ isOwner }) => isOwner),
      then: [Etcd.nested({ compare, then, else: otherwise })],
      else: owned.map(({ key }) => getKey(key)),
      idempotent
    }).pipe(
      Effect.flatMap((result) => {
        if (result.succeeded) {
          const { clusterId, repeated, responses: [own], revision, term } = result
          return Effect.succeed({ ...own, revision, clusterId, term, repeated })
        }
        const isLost = ({ createRevision }: Ownership, i: number) =>
          result.responses[i]!.kvs[0]?.createRevision !== createRevision
        return owned.find(isLost)!.notOwner
      })
    )
