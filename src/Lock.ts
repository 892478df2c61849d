/**
 * A lock across machines: at most one holder, first come first served, lost in a
 * typed way, and fenced.
 *
 * **Details**
 *
 * As long as the machines' clocks run at the same rate within the lease's safety
 * margin, and the process is not frozen between a check and its effect, no two
 * bodies run at once: a body whose lock cannot be kept is interrupted *before*
 * etcd gives the lock to the next waiter.
 *
 * Without any such assumption, a write through the handle's `txn` happens only if
 * the lock is still owned, and fencing tokens strictly increase from holder to
 * holder, so that any other store can refuse the writes of an earlier one.
 *
 * **Gotchas**
 *
 * A lock is not reentrant. A body that waits for the lock that it runs under, in the same
 * session or in another one on the same `Etcd`, would wait for itself: it fails with a defect
 * that says so. The check goes through `Current`, so it covers sections, `whileHeld` and the fibers that a body forks,
 * but not a handle that only a scope holds. A detached fiber that is to
 * wait for the lock on its own omits `Current` from its context.
 *
 * A body is interrupted only where it can be: `Effect.uninterruptible` parts run to
 * their end, and the lock waits for them. A promise runs on after the interruption,
 * and the lock does not wait for it; `withLock` shows what to do about that.
 *
 * A name is text of at most 1 KiB in UTF-8, is not empty, has no `/` at its ends and
 * no `//` in it, and its last part is neither `read` nor `write`, under which a
 * read-write lock has its readers and writers. Any other name, and an option that can never work, is a defect
 * that names the option and shows a valid value. Use the template `name` for names that
 * contain values of your users.
 *
 * @since 0.1.0
 * @module
 */
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Current } from "./Current.ts"
import type { CurrentRun } from "./CurrentRun.ts"
import * as Etcd from "./Etcd.ts"
import type { Holder } from "./Holder.ts"
import { lock } from "./internal/line/discipline.ts"
import { singleKey } from "./internal/line/layout.ts"
import * as Check from "./internal/options.ts"
import { errors } from "./internal/recipe/errors.ts"
import * as inspection from "./internal/recipe/inspection.ts"
import * as names from "./internal/recipe/name.ts"
import * as once from "./internal/recipe/once.ts"
import * as request from "./internal/recipe/request.ts"
import * as section from "./internal/recipe/section.ts"
import * as several from "./internal/recipe/several.ts"
import * as Engine from "./internal/session/engine.ts"
import type { Lease } from "./Lease.ts"
import { LockHeld, LockLost, LockNameConflict, LockTimeout } from "./LockError.ts"
import { Session } from "./Session.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

export {
  /**
   * @category services
   * @since 0.1.0
   */
  Current
} from "./Current.ts"

export {
  /**
   * @category services
   * @since 0.2.0
   */
  CurrentRun
} from "./CurrentRun.ts"

export {
  /**
   * @category errors
   * @since 0.1.0
   */
  BodySuccess
} from "./BodySuccess.ts"

export {
  /**
   * @category models
   * @since 0.1.0
   */
  Holder
} from "./Holder.ts"

/**
 * Which keys in etcd make a lock. Clients exclude each other only where they use
 * the same layout; locks of one name and different layouts are independent of each
 * other.
 *
 * **Details**
 *
 * - `queue`: every contender has a key of its own directly under `name/`, and the
 *   first created holds the lock. First come, first served. These are the keys of
 *   Go's `concurrency.Mutex`, of `etcdctl lock`, and of etcd's lock service.
 * - `single-key`: the key `name` is the lock, and the client that creates it holds
 *   the lock, as with npm etcd3's `client.lock()` and many hand-written locks. A
 *   lost lock, a refusal, a timeout and the fencing token are what they are with a
 *   queue.
 *
 * **Gotchas**
 *
 * A single key has no line: whenever it is released, all waiters try again. Any of them
 * may be the next holder, and so may a client that has only just asked. Under
 * contention a process may wait for ever. Only the fibers of one process are served
 * in the order of their arrival. Use it where other clients do, and the queue
 * otherwise.
 *
 * A single key `a/b` lies where the entries of the queue `a` do, and blocks it.
 *
 * @category models
 * @since 0.1.0
 */
