/**
 * A semaphore across machines: a limited number of permits for all clients together,
 * first come, first served, and lost in a typed way, as `Lock` is.
 *
 * **When to use**
 *
 * Use it to limit how much of something all machines together do at once, such as the
 * connections to a database or the calls of an API. For a limit within one process, use
 * Effect's own `Semaphore`.
 *
 * **Details**
 *
 * Clients stand in one line. A client holds its permits as soon as they and those of all
 * clients ahead add up to no more than there are. A client that asks for many permits is
 * not overtaken by others that ask for one. A permit that is free costs one commit.
 * However many fibers of a process wait, only those whose permits fit stand in etcd's
 * line.
 *
 * All clients have to agree on the number of permits: one that knows of another number
 * fails with `SemaphoreMismatch`, and takes none. To change the number while clients
 * run, let the new ones accept the old number by `acceptOf`; the smaller one counts then.
 *
 * **Gotchas**
 *
 * A semaphore is not reentrant: a body that waits for permits of the semaphore that it
 * runs under fails with a defect that says so, since all bodies together could wait for
 * each other.
 *
 * Of two holders that cannot hold at the same time, the later one has the greater fencing
 * token. Holders that can may have the same token, and a token does not exclude any of
 * them.
 *
 * A `Lock` of the same name stands in the line as a client that takes all permits.
 *
 * @since 0.1.0
 * @module
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Current } from "./Current.ts"
import type * as Etcd from "./Etcd.ts"
import type { Holder } from "./Holder.ts"
import type { Claim } from "./internal/line/discipline.ts"
import { keyOf } from "./internal/line/entryKey.ts"
import * as Check from "./internal/options.ts"
import { errors } from "./internal/recipe/errors.ts"
import * as inspection from "./internal/recipe/inspection.ts"
import * as request from "./internal/recipe/request.ts"
import * as section from "./internal/recipe/section.ts"
import { TaggedError } from "./internal/taggedError.ts"
import type * as Lock from "./Lock.ts"
import type { Session } from "./Session.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

/**
 * How to take permits that may be free.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryOptions extends Omit<Lock.TryOptions, "layout"> {
  /** How many to take. Default: 1. */
  readonly permits?: number | undefined
  /** How many there are, for all clients together; from 1 to 10 000. */
  readonly of: number
  /** Whether to stand in line with clients that know of another number of permits. Default: with none. */
  readonly acceptOf?: ((theirs: number) => boolean) | undefined
}

/**
 * How to take permits, and how long to wait for them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends TryOptions, Pick<Lock.Options, "timeout"> {}

/**
 * Permits that are held.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handle extends Lock.Handle {
  readonly permits: number
}

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

/**
 * Fewer permits were left than the caller asked for, and the caller did not want to wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class PermitsUnavailable
  extends TaggedError<PermitsUnavailable>("effect-etcd-lock/Semaphore/PermitsUnavailable")("PermitsUnavailable", {
    lock: Schema.String,
    permits: Schema.Int,
    of: Schema.Int,
    /** How many are left beside those of the holders and the waiters. */
    available: Schema.Int
  })
{
  override get message(): string {
    const { available, lock, of, permits } = this
    return `Semaphore '${lock}' has ${available} of its ${of} permits left, and ${permits} were asked for`
  }
}

/**
 * A client that knows of another number of permits holds some or waits for some.
 *
 * @category errors
 * @since 0.1.0
 */
export class SemaphoreMismatch
  extends TaggedError<SemaphoreMismatch>("effect-etcd-lock/Semaphore/SemaphoreMismatch")("SemaphoreMismatch", {
    lock: Schema.String,
    of: Schema.Int,
    theirs: Schema.Int,
    /** The key of their entry. */
    key: Schema.String
  })
{
  override get message(): string {
    const { key, lock, of, theirs } = this
    return `Semaphore '${lock}' has ${of} permits here, and ${theirs} for the client of '${key}'. Use one number ` +
      "everywhere, or accept theirs by acceptOf while it is being changed."
  }
}

/**
 * Why permits were not acquired.
 *
 * @category errors
 * @since 0.1.0
 */
export type AcquireError = Lock.AcquireError | SemaphoreMismatch

type TryError = Exclude<AcquireError, Lock.LockTimeout>

// -----------------------------------------------------------------------------
// critical sections
// -----------------------------------------------------------------------------

/**
 * Runs an effect while holding permits, waiting for its turn first.
 *
 * It ends as a section of `Lock.withLock` does: a loss interrupts the effect, and the
 * whole fails with `LockLost`.
 *
 * **Example** (Eight imports at a time, on all machines together)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Semaphore } from "effect-etcd-lock"
 *
 * export const importAll = (files: ReadonlyArray<string>, load: (file: string) => Effect.Effect<void>) =>
 *   Effect.forEach(
 *     files,
 *     (file) => load(file).pipe(Semaphore.withPermits("imports", { permits: 1, of: 8 })),
 *     { concurrency: "unbounded", discard: true }
 *   )
 * ```
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withPermits: {
  (name: string, options: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options: Options
  ): Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options: Options) =>
    section.run("Semaphore", name, semaphore.acquire(name, options), self)
)

/**
 * Runs an effect while holding permits, or fails with `PermitsUnavailable` at once when
 * too few are left.
 *
 * A try joins the line, and leaves it again if the permits before it leave too few. So of several tries at the same
 * moment, the first ones that fit succeed. One that comes before a refused one has left counts its permits, too, and may
 * be refused for that.
 * A refused try costs two transactions, or one read if the try before it was refused as well, and leaves nothing behind.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const tryWithPermits: {
  (name: string, options: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | TryError | PermitsUnavailable, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options: TryOptions
  ): Effect.Effect<A, E | TryError | PermitsUnavailable, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options: TryOptions) =>
    section.run("Semaphore", name, semaphore.tryAcquire(name, options), self)
)

/**
 * Runs an effect while holding permits, or returns `None` at once when too few are left.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withPermitsIfAvailable: {
  (name: string, options: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | TryError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options: TryOptions
  ): Effect.Effect<Option.Option<A>, E | TryError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options: TryOptions) =>
    section.runIfAvailable("Semaphore", name, semaphore.attempt(name, options), self)
)

// -----------------------------------------------------------------------------
// handles
// -----------------------------------------------------------------------------

/**
 * Takes permits, waiting for its turn, and holds them until the scope closes.
 *
 * @category handles
 * @since 0.1.0
 */
