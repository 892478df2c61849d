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
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Etcd from "../Etcd.ts"
import type { Lease } from "../Lease.ts"
import type { Background } from "./background.ts"
import type { Done } from "./batch.ts"
import { Entry, type EntryError, type EntryKey, EntryLost, type Hold, noneAhead } from "./entry.ts"
import type { Leases } from "./leases.ts"
import { type Lines, Occupied } from "./line.ts"

export interface Request {
  readonly prefix: string
  readonly value: Uint8Array
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
  /** Who holds the lock, as far as those who wait for it here know. */
  readonly holder: (prefix: string) => EntryKey | undefined
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
  /** Waits for whoever is in the way to leave. */
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
  /** Who is in the way of its entry. */
  occupant: EntryKey | undefined
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  background: Background,
  leases: Leases,
  lines: Lines
): Mutex => {
  const locals = new Map<string, LocalLine>()
  let closed = false

  // ---------------------------------------------------------------------------
  // the local line
  // ---------------------------------------------------------------------------

  const enqueue = (contender: Contender) => {
    const { prefix } = contender.request
    const local = locals.get(prefix)
    if (closed) return contender.settle(leaseExpired)
    if (local !== undefined) return void (local.waiting ??= new Set()).add(contender)
    locals.set(prefix, { first: contender, waiting: undefined, occupant: undefined })
    join(contender)
  }

  const call = (local: LocalLine, contender: Contender) => {
    local.waiting?.delete(contender)
    local.first = contender
    local.occupant = undefined
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
    const { entry, request: { prefix }, state, watcher } = contender
    contender.state = "Gone"
    if (state === "Waiting") {
      locals.get(prefix)?.waiting?.delete(contender)
    } else if (state === "Standing" || state === "Holding") {
      release(entry!, () => {})
    } else if (watcher !== undefined) {
      watcher.interruptUnsafe()
      callNext(prefix)
    }
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
      contender.join(prefix, { hold, value, rule: noneAhead }, (joined: Exit.Exit<Joined, EntryError>) => {
        if (Exit.isSuccess(joined)) arrived(contender, joined.value)
        // a lease that was revoked behind our back is noticed at its next use at the latest; the session has another
        else if (isLeaseNotFound(joined.cause) && attempt < 3 && contender.state !== "Gone") {
          join(contender, attempt + 1)
        } else failed(contender, joined.cause)
      })
    })
  }

  const hang = ({ lease }: Request, done: Done<Hold, Etcd.EtcdError>) => {
    if (lease !== undefined) return done(Exit.succeed(ownHold(lease)))
    leases.hang(done)
  }

  const failed = (contender: Contender, cause: Cause.Cause<EntryError>) => {
    callNext(contender.request.prefix)
    const isLost = closed || Cause.hasInterrupts(cause) || isLeaseNotFound(cause)
    contender.settle(isLost ? leaseExpired : Exit.failCause(cause))
  }

  const arrived = (contender: Contender, joined: Joined) => {
    if (joined instanceof Entry) return stand(contender, joined)
    if (contender.state === "Gone") return callNext(contender.request.prefix)
    if (joined instanceof Occupied) return awaitLeave(contender, joined)
    callNext(contender.request.prefix)
    contender.settle(Exit.succeed(new Held(joined)))
  }

  const stand = (contender: Contender, entry: Entry) => {
    // the one it was meant for has gone meanwhile
    if (contender.state === "Gone") return release(entry, () => {})
    contender.state = "Standing"
    contender.entry = entry
    entry.onTurn((turn) => {
      if (Exit.isFailure(turn)) release(entry, () => {})
      contender.settle(Exit.map(turn, () => entry))
    })
  }

  const awaitLeave = (contender: Contender, { holder, untilLeft }: Occupied) => {
    locals.get(contender.request.prefix)!.occupant = holder
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
    handOver(entry, { hold: shared, value: next.request.value, rule: noneAhead }, (joined) => {
      if (Exit.isFailure(joined)) {
        callNext(prefix)
      } else {
        if (next.state === "Waiting") call(local, next)
        stand(next, joined.value)
      }
      done()
    })
  }

  // ---------------------------------------------------------------------------
  // the mutex
  // ---------------------------------------------------------------------------

  const contend = <E>(request: Request, join: Contender["join"], wait: Wait<E>) =>
    Effect.suspend(() => {
      const contender = new Contender(request, join)
      enqueue(contender)
      return Effect.onError(wait(contender.outcome), () => Effect.sync(() => withdraw(contender)))
    })

  const acquire: Mutex["acquire"] = (request, wait) =>
    // only a try is answered that the lock is held
    contend(request, lines.join, wait) as Effect.Effect<Entry, any>

  const tryAcquire: Mutex["tryAcquire"] = (request, wait) =>
    Effect.suspend(() => {
      const { prefix } = request
      if (closed || !locals.has(prefix)) return contend(request, lines.tryJoin, wait)
      // it would be refused anyway, so it is not worth a proposal
      return wait(Effect.map(
        etcd.range({ ...lines.range(prefix), limit: 1, sort: "CreateAscending" }),
        ({ kvs }) => new Held(kvs[0] ?? holder(prefix))
      ))
    })

  const holder: Mutex["holder"] = (prefix) => {
    const local = locals.get(prefix)
    const entry = local?.first?.entry
    if (entry === undefined) return local?.occupant
    if (entry.state === "Waiting") return entry.ahead?.values().next().value
    const { createRevision, hold: { lease: { id: lease } }, key, value } = entry
    return { key: Buffer.from(key), value, lease, createRevision }
  }

  const close: Mutex["close"] = () => {
    closed = true
    for (const { first, waiting } of locals.values()) {
      for (const contender of waiting ?? []) contender.settle(leaseExpired)
      waiting?.clear()
      if (first?.state !== "Holding") first?.settle(leaseExpired)
    }
  }

  return { range: lines.range, acquire, tryAcquire, release, holder, close }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const nextOf = ({ waiting }: LocalLine): Contender | undefined => waiting?.values().next().value

const ownHold = (lease: Lease): Hold => ({ lease, leave: () => {}, retire: () => {} })

// also what the end of the session means
const leaseExpired = Exit.fail(new EntryLost("LeaseExpired"))

const whileAlive = <A>({ lease }: Request, self: Effect.Effect<A, EntryError>): Effect.Effect<A, EntryError> =>
  lease === undefined
    ? self
    : Effect.catchTag(lease.whileAlive(self), "LeaseExpired", () => leaseExpired)

const isLeaseNotFound = (cause: Cause.Cause<EntryError>): boolean => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error?._tag === "EtcdError" && error.reason === "LeaseNotFound"
}