export type Layout = "queue" | "single-key"

/**
 * How to acquire a lock that may be free.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryOptions {
  /** Which keys make the lock. Default: `queue`. */
  readonly layout?: Layout | undefined
  /**
   * What other clients can read about this holder, beside its host, its process ID and when it asked: an object of JSON
   * values.
   */
  readonly metadata?: Readonly<Record<string, Schema.Json>> | undefined
  /** Attach the lock to a lease of your own instead of the session's, so that they live and die together. */
  readonly lease?: Lease | undefined
  /** The attribute `lock` of this lock's metrics: text of at most 256 bytes. Use few labels. Default: none. */
  readonly label?: string | undefined
}

/**
 * How to acquire a lock, and how long to wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends TryOptions {
  /**
   * How long to wait for the lock before failing with `LockTimeout`. Zero asks etcd once,
   * and acquires the lock if it is free; `"Infinity"` waits for ever, which is the
   * default.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * A lock that is held.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handle {
  /** The lock's name. */
  readonly lock: string
  /** The key in etcd: the lock is owned as long as it exists. */
  readonly key: string
  readonly leaseId: bigint
  /**
   * Greater than that of every earlier holder of this lock. Pass it to the stores
   * you write to, and have them refuse a smaller one than they have seen. It
   * compares with `ETCD_LOCK_REV` of `etcdctl lock`, and with `Header().Revision`
   * of Go's mutex.
   */
  readonly fencingToken: bigint
  /** The revision at which the key was created; for conditions inside etcd only. */
  readonly createRevision: bigint
  /** Never succeeds; fails as soon as the lock is lost. */
  readonly awaitLoss: Effect.Effect<never, LockLost>
  /**
   * Runs an effect while the lock is held: a loss interrupts it, awaits its end, and fails the whole, also when the
   * effect has ended by itself after its lease. The effect finds this handle in `Current`.
   */
  readonly whileHeld: <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LockLost, Exclude<R, Current>>
  /**
   * Fails if the lock is known to be lost, or its lease to be too old to be
   * trusted. Local and synchronous: call it right before a side effect, to notice that
   * the process was frozen.
   */
  readonly check: Effect.Effect<void, LockLost>
  /** The same check for code that is not an effect: `false` where `check` would fail. */
  readonly isHeldUnsafe: () => boolean
  /**
   * Aborted with the `LockLost` as its reason as soon as the lock is lost or released; for `fetch` and other promises.
   * Such a promise is asked to stop, and the lock does not wait for it.
   */
  readonly signal: AbortSignal
  /** How long the lock stays safe if no further renewal succeeds. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Asks etcd whether the lock is still owned, with a linearizable read. */
  readonly verify: Effect.Effect<void, LockLost | Etcd.EtcdError>
  /** The conditions that the lock is still owned, for transactions of your own. */
  readonly isOwner: ReadonlyArray<Etcd.Compare>
  /**
   * Runs a transaction that etcd applies only if the lock is still owned, and
   * fails with `LockLost` otherwise. `compare` adds conditions, which choose
   * between `then` and `else`.
   */
  readonly txn: <
    const Then extends ReadonlyArray<Etcd.Op>,
    const Else extends ReadonlyArray<Etcd.Op> = readonly []
  >(
    request: Etcd.TxnRequest<Then, Else>
  ) => Effect.Effect<Etcd.TxnResult<Then, Else> & Etcd.TxnHeader, LockLost | Etcd.EtcdError>
  /**
   * Releases the lock before its scope closes. Effects under `whileHeld` are interrupted and fail with `LockLost`; the
   * lock goes to the next waiter when they have ended, and `release` waits for that, though not longer than one TTL.
   * If etcd answers that the key had gone before, that loss is counted and logged.
   */
  readonly release: Effect.Effect<void>
}

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

export {
  /**
   * @category errors
   * @since 0.1.0
   */
  LockHeld,
  /**
   * @category errors
   * @since 0.1.0
   */
  LockLost,
  /**
   * @category errors
   * @since 0.1.0
   */
  LockNameConflict,
  /**
   * @category errors
   * @since 0.1.0
   */
  LockTimeout
} from "./LockError.ts"

/**
 * Why a lock was not acquired.
 *
 * @category errors
 * @since 0.1.0
 */
