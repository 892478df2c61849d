/**
 * How the fibers of this process contend for locks: they queue among themselves, and only those that could hold if
 * there were no other process have an entry in etcd's line.
 *
 * A release with a fiber waiting hands the place over in one commit: the next fiber holds at once if no other client
 * waits in etcd, and is at the end of the line otherwise. Where there is no line to join, the first fiber waits until the
 * holder has released the lock, and tries again.
 *
 * A fiber may be interrupted at any point. Its `Waiter` knows what has become of its request; how far the fiber came
 * does not matter. A join that is under way then is answered first, since an entry can only be removed after that.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Etcd from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import type { Background } from "../background.ts"
import { type Claim, isSame } from "../line/discipline.ts"
import { Entry, type EntryError, EntryLost, ForeignEntry, keyDeleted, lostWith } from "../line/entry.ts"
import type { EntryKeyValue } from "../line/entryKey.ts"
import { isDescribable, type Layout } from "../line/layout.ts"
import type { EntryLease, LeaseRef } from "../line/leaseRef.ts"
import { type Left, type Lines, Refused, refusedBy, type Wanted } from "../line/lines.ts"
import * as Requests from "../line/requests.ts"
import * as Metrics from "../metrics.ts"
import { LocalQueue, type Request, Waiter } from "./localQueue.ts"
import type { Leases } from "./sharedLease.ts"

/** Restores interruptibility around a wait. */
export interface Restore {
  <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E>
}

/** Restores interruptibility around a wait, and may end it. */
export interface Wait<E> {
  <A, E2>(effect: Effect.Effect<A, E2>): Effect.Effect<A, E2 | TimeUp<E>>
}

/** The time to wait is up. What the caller fails with is asked for when it has given up its place. */
export class TimeUp<E> {
  readonly _tag = "TimeUp"
  /** Gets the leases of what the caller had in line, which may still be there. */
  readonly explain: (own: ReadonlyArray<EntryLease>) => Effect.Effect<never, E>
  constructor(explain: TimeUp<E>["explain"]) {
    this.explain = explain
  }
}

