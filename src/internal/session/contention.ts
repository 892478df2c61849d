/**
 * The mutex: the fibers of this process queue among themselves, first come first
 * served, and only the first of them has an entry in etcd's line.
 *
 * A release with a fiber waiting hands the place over in one commit: the next
 * fiber holds at once if no other client waits in etcd, and is at the end of the line
 * otherwise. Where there is no line to join, the first fiber waits until the holder
 * has released the lock, and tries again.
 *
 * An attempt runs to its end even if its fiber was interrupted: an entry can only be
 * removed once its join has been answered.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Etcd from "../../Etcd.ts"
import type { LeaseExpired } from "../../LeaseExpired.ts"
import type { Background } from "../background.ts"
import type { Done } from "../etcd/batch.ts"
import { Entry, type EntryError, type EntryKey, type EntryLease, EntryLost, type LeaseRef } from "../line/entry.ts"
import { type Lines, Refused } from "../line/line.ts"
import type { Leases } from "./sharedLease.ts"

export interface Request {
  readonly prefix: string
  readonly value: Uint8Array
  /** What the caller says of itself, as the value has it. */
  readonly metadata: string
  /** A lease of the user's own instead of the session's. */
  readonly lease: EntryLease | undefined
}

/** Restores interruptibility around a wait, and may end it in another way, such as a timeout. */
export interface Wait<E> {
  <A, E2>(effect: Effect.Effect<A, E2>): Effect.Effect<A, E2 | E>
}

export interface Mutex {
  readonly range: Lines["range"]
  /**
   * Waits for the turn. To be run uninterruptibly: only what goes through `wait` can be interrupted, and
   * whatever comes of it, the place in both lines is given up.
   */
  readonly acquire: <E>(request: Request, wait: Wait<E>) => Effect.Effect<Entry, EntryError | E>
  /** Takes the lock if it is free; else returns who holds it, if that is known. */
  readonly tryAcquire: <E>(request: Request, wait: Wait<E>) => Effect.Effect<Entry | Refused, EntryError | E>
  readonly release: (entry: Entry, done: () => void) => void
  /** Who holds the lock now. */
  readonly holder: (prefix: string) => Effect.Effect<EntryKey | undefined, Etcd.EtcdError>
  /** The session ends: nobody gets a lock through it any more, and all that wait for one fail. */
  readonly close: () => void
}

/** One caller's attempt to take the lock: queued locally, joining, queued in etcd, holding, or gone. */
class Contender {
  readonly request: Request
  readonly join: Lines["join"] | Lines["tryJoin"]
  state: "Waiting" | "Joining" | "Queued" | "Holding" | "Gone" = "Waiting"
  /** Its place in etcd's line. */
  entry: Entry | undefined
  /** Waits for the current holder of a single key to leave. */
  watcher: Fiber.Fiber<void, EntryError> | undefined
  #outcome: Exit.Exit<Entry | Refused, EntryError> | undefined
  #resume: Done<Entry | Refused, EntryError> | undefined

  constructor(request: Request, join: Contender["join"]) {
    this.request = request
    this.join = join
  }

  complete(outcome: Exit.Exit<Entry | Refused, EntryError>) {
    if (this.state === "Gone") return
    this.state = Exit.isSuccess(outcome) && outcome.value === this.entry ? "Holding" : "Gone"
    this.#outcome = outcome
    const resume = this.#resume
    // Else the fiber that waited would be kept for as long as the lock is held.
    this.#resume = undefined
    resume?.(outcome)
  }

  get outcome(): Effect.Effect<Entry | Refused, EntryError> {
    return this.#outcome ?? Effect.callback((resume) => {
      if (this.#outcome === undefined) this.#resume = resume
      else resume(this.#outcome)
    })
  }
}

