/**
 * A lock across machines: at most one holder, first come first served, lost in a
 * typed way, and fenced.
 *
 * **Details**
 *
 * As long as the machines' clocks run at the same rate within the lease's safety
 * margin, and the process is not frozen between a check and its effect, no two
 * bodies run at once: a body whose lock cannot be kept is interrupted *before*
 * etcd gives the lock to the next.
 *
 * Without any such assumption, a write through the handle's `txn` happens only if
 * the lock is still owned, and fencing tokens strictly increase from holder to
 * holder, so that any other store can refuse writes of an earlier one.
 *
 * **Gotchas**
 *
 * A lock is not reentrant: a body that waits for its own lock waits for ever.
 *
 * A body is interrupted only where it can be: `Effect.uninterruptible` parts run to
 * their end, and the lock waits for them. A promise goes on by itself after the
 * interruption, and nobody waits for it: pass it the signal that `Effect.promise`
 * gives, or make it uninterruptible.
 *
 * A name is text of at most 1 KiB in UTF-8, is not empty, and has no `/` at its
 * ends and no `//` in it. Another one, and an option that can never work, is a
 * defect that names the option and shows a right value.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { hostname } from "node:os"
import * as Etcd from "./Etcd.ts"
import {
  type Entry,
  type EntryKey,
  type EntryLease,
  EntryLost,
  ForeignEntry,
  giveAway,
  guard,
  isEntry,
  keyOf
} from "./internal/line/entry.ts"
import { Refused } from "./internal/line/line.ts"
import * as Check from "./internal/options.ts"
import type { Mutex, Request, Wait } from "./internal/session/contention.ts"
import * as Engine from "./internal/session/engine.ts"
import { isLease } from "./internal/session/lease.ts"
import { awaitLoss, supervise } from "./internal/supervise.ts"
import type { Lease } from "./Lease.ts"
import { Session } from "./Session.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

const Description = Schema.Struct({
  host: Schema.optional(Schema.String),
  pid: Schema.optional(Schema.Int),
  since: Schema.optional(Schema.DateTimeUtcFromString),
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json))
})

/**
 * Who holds a lock or waits for it, as far as it tells: other clients of the same
 * lock, such as `etcdctl lock`, leave no more than a key.
 *
 * @category models
 * @since 0.1.0
 */
export class Holder extends Schema.Class<Holder>("effect-etcd-lock/Lock/Holder")({
  /** The entry's key in etcd. */
  key: Schema.String,
  leaseId: Schema.BigInt,
  /** The revision at which it joined the line. */
  createRevision: Schema.BigInt,
  host: Schema.optional(Schema.String),
  pid: Schema.optional(Schema.Int),
  /** When it asked for the lock, by its own clock. */
  since: Schema.optional(Schema.DateTimeUtc),
  /** What it told of itself in the options. */
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json)),
  /** For how long its lease would live if it died now. Told by `inspect` and `changes` only. */
  remaining: Schema.optional(Schema.Duration)
}) {
  override toString(): string {
    const where = this.host === undefined ? `lease ${this.leaseId.toString(16)}` : `${this.host} (process ${this.pid})`
    return this.since === undefined ? where : `${where} since ${DateTime.formatIso(this.since)}`
  }
}

/**
 * Which keys in etcd make a lock. Clients exclude each other only where they use
 * the same layout; locks of one name and different layouts know nothing of each
 * other.
 *
 * **Details**
 *
 * - `queue`: every contender has a key of its own directly under `name/`, and the
 *   first created holds. First come, first served. These are the keys of Go's
 *   `concurrency.Mutex`, of `etcdctl lock`, and of etcd's lock service.
 * - `single-key`: the key `name` is the lock, and whoever creates it holds it, as
 *   npm etcd3's `client.lock()` and many hand-written locks do. A lost lock, a
 *   refusal, a timeout and the fencing token are what they are with a queue.
 *
 * **Gotchas**
 *
 * With a single key nobody can stand in line: whenever it is released, all that
 * wait try again, and any of them may be the next, or somebody who just came. Under
 * contention a process may wait for ever. Only the fibers of one process are served
 * in order of their arrival. Use it where others do, and the queue otherwise.
 *
 * A single key `a/b` lies where the entries of the queue `a` do, and blocks it.
 *
 * @category models
 * @since 0.1.0
 */