export interface Contention {
  readonly etcd: Etcd.Etcd["Service"]
  readonly layout: Layout
  /**
   * Waits for the turn. It has to run uninterruptibly: only what goes through `wait` can be interrupted, and if that
   * fails in whatever way, the place in both lines is given up.
   */
  readonly acquire: <E>(request: Request, wait: Wait<E>) => Effect.Effect<Entry, EntryError | E>
  /** Takes the lock if it is free; else returns who holds it, if that is known. */
  readonly tryAcquire: (request: Request, restore: Restore) => Effect.Effect<Entry | Refused, EntryError>
  /**
   * Waits for the turn in several lines, which are joined at one revision: any two callers are in the same order in all
   * lines that they share, so that they cannot wait for each other. `pending` says which one is still waited for.
   */
  readonly acquireAll: <E>(
    requests: ReadonlyArray<Request>,
    waitFor: (pending: () => Request) => Wait<E>
  ) => Effect.Effect<ReadonlyArray<Entry>, EntryError | E>
  /** Takes several locks if all of them are free; else returns which one is held, and by which client. */
  readonly tryAcquireAll: (
    requests: ReadonlyArray<Request>,
    restore: Restore
  ) => Effect.Effect<ReadonlyArray<Entry> | Refused, EntryError>
  /** Gives an entry's place away, here and in etcd. */
  readonly release: (entry: Entry, left: Left) => void
  /** What records the locks of a request. */
  readonly recorderOf: (request: Pick<Request, "claim" | "label">) => Metrics.LockRecorder
  /** Who is in the way of a claim now, besides what is on leases of the caller's own. */
  readonly holder: (
    prefix: string,
    claim: Claim,
    own?: ReadonlyArray<EntryLease>
  ) => Effect.Effect<EntryKeyValue | undefined, EntryLost | Etcd.EtcdError>
  /** The session ends: all waiters fail, and so does every later request. */
  readonly close: () => void
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  clock: Clock.Clock,
  background: Background,
  leases: Leases,
  lines: Lines
): Contention => {
  const queues = new Map<string, LocalQueue>()
  /** Reads of who holds a lock, shared by all who ask at the same time. */
  const reads = new Map<string, Fiber.Fiber<EntryKeyValue | undefined, Etcd.EtcdError>>()
  const closed = Deferred.makeUnsafe<never, EntryLost>()
  const recorders = new Map<string, Metrics.LockRecorder>()
  /** Tells who looks on of those that wait here. */
  let teller: Fiber.Fiber<void> | undefined

  // ---------------------------------------------------------------------------
  // acquiring
  // ---------------------------------------------------------------------------

  const acquire: Contention["acquire"] = (request, wait) =>
    recorded(
      [request],
      contend([request], () => wait, ([waiter]) =>
        // A free lock is taken in as few steps as possible.
        waiter!.state === "Called"
          ? Effect.filterOrElse(join(waiter!, lines.join), isHeld, (joined) => inTurn(waiter!, joined))
          : inTurn(waiter!))
    )

  const tryAcquire: Contention["tryAcquire"] = (request, restore) =>
    recorded(
      [request],
      Effect.suspend(() => {
        // The check and the place in the queue are one step, since a try that found another request there would have to
        // wait.
        if (isClosed() || wouldBeCalled(request)) {
          return contend([request], () => restore, ([waiter]) => Effect.tap(join(waiter!, lines.tryJoin), turnOf))
        }
        return refusedHere(request, restore)
      })
    )

  const acquireAll: Contention["acquireAll"] = (requests, waitFor) =>
    recorded(
      requests,
      contend(requests, (waiters) => waitFor(() => (waiters.find(isPending) ?? waiters[0]!).request), inAllTurns)
    )

  const tryAcquireAll: Contention["tryAcquireAll"] = (requests, restore) =>
    recorded(
      requests,
      Effect.suspend(() => {
        const refusing = requests.find((request) => !wouldBeCalled(request))
        if (refusing !== undefined && !isClosed()) return refusedHere(refusing, restore)
        return contend(requests, () => restore, (waiters) => Effect.tap(joinAll(waiters, lines.tryJoinAll), turnsOf))
      })
    )

  const wouldBeCalled = ({ claim, prefix }: Request) => queues.get(prefix)?.admits(claim) !== false

  /** Refuses a try that etcd would refuse anyway, so that it is not worth a proposal. */
  const refusedHere = ({ claim, prefix }: Request, restore: Restore): Effect.Effect<Refused, EntryError> => {
    if (!lines.layout.sharesWithAhead(claim)) {
      return restore(Effect.flatMap(askForHolder(prefix, claim), (holder) => {
        // Where all of the line was read, etcd knows better.
        const known = lines.layout.seesPart(claim) ? lines.held(prefix) : undefined
        return refusedBy(lines.layout, prefix, claim, holder ?? known)
      }))
    }
    // Taken down now: what leaves while etcd is asked must not make it look as if there had been enough.
    const left = queues.get(prefix)!.leftFor(claim)
    return restore(
      Effect.map(
        lines.refuse(prefix, claim),
        ({ available, holder }) => new Refused(prefix, holder, undefined, Math.min(available, left))
      )
    )
  }

  const contend = <A, E>(
    requests: ReadonlyArray<Request>,
    waitFor: (waiters: ReadonlyArray<Waiter>) => Wait<E>,
    run: (waiters: ReadonlyArray<Waiter>) => Effect.Effect<A, EntryError>
  ): Effect.Effect<A, EntryError | E> => {
    const attempt = Effect.suspend(() => {
      if (isClosed()) return Deferred.await(closed)
      const waiters = requests.map(enter)
      const outcome = Effect.mapError(run(waiters), (error) => isClosed() ? released : error)
      const waited = Effect.onExit(waitFor(waiters)(outcome), (exit) => {
        if (Exit.isFailure(exit) || exit.value instanceof Refused) waiters.forEach(giveUp)
        return Effect.void
      })
      return Effect.catchIf(
        waited,
        (error): error is TimeUp<E> => error instanceof TimeUp,
        ({ explain }) => explain(waiters.flatMap(({ lease }) => lease ?? []))
      )
    })
    // A place in the line of a past that is over is worth nothing: it is asked for again, in the line that there is now.
    return Effect.catchIf(attempt, isOfAnotherPast, () => attempt)
  }

  /** From the place in the queue of this process to the turn in etcd's line. */
  const inTurn = Effect.fnUntraced(function*(waiter: Waiter, joined?: Entry | Refused) {
    if (waiter.state === "Queued") contended(waiter)
    yield* waiter.called
    while (waiter.entry === undefined) {
      if (joined instanceof Refused) {
        contended(waiter)
        yield* untilReleased(waiter.request, joined)
      }
      joined = yield* join(waiter, lines.join)
    }
    if (waiter.entry.state !== "Held") contended(waiter)
    yield* waiter.entry.turn
    return waiter.entry
  })

  const untilReleased = ({ lease }: Request, { untilReleased = Effect.void }: Refused) => {
    const alive = lease === undefined
      ? untilReleased
      : Effect.catchTag(lease.whileAlive(untilReleased), "LeaseExpired", (loss) => Effect.fail(lostWith(loss)))
    return Effect.raceFirst(alive, Deferred.await(closed))
  }

  /** The same in several lines at once. */
  const inAllTurns = Effect.fnUntraced(function*(waiters: ReadonlyArray<Waiter>) {
    // All have their places in the queues already, so it does not matter which one is called first.
    const one = distinct(waiters, ({ request }) => request)
    for (const waiter of one) if (waiter.state === "Queued") contended(waiter)
    for (const waiter of waiters) yield* waiter.called
    const entries = (yield* joinAll(waiters, lines.joinAll)) as ReadonlyArray<Entry>
    for (const waiter of one) if (waiter.entry?.state !== "Held") contended(waiter)
    const turns = Effect.forEach(entries, ({ turn }) => turn, { concurrency: "unbounded", discard: true })
    yield* Effect.raceFirst(turns, anyLoss(entries))
    // No lock is used before the last turn has come, so all may have the token of that turn, unless one of them is gone
    // by then: the token of its later holder would not be greater.
    const last = entries.reduce((last, { fencingToken }) => fencingToken > last ? fencingToken : last, 0n)
    if (entries.some(({ fencingToken }) => fencingToken < last)) yield* stillThere(entries)
    for (const entry of entries) entry.fencingToken = last
    return entries
  })

  const stillThere = Effect.fnUntraced(function*(entries: ReadonlyArray<Entry>) {
    const { responses } = yield* etcd.txn({ then: entries.map(({ key }) => Requests.getKey(key)) })
    const gone = entries.find(({ createRevision }, i) => responses[i]!.kvs[0]?.createRevision !== createRevision)
    if (gone === undefined) return
    gone.lose(keyDeleted)
    return yield* Effect.fail(gone.loss!)
  })

  const join = (waiter: Waiter, via: Via, attempt = 1): Effect.Effect<Entry | Refused, EntryError> =>
    Effect.callback<Entry | Refused, EntryError>((resume) => {
      const { claim, prefix, value } = waiter.request
      // In one step with the request, which releases it: an interruption in between would leave it to nobody.
      const ref = refNow(waiter.request)
      if (ref === undefined) {
        return resume(Effect.andThen(untilGranted(waiter.request), join(waiter, via, attempt)))
      }
      waiter.join(ref.lease)
      const wanted = { prefix, ref, value, claim }
      via(prefix, wanted, (exit) => {
        answered(waiter, exit)
        resume(orAgain([wanted], exit, attempt, () => join(waiter, via, attempt + 1)))
      })
    })

  const joinAll = (
    waiters: ReadonlyArray<Waiter>,
    via: Lines["joinAll"],
    attempt = 1
  ): Effect.Effect<ReadonlyArray<Entry> | Refused, EntryError> =>
    Effect.callback((resume) => {
      // All are on one lease.
      const refs = waiters.map(({ request }) => refNow(request))
      if (refs.includes(undefined)) {
        for (const ref of refs) ref?.release()
        return resume(Effect.andThen(untilGranted(waiters[0]!.request), joinAll(waiters, via, attempt)))
      }
      waiters.forEach((waiter, i) => waiter.join(refs[i]!.lease))
      const wanted = waiters.map(({ request: { claim, prefix, value } }, i) => ({
        prefix,
        claim,
        value,
        ref: refs[i]!
      }))
      via(wanted, (exit) => {
        waiters.forEach((waiter, i) =>
          answered(waiter, Exit.map(exit, (joined) => joined instanceof Refused ? joined : joined[i]!))
        )
        resume(orAgain(wanted, exit, attempt, () => joinAll(waiters, via, attempt + 1)))
      })
    })

  const orAgain = <A>(
    wanted: ReadonlyArray<Wanted>,
    exit: Exit.Exit<A, EntryError>,
    attempt: number,
    again: () => Effect.Effect<A, EntryError>
  ): Effect.Effect<A, EntryError> => {
    const error = Exit.isFailure(exit) ? etcdErrorOf(exit.cause) : undefined
    switch (error?.reason) {
      // A lease that was revoked from outside is noticed at its next use at the latest; the session grants another.
      case "LeaseNotFound": {
        return attempt < 3 ? again() : Effect.fail(new EntryLost("LeaseExpired"))
      }
      // Unless it is the entry that is denied, it is the lease. What is on it already may be so since a role has changed.
      case "PermissionDenied": {
        if (attempt > 1) return exit
        const { isShared, lease, retire } = wanted[0]!.ref
        return Effect.flatMap(lines.mayJoin(wanted), (mayJoin) => {
          if (!mayJoin) return exit
          if (!isShared) return Effect.fail(deniedOn(lease, error!))
          retire("a key on it is one that the user may not write any more")
          return again()
        })
      }
      default: {
        return exit
      }
    }
  }

  /** Waits for a lease to join on. */
  const untilGranted = ({ lease, prefix }: Request): Effect.Effect<unknown, EntryError> =>
    lease !== undefined
      ? Effect.mapError(lease.awaitLoss, lostWith)
      : Effect.tapCause(
        leases.granted,
        (cause) => Effect.sync(() => isOutage(cause) && failWaiting(prefix, cause))
      )

  const refNow = ({ lease }: Request): LeaseRef | undefined => {
    if (lease === undefined) return leases.acquireRefNow()
    return lease.isAlive() ? ownRef(lease) : undefined
  }

  // ---------------------------------------------------------------------------
  // the queue of this process
  // ---------------------------------------------------------------------------

  const enter = (request: Request): Waiter => {
    const waiter = new Waiter(request)
    let queue = queues.get(request.prefix)
    if (queue === undefined) queues.set(request.prefix, queue = new LocalQueue())
    queue.add(waiter)
    if (waiter.state === "Queued") teller ??= background(Effect.andThen(Effect.sleep(tellEvery), tell))
    return waiter
  }

  // One fiber for all queues, and rarely: those who look on may wait for the number, and etcd does not pay for each change.
  const tell: Effect.Effect<void> = Effect.suspend(() => {
    let isWaitedFor = false
    for (const [prefix, { waiting }] of queues) {
      lines.tellOfWaiting(prefix, waiting)
      isWaitedFor ||= waiting > 0
    }
    if (isWaitedFor) return Effect.andThen(Effect.sleep(tellEvery), tell)
    teller = undefined
    return Effect.void
  })

  /** Calls those that are next after one that was called has left without an entry to pass on. */
  const callNext = ({ claim, prefix }: Pick<Request, "claim" | "prefix">) => {
    const queue = queues.get(prefix)
    queue?.release(claim)
    if (queue?.isEmpty) queues.delete(prefix)
  }

  /** Fails the waiters that have not joined: without etcd, none of them gets any further. */
  const failWaiting = (prefix: string, outage: Cause.Cause<EntryError>) => queues.get(prefix)?.failWaiting(outage)

  /** A join or a hand-over has been answered. */
  const answered = (waiter: Waiter, exit: Exit.Exit<Entry | Refused, EntryError>) => {
    const { request, request: { prefix } } = waiter
    const outage = Exit.isFailure(exit) && isOutage(exit.cause) ? exit.cause : undefined
    if (outage !== undefined) failWaiting(prefix, outage)
    if (waiter.state === "Gone") {
      if (Exit.isSuccess(exit) && exit.value instanceof Entry) passOn(exit.value, request)
      else callNext(request)
    } else if (Exit.isSuccess(exit) && exit.value instanceof Entry) {
      waiter.place(exit.value)
    } else {
      waiter.call(outage === undefined ? Exit.void : Exit.failCause(outage))
    }
  }

  /** Gives up a request, whatever has become of it. */
  const giveUp = (waiter: Waiter) => {
    const { entry, request, request: { prefix }, state } = waiter
    waiter.state = "Gone"
    if (state === "Queued") queues.get(prefix)?.remove(waiter)
    else if (state === "Called") callNext(request)
    else if (state === "Placed") passOn(entry!, request)
  }

  /**
   * Gives the place in etcd's line, or a turn that its caller never got, to the next fiber, without a request to etcd:
   * a waiter that gives up does not cost those behind it their place.
   */
  const passOn = (entry: Entry, { claim, lease, metadata, prefix }: Request) => {
    const queue = queues.get(prefix)
    const next = queue?.successor
    if (
      next === undefined || !isSame(next.request.claim, claim) || next.request.lease !== lease ||
      entry.failure !== undefined
    ) {
      return release(entry, () => {})
    }
    const isOther = next.request.metadata !== metadata
    if (isOther && !isDescribable(lines.layout, claim)) return release(entry, () => {})
    // Others here, who know of more permits, may have taken those that it would need.
    if (queue!.replace(claim) === undefined) return release(entry, () => {})
    if (isOther) lines.describe(entry, next.request.value)
    next.place(entry)
    queue!.admit()
  }

  const release: Contention["release"] = (entry, left) => {
    const { claim, line: { prefix } } = entry
    const queue = queues.get(prefix)
    if (queue === undefined || entry.state === "Left") return left(false)
    if (entry.isLost) {
      // The next one does not wait for etcd, which may have nothing of it.
      lines.leave(entry, left)
      return callNext({ prefix, claim })
    }
    const ref = canHandOverTo(queue.successor) ? leases.acquireRefNow() : undefined
    const next = ref === undefined ? undefined : queue.replace(entry.claim)
    if (ref === undefined || next === undefined) {
      ref?.release()
      return lines.leave(entry, (wasGone) => {
        callNext({ prefix, claim })
        left(wasGone)
      })
    }
    const { request: { claim: wanted, value } } = next
    next.join(ref.lease)
    lines.handOver(entry, { ref, value, claim: wanted }, left, (exit) => answered(next, exit))
    queue.admit()
  }

  /** A waiter with its own lease takes over no place: its lease must not end with an entry that another one leaves. */
  const canHandOverTo = (next: Waiter | undefined): boolean =>
    next !== undefined && next.request.lease === undefined && lines.layout.hasOwnKeys

  // ---------------------------------------------------------------------------
  // measuring
  // ---------------------------------------------------------------------------

  const recorderOf: Contention["recorderOf"] = ({ claim, label }) => {
    const id = label === undefined ? claim.kind : `${claim.kind} ${label}`
    let recorder = recorders.get(id)
    if (recorder === undefined) recorders.set(id, recorder = Metrics.locks(background.context, claim, label))
    return recorder
  }

  /** Records what comes of requests. */
  const recorded = <A, E>(requests: ReadonlyArray<Request>, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const asked = distinct(requests, identity).map((request) => recorderOf(request).asked(clock))
      return Effect.onExit(self, (exit) => {
        const result = resultOf(exit)
        for (const end of asked) end(result)
        return Effect.void
      })
    })

  const contended = (waiter: Waiter) => {
    if (waiter.isContended) return
    waiter.isContended = true
    recorderOf(waiter.request).contended()
    waiter.request.onContended?.(waiter.entry?.ahead)
  }

  // ---------------------------------------------------------------------------
  // who holds it, and the end
  // ---------------------------------------------------------------------------

  const readHolder = (prefix: string, claim: Claim): Effect.Effect<EntryKeyValue | undefined, Etcd.EtcdError> =>
    Effect.map(
      Effect.forEach(lines.ahead(prefix, claim), (range) => etcd.range(Requests.first(range))),
      Requests.headOf
    )

  const holder: Contention["holder"] = (prefix, claim, own = []) =>
    Effect.map(askForHolder(prefix, claim), (kv) => own.some(({ id }) => id === kv?.lease) ? undefined : kv)

  const askForHolder: Contention["holder"] = (prefix, claim) =>
    Effect.suspend(() => {
      const id = `${prefix}${claim.kind}${claim.permits}`
      let read = reads.get(id)
      if (read === undefined) {
        reads.set(id, read = background(readHolder(prefix, claim)))
        read.addObserver(() => reads.delete(id))
      }
      // The session's end interrupts the read, and not its caller.
      return Effect.flatMap(
        Fiber.await(read),
        (exit): Effect.Effect<EntryKeyValue | undefined, EntryLost | Etcd.EtcdError> =>
          Exit.hasInterrupts(exit) ? Effect.fail(released) : exit
      )
    })

  const isClosed = () => Deferred.isDoneUnsafe(closed)

  const close: Contention["close"] = () => {
    Deferred.doneUnsafe(closed, Effect.fail(released))
    for (const queue of queues.values()) queue.failWaiting(Cause.fail(released))
  }

  return {
    etcd,
    layout: lines.layout,
    acquire,
    tryAcquire,
    acquireAll,
    tryAcquireAll,
    release,
    recorderOf,
    holder,
    close
  }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** How often the entries of this process say how many wait behind them, where that has changed. */
