/**
 * The mutex: the fibers of this process queue among themselves, first come first
 * served, and only the first of them has an entry in etcd's line.
 *
 * A release with a fiber waiting hands the place over in one commit: the next
 * fiber holds at once if nobody else waits in etcd, and is at the end of the line
 * if somebody does. Where there is no line to stand in, the first fiber waits until
 * whoever is in the way has left, and tries again.
 *
 * A contender goes its way by callbacks, whether or not its fiber still waits for
 * it: a join that nobody wants any more must be known to be over before its entry
 * can be left.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Etcd from "../../Etcd.ts"
import type { Lease, LeaseExpired } from "../../Lease.ts"
import type { Background } from "../background.ts"
import type { Done } from "../etcd/batch.ts"
import { Entry, type EntryError, type EntryKey, EntryLost, type Hold } from "../line/entry.ts"
import { type Lines, Occupied } from "../line/line.ts"
import type { Leases } from "./sharedLease.ts"

export interface Request {
  readonly prefix: string
  readonly value: Uint8Array
  /** What the caller says of itself, as the value has it. */
  readonly metadata: string
  /** A lease of the user's own instead of the session's. */
  readonly lease: Lease | undefined
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
  /** Takes the lock if it is free; else answers who holds it, if that can be told. */
  readonly tryAcquire: <E>(request: Request, wait: Wait<E>) => Effect.Effect<Entry | Held, EntryError | E>
  readonly release: (entry: Entry, done: () => void) => void
  /** Who holds the lock now. */
  readonly holder: (prefix: string) => Effect.Effect<EntryKey | undefined, Etcd.EtcdError>
  /** The session has ended: nobody gets a lock through it any more, and nobody who waits for one may wait for ever. */
  readonly close: () => void
}

/** Somebody else holds the lock. */
export class Held {
  readonly _tag = "Held"
  readonly holder: EntryKey | undefined
  constructor(holder: EntryKey | undefined) {
    this.holder = holder
  }
}

/** Whoever wants the lock, from the local line to the release. */
class Contender {
  readonly request: Request
  readonly join: Lines["join"] | Lines["tryJoin"]
  state: "Waiting" | "Joining" | "Standing" | "Holding" | "Gone" = "Waiting"
  /** Its place in etcd's line. */
  entry: Entry | undefined
  /** Waits for the current holder of a single key to leave. */
  watcher: Fiber.Fiber<void, EntryError> | undefined
  #outcome: Exit.Exit<Entry | Held, EntryError> | undefined
  #resume: Done<Entry | Held, EntryError> | undefined

  constructor(request: Request, join: Contender["join"]) {
    this.request = request
    this.join = join
  }

  settle(outcome: Exit.Exit<Entry | Held, EntryError>) {
    if (this.state === "Gone") return
    this.state = Exit.isSuccess(outcome) && outcome.value === this.entry ? "Holding" : "Gone"
    this.#outcome = outcome
    const resume = this.#resume
    // the fiber that waited would be kept for as long as the lock is held
    this.#resume = undefined
    resume?.(outcome)
  }

  get outcome(): Effect.Effect<Entry | Held, EntryError> {
    return this.#outcome ?? Effect.callback((resume) => {
      if (this.#outcome === undefined) this.#resume = resume
      else resume(this.#outcome)
    })
  }
}

/** What comes of a join or of a try. */
type Joined = Entry | Occupied | Etcd.KeyValue

