/**
 * The handle of every recipe: an entry whose turn has come, with all that its owner can
 * do until it is lost or released.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Etcd from "../../Etcd.ts"
import { type Entry, EntryLost, giveAway } from "../line/entry.ts"
import { guard } from "../line/requests.ts"
import type { Contention } from "../session/contention.ts"
import { awaitLoss, supervise } from "../supervise.ts"

/** Makes a recipe's own error of a loss. The token is undefined when the turn had not come yet. */
export interface ToLost<E> {
  (name: string, fencingToken: bigint | undefined, loss: EntryLost): E
}

export class Ownership<E> {
  readonly name: string
  readonly #entry: Entry
  readonly #etcd: Etcd.Etcd["Service"]
  readonly #contention: Contention
  readonly #toLost: ToLost<E>
  #release: Effect.Effect<void> | undefined

  constructor(name: string, entry: Entry, etcd: Etcd.Etcd["Service"], contention: Contention, toLost: ToLost<E>) {
    this.name = name
    this.#entry = entry
    this.#etcd = etcd
    this.#contention = contention
    this.#toLost = toLost
  }

  get key(): string {
    return this.#entry.key
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

  get isOwner(): Etcd.Compare {
    return guard(this.#entry)
  }

  get awaitLoss(): Effect.Effect<never, E> {
    return awaitLoss((listener) => this.#onLoss(listener))
  }

  get whileHeld(): <A, E2, R>(self: Effect.Effect<A, E2, R>) => Effect.Effect<A, E | E2, R> {
    return (self) => {
      const entry = this.#entry
      return supervise(self, (listener) => this.#onLoss(listener), entry.ref.lease.bodies, entry)
    }
  }

  get check(): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      const loss = this.#entry.checkLoss()
      return loss === undefined ? Effect.void : Effect.fail(this.#lost(loss))
    })
  }

  get remaining(): Effect.Effect<Duration.Duration> {
    return Effect.flatMap(
      this.#entry.ref.lease.remaining,
      (remaining) => Effect.match(this.check, { onSuccess: () => remaining, onFailure: () => Duration.zero })
    )
  }

  get verify(): Effect.Effect<void, E | Etcd.EtcdError> {
    return Effect.flatMap(
      this.#etcd.range(Etcd.get(this.key)),
      ({ kvs }) => kvs[0]?.createRevision === this.createRevision ? Effect.void : this.#notOwner
    )
  }

  get txn(): <
    const Then extends ReadonlyArray<Etcd.Op>,
    const Else extends ReadonlyArray<Etcd.Op> = readonly []
  >(
    request: Etcd.TxnRequest<Then, Else>
  ) => Effect.Effect<Etcd.TxnResult<Then, Else> & Etcd.TxnHeader, E | Etcd.EtcdError> {
    return ({ compare, else: otherwise, idempotent, then }) =>
      this.#etcd.txn({
        compare: [this.isOwner],
        then: [Etcd.nested({ compare, then, else: otherwise })],
        idempotent
      }).pipe(
        Effect.flatMap((result) => {
          if (!result.succeeded) return this.#notOwner
          const { repeated, responses: [own], revision } = result
          return Effect.succeed({ ...own, revision, repeated })
        })
      )
  }

  // An interruption ends the wait for the release and not the release itself, which no other fiber would finish.
  get release(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#release !== undefined) return this.#release
      const entry = this.#entry
      entry.lose(new EntryLost("Released"))
      return this.#release = giveAway(entry, (done) => this.#contention.release(entry, done))
    })
  }

  #onLoss(listener: (loss: E) => void): () => void {
    return this.#entry.onLoss((loss) => listener(this.#lost(loss)))
  }

  get #notOwner(): Effect.Effect<never, E> {
    return Effect.failSync(() => {
      const loss = new EntryLost("KeyDeleted")
      this.#entry.lose(loss)
      return this.#lost(this.#entry.loss ?? loss)
    })
  }

  #lost(loss: EntryLost): E {
    return this.#toLost(this.name, this.fencingToken, loss)
  }
}