export type AcquireError = LockTimeout | LockLost | LockNameConflict | Etcd.EtcdError

/**
 * One of the errors of this module.
 *
 * @category errors
 * @since 0.1.0
 */
export type LockError = LockHeld | LockTimeout | LockLost | LockNameConflict

/**
 * Whether a value is one of the errors of this module, for code outside of Effect that
 * catches all kinds of errors.
 *
 * @category errors
 * @since 0.1.0
 */
export const isLockError: (u: unknown) => u is LockError = Schema.is(
  Schema.Union([LockHeld, LockTimeout, LockLost, LockNameConflict])
)

// -----------------------------------------------------------------------------
// names
// -----------------------------------------------------------------------------

/**
 * Makes a lock's name of a program's own text and of values that may come from its
 * users: ``Lock.name`orders/${id}` ``.
 *
 * **Details**
 *
 * A value is percent-encoded, so that it can neither break the name nor reach another
 * lock: different values make different names. Letters, digits, `-`, `_`, `.` and `~`
 * stay as they are. A value with more than 72 characters after that is replaced by its
 * SHA-256, and empty text by `%empty`. A value that would end the name in `/read` or
 * `/write` has its first letter encoded. The text around the values is not encoded.
 *
 * **Gotchas**
 *
 * A value that is neither text nor a number, such as `undefined`, is a defect, and so
 * are two values without a separator between them, a character that no encoded value has,
 * such as `/` or `:`.
 *
 * **Example** (A lock for each customer's order)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * const ship = (customer: string, order: bigint) =>
 *   Effect.log("ships it").pipe(Lock.withLock(Lock.name`orders/${customer}/${order}`))
 *
 * // the lock 'orders/anna%2F..%2Fben/7'
 * export const shipped = ship("anna/../ben", 7n)
 * ```
 *
 * @category names
 * @since 0.1.0
 */
export const name = (text: TemplateStringsArray, ...values: ReadonlyArray<string | number | bigint>): string =>
  names.make("Lock", text, values)

// -----------------------------------------------------------------------------
// critical sections
// -----------------------------------------------------------------------------

/**
 * Runs an effect while holding the lock, waiting for its turn first.
 *
 * **Details**
 *
 * The lock is released when the effect has ended, in whatever way. If the lock is lost,
 * the effect is interrupted and awaited, and the whole fails with `LockLost`. If the
 * effect itself fails while it unwinds, the cause has that failure, too. An effect that ends by
 * itself is no success if its lease was over by then, or if etcd says at the release that the
 * key had gone: the whole fails with `LockLost`, and `BodySuccess` is what it succeeded with.
 *
 * The effect finds the handle of the lock in `Lock.Current`.
 *
 * **Gotchas**
 *
 * A promise cannot be interrupted: it runs on when its effect is interrupted, and the
 * lock goes to the next waiter meanwhile. There are three remedies:
 *
 * - `Effect.promise((signal) => work(signal))` asks the promise to stop, and does not
 *   wait for it. It has the safety margin to stop in.
 * - `Effect.uninterruptible(Effect.promise(() => work()))` waits for its end and does not
 *   ask it to stop. The lock is not released before that, but if it is lost, another
 *   client may hold it meanwhile.
 * - `Effect.uninterruptible` with the handle's `signal` asks it to stop on a loss, and
 *   waits for its end.
 *
 * **Example** (Handling what can go wrong)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const report = (work: Effect.Effect<void>) =>
 *   work.pipe(
 *     Lock.withLock("nightly-report", { timeout: "30 seconds" }),
 *     Effect.catchTags({
 *       LockTimeout: (error) => Effect.log(`still held by ${error.holder?.host}`),
 *       LockLost: (error) => Effect.logError(`lost it: ${error.reason}`)
 *     })
 *   )
 * ```
 *
 * **Example** (A promise that stops when the lock is lost, and is awaited)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const upload = (work: (signal: AbortSignal) => Promise<void>) =>
 *   Lock.Current.pipe(
 *     Effect.flatMap(({ signal }) => Effect.uninterruptible(Effect.tryPromise(() => work(signal)))),
 *     Lock.withLock("upload")
 *   )
 * ```
 *
 * @see {@link Current} for writes that only the holder can make
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withLock: {
  (name: string, options?: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: Options
  ): Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: Options) =>
    section.run("Lock", name, mutex.acquire(name, options), self)
)

/**
 * Runs an effect while holding the lock, or fails with `LockHeld` at once when the
 * lock is held already. A refused try costs one transaction, or one read if the try
 * before it was refused too, and leaves nothing behind.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const tryWithLock: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LockHeld | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<A, E | LockHeld | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.run("Lock", name, mutex.tryAcquire(name, options), self)
)

/**
 * Runs an effect while holding the lock, or returns `None` at once when the lock is
 * held already.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withLockIfAvailable: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<Option.Option<A>, E | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section.runIfAvailable("Lock", name, mutex.attempt(name, options), self)
)

/**
 * Which run this is, and how long the mark of its success is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface OnceOptions extends Options {
  /** What names the run, such as the day that a nightly job is for. Text of 1 byte to 1 KiB. */
  readonly run: string
  /** How long the run is known to have succeeded, by etcd's clock. Default: 7 days. */
  readonly keepFor?: Duration.Input | undefined
}

