/**
 * Several locks at once, as one handle: all lines are joined at one revision, and the loss of one lock is the loss of all.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { Current } from "../../Current.ts"
import type * as Etcd from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Handle, HandleOfAll, LockHeld, LockLost, LockNameConflict, LockTimeout, Options } from "../../Lock.ts"
import { Session } from "../../Session.ts"
import { type Claim, lock } from "../line/discipline.ts"
import { type Entry, EntryLost, ForeignEntry } from "../line/entry.ts"
import { keyOf } from "../line/entryKey.ts"
import { queue } from "../line/layout.ts"
import { Refused } from "../line/lines.ts"
import * as Check from "../options.ts"
import * as Engine from "../session/engine.ts"
import type { Request } from "../session/localQueue.ts"
import { isInside } from "./enclosing.ts"
import { errors } from "./errors.ts"
import { lostOf, type Owned, Ownership, txnOf } from "./ownership.ts"
import { type Acquire, deadline, described, holderOf, limitIn, queueOf, requestOf } from "./request.ts"

/** What is taken together. */
export interface Together<H> {
  /** The module that takes the options, as messages name it. */
  readonly module: string
  /** Checks what the caller passed, and returns what stands in each line. */
  readonly parts: () => ReadonlyArray<Part>
  /** What the caller gets when the turns of all have come. */
  readonly hold: (etcd: Etcd.Etcd["Service"], locks: ReadonlyArray<Ownership>) => H
}

export interface Part {
  readonly name: string
  readonly claim: Claim
}

type JoinOptions = Omit<Options, "layout">

/** Waits for the turn of all, within the timeout of the options. */
export const acquire =
  <H>(together: Together<H>, options: JoinOptions | undefined): Acquire<H, LockTimeout | Failure> => (restore) =>
    Effect.withFiber((fiber) => {
      const { contention, explain, hold, isOneOfSeveral, nameOf, names, requests, session } = callOf(
        fiber,
        together,
        options
      )
      const limit = limitIn(together.module)(options)
      if (limit !== undefined && Duration.isZero(limit)) {
        const tried = tryAcquire(together, options)(restore)
        return Effect.catchTag(
          tried,
          "LockHeld",
          ({ holder, lock }) => Effect.fail(errors.timeout(lock, Duration.zero, holder))
        ) as Effect.Effect<H, LockTimeout | Failure, Session>
      }
      const held = names.find((name) => isInside(fiber.context, (outer) => outer.isRunning(name, session, contention)))
      if (held !== undefined) return Effect.die(errors.selfWait(held))
      if (
        isOneOfSeveral &&
        isInside(fiber.context, (outer) => outer.isOneOfSeveral && outer.isRunning(outer.lock, session, contention))
      ) return Effect.die(nested(names))
      const waitFor = (pending: () => Request) =>
        deadline(limit, fiber.getRef(Clock.Clock), restore, (waited) => {
          const request = pending()
          const name = nameOf(request)
          return (own) =>
            Effect.flatMap(
              holderOf(contention, request, name, own),
              (holder) => Effect.fail(errors.timeout(name, waited, holder))
            )
        })
      return Effect.mapBoth(contention.acquireAll(requests, waitFor), { onSuccess: hold, onFailure: explain })
    })

/** Takes all if they are free, or fails with one that is not. */
export const tryAcquire =
  <H>(together: Together<H>, options: JoinOptions | undefined): Acquire<H, LockHeld | Failure> => (restore) =>
    Effect.withFiber((fiber) => {
      const { contention, explain, hold, nameOf, requests } = callOf(fiber, together, options)
      return Effect.flatMap(
        Effect.mapError(contention.tryAcquireAll(requests, restore), explain),
        (tried) =>
          tried instanceof Refused
            ? Effect.fail(errors.held(nameOf(tried), described(tried.holder)))
            : Effect.succeed(hold(tried))
      )
    })

/** Several locks by their names. */
export const locks = (
  names: ReadonlyArray<string>,
  options: JoinOptions | undefined
): Together<Several> => ({
  module: "Lock",
  parts: () => {
    Check.names("Lock", names)
    Check.object("Lock", "options", options, "{ timeout: \"15 seconds\" }")
    return names.map((name) => ({ name, claim: lock }))
  },
  hold: (etcd, locks) => {
    for (const lock of locks) lock.begin()
    return new Several(etcd, locks)
  }
})

// -----------------------------------------------------------------------------
// what is held
// -----------------------------------------------------------------------------

export class Several implements HandleOfAll, Owned {
  readonly locks: ReadonlyArray<Ownership>
  readonly #etcd: Etcd.Etcd["Service"]
  #signal: AbortSignal | undefined

  constructor(etcd: Etcd.Etcd["Service"], locks: ReadonlyArray<Ownership>) {
    this.#etcd = etcd
    this.locks = locks
    // With one of them lost, the others protect nothing.
    for (const lock of locks) lock.onLost(() => locks.forEach((other) => other.giveBackWhenIdle()))
  }

  get lock(): string {
    return listed([...new Set(this.locks.map(({ lock }) => lock))])
  }

