/**
 * The handle of every recipe: an entry whose turn has come, with all that its owner can
 * do until it is lost or released.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Current } from "../../Current.ts"
import * as Etcd from "../../Etcd.ts"
import type { Handle, LockLost } from "../../Lock.ts"
import { endOf, type Entry, EntryLost, giveAway, keyDeleted } from "../line/entry.ts"
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

/** What sections and spans need of a handle beside what users get. */
export interface Owned extends Handle {
  /** Releases it, and fails with a loss that etcd's answer shows: the key had gone before. */
  readonly giveBack: Effect.Effect<void, LockLost>
  /** etcd has been silent for as long as one request may take: from now on, nobody waits for a release. */
  readonly expectSilence: Effect.Effect<void>
  /** The loss that its release has found, once that is over; undefined at once if it is not being released. */
  readonly lostBefore: Effect.Effect<LockLost | undefined>
}

/** What is behind a handle that a recipe made. */
export const ownedOf = (handle: Handle): Owned => handle as Owned

export class Ownership implements Owned {
  readonly lock: string
  readonly isOneOfSeveral: boolean
  readonly #entry: Entry
  readonly #session: SessionImpl
  readonly #contention: Contention
  readonly #toLost: ToLost
  readonly #recorder: LockRecorder
  #isBegun = false
  #controller: AbortController | undefined
  #heldFor: Duration.Duration | undefined
  #given: Effect.Effect<void, LockLost> | undefined
  #expectsSilence = false

  constructor(options: OwnershipOptions) {
    this.lock = options.lock
    this.isOneOfSeveral = options.isOneOfSeveral === true
    this.#entry = options.entry
    this.#session = options.session
    this.#contention = options.contention
    this.#toLost = options.toLost
    this.#recorder = options.recorder
    const loss = this.#entry.checkLoss()
    if (loss === undefined) this.#entry.ownership = this
    else this.lost(loss)
  }

  /** It counts as held from here on, until it is lost or released. */
  begin(): void {
    // It counts once, also if the clock of its lease is what tells.
    const loss = this.#entry.checkLoss()
    this.#isBegun = true
    this.#recorder.taken()
    if (loss !== undefined) this.#ended(loss)
  }

  /** It does not count as held any more. */
  lost(loss: EntryLost): void {
    const entry = this.#entry
    if (this.#isBegun) this.#ended(loss)
    // Its place is free for the next one as soon as nothing runs under it, whenever its owner releases it.
    if (entry.isLost) entry.ref.lease.bodies.onEnd(entry, () => this.#contention.release(entry, () => {}))
  }

  #ended(loss: EntryLost) {
    const entry = this.#entry
    const { bodies } = entry.ref.lease
    const endedAt = this.#now
    this.#recorder.ended(endedAt - entry.since)
    if (loss.reason === "Released") return
    if (bodies.isRunning(entry)) bodies.onEnd(entry, () => this.#recorder.stopped(this.#now - endedAt))
    this.#report(loss)
  }

  /** Counts and logs a loss. */
  #report(loss: EntryLost): LockLost {
    const { lease } = this.#entry.ref
    const lost = this.#toLoss(loss)
    const { message } = lost
    this.#recorder.lost(loss.reason)
    const annotations = { lock: this.lock, lease: lease.id.toString(16), token: this.fencingToken.toString() }
    this.#session.logLoss(lease, { message, annotations })
    return lost
  }

  get isLost(): boolean {
    return this.#entry.isLost
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

  /** Whether a body runs under it, and a caller of this name would wait for it, also through another session. */
  isRunning(name: string, { etcd }: SessionImpl, { layout }: Contention): boolean {
    const entry = this.#entry
    return this.lock === name && this.#session.etcd === etcd && this.#contention.layout === layout &&
      entry.ref.lease.bodies.isRunning(entry)
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

  get release(): Handle["release"] {
    return Effect.ignore(this.giveBack)
  }

  // An interruption ends the wait for the release and not the release itself, which no other fiber would finish.
  get giveBack(): Owned["giveBack"] {
    return Effect.suspend(() => {
      const given = this.#give()
      return this.#expectsSilence ? Effect.void : given
    })
  }

  get expectSilence(): Owned["expectSilence"] {
    return Effect.sync(() => {
      this.#expectsSilence = true
    })
  }

  /** Calls `lost` when it is lost, and not when it is released. */
  onLost(lost: () => void): void {
    this.#entry.onLoss(() => this.isLost && lost())
  }

  /** Is lost with another one, without which it protects nothing. */
  loseWith(other: Ownership): void {
    this.#entry.lose(other.#entry.loss!)
  }

  /** Gives it back as soon as nothing runs under it. */
  giveBackWhenIdle(): void {
    const entry = this.#entry
    entry.ref.lease.bodies.onEnd(entry, () => void this.#give())
  }

  #give(): Effect.Effect<void, LockLost> {
    if (this.#given !== undefined) return this.#given
    const entry = this.#entry
    entry.lose(new EntryLost("Released"))
    return this.#given = giveAway<LockLost>(
      entry,
      (done) => this.#contention.release(entry, (wasGone) => done(this.#left(wasGone)))
    )
  }

  get lostBefore(): Owned["lostBefore"] {
    return Effect.suspend(() =>
      Effect.match(this.#given ?? Effect.void, { onSuccess: () => undefined, onFailure: (loss) => loss })
    )
  }

  /** It has been released, and etcd may have said that there was nothing to release. */
  #left(wasGone: boolean): Exit.Exit<void, LockLost> {
    const { isLost, ref } = this.#entry
    if (!wasGone || isLost || !this.#isBegun) return Exit.void
    const end = endOf(ref.lease)
    return Exit.fail(this.#report(end?.reason === "LeaseExpired" ? end : keyDeleted))
  }

  #onLoss(listener: (loss: LockLost) => void): () => void {
    return this.#entry.onLoss((loss) => listener(this.#toLoss(loss)))
  }

  /** etcd has said that the key is not there. */
  get notOwner(): Effect.Effect<never, LockLost> {
    return Effect.failSync(() => {
      this.#entry.lose(keyDeleted)
      return this.#toLoss(this.#entry.loss ?? keyDeleted)
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

/** Those that are lost, if any is: others are released for that alone. */
export const lostOf = (owned: ReadonlyArray<Ownership>): ReadonlyArray<Ownership> => {
  const lost = owned.filter(({ isLost }) => isLost)
  return lost.length > 0 ? lost : owned
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
        const gone = owned.filter(({ createRevision }, i) =>
          result.responses[i]!.kvs[0]?.createRevision !== createRevision
        )
        return lostOf(gone)[0]!.notOwner
      })
    )