export type Layout = "queue" | "single-key"

/**
 * How to take a lock that may be free.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryOptions {
  /** Which keys make the lock. Default: `queue`. */
  readonly layout?: Layout | undefined
  /** What others are told about this holder, beside its host, process and time: an object of JSON values. */
  readonly metadata?: Readonly<Record<string, Schema.Json>> | undefined
  /** Hang on a lease of your own instead of the session's, so that they live and die together. */
  readonly lease?: Lease | undefined
}

/**
 * How to take a lock, and how long to wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends TryOptions {
  /**
   * How long to wait for the lock before failing with `LockTimeout`. Zero takes it
   * if it is free, and asks etcd once for that; `"Infinity"` waits for ever, which
   * is the default.
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
  readonly name: string
  /** The key in etcd whose existence is the ownership. */
  readonly key: string
  readonly leaseId: bigint
  /**
   * Greater than that of every earlier holder of this lock. Give it to the stores
   * you write to, and have them refuse a smaller one than they have seen. It
   * compares with `ETCD_LOCK_REV` of `etcdctl lock`, and with `Header().Revision`
   * of Go's mutex.
   */
  readonly fencingToken: bigint
  /** The revision at which the key was created; for conditions inside etcd only. */
  readonly createRevision: bigint
  /** Never succeeds; fails as soon as the lock is lost. */
  readonly awaitLoss: Effect.Effect<never, LockLost>
  /** Runs an effect for as long as the lock is held: a loss interrupts it, awaits it, and fails the whole. */
  readonly whileHeld: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LockLost, R>
  /**
   * Fails if the lock is known to be lost, or its lease to be too old to be
   * trusted. Local and synchronous: call it right before a side effect, to notice
   * that the process had been frozen.
   */
  readonly check: Effect.Effect<void, LockLost>
  /** For how long the lock is safe if no further renewal succeeds. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Asks etcd whether the lock is still owned, with a linearizable read. */
  readonly verify: Effect.Effect<void, LockLost | Etcd.EtcdError>
  /** The condition that the lock is still owned, for transactions of your own. */
  readonly isOwner: Etcd.Compare
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
   * lock goes to the next holder when they have ended, and `release` waits for that, though not longer than one TTL.
   */
  readonly release: Effect.Effect<void>
}

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

/**
 * Somebody else holds the lock, and the caller would not wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockHeld extends Schema.TaggedError<LockHeld>("effect-etcd-lock/Lock/LockHeld")("LockHeld", {
  name: Schema.String,
  /** Undefined when it was released just now. */
  holder: Schema.UndefinedOr(Holder)
}) {
  override get message(): string {
    return `Lock '${this.name}' is held by ${this.holder ?? "somebody who released it just now"}`
  }
}

/**
 * The lock could not be had within the time that the caller would wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockTimeout extends Schema.TaggedError<LockTimeout>("effect-etcd-lock/Lock/LockTimeout")("LockTimeout", {
  name: Schema.String,
  /** Never less than the timeout that was asked for; zero where it was zero, since nobody waited then. */
  waited: Schema.DurationFromMillis,
  /** Undefined when nobody held it any more just then. */
  holder: Schema.UndefinedOr(Holder)
}) {
  override get message(): string {
    const time = Duration.isZero(this.waited) ? "at once" : `within ${Duration.format(this.waited)}`
    const held = this.holder === undefined ? "" : `; it is held by ${this.holder}`
    return `Lock '${this.name}' could not be had ${time}${held}`
  }
}

