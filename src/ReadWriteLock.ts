/**
 * A lock across machines that many readers or one writer can hold: first come, first
 * served, lost in a typed way, and fenced, as `Lock` is.
 *
 * **When to use**
 *
 * Use it where work that only reads may go on side by side, and is long enough for that
 * to matter. Where all work excludes all other work, use `Lock`.
 *
 * **Details**
 *
 * Readers and writers stand in one line, in the order in which etcd has seen them. A
 * reader behind a writer in that line does not overtake it, so no writer starves. A read lock that
 * is free costs one commit, and a reader watches at most its own key and that of one
 * writer, however many other readers there are.
 *
 * The fencing tokens of writers strictly increase, and the token of a reader is greater
 * than those of all writers before it. A writer can become a reader without a writer in
 * between, see `acquireWrite`.
 *
 * The keys are those of `recipe.RWMutex` of Go's client: readers and writers each have a
 * folder under the name. A `Lock` of the same name, Go's `concurrency.Mutex` and
 * `etcdctl lock` stand in the line as writers.
 *
 * **Gotchas**
 *
 * A lock is not reentrant, and a read lock cannot become a write lock, since two readers
 * that try would wait for each other: a body that waits for the lock that it runs under
 * fails with a defect that says so.
 *
 * @since 0.1.0
 * @module
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Current } from "./Current.ts"
import type * as Etcd from "./Etcd.ts"
import type { Holder } from "./Holder.ts"
import { type Claim, read, write } from "./internal/line/discipline.ts"
import * as Check from "./internal/options.ts"
import * as downgradable from "./internal/recipe/downgradable.ts"
import { errors } from "./internal/recipe/errors.ts"
import * as inspection from "./internal/recipe/inspection.ts"
import * as request from "./internal/recipe/request.ts"
import * as section from "./internal/recipe/section.ts"
import * as several from "./internal/recipe/several.ts"
import type * as Lock from "./Lock.ts"
import type { Session } from "./Session.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

/**
 * How to take a read or a write lock that may be free.
 *
 * @category models
 * @since 0.1.0
 */
export type TryOptions = Omit<Lock.TryOptions, "layout">

/**
 * How to take a read or a write lock, and how long to wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Omit<Lock.Options, "layout">

/**
 * How to take a write lock, and whether it can become a read lock.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteOptions extends Options, Downgradability {}

interface Downgradability {
  /** Whether the handle has `downgrade`, which costs a second key in etcd. Default: false. */
  readonly downgradable?: boolean | undefined
}

/**
 * A write lock that can become a read lock.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteHandle extends Lock.Handle {
  /**
   * Goes on as a reader, without any writer in between: readers that wait behind may enter, and writers still
   * wait. Returns the read lock's handle, whose token is that of the write lock; the scope releases it.
   *
   * What still runs under the write lock is interrupted and awaited first, as by `release`. Fails with `LockLost`
   * if the write lock has been lost or released.
   */
  readonly downgrade: Effect.Effect<Lock.Handle, Lock.LockLost>
}

type TryError = Lock.LockHeld | Lock.LockLost | Lock.LockNameConflict | Etcd.EtcdError

// -----------------------------------------------------------------------------
// critical sections
// -----------------------------------------------------------------------------

/**
 * Runs an effect while holding the lock for reading, waiting for its turn first. Other
 * readers may hold it at the same time, and no writer does.
 *
 * It ends as a section of `Lock.withLock` does: a loss interrupts the effect, and the
 * whole fails with `LockLost`.
 *
 * **Example** (A cache that is refreshed while no client reads it)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { ReadWriteLock } from "effect-etcd-lock"
 *
 * export const render = (page: Effect.Effect<string>) => page.pipe(ReadWriteLock.withReadLock("catalogue"))
 *
 * export const refresh = (load: Effect.Effect<void>) =>
 *   load.pipe(ReadWriteLock.withWriteLock("catalogue", { timeout: "30 seconds" }))
 * ```
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withReadLock: {
  (name: string, options?: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | Lock.AcquireError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: Options
  ): Effect.Effect<A, E | Lock.AcquireError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: Options) =>
    section.run("ReadWriteLock", name, reading.acquire(name, options), self)
)

/**
 * Runs an effect while holding the lock for writing, waiting for its turn first. No other
 * reader or writer holds it at the same time.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withWriteLock: {
  (name: string, options?: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | Lock.AcquireError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: Options
  ): Effect.Effect<A, E | Lock.AcquireError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: Options) =>
    section.run("ReadWriteLock", name, writing.acquire(name, options), self)
)

/**
 * Runs an effect while holding the lock for reading, or fails with `LockHeld` at once when
 * a writer holds it or waits for it; the error names the first writer.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const tryWithReadLock: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | TryError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<A, E | TryError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.run("ReadWriteLock", name, reading.tryAcquire(name, options), self)
)

/**
 * Runs an effect while holding the lock for writing, or fails with `LockHeld` at once when
 * a reader or a writer holds it or waits for it.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const tryWithWriteLock: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | TryError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<A, E | TryError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.run("ReadWriteLock", name, writing.tryAcquire(name, options), self)
)

/**
 * Runs an effect while holding the lock for reading, or returns `None` at once when a
 * writer holds it or waits for it.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withReadLockIfAvailable: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | Exclude<TryError, Lock.LockHeld>, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<Option.Option<A>, E | Exclude<TryError, Lock.LockHeld>, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.runIfAvailable("ReadWriteLock", name, reading.attempt(name, options), self)
)

/**
 * Runs an effect while holding the lock for writing, or returns `None` at once when a
 * reader or a writer holds it or waits for it.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withWriteLockIfAvailable: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | Exclude<TryError, Lock.LockHeld>, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<Option.Option<A>, E | Exclude<TryError, Lock.LockHeld>, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.runIfAvailable("ReadWriteLock", name, writing.attempt(name, options), self)
)

// -----------------------------------------------------------------------------
// handles
// -----------------------------------------------------------------------------

/**
 * Takes the lock for reading, waiting for its turn, and holds it until the scope closes.
 *
 * @category handles
 * @since 0.1.0
 */