  get key(): string {
    return this.#first.key
  }

  get leaseId(): bigint {
    return this.#first.leaseId
  }

  get fencingToken(): bigint {
    return this.#first.fencingToken
  }

  get createRevision(): bigint {
    return this.#first.createRevision
  }

  get isOwner(): Handle["isOwner"] {
    return this.locks.flatMap(({ isOwner }) => isOwner)
  }

  get awaitLoss(): Handle["awaitLoss"] {
    return Effect.suspend(() => Effect.raceAllFirst(lostOf(this.locks).map(({ awaitLoss }) => awaitLoss)))
  }

  get whileHeld(): Handle["whileHeld"] {
    return <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Effect.suspend(() => {
        // The outermost one says why it does not start.
        const last = lostOf(this.locks)
        return [...this.locks.filter((lock) => !last.includes(lock)), ...last].reduce<
          Effect.Effect<A, E | LockLost, Exclude<R, Current>>
        >(
          (self, { whileHeld }) => whileHeld(self) as Effect.Effect<A, E | LockLost, Exclude<R, Current>>,
          Effect.provideService(self, Current, this)
        )
      })
  }

  get check(): Handle["check"] {
    return Effect.suspend(() => Effect.forEach(lostOf(this.locks), ({ check }) => check, { discard: true }))
  }

  get isHeldUnsafe(): Handle["isHeldUnsafe"] {
    return () => this.locks.every(({ isHeldUnsafe }) => isHeldUnsafe())
  }

  get signal(): AbortSignal {
    return this.#signal ??= AbortSignal.any(lostOf(this.locks).map(({ signal }) => signal))
  }

  get remaining(): Handle["remaining"] {
    return Effect.map(
      Effect.forEach(this.locks, ({ remaining }) => remaining),
      (all) => all.reduce((least, remaining) => Duration.min(least, remaining))
    )
  }

  get verify(): Handle["verify"] {
    return Effect.suspend(() =>
      Effect.forEach(lostOf(this.locks), ({ verify }) => verify, { concurrency: "unbounded", discard: true })
    )
  }

  get txn(): Handle["txn"] {
    return txnOf(this.#etcd, this.locks)
  }

  get release(): Handle["release"] {
    return Effect.ignore(this.giveBack)
  }

  // All leave in one commit, since their requests are ready at the same time.
  get giveBack(): Owned["giveBack"] {
    return Effect.flatMap(
      Effect.forEach(this.locks, ({ giveBack }) => Effect.exit(giveBack), { concurrency: "unbounded" }),
      Exit.asVoidAll
    )
  }

  get expectSilence(): Owned["expectSilence"] {
    return Effect.forEach(this.locks, ({ expectSilence }) => expectSilence, { discard: true })
  }

  get lostBefore(): Owned["lostBefore"] {
    return Effect.map(
      Effect.forEach(this.locks, ({ lostBefore }) => lostBefore),
      (losses) => losses.find((loss) => loss !== undefined)
    )
  }

  get #first(): Handle {
    return this.locks[0]!
  }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

type Failure = LockLost | LockNameConflict | EtcdError

/** A call with checked parts and options. */
const callOf = <H>(
  fiber: Fiber.Fiber<unknown, unknown>,
  { hold, module, parts: checked }: Together<H>,
  options: JoinOptions | undefined
) => {
  const parts = checked()
  const session = Engine.of(Context.get(fiber.context as Context.Context<Session>, Session))
  const contention = session.contention(queue)
  const names = [...new Set(parts.map(({ name }) => name))]
  const isOneOfSeveral = names.length > 1
  const requests = parts.map(({ claim, name }) =>
    requestOf(module, { contention, claim, prefix: queueOf(module, name).prefix }, options, fiber, true)
  )
  const nameOf = ({ prefix }: { readonly prefix: string }) => names.find((name) => prefix.startsWith(`${name}/`))!
  return {
    session,
    contention,
    names,
    isOneOfSeveral,
    nameOf,
    requests,
    hold: (entries: ReadonlyArray<Entry>) =>
      hold(
        session.etcd,
        entries.map((entry, i) => {
          const recorder = contention.recorderOf(requests[i]!)
          const lock = parts[i]!.name
          return new Ownership({ lock, entry, session, contention, toLost: errors.lost, recorder, isOneOfSeveral })
        })
      ),
    explain: <E>(error: E): Exclude<E, EntryLost | ForeignEntry> | LockLost | LockNameConflict => {
      if (error instanceof EntryLost) return errors.lost(listed(names), error, undefined)
      if (error instanceof ForeignEntry) {
        return errors.conflict(nameOf({ prefix: keyOf(error.kv) }), error)
      }
      return error as Exclude<E, EntryLost | ForeignEntry>
    }
  }
}

const listed = (names: ReadonlyArray<string>): string => names.join(", ")

const nested = (names: ReadonlyArray<string>) =>
  new Error(
    `Locks ${listed(names.map((name) => `'${name}'`))} cannot be waited for under several other locks: two callers ` +
      "could wait for each other. Take all of them in one call."
  )
