/**
 * Several locks at once, as one handle: all lines are joined at one revision, and the loss of one lock is the loss of all.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { Current } from "../../Current.ts"
import type * as Etcd from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Handle, HandleOfAll, LockHeld, LockLost, LockNameConflict, LockTimeout, Options } from "../../Lock.ts"
import { Session } from "../../Session.ts"
import { lock } from "../line/discipline.ts"
import { type Entry, EntryLost, ForeignEntry } from "../line/entry.ts"
import { keyOf } from "../line/entryKey.ts"
import { Refused } from "../line/lines.ts"
import * as Check from "../options.ts"
import * as Engine from "../session/engine.ts"
import type { Request } from "../session/localQueue.ts"
import { isInside } from "./enclosing.ts"
import { errors } from "./errors.ts"
import { Ownership, txnOf } from "./ownership.ts"
import { type Acquire, deadline, described, holderOf, limitIn, queueOf, requestOf, selfWait } from "./request.ts"

type SeveralOptions = Omit<Options, "layout">

/** Waits for the turn in all lines, within the timeout of the options. */
export const acquire = (
  names: ReadonlyArray<string>,
  options: SeveralOptions | undefined
): Acquire<Several, LockTimeout | LockLost | LockNameConflict | EtcdError> =>
(restore) =>
  Effect.withFiber((fiber) => {
    const { contention, explain, nameOf, own, requests } = callOf(fiber, names, options)
    const limit = limitOf(options)
    if (limit !== undefined && Duration.isZero(limit)) {
      const tried = tryAcquire(names, options)(restore)
      return Effect.catchTag(
        tried,
        "LockHeld",
        ({ holder, lock }) => Effect.fail(errors.timeout(lock, Duration.zero, holder))
      )
    }
    const held = names.find((name) => isInside(fiber.context, (outer) => outer.isRunning(name, contention)))
    if (held !== undefined) return Effect.die(selfWait(held))
    if (
      isInside(fiber.context, (outer) => outer.isOneOfSeveral && outer.isRunning(outer.lock, contention))
    ) return Effect.die(nested(names))
    const waitFor = (pending: () => Request) =>
      deadline(limit, fiber.getRef(Clock.Clock), restore, (waited) =>
        Effect.suspend(() => {
          const name = nameOf(pending())
          return Effect.flatMap(
            holderOf(contention, pending(), name),
            (holder) => Effect.failSync(() => errors.timeout(name, waited(), holder))
          )
        }))
    return Effect.mapBoth(contention.acquireAll(requests, waitFor), { onSuccess: own, onFailure: explain })
  })

/** Takes all if they are free, or fails with one that is not. */
export const tryAcquire = (
  names: ReadonlyArray<string>,
  options: SeveralOptions | undefined
): Acquire<Several, LockHeld | LockLost | LockNameConflict | EtcdError> =>
(restore) =>
  Effect.withFiber((fiber) => {
    const { contention: { layout, tryAcquireAll }, explain, nameOf, own, requests } = callOf(fiber, names, options)
    return Effect.flatMap(
      Effect.mapError(tryAcquireAll<never>(requests, restore), explain),
      (tried): Effect.Effect<Several, LockHeld | LockNameConflict> => {
        if (!(tried instanceof Refused)) return Effect.succeed(own(tried))
        const { holder, prefix } = tried
        if (holder === undefined || layout.claimOf(prefix, holder, lock) !== undefined) {
          return Effect.fail(errors.held(nameOf(tried), described(holder)))
        }
        return Effect.fail(errors.conflict(nameOf(tried), holder))
      }
    )
  })

// -----------------------------------------------------------------------------
// what is held
// -----------------------------------------------------------------------------

export class Several implements HandleOfAll {
  readonly locks: ReadonlyArray<Ownership>
  readonly #etcd: Etcd.Etcd["Service"]
  #signal: AbortSignal | undefined

  constructor(etcd: Etcd.Etcd["Service"], locks: ReadonlyArray<Ownership>) {
    this.#etcd = etcd
    this.locks = locks
  }

  get lock(): string {
    return together(this.locks.map(({ lock }) => lock))
  }

  get key(): string {
    return this.#first.key
  }

  get leaseId(): bigint {
    return this.#first.leaseId
  }