/**
 * The lock, or the place in the line for it, was lost.
 *
 * - `LeaseExpired`: the lease could not be kept alive, or was revoked.
 * - `KeyDeleted`: its key was deleted from etcd, by somebody, or with its lease when that was revoked.
 * - `Released`: the handle was released, or the session or the lease that the lock hangs on has closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockLost extends Schema.TaggedError<LockLost>("effect-etcd-lock/Lock/LockLost")("LockLost", {
  name: Schema.String,
  /** Undefined when the lock had not been got yet. */
  fencingToken: Schema.UndefinedOr(Schema.BigInt),
  reason: Schema.Literals(["LeaseExpired", "KeyDeleted", "Released"])
}) {
  override get message(): string {
    const what = this.fencingToken === undefined
      ? `The place in the line for lock '${this.name}'`
      : `Lock '${this.name}'`
    switch (this.reason) {
      case "LeaseExpired": {
        return `${what} was lost: its lease could not be kept alive`
      }
      case "KeyDeleted": {
        return `${what} was lost: its key was deleted from etcd`
      }
      case "Released": {
        return `${what} was released: by its handle, or because its session or lease has closed`
      }
    }
  }
}

/**
 * There is a key in the lock's place that no client of a lock has put there: it
 * hangs on no lease, or lies deeper. Waiting for it could take for ever.
 *
 * @category errors
 * @since 0.1.0
 */
export class ForeignKey extends Schema.TaggedError<ForeignKey>("effect-etcd-lock/Lock/ForeignKey")("ForeignKey", {
  name: Schema.String,
  key: Schema.String
}) {
  override get message(): string {
    const what = this.key === this.name ? "its key hangs on no lease" : `'${this.key}' lies under its name`
    return `Lock '${this.name}' cannot be had: ${what} and is no lock entry. Delete the key or use another name.`
  }
}

/**
 * Why a lock could not be had.
 *
 * @category errors
 * @since 0.1.0
 */
export type AcquireError = LockTimeout | LockLost | ForeignKey | Etcd.EtcdError

// -----------------------------------------------------------------------------
// critical sections
// -----------------------------------------------------------------------------

/**
 * Runs an effect while holding the lock, waiting for its turn first.
 *
 * **Details**
 *
 * The lock is released when the effect has ended, in whatever way. If the lock is
 * lost, the effect is interrupted and awaited, and the whole fails with
 * `LockLost`; what the effect itself failed with while unwinding is kept beside it.
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
 * @category critical sections
 * @since 0.1.0
 */
export const withLock: {
  (name: string, options?: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AcquireError, R | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: Options
  ): Effect.Effect<A, E | AcquireError, R | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: Options) =>
    section("Lock.withLock", name, self, (restore) => acquireHandle(name, options, restore))
)

/**
 * Runs an effect while holding the lock, or fails with `LockHeld` at once when
 * somebody else holds it. That costs one transaction, or one read where the try
 * before it was refused too, and leaves nothing behind.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const tryWithLock: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LockHeld | LockLost | ForeignKey | Etcd.EtcdError, R | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<A, E | LockHeld | LockLost | ForeignKey | Etcd.EtcdError, R | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    section("Lock.tryWithLock", name, self, (restore) => tryAcquireHandle(name, options, restore))
)

/**
 * Runs an effect while holding the lock, or answers `None` at once when somebody
 * else holds it.
 *
 * @category critical sections
 * @since 0.1.0
 */
export const withLockIfAvailable: {
  (name: string, options?: TryOptions): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockLost | ForeignKey | Etcd.EtcdError, R | Session>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: TryOptions
  ): Effect.Effect<Option.Option<A>, E | LockLost | ForeignKey | Etcd.EtcdError, R | Session>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: TryOptions) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        attempt(name, options, restore),
        (tried) => tried instanceof Refused ? Effect.succeedNone : Effect.asSome(holding(tried, self, restore))
      )
    )
)