interface LocalLine {
  /** Whose turn it is; undefined once there is nobody. */
  first: Contender | undefined
  /** Made for the first who has to wait: nobody does for most locks. */
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
    if (closed) return contender.settle(released)
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
    // tables that a map has outgrown live until the next great collection, with all that was in them
    local.first = undefined
  }

  /** Gives up, whatever has become of it. */
  const withdraw = (contender: Contender) => {
    const { entry, request, request: { prefix }, state, watcher } = contender
    contender.state = "Gone"
    if (state === "Waiting") {
      locals.get(prefix)?.waiting?.delete(contender)
    } else if (state === "Standing" || state === "Holding") {
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
      entry.look() !== undefined || (isOther && lines.describe === undefined)
    ) return release(entry, () => {})
    call(local, next)
    if (isOther) lines.describe!(entry, next.request.value)
    stand(next, entry)
  }

  // ---------------------------------------------------------------------------
  // etcd's line
  // ---------------------------------------------------------------------------

  const join = (contender: Contender, attempt = 1) => {
    const { request: { prefix, value } } = contender
    contender.state = "Joining"
    hang(contender.request, (hung) => {
      if (Exit.isFailure(hung)) return failed(contender, hung.cause)
      const hold = hung.value
      if (contender.state === "Gone") {
        hold.leave()
        return callNext(prefix)
      }
      contender.join(prefix, { hold, value }, (joined: Exit.Exit<Joined, EntryError>) => {
        if (Exit.isSuccess(joined)) arrived(contender, joined.value)
        // a lease that was revoked behind our back is noticed at its next use at the latest; the session has another
        else if (isLeaseNotFound(joined.cause) && attempt < 3 && contender.state !== "Gone") {
          join(contender, attempt + 1)
        } else failed(contender, joined.cause)
      })
    })
  }

  const hang = ({ lease }: Request, done: Done<Hold, EntryError>) => {
    if (lease === undefined) return leases.hang(done)
    let lost: Exit.Exit<never, EntryLost> | undefined
    lease.onLoss((loss) => {
      lost = lostWith(loss)
    })()
    done(lost ?? Exit.succeed(ownHold(lease)))
  }

  const failed = (contender: Contender, cause: Cause.Cause<EntryError>) => {
    const { prefix } = contender.request
    const behind = isOutage(cause) ? takeWaiting(prefix) : []
    callNext(prefix)
    const isLost = Cause.hasInterrupts(cause) || isLeaseNotFound(cause)
    const outcome = isLost ? leaseExpired : Exit.failCause(cause)
    contender.settle(outcome)
    for (const waiter of behind) waiter.settle(outcome)
  }

  /** All who wait behind the first: without etcd none of them gets any further. */
  const takeWaiting = (prefix: string): ReadonlyArray<Contender> => {
    const local = locals.get(prefix)
    const waiting = [...local?.waiting ?? []]
    local?.waiting?.clear()
    return waiting
  }

  const arrived = (contender: Contender, joined: Joined) => {
    if (joined instanceof Entry) return stand(contender, joined)
    if (contender.state === "Gone") return callNext(contender.request.prefix)
    if (joined instanceof Occupied) return awaitLeave(contender, joined)
    callNext(contender.request.prefix)
    contender.settle(Exit.succeed(new Held(joined)))
  }

  const stand = (contender: Contender, entry: Entry) => {
    // Its caller has given up meanwhile.
    if (contender.state === "Gone") return passOn(entry, contender.request)
    contender.state = "Standing"
    contender.entry = entry
    entry.onTurn((turn) => {
      if (Exit.isFailure(turn)) release(entry, () => {})
      contender.settle(Exit.map(turn, () => entry))
    })
  }

  const awaitLeave = (contender: Contender, { untilLeft }: Occupied) => {
    contender.watcher = background(whileAlive(contender.request, untilLeft))
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
        ? leases.hangNow()
        : undefined
    if (next === undefined || handOver === undefined || shared === undefined) {
      return lines.leave(entry, () => {
        callNext(prefix)
        done()
      })
    }
    handOver(entry, { hold: shared, value: next.request.value }, (joined) => {
      if (Exit.isSuccess(joined)) {
        if (next.state === "Waiting") call(local, next)
        stand(next, joined.value)
      } else {
        const behind = isOutage(joined.cause) ? takeWaiting(prefix) : []
        callNext(prefix)
        for (const waiter of behind) waiter.settle(Exit.failCause(joined.cause))
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
    Effect.suspend((): Effect.Effect<Entry | Held, EntryError | E> => {
      const { prefix } = request
      // It takes its place in the same step, since a try that found another one there would have to wait.
      if (closed || !locals.has(prefix)) return contend(request, lines.tryJoin, wait)
      // It would be refused anyway, so it is not worth a proposal.
      return wait(Effect.map(readFirst(prefix), (holder) => new Held(holder ?? localHolder(prefix))))
    })

  const localHolder = (prefix: string): EntryKey | undefined => {
    const entry = locals.get(prefix)?.first?.entry
    if (entry?.state !== "Held") return undefined
    const { createRevision, hold: { lease: { id: lease } }, key, value } = entry
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
      for (const contender of waiting ?? []) contender.settle(released)
      waiting?.clear()
      if (first?.state !== "Holding") first?.settle(released)
    }
  }

  return { range: lines.range, acquire, tryAcquire, release, holder, close }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const nextOf = ({ waiting }: LocalLine): Contender | undefined => waiting?.values().next().value

const ownHold = (lease: Lease): Hold => ({ lease, isShared: false, leave: () => {}, retire: () => {} })

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