  // In each line it is greater than the tokens before it, and smaller than those after it: all keys go at one revision.
  get fencingToken(): bigint {
    return this.locks.reduce((last, { fencingToken }) => fencingToken > last ? fencingToken : last, 0n)
  }

  get createRevision(): bigint {
    return this.#first.createRevision
  }

  get isOwner(): Handle["isOwner"] {
    return this.locks.flatMap(({ isOwner }) => isOwner)
  }

  get awaitLoss(): Handle["awaitLoss"] {
    return Effect.raceAllFirst(this.locks.map(({ awaitLoss }) => awaitLoss))
  }

  get whileHeld(): Handle["whileHeld"] {
    return <A, E, R>(self: Effect.Effect<A, E, R>) =>
      this.locks.reduce<Effect.Effect<A, E | LockLost, Exclude<R, Current>>>(
        (self, { whileHeld }) => whileHeld(self) as Effect.Effect<A, E | LockLost, Exclude<R, Current>>,
        Effect.provideService(self, Current, this)
      )
  }

  get check(): Handle["check"] {
    return Effect.forEach(this.locks, ({ check }) => check, { discard: true })
  }

  get isHeldUnsafe(): Handle["isHeldUnsafe"] {
    return () => this.locks.every(({ isHeldUnsafe }) => isHeldUnsafe())
  }

  get signal(): AbortSignal {
    return this.#signal ??= AbortSignal.any(this.locks.map(({ signal }) => signal))
  }

  get remaining(): Handle["remaining"] {
    return Effect.map(
      Effect.forEach(this.locks, ({ remaining }) => remaining),
      (all) => all.reduce((least, remaining) => Duration.min(least, remaining))
    )
  }

  get verify(): Handle["verify"] {
    return Effect.forEach(this.locks, ({ verify }) => verify, { concurrency: "unbounded", discard: true })
  }

  get txn(): Handle["txn"] {
    return txnOf(this.#etcd, this.locks)
  }

  // All leave in one commit, since their requests are ready at the same time.
  get release(): Handle["release"] {
    return Effect.forEach(this.locks, ({ release }) => release, { concurrency: "unbounded", discard: true })
  }

  get #first(): Handle {
    return this.locks[0]!
  }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const limitOf = limitIn("Lock")

/** A call with checked names and options. */
const callOf = (
  fiber: Fiber.Fiber<unknown, unknown>,
  names: ReadonlyArray<string>,
  options: SeveralOptions | undefined
) => {
  check(names, options)
  const session = Engine.of(Context.get(fiber.context as Context.Context<Session>, Session))
  const places = names.map((name) => queueOf("Lock", name))
  const contention = session.contention(places[0]!.layout)
  const clock = fiber.getRef(Clock.Clock)
  const requests = places.map(({ prefix }) =>
    requestOf("Lock", { contention, prefix, claim: lock }, options, clock, true)
  )
  return {
    contention,
    requests,
    nameOf: ({ prefix }: { readonly prefix: string }) => names[places.findIndex((place) => place.prefix === prefix)]!,
    own: (entries: ReadonlyArray<Entry>) =>
      new Several(
        session.etcd,
        entries.map((entry, i) =>
          new Ownership({ lock: names[i]!, entry, session, contention, toLost: errors.lost, isOneOfSeveral: true })
        )
      ),
    explain: <E>(error: E): Exclude<E, EntryLost | ForeignEntry> | LockLost | LockNameConflict => {
      if (error instanceof EntryLost) return errors.lost(together(names), error, undefined)
      if (error instanceof ForeignEntry) {
        const key = keyOf(error.kv)
        return errors.conflict(names[places.findIndex(({ prefix }) => key.startsWith(prefix))]!, error.kv)
      }
      return error as Exclude<E, EntryLost | ForeignEntry>
    }
  }
}

const together = (names: ReadonlyArray<string>): string => names.join(", ")

const check = (names: ReadonlyArray<string>, options: SeveralOptions | undefined) => {
  Check.names("Lock", names)
  Check.object("Lock", "options", options, "{ timeout: \"15 seconds\" }")
}

const nested = (names: ReadonlyArray<string>) =>
  new Error(
    `Locks ${together(names.map((name) => `'${name}'`))} cannot be waited for under several other locks: two callers ` +
      "could wait for each other. Take all of them in one call."
  )