// -----------------------------------------------------------------------------
// handles
// -----------------------------------------------------------------------------

/**
 * Takes the lock, waiting for its turn, and holds it until the scope closes.
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
  scoped("Lock.acquire", name, (restore) => acquireHandle(name, options, restore))

/**
 * Takes the lock and holds it until the scope closes, or fails with `LockHeld` at
 * once when somebody else holds it.
 *
 * @category handles
 * @since 0.1.0
 */
export const tryAcquire = (
  name: string,
  options?: TryOptions
): Effect.Effect<Handle, LockHeld | LockLost | ForeignKey | Etcd.EtcdError, Session | Scope.Scope> =>
  scoped("Lock.tryAcquire", name, (restore) => tryAcquireHandle(name, options, restore))

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
  readonly name: string
  readonly holder: Holder | undefined
  /** Who waits, in order. The fibers of one process are one entry. Nobody can be seen waiting for a single key. */
  readonly queue: ReadonlyArray<Holder>
  /** Keys in the lock's place that are no entries; they make everybody fail with `ForeignKey`. */
  readonly foreignKeys: ReadonlyArray<string>
}

/**
 * Tells who holds a lock and who waits for it.
 *
 * @category operating
 * @since 0.1.0
 */
export const inspect = (
  name: string,
  options?: Pick<TryOptions, "layout">
): Effect.Effect<Inspection, Etcd.EtcdError, Session> =>
  Effect.flatMap(Session, (session) => inspectWith(Engine.of(session), name, options))

/**
 * Tells who holds a lock and who waits for it, now and after every change.
 *
 * @category operating
 * @since 0.1.0
 */
export const changes = (
  name: string,
  options?: Pick<TryOptions, "layout">
): Stream.Stream<Inspection, Etcd.EtcdError, Session> =>
  Stream.unwrap(Effect.gen(function*() {
    const session = Engine.of(yield* Session)
    const { key, rangeEnd } = rangeOf(session, name, options)
    // However much happens between two looks, the second one sees the latest state.
    const changed = yield* Queue.sliding<void, Etcd.EtcdError>(1)
    const subscribed = session.etcd.subscribe({ key, rangeEnd }, {
      onEvents: () => Queue.offerUnsafe(changed, undefined),
      onEnd: (error) => Queue.failCauseUnsafe(changed, Cause.fail(error))
    })
    yield* Effect.acquireRelease(subscribed, ({ close }) => Effect.sync(close), { interruptible: true })
    const look = inspectWith(session, name, options)
    return Stream.concat(Stream.fromEffect(look), Stream.fromEffectRepeat(Effect.andThen(Queue.take(changed), look)))
  })).pipe(
    // A watch that ended is opened again.
    Stream.retry(Schedule.while(Schedule.spaced("200 millis"), ({ input }) => (input as Etcd.EtcdError).isTransient))
  )

/**
 * Deletes an entry from a lock's line, whoever it belongs to, and answers whether
 * it was still there. A holder that lives notices within a second, and fails with
 * `LockLost`.
 *
 * **Details**
 *
 * The entry is named by its create revision, as `inspect` and `LockHeld` tell it,
 * so that only the holder that was looked at is affected and none that came after.
 *
 * **Gotchas**
 *
 * The next in line may start before the holder has stopped. Only what goes
 * through the handle's `txn`, or through a store that checks fencing tokens, is
 * safe from the overlap.
 *
 * @category operating
 * @since 0.1.0
 */