interface LocalLine {
  /** Has the process's place in etcd, or is about to; undefined once the queue is empty. */
  first: Contender | undefined
  /** Made for the first fiber that has to wait: for most locks none has to. */
  waiting: Set<Contender> | undefined
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  background: Background,
  leases: Leases,
  lines: Lines
): Mutex => {
  const locals = new Map<string, LocalLine>()
  /** Reads of who holds a lock, shared by all who ask at the same time. */
  const reads = new Map<string, Fiber.Fiber<EntryKey | undefined, Etcd.EtcdError>>()
  let closed = false

  // ---------------------------------------------------------------------------
  // the local line
  // ---------------------------------------------------------------------------

  const enqueue = (contender: Contender) => {
    const { prefix } = contender.request
    const local = locals.get(prefix)
    if (closed) return contender.complete(released)
    if (local !== undefined) return void (local.waiting ??= new Set()).add(contender)
    locals.set(prefix, { first: contender, waiting: undefined })
    join(contender)
  }

  const call = (local: LocalLine, contender: Contender) => {
    local.waiting?.delete(contender)
    local.first = contender
  }

  /** Calls the next fiber, which has to join etcd's line by itself. */
  const callNext = (prefix: string) => {
    const local = locals.get(prefix)
    if (local === undefined) return
    const next = nextOf(local)
    if (next !== undefined) {
      call(local, next)
      return join(next)
    }
    locals.delete(prefix)
    // V8 keeps a map's outgrown table until the next major collection, with all that was in it.
    local.first = undefined
  }

  /** Gives up, whatever has become of it. */
  const withdraw = (contender: Contender) => {
    const { entry, request, request: { prefix }, state, watcher } = contender
    contender.state = "Gone"
    if (state === "Waiting") {
      locals.get(prefix)?.waiting?.delete(contender)
    } else if (state === "Queued" || state === "Holding") {
      passOn(entry!, request)
    } else if (watcher !== undefined) {
      watcher.interruptUnsafe()
      callNext(prefix)
    }
  }

  /**
   * Gives the place in etcd's line, or a turn that its caller never heard of, to the next fiber without a request: one
   * that gives up does not cost those behind it their place.
   */
  const passOn = (entry: Entry, request: Request) => {
    const { prefix } = request
    const local = locals.get(prefix)
    const next = local === undefined ? undefined : nextOf(local)
    const isOther = next?.request.metadata !== request.metadata
    if (
      local === undefined || next === undefined || next.request.lease !== request.lease ||
      entry.checkLoss() !== undefined || (isOther && lines.describe === undefined)
    ) return release(entry, () => {})
    call(local, next)
    if (isOther) lines.describe!(entry, next.request.value)
    attach(next, entry)
  }

  // ---------------------------------------------------------------------------
  // etcd's line
  // ---------------------------------------------------------------------------

  const join = (contender: Contender, attempt = 1) => {
    const { request: { prefix, value } } = contender
    contender.state = "Joining"
    acquireRef(contender.request, (acquired) => {
      if (Exit.isFailure(acquired)) return failed(contender, acquired.cause)
      const ref = acquired.value
      if (contender.state === "Gone") {
        ref.release()
        return callNext(prefix)
      }
      contender.join(prefix, { ref, value }, (joined: Exit.Exit<Entry | Refused, EntryError>) => {
        if (Exit.isSuccess(joined)) arrived(contender, joined.value)
        // A lease that was revoked from outside is noticed at its next use at the latest; the session grants another.
        else if (isLeaseNotFound(joined.cause) && attempt < 3 && contender.state !== "Gone") {
          join(contender, attempt + 1)
        } else failed(contender, joined.cause)
      })
    })
  }

  const acquireRef = ({ lease }: Request, done: Done<LeaseRef, EntryError>) => {
    if (lease === undefined) return leases.acquireRef(done)
    let lost: Exit.Exit<never, EntryLost> | undefined
    lease.onLoss((loss) => {
      lost = lostWith(loss)
    })()
    done(lost ?? Exit.succeed(ownRef(lease)))
  }

  const failed = (contender: Contender, cause: Cause.Cause<EntryError>) => {
    const { prefix } = contender.request
    const behind = isOutage(cause) ? takeWaiting(prefix) : []
    callNext(prefix)
    const isLost = Cause.hasInterrupts(cause) || isLeaseNotFound(cause)
    const outcome = isLost ? leaseExpired : Exit.failCause(cause)
    contender.complete(outcome)
    for (const waiter of behind) waiter.complete(outcome)
  }

  /** All who wait behind the first: without etcd none of them gets any further. */
  const takeWaiting = (prefix: string): ReadonlyArray<Contender> => {
    const local = locals.get(prefix)
    const waiting = [...local?.waiting ?? []]
    local?.waiting?.clear()
    return waiting
  }

  const arrived = (contender: Contender, joined: Entry | Refused) => {
    if (joined instanceof Entry) return attach(contender, joined)
    if (contender.state === "Gone") return callNext(contender.request.prefix)
    if (joined.untilReleased !== undefined) return awaitRelease(contender, joined.untilReleased)
    callNext(contender.request.prefix)
    contender.complete(Exit.succeed(joined))
  }

  const attach = (contender: Contender, entry: Entry) => {
    // Its caller has given up meanwhile.
    if (contender.state === "Gone") return passOn(entry, contender.request)
    contender.state = "Queued"
    contender.entry = entry
    entry.onTurn((turn) => {
      if (Exit.isFailure(turn)) release(entry, () => {})
      contender.complete(Exit.map(turn, () => entry))
    })
  }

  const awaitRelease = (contender: Contender, untilReleased: NonNullable<Refused["untilReleased"]>) => {
    contender.watcher = background(whileAlive(contender.request, untilReleased))
    contender.watcher.addObserver((exit) => {
      contender.watcher = undefined
      if (contender.state === "Gone") return
      if (Exit.isSuccess(exit)) join(contender)
      else failed(contender, exit.cause)
    })
  }

  const release: Mutex["release"] = (entry, done) => {
    const { prefix } = entry.line
    const local = locals.get(prefix)
    if (local === undefined || entry.state === "Left") return done()
    const next = nextOf(local)
    const { handOver } = lines
    const shared =
      next !== undefined && handOver !== undefined && next.request.lease === undefined && entry.loss === undefined
        ? leases.acquireRefNow()
        : undefined
    if (next === undefined || handOver === undefined || shared === undefined) {
      return lines.leave(entry, () => {
        callNext(prefix)
        done()
      })
    }
    handOver(entry, { ref: shared, value: next.request.value }, (joined) => {
      if (Exit.isSuccess(joined)) {
        if (next.state === "Waiting") call(local, next)
        attach(next, joined.value)
      } else {
        const behind = isOutage(joined.cause) ? takeWaiting(prefix) : []
        callNext(prefix)
        for (const waiter of behind) waiter.complete(Exit.failCause(joined.cause))
      }
      done()
    })
  }

  // ---------------------------------------------------------------------------
  // the mutex
  // ---------------------------------------------------------------------------

  const contend = <E>(request: Request, join: Contender["join"], wait: Wait<E>) => {
    const contender = new Contender(request, join)
    enqueue(contender)
    return Effect.onError(wait(contender.outcome), () => Effect.sync(() => withdraw(contender)))
  }

  const acquire: Mutex["acquire"] = (request, wait) =>
    // Only a try returns that the lock is held.
    Effect.suspend(() => contend(request, lines.join, wait) as Effect.Effect<Entry, any>)

  const tryAcquire: Mutex["tryAcquire"] = <E>(request: Request, wait: Wait<E>) =>
    Effect.suspend((): Effect.Effect<Entry | Refused, EntryError | E> => {
      const { prefix } = request
      // It takes its place in the same step, since a try that found another one there would have to wait.
      if (closed || !locals.has(prefix)) return contend(request, lines.tryJoin, wait)
      // It would be refused anyway, so it is not worth a proposal.
      return wait(Effect.map(readFirst(prefix), (holder) => new Refused(holder ?? localHolder(prefix))))
    })

  const localHolder = (prefix: string): EntryKey | undefined => {
    const entry = locals.get(prefix)?.first?.entry
    if (entry?.state !== "Held") return undefined
    const { createRevision, ref: { lease: { id: lease } }, key, value } = entry
    return { key: Buffer.from(key), value, lease, createRevision }
  }

  const readFirst = (prefix: string): Effect.Effect<EntryKey | undefined, Etcd.EtcdError> =>
    Effect.map(etcd.range({ ...lines.range(prefix), limit: 1, sort: "CreateAscending" }), ({ kvs }) => kvs[0])

  const holder: Mutex["holder"] = (prefix) =>
    Effect.suspend(() => {
      const known = localHolder(prefix)
      if (known !== undefined) return Effect.succeed(known)
      let read = reads.get(prefix)
      if (read === undefined) {
        reads.set(prefix, read = background(readFirst(prefix)))
        read.addObserver(() => reads.delete(prefix))
      }
      return Fiber.join(read)
    })

  const close: Mutex["close"] = () => {
    closed = true
    for (const { first, waiting } of locals.values()) {
      for (const contender of waiting ?? []) contender.complete(released)
      waiting?.clear()
      if (first?.state !== "Holding") first?.complete(released)
    }
  }

  return { range: lines.range, acquire, tryAcquire, release, holder, close }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const nextOf = ({ waiting }: LocalLine): Contender | undefined => waiting?.values().next().value

const ownRef = (lease: EntryLease): LeaseRef => ({ lease, isShared: false, release: () => {}, retire: () => {} })

const leaseExpired = Exit.fail(new EntryLost("LeaseExpired"))

/** The session, or the caller's own lease, has ended. */
const released = Exit.fail(new EntryLost("Released"))

const lostWith = ({ reason }: LeaseExpired): Exit.Exit<never, EntryLost> =>
  reason === "Released" ? released : leaseExpired

const whileAlive = <A>({ lease }: Request, self: Effect.Effect<A, EntryError>): Effect.Effect<A, EntryError> =>
  lease === undefined
    ? self
    : Effect.catchTag(lease.whileAlive(self), "LeaseExpired", lostWith)

const etcdErrorOf = (cause: Cause.Cause<EntryError>): Etcd.EtcdError | undefined => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error?._tag === "EtcdError" ? error : undefined
}

const isLeaseNotFound = (cause: Cause.Cause<EntryError>): boolean => etcdErrorOf(cause)?.reason === "LeaseNotFound"

const isOutage = (cause: Cause.Cause<EntryError>): boolean => etcdErrorOf(cause)?.isTransient === true