export const acquireRead = (
  name: string,
  options?: Options
): Effect.Effect<Lock.Handle, Lock.AcquireError, Session | Scope.Scope> =>
  section.scoped("ReadWriteLock", name, reading.acquire(name, options))

/**
 * Takes the lock for writing, waiting for its turn, and holds it until the scope closes.
 *
 * **Example** (Readers may look on as soon as the new state has been written)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { ReadWriteLock } from "effect-etcd-lock"
 *
 * export const refresh = (load: Effect.Effect<void>, checkIt: Effect.Effect<void>) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const writing = yield* ReadWriteLock.acquireWrite("catalogue", { downgradable: true })
 *     yield* writing.whileHeld(load)
 *     const reading = yield* writing.downgrade
 *     yield* reading.whileHeld(checkIt)
 *   }))
 * ```
 *
 * @category handles
 * @since 0.1.0
 */
export const acquireWrite: {
  (
    name: string,
    options: WriteOptions & { readonly downgradable: true }
  ): Effect.Effect<WriteHandle, Lock.AcquireError, Session | Scope.Scope>
  (name: string, options?: WriteOptions): Effect.Effect<Lock.Handle, Lock.AcquireError, Session | Scope.Scope>
} = (name: string, options?: WriteOptions): Effect.Effect<any, Lock.AcquireError, Session | Scope.Scope> =>
  section.scoped<Lock.Handle, Lock.AcquireError>(
    "ReadWriteLock",
    name,
    options?.downgradable === true
      ? several.acquire(downgradable.writer(name, options), options)
      : writing.acquire(name, options)
  )

/**
 * Takes the lock for reading and holds it until the scope closes, or fails with `LockHeld`
 * at once when a writer holds it or waits for it.
 *
 * @category handles
 * @since 0.1.0
 */
export const tryAcquireRead = (
  name: string,
  options?: TryOptions
): Effect.Effect<Lock.Handle, TryError, Session | Scope.Scope> =>
  section.scoped("ReadWriteLock", name, reading.tryAcquire(name, options))

/**
 * Takes the lock for writing and holds it until the scope closes, or fails with `LockHeld`
 * at once when a reader or a writer holds it or waits for it.
 *
 * @category handles
 * @since 0.1.0
 */
export const tryAcquireWrite: {
  (
    name: string,
    options: TryOptions & { readonly downgradable: true }
  ): Effect.Effect<WriteHandle, TryError, Session | Scope.Scope>
  (name: string, options?: TryOptions & Downgradability): Effect.Effect<Lock.Handle, TryError, Session | Scope.Scope>
} = (name: string, options?: TryOptions & Downgradability): Effect.Effect<any, TryError, Session | Scope.Scope> =>
  section.scoped<Lock.Handle, TryError>(
    "ReadWriteLock",
    name,
    options?.downgradable === true
      ? several.tryAcquire(downgradable.writer(name, options), options)
      : writing.tryAcquire(name, options)
  )

// -----------------------------------------------------------------------------
// operating
// -----------------------------------------------------------------------------

/**
 * A client that holds a lock or waits for it, and for what.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claimant {
  readonly mode: "read" | "write"
  readonly client: Holder
}

/**
 * A lock's line as it was at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inspection {
  readonly lock: string
  /** The readers, or the writer, that hold the lock. */
  readonly holders: ReadonlyArray<Claimant>
  /** The clients that wait, in order, as `Lock.Inspection.queue` has them. */
  readonly queue: ReadonlyArray<Claimant>
  /** Keys in the lock's place that are not its entries; they make every caller fail with `LockNameConflict`. */
  readonly conflicts: Lock.Inspection["conflicts"]
}

/**
 * Reads which clients hold a lock and which wait for it.
 *
 * @category operating
 * @since 0.1.0
 */
export const inspect = (name: string): Effect.Effect<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.inspect(name)

/**
 * Emits which clients hold a lock and which wait for it, now and after every change, as
 * `Lock.changes` does. Only the first holder has a `remaining` time.
 *
 * @category operating
 * @since 0.1.0
 */
export const changes = (name: string): Stream.Stream<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.changes(name)

/**
 * Deletes an entry from a lock's line, whichever client it belongs to, and returns whether
 * it was still there. See `Lock.forceRelease`.
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

const recipe = (claim: Claim) =>
  request.make({
    module: "ReadWriteLock",
    place: ({ contention }, name, options: Options | undefined) => {
      const { layout, prefix } = placeOf(name)
      Check.object("ReadWriteLock", "options", options, "{ timeout: \"15 seconds\" }")
      Check.flag("ReadWriteLock", "downgradable", (options as Downgradability | undefined)?.downgradable)
      return { contention: contention(layout), prefix, claim }
    },
    ...errors
  })

const reading = recipe(read)
const writing = recipe(write)

const placeOf = (name: string) => request.queueOf("ReadWriteLock", name)

const claimant = ({ claim, client }: inspection.Claimant): Claimant => ({
  mode: claim.kind === "read" ? "read" : "write",
  client
})

const operating = inspection.make({
  module: "ReadWriteLock",
  placeOf,
  show: (lock, { conflicts, holders, queue }): Inspection => ({
    lock,
    holders: holders.map(claimant),
    queue: queue.map(claimant),
    conflicts
  })
})