export const forceRelease = (
  name: string,
  options: Pick<TryOptions, "layout"> & { readonly createRevision: bigint }
): Effect.Effect<boolean, Etcd.EtcdError, Session> =>
  Effect.gen(function*() {
    const session = Engine.of(yield* Session)
    const { etcd } = session
    const range = rangeOf(session, name, options)
    Check.revision("Lock", "createRevision", options?.createRevision)
    const { kvs } = yield* etcd.range({ ...range, keysOnly: true })
    const entry = kvs.find((kv) => kv.createRevision === options.createRevision)
    if (entry === undefined) return false
    const { succeeded } = yield* etcd.txn({
      compare: [Etcd.compareCreateRevision(entry.key, "=", entry.createRevision)],
      then: [Etcd.remove(entry.key)]
    })
    return succeeded
  })

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** With a span where anything traces: it costs, and elsewhere nobody would see it. */
const spanned = <A, E, R>(operation: string, name: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ cache }) =>
    cache.tracer === undefined && cache.span === undefined
      ? self
      : Effect.withSpan(
        operation,
        { kind: "client", attributes: { "lock.name": name } },
        { captureStackTrace: false }
      )(self) as Effect.Effect<A, E, R>
  )

const section = <A, E, R, E2>(
  operation: string,
  name: string,
  self: Effect.Effect<A, E, R>,
  acquire: (restore: Restore) => Effect.Effect<Handle, E2, Session>
) =>
  spanned(
    operation,
    name,
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(acquire(restore), (handle) => holding(handle, self, restore))
    )
  )

const holding = <A, E, R>(handle: Handle, self: Effect.Effect<A, E, R>, restore: Restore) =>
  Effect.onExit(restore(handle.whileHeld(self)), () => handle.release)

const scoped = <E>(
  operation: string,
  name: string,
  acquire: (restore: Restore) => Effect.Effect<Handle, E, Session>
): Effect.Effect<Handle, E, Session | Scope.Scope> =>
  spanned(
    operation,
    name,
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.scope,
        (scope) => Effect.tap(acquire(restore), (handle) => Scope.addFinalizerExit(scope, () => handle.release))
      )
    )
  )

const acquireHandle = (name: string, options: Options | undefined, restore: Restore) =>
  withSession((session, clock) => {
    const { mutex, prefix } = placeOf(session, name, options)
    const limit = limitOf(options)
    if (limit !== undefined && Duration.isZero(limit)) return acquireAtOnce(name, options, restore)
    const wait: Wait<LockTimeout | Etcd.EtcdError> = limit === undefined
      ? restore
      : waitFor(limit, clock, restore, (waited) =>
        Effect.flatMap(
          Effect.timeoutOrElse(mutex.holder(prefix), { duration: holderTimeout, orElse: () => noAnswer(name) }),
          (holder) => Effect.failSync(() => new LockTimeout({ name, waited: waited(), holder: describe(holder) }))
        ))
    return Effect.mapBoth(mutex.acquire(makeRequest(prefix, options, clock), wait), {
      onSuccess: (entry) => new HeldLock(name, entry, session.etcd, mutex),
      onFailure: explain(name)
    })
  })

/** Returns how long to wait; undefined for ever. */
const limitOf = (options: Options | undefined): Duration.Duration | undefined => {
  if (options?.timeout === undefined) return undefined
  const limit = Check.duration(timeoutOption, options.timeout)
  return Duration.isFinite(limit) ? limit : undefined
}

const timeoutOption: Check.DurationOption = {
  module: "Lock",
  option: "timeout",
  range: "zero or more",
  accepts: (timeout) => !Duration.isNegative(timeout),
  example: "15 seconds"
}

const tryAcquireHandle = (name: string, options: TryOptions | undefined, restore: Restore) =>
  attemptOr(name, options, restore, (holder) => new LockHeld({ name, holder }))

/** A wait of no time is a try: etcd says whether the lock is free, however long that takes. */
const acquireAtOnce = (name: string, options: Options | undefined, restore: Restore) =>
  attemptOr(name, options, restore, (holder) => new LockTimeout({ name, waited: Duration.zero, holder }))