export const acquire = (
  name: string,
  options: Options
): Effect.Effect<Handle, AcquireError, Session | Scope.Scope> =>
  section.scoped("Semaphore", name, semaphore.acquire(name, options))

/**
 * Takes permits and holds them until the scope closes, or fails with `PermitsUnavailable`
 * at once when too few are left.
 *
 * @category handles
 * @since 0.1.0
 */
export const tryAcquire = (
  name: string,
  options: TryOptions
): Effect.Effect<Handle, TryError | PermitsUnavailable, Session | Scope.Scope> =>
  section.scoped("Semaphore", name, semaphore.tryAcquire(name, options))

// -----------------------------------------------------------------------------
// operating
// -----------------------------------------------------------------------------

/**
 * A client that holds permits or waits for some.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claimant {
  /** Undefined for a client that takes all of them, such as a `Lock` of the same name. */
  readonly permits: number | undefined
  readonly client: Holder
}

/**
 * A semaphore's line as it was at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inspection {
  readonly lock: string
  /** How many permits there are, by what its clients say; undefined when it has no clients. */
  readonly of: number | undefined
  /** How many permits are not held. */
  readonly available: number | undefined
  readonly holders: ReadonlyArray<Claimant>
  /** The clients that wait, in order, as `Lock.Inspection.queue` has them. */
  readonly queue: ReadonlyArray<Claimant>
  /** Keys in the semaphore's place that are not its entries; they make every caller fail with `LockNameConflict`. */
  readonly conflicts: Lock.Inspection["conflicts"]
}

/**
 * Reads which clients hold permits of a semaphore and which wait for some.
 *
 * @category operating
 * @since 0.1.0
 */
export const inspect = (name: string): Effect.Effect<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.inspect(name)

/**
 * Emits which clients hold permits of a semaphore and which wait for some, now and after
 * every change, as `Lock.changes` does. Only the first holder has a `remaining` time.
 *
 * @category operating
 * @since 0.1.0
 */
export const changes = (name: string): Stream.Stream<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.changes(name)

/**
 * Deletes an entry from a semaphore's line, whichever client it belongs to, and returns
 * whether it was still there. See `Lock.forceRelease`.
 *
 * @category operating
 * @since 0.1.0
 */
export const forceRelease = (
  name: string,
  options: { readonly createRevision: bigint }
): Effect.Effect<boolean, Etcd.EtcdError, Etcd.Etcd> => operating.forceRelease(name, options)

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const claimOf = (options: TryOptions | undefined): Claim => {
  const { acceptOf, of, permits = 1 } = options ?? {}
  Check.permits("Semaphore", permits, of)
  Check.acceptOf("Semaphore", acceptOf)
  return { kind: "permits", permits, of: of!, acceptOf }
}

const semaphore = request.make({
  module: "Semaphore",
  place: ({ contention }, name, options: Options | undefined) => {
    const { layout, prefix } = placeOf(name)
    Check.object("Semaphore", "options", options, "{ permits: 1, of: 8 }")
    return { contention: contention(layout), prefix, claim: claimOf(options) }
  },
  ...errors,
  held: (lock, _, { available }, options) => {
    const { of, permits } = claimOf(options)
    return new PermitsUnavailable({ lock, permits, of, available })
  },
  selfWait: (lock) =>
    new Error(
      `Semaphore '${lock}' has permits of this fiber already: fibers that wait for more of them under some could wait ` +
        "for each other. Ask for all permits at once, or use another name."
    ),
  conflict: (lock, foreign, { acceptOf, of }) => {
    const { layout, prefix } = placeOf(lock)
    const { isOnLease, kv } = foreign
    if (!isOnLease || !layout.isEntry(prefix, kv)) return errors.conflict(lock, foreign)
    const theirs = layout.claimIn(prefix, kv).of
    // If the function refused by throwing, it throws here again, and the caller gets the error.
    acceptOf?.(theirs)
    return new SemaphoreMismatch({ lock, of, theirs, key: keyOf(kv) })
  }
})

const placeOf = (name: string) => request.queueOf("Semaphore", name)

const claimant = ({ claim: { kind, permits }, client }: inspection.Claimant): Claimant => ({
  permits: kind === "permits" ? permits : undefined,
  client
})

const operating = inspection.make({
  module: "Semaphore",
  placeOf,
  show: (lock, { conflicts, holders, queue }): Inspection => {
    const numbers = [...holders, ...queue].flatMap(({ claim: { kind, of } }) => kind === "permits" ? [of] : [])
    const of = numbers.length === 0 ? undefined : Math.min(...numbers)
    const used = holders.reduce((sum, { claim: { permits } }) => sum + permits, 0)
    return {
      lock,
      of,
      available: of === undefined ? undefined : Math.max(0, of - used),
      holders: holders.map(claimant),
      queue: queue.map(claimant),
      conflicts
    }
  }
})