/**
 * Runs an effect while holding the lock, unless the run of that ID has succeeded
 * already, here or on another machine: then it returns `None`. At most one run of an ID
 * succeeds, whatever the machines' clocks say.
 *
 * **When to use**
 *
 * Use it for a job that several replicas start by their own clocks, and that has to run
 * once: a lock alone lets a late replica run again after the first has ended.
 *
 * **Details**
 *
 * When the effect has succeeded, a transaction puts the key `//done/NAME/RUN`, where no
 * lock has its entries, on a lease of its own; etcd applies it only if the lock is still
 * owned. A run that fails,
 * or that loses its lock, leaves no such key, and may be run again by any caller. A
 * caller that finds the key does not wait for the lock. An effect that is to go on under
 * the lock after its success puts the key by `Lock.CurrentRun`.
 *
 * **Gotchas**
 *
 * If the lock is lost, or etcd cannot be reached, after the effect has succeeded and
 * before the key is put, the whole fails, and the run may be repeated. Make the writes
 * of the effect repeatable, or fence them by the handle in `Lock.Current`.
 *
 * **Example** (A nightly job on three replicas)
 *
 * ```ts
 * import { DateTime, Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const nightly = (report: Effect.Effect<void>) =>
 *   Effect.gen(function*() {
 *     const today = DateTime.formatIsoDate(yield* DateTime.now)
 *     return yield* Lock.withLockOnce(report, "nightly-report", { run: today })
 *   })
 * ```
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withLockOnce: {
  (name: string, options: OnceOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | AcquireError, Exclude<R, Current | CurrentRun> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options: OnceOptions
  ): Effect.Effect<Option.Option<A>, E | AcquireError, Exclude<R, Current | CurrentRun> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options: OnceOptions) =>
    Effect.gen(function*() {
      placeOf(name, options)
      const mark = once.markOf("Lock", name, options)
      const { etcd } = Engine.of(yield* Session)
      if (yield* once.isSet(etcd, mark)) return Option.none<A>()
      return yield* section.run(
        "Lock",
        name,
        mutex.acquire(name, options),
        once.unlessSet(self, etcd, mark)
      )
    })
)

// -----------------------------------------------------------------------------
// handles
// -----------------------------------------------------------------------------

/**
 * Acquires the lock, waiting for its turn, and holds it until the scope closes.
 *
 * **Gotchas**
 *
 * The scope does not stop the fiber that uses it when the lock is lost: run the
 * work through the handle's `whileHeld`.
 *
 * **Example** (A write that only the owner can make)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Etcd, Lock } from "effect-etcd-lock"
 *
 * export const publish = (value: string) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const lock = yield* Lock.acquire("publisher")
 *     yield* lock.txn({ then: [Etcd.put("published", value)] })
 *     return lock.fencingToken
 *   }))
 * ```
 *
 * @category handles
 * @since 0.1.0
 */
export const acquire = (
  name: string,
  options?: Options
): Effect.Effect<Handle, AcquireError, Session | Scope.Scope> =>
  section.scoped("Lock", name, mutex.acquire(name, options))