const attemptOr = <E>(
  name: string,
  options: TryOptions | undefined,
  restore: Restore,
  onHeld: (holder: Holder | undefined) => E
) =>
  Effect.filterOrFail(
    attempt(name, options, restore),
    (tried): tried is HeldLock => tried instanceof HeldLock,
    (held) => onHeld(describe((held as Refused).holder))
  )

const attempt = (name: string, options: TryOptions | undefined, restore: Restore) =>
  withSession((session, clock) => {
    const { mutex, prefix } = placeOf(session, name, options)
    const tried = mutex.tryAcquire<never>(makeRequest(prefix, options, clock), restore)
    return Effect.flatMap(
      Effect.mapError(tried, explain(name)),
      (tried): Effect.Effect<HeldLock | Refused, ForeignKey> => {
        if (!(tried instanceof Refused)) return Effect.succeed(new HeldLock(name, tried, session.etcd, mutex))
        if (tried.holder === undefined || isEntry(prefix, tried.holder)) return Effect.succeed(tried)
        return Effect.fail(new ForeignKey({ name, key: keyOf(tried.holder) }))
      }
    )
  })

const withSession = <A, E>(
  use: (session: Engine.SessionImpl, clock: Clock.Clock) => Effect.Effect<A, E, Session>
): Effect.Effect<A, E, Session> =>
  Effect.withFiber((fiber) =>
    use(Engine.of(Context.get(fiber.context as Context.Context<Session>, Session)), fiber.getRef(Clock.Clock))
  )

const makeRequest = (prefix: string, options: TryOptions | undefined, clock: Clock.Clock): Request => {
  const metadata = options?.metadata === undefined ? "" : `,"metadata":${Check.metadata("Lock", options.metadata)}`
  // Only the value tells the puts of one single key apart.
  const id = options?.layout === "single-key" ? `,"id":"${crypto.randomUUID()}"` : ""
  const since = new Date(clock.currentTimeMillisUnsafe()).toISOString()
  return {
    prefix,
    value: Buffer.from(`${who},"since":"${since}"${metadata}${id}}`),
    metadata,
    lease: leaseOf(options)
  }
}

const leaseOf = (options: TryOptions | undefined): EntryLease | undefined => {
  const lease = options?.lease
  if (lease === undefined || isLease(lease)) return lease
  throw new Check.InvalidOption({
    module: "Lock",
    option: "lease",
    problem: (name) => `${name("lease")} must be a Lease, as Lease.make returns it, got ${Check.show(lease)}`,
    cure: () => "Write it as yield* Lease.make()."
  })
}

// This part is the same in every entry of the process.
const who = JSON.stringify({ host: hostname(), pid: process.pid }).slice(0, -1)

/** Who queues for a lock in this process, and where its entries are. */
const placeOf = (session: Engine.SessionImpl, name: string, options: Pick<TryOptions, "layout"> | undefined) => {
  Check.name("Lock", name)
  Check.object("Lock", "options", options, "{ timeout: \"15 seconds\" }")
  // Entries are the direct children of the name, as those of Go's mutex are.
  return Check.isSingleKey("Lock", options?.layout)
    ? { mutex: session.contention["single-key"], prefix: name }
    : { mutex: session.contention.queue, prefix: `${name}/` }
}

const rangeOf = (session: Engine.SessionImpl, name: string, options: Pick<TryOptions, "layout"> | undefined) => {
  const { mutex, prefix } = placeOf(session, name, options)
  return mutex.range(prefix)
}

/** Lets what it restores wait until the time is up, counted from here on. */
const waitFor = <E>(
  timeout: Duration.Input,
  clock: Clock.Clock,
  restore: Restore,
  onTimeout: (waited: () => Duration.Duration) => Effect.Effect<never, E>
): Wait<E> => {
  const started = clock.monotonicTimeNanosUnsafe()
  const waited = () => Duration.millis(Math.round(Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6))
  const limit = Duration.fromInputUnsafe(timeout)
  return (effect) =>
    Effect.suspend(() =>
      restore(Effect.timeoutOrElse(effect, {
        duration: Duration.max(Duration.subtract(limit, waited()), Duration.zero),
        // A timer may be a little early.
        orElse: () => onTimeout(() => Duration.max(waited(), limit))
      }))
    )
}