const tellEvery = "1 second"

type Via = Lines["join"] | Lines["tryJoin"]

/** One request of each line, since all of a line are for one lock. */
const distinct = <A>(all: ReadonlyArray<A>, requestOf: (one: A) => Request): ReadonlyArray<A> =>
  all.length === 1 ? all : Arr.dedupeWith(all, (a, b) => requestOf(a).prefix === requestOf(b).prefix)

/** An error that is not an entry's is the one of a timeout. */
const resultOf = (exit: Exit.Exit<unknown, unknown>): Metrics.Result => {
  if (Exit.isSuccess(exit)) return exit.value instanceof Refused ? "refused" : "acquired"
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error instanceof EntryLost) return "lost"
  return error === undefined || error instanceof ForeignEntry || error instanceof EtcdError ? "failed" : "timeout"
}

const isOfAnotherPast = (error: unknown): error is EntryLost =>
  error instanceof EntryLost && error.cause?.reason === "HistoryChanged"

const isHeld = (joined: Entry | Refused): joined is Entry => joined instanceof Entry && joined.state === "Held"

/** Of a try, whose turn has come with its answer unless it was lost before. */
const turnOf = (joined: Entry | Refused): Effect.Effect<void, EntryError> =>
  joined instanceof Refused ? Effect.void : joined.turn