/**
 * Acquires the lock and holds it until the scope closes, or fails with `LockHeld`
 * at once when the lock is held already.
 *
 * @category handles
 * @since 0.1.0
 */
export const tryAcquire = (
  name: string,
  options?: TryOptions
): Effect.Effect<Handle, LockHeld | LockLost | LockNameConflict | Etcd.EtcdError, Session | Scope.Scope> =>
  section.scoped("Lock", name, mutex.tryAcquire(name, options))

// -----------------------------------------------------------------------------
// several locks at once
// -----------------------------------------------------------------------------

/**
 * Several locks that are held together. What a handle says about its lock, this one says about all: `txn` is applied
 * only if all are still owned, and the loss of one is the loss of all. `lock` has all names, and `key` is that of the
 * first one.
 *
 * @category models
 * @since 0.1.0
 */
export interface HandleOfAll extends Handle {
  /** The handle of each lock, in the order of the names. */
  readonly locks: ReadonlyArray<Handle>
}

/**
 * Runs an effect while holding several locks, waiting for its turn in all of them first.
 *
 * **When to use**
 *
 * Use it where one step changes what several locks protect. With sections inside each other, two callers that name the
 * same locks in different orders would wait for each other.
 *
 * **Details**
 *
 * One transaction joins the lines of all locks, in whatever order they are named, so any two callers stand in the same
 * order in every line that they share, and never wait for each other. Taking all of them costs one commit, and so does
 * releasing them.
 *
 * If one of the locks is lost, the effect is interrupted and awaited, and the whole fails with a `LockLost` that names it.
 * `LockTimeout` names the lock that was waited for when the time was up.
 *
 * **Gotchas**
 *
 * There may be up to 40 names, each of them once. To wait for several locks in a body that already runs under several
 * locks is a defect, since two callers could wait for each other. To wait for a single lock in such a body has the same
 * danger, and so has waiting for a lock under another lock, but neither is refused.
 *
 * **Example** (A transfer between two accounts)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const transfer = (from: string, to: string, move: Effect.Effect<void>) =>
 *   move.pipe(Lock.withLocks([Lock.name`accounts/${from}`, Lock.name`accounts/${to}`], { timeout: "15 seconds" }))
 * ```
 *
 * @category several locks at once
 * @since 0.1.0
 */
export const withLocks: {
  (names: ReadonlyArray<string>, options?: Omit<Options, "layout">): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    names: ReadonlyArray<string>,
    options?: Omit<Options, "layout">
  ): Effect.Effect<A, E | AcquireError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, names: ReadonlyArray<string>, options?: Omit<Options, "layout">) =>
    section.run("Lock", String(names), several.acquire(several.locks(names, options), options), self)
)

/**
 * Runs an effect while holding several locks, or fails with `LockHeld` at once when one of them is held already. The
 * error names that lock, and nothing is left behind.
 *
 * @category several locks at once
 * @since 0.1.0
 */
export const tryWithLocks: {
  (names: ReadonlyArray<string>, options?: Omit<TryOptions, "layout">): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LockHeld | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    names: ReadonlyArray<string>,
    options?: Omit<TryOptions, "layout">
  ): Effect.Effect<A, E | LockHeld | LockLost | LockNameConflict | Etcd.EtcdError, Exclude<R, Current> | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, names: ReadonlyArray<string>, options?: Omit<TryOptions, "layout">) =>
    section.run("Lock", String(names), several.tryAcquire(several.locks(names, options), options), self)
)

/**
 * Acquires several locks, waiting for its turn in all of them, and holds them until the scope closes.
 *
 * @category several locks at once
 * @since 0.1.0
 */
export const acquireAll = (
  names: ReadonlyArray<string>,
  options?: Omit<Options, "layout">
): Effect.Effect<HandleOfAll, AcquireError, Session | Scope.Scope> =>
  section.scoped("Lock", String(names), several.acquire(several.locks(names, options), options))

// -----------------------------------------------------------------------------
// operating
// -----------------------------------------------------------------------------

