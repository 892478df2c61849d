/**
 * The mutex: the fibers of this process queue among themselves, first come first
 * served, and only the first of them has an entry in etcd's line.
 *
 * A release with a fiber waiting hands the place over in one commit: the next
 * fiber holds at once if nobody else waits in etcd, and is at the end of the line
 * if somebody does. Where there is no line to stand in, the first fiber waits until
 * whoever is in the way has left, and tries again.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Etcd from "../Etcd.ts"
import type { Lease } from "../Lease.ts"
import type { Background } from "./background.ts"
import type { Leases } from "./leases.ts"
import {
  type Entry,
  type EntryError,
  type EntryKey,
  EntryLost,
  type Hold,
  type Lines,
  noneAhead,
  Occupied
} from "./line.ts"

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
  /**
   * Waits for the turn. To be run uninterruptibly: only what goes through `wait` can be interrupted, and
   * whatever comes of it, the place in both lines is given up.
   */
  readonly acquire: <E>(request: Request, wait: Wait<E>) => Effect.Effect<Entry, EntryError | E>
  /** Takes the lock if it is free; else answers who holds it, if that can be told. */
  readonly tryAcquire: <E>(
    request: Request,
    wait: Wait<E>
  ) => Effect.Effect<Tried, EntryError | E>
  readonly release: (entry: Entry) => Effect.Effect<void>
  /** Who holds the lock, as far as those who wait for it here know. */
  readonly holder: (prefix: string) => EntryKey | undefined
}

export type Tried =
  | { readonly _tag: "Taken"; readonly entry: Entry }
  | { readonly _tag: "Held"; readonly holder: EntryKey | undefined }

/** A fiber in the local line. */
interface Contender {
  readonly request: Request
  state: "Waiting" | "Called" | "Gone"
  /** The place in etcd's line that was handed over with the call. */
  entry: Entry | undefined
  call: () => void
}

interface LocalLine {
  readonly waiting: Set<Contender>
  /** The entry of the one whose turn it is, once there is one. */
  entry: Entry | undefined
  /** Who is in the way of an entry. */
  occupant: EntryKey | undefined
}