const turnsOf = (joined: ReadonlyArray<Entry> | Refused): Effect.Effect<void, EntryError> =>
  joined instanceof Refused ? Effect.void : Effect.forEach(joined, turnOf, { discard: true })

const isPending = ({ entry }: Waiter): boolean => entry?.state !== "Held"

const anyLoss = (entries: ReadonlyArray<Entry>) =>
  Effect.callback<never, EntryLost>((resume) => {
    const unsubscribes = entries.map(({ onLoss }) => onLoss((loss) => resume(Effect.fail(loss))))
    return Effect.sync(() => unsubscribes.forEach((unsubscribe) => unsubscribe()))
  })

const ownRef = (lease: EntryLease): LeaseRef => ({ lease, isShared: false, release: () => {}, retire: () => {} })

/** The session, or the caller's own lease, has ended. */
const released = new EntryLost("Released")

const etcdErrorOf = (cause: Cause.Cause<EntryError>): Etcd.EtcdError | undefined => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error?._tag === "EtcdError" ? error : undefined
}

/** etcd puts no key on a lease that has one which the user may not write. */
const deniedOn = ({ id }: EntryLease, { cause, method, outcome, reason }: EtcdError): EtcdError =>
  new EtcdError({
    reason,
    method,
    outcome,
    cause,
    description: `the user may not write a key that is on lease ${id.toString(16)} already; use another lease`
  })

const isOutage = (cause: Cause.Cause<EntryError>): boolean => etcdErrorOf(cause)?.isTransient === true