/**
 * A lock's line as it was at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inspection {
  readonly lock: string
  readonly holder: Holder | undefined
  /**
   * The waiters in etcd's line, in order. Fibers that wait behind another one of their process, which waits or holds, are
   * not in that line, and later requests of other processes may be served before them: `Holder.behind` is their number.
   * Waiters for a single key cannot be seen.
   */
  readonly queue: ReadonlyArray<Holder>
  /** Keys in the lock's place that are not its entries: every acquire fails with `LockNameConflict` for one of them. */
  readonly conflicts: ReadonlyArray<Pick<LockNameConflict, "key" | "kind">>
}

/**
 * Returns the holder of a lock and its waiters. Like `changes`, `list` and
 * `forceRelease`, it needs no session, and takes no part in the line.
 *
 * **Example** (Whether the holder is alive)
 *
 * ```ts
 * import { Duration, Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const isHealthy = (name: string) =>
 *   Effect.map(Lock.inspect(name), ({ holder }) =>
 *     holder?.notRenewedFor === undefined || Duration.isLessThan(holder.notRenewedFor, holder.remaining!))
 * ```
 *
 * @category operating
 * @since 0.1.0
 */
export const inspect = (
  name: string,
  options?: Pick<TryOptions, "layout">
): Effect.Effect<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.inspect(name, options)

/**
 * Emits the holder of a lock and its waiters, now and after every change.
 *
 * **Details**
 *
 * Only the holder has a `remaining` time and `notRenewedFor`: a look after each hand-over costs the same, however many wait. A slow reader
 * misses states in between, but always gets the latest one. Every five seconds, one small request asks for changes that
 * etcd has not reported.
 *
 * The stream fails as `inspect` does until it has emitted once. After that, it waits until an outage is over and logs a
 * warning at once and every minute; it fails with an error that waiting cannot cure.
 *
 * @category operating
 * @since 0.1.0
 */
export const changes = (
  name: string,
  options?: Pick<TryOptions, "layout">
): Stream.Stream<Inspection, Etcd.EtcdError, Etcd.Etcd> => operating.changes(name, options)

/**
 * A lock that is held, with the numbers of holders and waiters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Summary {
  readonly lock: string
  readonly layout: Layout
  /** The first of its holders. */
  readonly holder: Holder
  /** How many entries hold it: one, or several readers or holders of permits. */
  readonly holding: number
  /** How many entries wait, as `Inspection.queue` has them. Those that `holder.behind` counts have no entries. */
  readonly waiting: number
  /** The first of those, which has waited for the longest. */
  readonly next: Holder | undefined
}

/**
 * Returns all locks that are held and whose names begin with a prefix, in the order of
 * their names; without a prefix, all locks within reach of the connection.
 *
 * **Details**
 *
 * That takes one read, or a few where the entries do not fit into one reply, which is at
 * most 4 MiB, and one question about the lease of each first holder.
 *
 * **Gotchas**
 *
 * A lock is known by its keys alone. A key under a name that ends with the ID of its
 * own lease, as the entries of this library, of Go's mutex and of `etcdctl lock` do, is
 * an entry of a queue. Where the last part of that name is `read` or `write`, it is an
 * entry of a reader or a writer. So a lock of a Go program that is named `x/read` is listed as readers of `x`, which no name
 * of this library can be. Any other key on a lease
 * may be a single key, and is listed as one, even if it is something else. Keys on no lease are not listed, nor are
 * keys whose names no lock can have, such as names that are not UTF-8.
 *
 * **Example** (Which orders are being worked on)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const busy = Effect.gen(function*() {
 *   for (const { holder, lock, waiting } of yield* Lock.list("orders/")) {
 *     yield* Effect.log(`${lock} is held by ${holder}; ${waiting} wait`)
 *   }
 * })
 * ```
 *
 * @category operating
 * @since 0.1.0
 */
export const list = (prefix = ""): Effect.Effect<ReadonlyArray<Summary>, Etcd.EtcdError, Etcd.Etcd> =>
  Effect.flatMap(Etcd.Etcd, (etcd) => {
    Check.prefix("Lock", prefix)
    return inspection.list(etcd, prefix)
  })

/**
 * Emits all locks that are held and whose names begin with a prefix, now and after every
 * change. It waits, looks again and fails as `changes` does. It asks for no lease, so the holders have no `remaining` time
 * and no `notRenewedFor`.
 *
 * @see {@link list} for which locks these are
 *
 * @category operating
 * @since 0.1.0
 */