/** When the time is up, etcd gets so long to say who holds the lock. */
const holderTimeout = "500 millis"

const noAnswer = (name: string) =>
  Effect.fail(
    new Etcd.EtcdError({
      reason: "Timeout",
      method: "range",
      outcome: "Unknown",
      description: `etcd does not answer, and the time to wait for lock '${name}' is up`
    })
  )

class HeldLock implements Handle {
  readonly name: string
  readonly #entry: Entry
  readonly #etcd: Etcd.Etcd["Service"]
  readonly #mutex: Mutex
  #released = false
  #release: Effect.Effect<void> | undefined

  constructor(name: string, entry: Entry, etcd: Etcd.Etcd["Service"], mutex: Mutex) {
    this.name = name
    this.#entry = entry
    this.#etcd = etcd
    this.#mutex = mutex
  }

  get key() {
    return this.#entry.key
  }

  get leaseId() {
    return this.#entry.ref.lease.id
  }

  get fencingToken() {
    return this.#entry.fencingToken
  }

  get createRevision() {
    return this.#entry.createRevision
  }

  get isOwner() {
    return guard(this.#entry)
  }

  get awaitLoss(): Handle["awaitLoss"] {
    return awaitLoss((listener) => this.#onLoss(listener))
  }

  get whileHeld(): Handle["whileHeld"] {
    return (self) => {
      const entry = this.#entry
      return supervise(self, (listener) => this.#onLoss(listener), entry.ref.lease.bodies, entry)
    }
  }

  get check(): Handle["check"] {
    return Effect.suspend(() => {
      if (this.#released) return Effect.fail(this.#lost("Released"))
      const loss = this.#entry.checkLoss()
      return loss === undefined ? Effect.void : Effect.fail(this.#lost(loss.reason))
    })
  }

  get remaining(): Handle["remaining"] {
    return Effect.flatMap(
      this.#entry.ref.lease.remaining,
      (remaining) => Effect.match(this.check, { onSuccess: () => remaining, onFailure: () => Duration.zero })
    )
  }

  get verify(): Handle["verify"] {
    return Effect.flatMap(
      this.#etcd.range(Etcd.get(this.key)),
      ({ kvs }) => kvs[0]?.createRevision === this.createRevision ? Effect.void : this.#notOwner
    )
  }

  get txn(): Handle["txn"] {
    return ({ compare, else: otherwise, idempotent, then }) =>
      this.#etcd.txn({
        compare: [this.isOwner],
        then: [Etcd.nested({ compare, then, else: otherwise })],
        idempotent
      }).pipe(
        Effect.flatMap((result) => {
          if (!result.succeeded) return this.#notOwner
          const { repeated, responses: [own], revision } = result
          return Effect.succeed({ ...own, revision, repeated })
        })
      )
  }

  // An interruption ends the wait for it and not the release, which nobody else would finish.
  get release(): Handle["release"] {
    return Effect.suspend(() => {
      if (this.#release !== undefined) return this.#release
      const entry = this.#entry
      this.#released = true
      entry.notify(new EntryLost("Released"))
      return this.#release = giveAway(entry, (done) => this.#mutex.release(entry, done))
    })
  }

  #onLoss(listener: (loss: LockLost) => void): () => void {
    if (!this.#released) return this.#entry.onLoss(({ reason }) => listener(this.#lost(reason)))
    listener(this.#lost("Released"))
    return () => {}
  }

  get #notOwner(): Effect.Effect<never, LockLost> {
    return Effect.suspend(() => {
      if (this.#released) return Effect.fail(this.#lost("Released"))
      this.#entry.lose("KeyDeleted")
      return Effect.fail(this.#lost(this.#entry.loss?.reason ?? "KeyDeleted"))
    })
  }

  #lost(reason: LockLost["reason"]): LockLost {
    const { fencingToken, name } = this
    return new LockLost({ name, fencingToken, reason })
  }
}

const inspectWith = Effect.fnUntraced(function*(
  session: Engine.SessionImpl,
  name: string,
  options: Pick<TryOptions, "layout"> | undefined
) {
  const { etcd } = session
  const { mutex, prefix } = placeOf(session, name, options)
  const { kvs } = yield* etcd.range({ ...mutex.range(prefix), sort: "CreateAscending", keysOnly: true })
  const entries = yield* withValues(etcd, kvs.filter((kv) => isEntry(prefix, kv)))
  const leases = new Map<bigint, Duration.Duration>()
  yield* Effect.forEach(
    new Set(entries.map(({ lease }) => lease)),
    (lease) =>
      Effect.map(etcd.leaseTimeToLive(lease), ({ remaining }) => {
        leases.set(lease, Duration.seconds(Math.max(0, remaining)))
      }),
    { concurrency: 16 }
  )
  const [holder, ...queue] = entries.map((kv) => new Holder({ ...describe(kv), remaining: leases.get(kv.lease) }))
  return { name, holder, queue, foreignKeys: kvs.filter((kv) => !isEntry(prefix, kv)).map(keyOf) } satisfies Inspection
})

/** Reads the values of entries, those that are still there, in as many answers as they need. */
const withValues = (etcd: Etcd.Etcd["Service"], entries: ReadonlyArray<Etcd.KeyValue>) =>
  Effect.map(
    Effect.forEach(Arr.chunksOf(entries, 64), (chunk) => readAll(etcd, chunk)),
    (chunks) => chunks.flat().filter((kv, i) => kv?.createRevision === entries[i]!.createRevision)
  ) as Effect.Effect<ReadonlyArray<Etcd.KeyValue>, Etcd.EtcdError>

const readAll = (
  etcd: Etcd.Etcd["Service"],
  entries: ReadonlyArray<Etcd.KeyValue>
): Effect.Effect<ReadonlyArray<Etcd.KeyValue | undefined>, Etcd.EtcdError> =>
  etcd.txn({ then: entries.map(({ key }) => Etcd.get(key)) }).pipe(
    Effect.map(({ responses }) => (responses as ReadonlyArray<Etcd.RangeResult>).map(({ kvs }) => kvs[0])),
    Effect.catchIf(
      // The answer is too large to receive.
      ({ reason }) => reason === "InvalidArgument" && entries.length > 1,
      () => {
        const half = entries.length >> 1
        const halves = [entries.slice(0, half), entries.slice(half)]
        return Effect.map(Effect.forEach(halves, (some) => readAll(etcd, some)), (read) => read.flat())
      }
    )
  )

const explain = (name: string) => <E>(error: E): Exclude<E, EntryLost | ForeignEntry> | LockLost | ForeignKey => {
  if (error instanceof EntryLost) return new LockLost({ name, fencingToken: undefined, reason: error.reason })
  if (error instanceof ForeignEntry) return new ForeignKey({ name, key: error.key })
  return error as Exclude<E, EntryLost | ForeignEntry>
}

const decodeDescription = Schema.decodeUnknownOption(Schema.fromJsonString(Description))

function describe(kv: EntryKey): Holder
function describe(kv: EntryKey | undefined): Holder | undefined
function describe(kv: EntryKey | undefined): Holder | undefined {
  if (kv === undefined) return undefined
  const told = decodeDescription(Buffer.from(kv.value).toString())
  return new Holder({
    key: keyOf(kv),
    leaseId: kv.lease,
    createRevision: kv.createRevision,
    ...Option.getOrUndefined(told)
  })
}