export const make = (
  etcd: Etcd.Etcd["Service"],
  background: Background,
  leases: Leases,
  lines: Lines
): Mutex => {
  const locals = new Map<string, LocalLine>()

  const hang = (request: Request): Effect.Effect<Hold, Etcd.EtcdError> =>
    request.lease === undefined ? Effect.map(leases.hang, sessionHold) : Effect.succeed(ownHold(request.lease))

  const sessionHold = (shared: Effect.Success<Leases["hang"]>): Hold => ({
    lease: shared.lease,
    leave: () => leases.leave(shared),
    retire: () => leases.retire(shared)
  })

  // ---------------------------------------------------------------------------
  // the local line
  // ---------------------------------------------------------------------------

  const enqueue = (request: Request): Contender => {
    const contender: Contender = { request, state: "Waiting", entry: undefined, call: () => {} }
    const local = locals.get(request.prefix)
    if (local === undefined) {
      locals.set(request.prefix, { waiting: new Set(), entry: undefined, occupant: undefined })
      contender.state = "Called"
    } else {
      local.waiting.add(contender)
    }
    return contender
  }

  const called = (contender: Contender): Effect.Effect<void> =>
    Effect.callback((resume) => {
      if (contender.state === "Called") return resume(Effect.void)
      contender.call = () => resume(Effect.void)
    })

  const call = (local: LocalLine, contender: Contender, entry: Entry | undefined) => {
    local.waiting.delete(contender)
    local.entry = entry
    local.occupant = undefined
    contender.state = "Called"
    contender.entry = entry
    contender.call()
  }

  /** Calls the next fiber, which has to join etcd's line by itself. */
  const callNext = (prefix: string) => {
    const local = locals.get(prefix)
    if (local === undefined) return
    const [next] = local.waiting
    if (next === undefined) {
      locals.delete(prefix)
    } else {
      call(local, next, undefined)
    }
  }

  /** Gives up waiting, even when the call came at the same moment. */
  const withdraw = (contender: Contender) => {
    const { entry, request: { prefix }, state } = contender
    contender.state = "Gone"
    if (state === "Waiting") {
      locals.get(prefix)?.waiting.delete(contender)
    } else if (entry !== undefined) {
      background(release(entry))
    } else {
      callNext(prefix)
    }
  }

  // ---------------------------------------------------------------------------
  // etcd's line
  // ---------------------------------------------------------------------------

  /**
   * Runs a join to its end on a fiber of its own: a join that nobody waits for any more must be known to be
   * over before its entry can be left.
   */
  const settled = <A, E>(
    prefix: string,
    join: Effect.Effect<A, EntryError>,
    entryOf: (joined: A) => Entry | undefined,
    wait: Wait<E>
  ): Effect.Effect<A, EntryError | E> =>
    Effect.suspend(() => {
      const fiber = background(join)
      const giveUp = Effect.flatMap(Fiber.await(fiber), (exit) => {
        const entry = Exit.isSuccess(exit) ? entryOf(exit.value) : undefined
        return entry === undefined ? Effect.sync(() => callNext(prefix)) : release(entry)
      })
      return wait(Fiber.join(fiber)).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit)) background(giveUp)
          })
        )
      )
    })

  const acquire: Mutex["acquire"] = (request, wait) =>
    Effect.gen(function*() {
      const contender = enqueue(request)
      yield* Effect.onError(wait(called(contender)), () => Effect.sync(() => withdraw(contender)))
      const join = settled(
        request.prefix,
        withFreshLease(
          request,
          Effect.flatMap(
            hang(request),
            (hold) => lines.join(request.prefix, { hold, value: request.value, rule: noneAhead })
          )
        ),
        (joined) => joined instanceof Occupied ? undefined : joined,
        wait
      )
      let entry = contender.entry ?? (yield* join)
      while (entry instanceof Occupied) {
        locals.get(request.prefix)!.occupant = entry.holder
        yield* Effect.onError(wait(whileAlive(request, entry.untilLeft)), () =>
          Effect.sync(() => callNext(request.prefix)))
        entry = yield* join
      }
      locals.get(request.prefix)!.entry = entry
      if (entry.state !== "Held") {
        yield* Effect.onError(wait(Deferred.await(entry.turn)), () =>
          Effect.sync(() => background(release(entry))))
      }
      return entry
    })

  const tryAcquire: Mutex["tryAcquire"] = (request, wait) =>
    Effect.suspend(() => {
      if (locals.has(request.prefix)) {
        // it would be refused anyway, so it is not worth a proposal
        return wait(Effect.map(
          etcd.range({ ...lines.range(request.prefix), limit: 1, sort: "CreateAscending" }),
          ({ kvs }) => ({ _tag: "Held", holder: kvs[0] ?? holder(request.prefix) })
        ))
      }
      enqueue(request)
      const join = Effect.flatMap(
        hang(request),
        (hold) => lines.tryJoin(request.prefix, { hold, value: request.value })
      )
      return Effect.map(
        settled(request.prefix, withFreshLease(request, join), (joined) => "line" in joined ? joined : undefined, wait),
        (joined): Tried => {
          if ("line" in joined) {
            locals.get(request.prefix)!.entry = joined
            return { _tag: "Taken", entry: joined }
          }
          callNext(request.prefix)
          return { _tag: "Held", holder: joined }
        }
      )
    })

  const release: Mutex["release"] = (entry) =>
    Effect.suspend(() => {
      const { prefix } = entry.line
      const local = locals.get(prefix)
      if (local === undefined || entry.state === "Left") return Effect.void
      const [next] = local.waiting
      const { handOver } = lines
      const shared =
        next !== undefined && handOver !== undefined && next.request.lease === undefined && entry.loss === undefined
          ? leases.hangNow()
          : undefined
      if (next === undefined || handOver === undefined || shared === undefined) {
        return Effect.andThen(lines.leave(entry), Effect.sync(() => callNext(prefix)))
      }
      const handedOver = handOver(entry, {
        hold: sessionHold(shared),
        value: next.request.value,
        rule: noneAhead
      })
      return Effect.flatMap(Effect.exit(handedOver), (exit) => {
        if (Exit.isFailure(exit)) return Effect.sync(() => callNext(prefix))
        // the one it was meant for has gone meanwhile
        if (next.state !== "Waiting") return release(exit.value)
        return Effect.sync(() => call(local, next, exit.value))
      })
    })

  const holder: Mutex["holder"] = (prefix) => {
    const local = locals.get(prefix)
    const entry = local?.entry
    if (entry === undefined) return local?.occupant
    if (entry.state === "Waiting") return entry.ahead.values().next().value
    const { createRevision, hold: { lease: { id: lease } }, key, value } = entry
    return { key: Buffer.from(key), value, lease, createRevision }
  }

  return { acquire, tryAcquire, release, holder }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const ownHold = (lease: Lease): Hold => ({ lease, leave: () => {}, retire: () => {} })

const whileAlive = <A>({ lease }: Request, self: Effect.Effect<A, EntryError>): Effect.Effect<A, EntryError> =>
  lease === undefined
    ? self
    : Effect.catchTag(lease.whileAlive(self), "LeaseExpired", () => Effect.fail(new EntryLost("LeaseExpired")))

// A lease that was revoked behind our back is noticed at its next use at the latest: the session has another one.
const withFreshLease = <A>(request: Request, join: Effect.Effect<A, EntryError>): Effect.Effect<A, EntryError> => {
  const leaseNotFound = (error: EntryError) => error._tag === "EtcdError" && error.reason === "LeaseNotFound"
  return request.lease === undefined
    ? Effect.retry(join, { times: 2, while: leaseNotFound })
    : Effect.mapError(join, (error) => leaseNotFound(error) ? new EntryLost("LeaseExpired") : error)
}