export const listChanges = (prefix = ""): Stream.Stream<ReadonlyArray<Summary>, Etcd.EtcdError, Etcd.Etcd> =>
  Stream.unwrap(Effect.map(Etcd.Etcd, (etcd) => {
    Check.prefix("Lock", prefix)
    return inspection.listChanges(etcd, prefix)
  }))

/**
 * Deletes an entry from a lock's line, whichever client it belongs to, and returns
 * whether it was still there. A live holder notices within a second, and fails with
 * `LockLost`.
 *
 * **Details**
 *
 * The entry is named by its create revision, as `inspect` and `LockHeld` report it,
 * so that only the holder that the caller has seen is affected, and no later one.
 *
 * **Gotchas**
 *
 * The next waiter may start before the holder has stopped. Only what goes through
 * the handle's `txn`, or through a store that checks fencing tokens, is safe from
 * the overlap.
 *
 * @category operating
 * @since 0.1.0
 */
export const forceRelease = (
  name: string,
  options: Pick<TryOptions, "layout"> & { readonly createRevision: bigint }
): Effect.Effect<boolean, Etcd.EtcdError, Etcd.Etcd> => operating.forceRelease(name, options)

/**
 * A run that `withLockOnce` knows to have succeeded.
 *
 * @category models
 * @since 0.2.0
 */
export interface Run {
  readonly run: string
  readonly host: string | undefined
  readonly pid: number | undefined
  /** When it succeeded, by the clock of the process that ran it. */
  readonly succeededAt: DateTime.Utc | undefined
  /** For how long it is still known, by etcd's clock. Undefined for a mark that was put by hand, on no lease. */
  readonly remaining: Duration.Duration | undefined
}

/**
 * Returns the runs under a lock that `withLockOnce` knows to have succeeded, oldest first. Like `forgetRun`, it needs no
 * session, and takes no part in the lock's line.
 *
 * **Details**
 *
 * It asks etcd for the lease of each run.
 *
 * **Example** (Which nights are done)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const done = Effect.gen(function*() {
 *   for (const { host, run } of yield* Lock.runs("nightly-report")) {
 *     yield* Effect.log(`${run} was run on ${host}`)
 *   }
 * })
 * ```
 *
 * @category operating
 * @since 0.2.0
 */
export const runs = (name: string): Effect.Effect<ReadonlyArray<Run>, Etcd.EtcdError, Etcd.Etcd> =>
  Effect.flatMap(Etcd.Etcd, (etcd) => {
    Check.name("Lock", name)
    return once.list(etcd, name)
  })

/**
 * Forgets that a run has succeeded, so that `withLockOnce` runs it again, and returns whether it was known to have.
 *
 * **Example** (A report that has to be written again)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Lock } from "effect-etcd-lock"
 *
 * export const again = (report: Effect.Effect<void>, day: string) =>
 *   Effect.andThen(
 *     Lock.forgetRun("nightly-report", day),
 *     Lock.withLockOnce(report, "nightly-report", { run: day })
 *   )
 * ```
 *
 * @category operating
 * @since 0.2.0
 */
export const forgetRun = (name: string, run: string): Effect.Effect<boolean, Etcd.EtcdError, Etcd.Etcd> =>
  Effect.flatMap(Etcd.Etcd, (etcd) => {
    Check.name("Lock", name)
    Check.run("Lock", run)
    return once.forget(etcd, name, run)
  })

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const mutex = request.make({
  module: "Lock",
  place: ({ contention }, name, options: Options | undefined) => {
    const { layout, prefix } = placeOf(name, options)
    return { contention: contention(layout), prefix, claim: lock }
  },
  ...errors
})

const placeOf = (name: string, options: Pick<TryOptions, "layout"> | undefined) => {
  const queue = request.queueOf("Lock", name)
  Check.object("Lock", "options", options, "{ timeout: \"15 seconds\" }")
  return Check.isSingleKey("Lock", options?.layout) ? { layout: singleKey, prefix: name } : queue
}

const operating = inspection.make({
  module: "Lock",
  placeOf,
  show: (lock, { conflicts, holders: [holder, ...others], queue }): Inspection => ({
    lock,
    holder: holder?.client,
    queue: [...others, ...queue].map(({ client }) => client),
    conflicts
  })
})
