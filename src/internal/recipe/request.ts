/**
 * From the call of a recipe to what it owns: checks the options, and waits for the turn under one deadline.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Etcd } from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import type { Holder } from "../../Holder.ts"
import type { LockLost, Options, TryOptions } from "../../Lock.ts"
import { Session } from "../../Session.ts"
import { troubleWithin } from "../etcd/service.ts"
import type { Claim } from "../line/discipline.ts"
import { type Entry, EntryLost, ForeignEntry } from "../line/entry.ts"
import type { EntryKeyValue } from "../line/entryKey.ts"
import { queue } from "../line/layout.ts"
import type { EntryLease } from "../line/leaseRef.ts"
import { Refused, refusedBy } from "../line/lines.ts"
import * as Check from "../options.ts"
import { type Contention, TimeUp, type Wait } from "../session/contention.ts"
import * as Engine from "../session/engine.ts"
import { isLease } from "../session/lease.ts"
import type { Request } from "../session/localQueue.ts"
import { describe, encode } from "./description.ts"
import { isInside } from "./enclosing.ts"
import { Ownership, type OwnershipOptions, type ToLost } from "./ownership.ts"
import * as tracing from "./tracing.ts"

/** Restores the interruptibility of the caller. */
export interface Restore {
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R>
}

/** A way to acquire. It has to run uninterruptibly, and restores interruptibility where it waits. */
export interface Acquire<A, E> {
  (restore: Restore): Effect.Effect<A, E, Session>
}

/** Where the callers of one name contend. */
export interface Place {
  readonly contention: Contention
  readonly prefix: string
  readonly claim: Claim
  /** The value of the entry, where that is not the description of its holder. */
  readonly value?: string
}

/** Where the entries of a queue are: directly under its name, as those of Go's mutex are, or in folders there. */
export const queueOf = (module: string, name: string) => {
  Check.name(module, name)
  return { layout: queue, prefix: `${name}/` }
}

/** What a recipe is, besides its discipline: where its callers contend, and its own errors. */
export interface Recipe<O extends Options, Held, Timeout, Conflict, H extends Ownership> {
  /** The module that takes the options, as messages name it. */
  readonly module: string
  /** Checks the name and the options that choose the place. */
  readonly place: (session: Engine.SessionImpl, name: string, options: O | undefined) => Place
  readonly held: (name: string, holder: Holder | undefined, refused: Refused, options: O | undefined) => Held
  readonly timeout: (name: string, waited: Duration.Duration, holder: Holder | undefined) => Timeout
  readonly lost: ToLost
  /** The defect of a body that waits for what it runs under. */
  readonly selfWait: (name: string) => Error
  /** The error of a key in the line that cannot stand there beside the claim. */
  readonly conflict: (name: string, foreign: ForeignEntry, claim: Claim) => Conflict
  /** The handle, where it can do more than those of all recipes. */
  readonly handle?: new(options: OwnershipOptions) => H
}

/** A call of a recipe, with checked options. */
interface Call<H> {
  readonly contention: Contention
  readonly request: Request
  readonly clock: Clock.Clock
  /** The calling fiber runs under what it would wait for. */
  readonly isInside: boolean
  readonly own: (entry: Entry) => H
}

/** The ways to acquire by a recipe. */
export const make = <O extends Options, Held, Timeout, Conflict, H extends Ownership = Ownership>(
  recipe: Recipe<O, Held, Timeout, Conflict, H>
) => {
  const { conflict, handle: Handle = Ownership, held, lost, module, place, selfWait, timeout } = recipe
  const limitOf = limitIn(module)

  const explain =
    (name: string, { claim }: Request) => <E>(error: E): Exclude<E, EntryLost | ForeignEntry> | LockLost | Conflict => {
      if (error instanceof EntryLost) return lost(name, error, undefined)
      if (error instanceof ForeignEntry) return conflict(name, error, claim)
      return error as Exclude<E, EntryLost | ForeignEntry>
    }

  /** Checks the options, and finds the place of the calling fiber. */
  const call = <A, E>(name: string, options: O | undefined, use: (call: Call<H>) => Effect.Effect<A, E, Session>) =>
    Effect.withFiber<A, E, Session>((fiber) => {
      const session = Engine.of(Context.get(fiber.context as Context.Context<Session>, Session))
      const clock = fiber.getRef(Clock.Clock)
      const at = place(session, name, options)
      const { contention } = at
      const request = requestOf(module, at, options, fiber)
      return use({
        contention,
        request,
        clock,
        isInside: isInside(fiber.context, (outer) => outer.isRunning(name, session, contention)),
        own: (entry) => {
          const recorder = contention.recorderOf(request)
          const owned = new Handle({ lock: name, entry, session, contention, toLost: lost, recorder })
          owned.begin()
          return owned as H
        }
      })
    })

  /** Waits for the turn, within the timeout of the options. */
  const acquire =
    (name: string, options: O | undefined): Acquire<H, Timeout | LockLost | Conflict | EtcdError> => (restore) =>
      call(name, options, ({ clock, contention, isInside, own, request }) => {
        const limit = limitOf(options)
        // A wait of no time is a try: etcd says whether it is free, however long that takes.
        if (limit !== undefined && Duration.isZero(limit)) {
          return tryOr(name, options, (holder) => timeout(name, Duration.zero, holder))(restore)
        }
        if (isInside) return Effect.die(selfWait(name))
        const wait: Wait<Timeout | EntryLost | ForeignEntry | EtcdError> = deadline(
          limit,
          clock,
          restore,
          (waited) => (own) =>
            Effect.flatMap(
              holderOf(contention, request, name, own),
              (holder) => Effect.fail(timeout(name, waited, holder))
            )
        )
        return Effect.mapBoth(contention.acquire(request, wait), { onSuccess: own, onFailure: explain(name, request) })
      })

  /** Takes what is free, and returns how it was refused otherwise. */
  const attempt =
    (name: string, options: O | undefined): Acquire<H | Refused, LockLost | Conflict | EtcdError> => (restore) =>
      call(
        name,
        options,
        ({ contention, own, request }) =>
          Effect.mapBoth(contention.tryAcquire(request, restore), {
            onSuccess: (tried) => tried instanceof Refused ? tried : own(tried),
            onFailure: explain(name, request)
          })
      )

  const tryOr = <E>(
    name: string,
    options: O | undefined,
    onRefused: (holder: Holder | undefined, refused: Refused) => E
  ): Acquire<H, E | LockLost | Conflict | EtcdError> =>
  (restore) =>
    Effect.filterOrFail(
      attempt(name, options)(restore),
      (tried): tried is H => tried instanceof Ownership,
      (tried) => {
        const refused = tried as Refused
        return onRefused(described(refused.holder), refused)
      }
    )

  /** Takes what is free, or fails with the holder. */
  const tryAcquire = (name: string, options: O | undefined) =>
    tryOr(name, options, (holder, refused) => held(name, holder, refused, options))

  return { acquire, attempt, tryAcquire }
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

export const requestOf = (
  module: string,
  { claim, contention: { holder, layout }, prefix, value }: Place,
  options: TryOptions | undefined,
  fiber: Fiber.Fiber<unknown, unknown>,
  isOneOfSeveral = false
): Request => {
  const span = tracing.waitOf(fiber)
  Check.label(module, options?.label)
  const metadata = value ?? (options?.metadata === undefined ? undefined : Check.metadata(module, options.metadata))
  return {
    prefix,
    claim,
    isOneOfSeveral,
    metadata,
    label: options?.label,
    value: value !== undefined ? Buffer.from(value) : encode({
      since: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(),
      metadata,
      span,
      id: layout.hasOwnKeys ? undefined : crypto.randomUUID()
    }),
    lease: leaseOf(module, options),
    onContended: span === undefined ? undefined : (ahead) => {
      const holders = Effect.match(holder(prefix, claim), { onSuccess: described, onFailure: () => undefined })
      Effect.runForkWith(fiber.context)(Effect.map(holders, (holder) => tracing.contended(span, ahead, holder)))
    }
  }
}

const leaseOf = (module: string, options: TryOptions | undefined): EntryLease | undefined => {
  const lease = options?.lease
  if (lease === undefined || isLease(lease)) return lease
  throw new Check.InvalidOption({
    module,
    option: "lease",
    problem: (name) => `${name("lease")} must be a Lease, as Lease.make returns it, got ${Check.show(lease)}`,
    cure: () => "Write it as yield* Lease.make()."
  })
}

export const described = (kv: EntryKeyValue | undefined): Holder | undefined =>
  kv === undefined ? undefined : describe(kv)

/** Returns how long to wait by the options; undefined for ever. */
export const limitIn = (module: string) => {
  const option: Check.DurationOption = {
    module,
    option: "timeout",
    range: "zero or more",
    accepts: (timeout) => !Duration.isNegative(timeout),
    example: "15 seconds"
  }
  return (options: Options | undefined): Duration.Duration | undefined => {
    if (options?.timeout === undefined) return undefined
    const limit = Check.duration(option, options.timeout)
    return Duration.isFinite(limit) ? limit : undefined
  }
}

/** Runs the waits of an acquire under one timeout that starts now, if there is one. */
export const deadline = <E>(
  limit: Duration.Duration | undefined,
  clock: Clock.Clock,
  restore: Restore,
  onTimeout: (waited: Duration.Duration) => TimeUp<E>["explain"]
): Wait<E> => {
  if (limit === undefined) return restore
  const started = clock.monotonicTimeNanosUnsafe()
  const waited = () => Duration.millis(Math.round(Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6))
  return (effect) =>
    Effect.suspend(() =>
      restore(Effect.timeoutOrElse(effect, {
        duration: Duration.max(Duration.subtract(limit, waited()), Duration.zero),
        orElse: () => {
          // A timer may be a little early.
          const explain = onTimeout(Duration.max(waited(), limit))
          return Effect.fail(new TimeUp((own) => restore(explain(own))))
        }
      }))
    )
}

/** Reads which client is in the way of a request whose time is up, and which has left. Fails if it is no client. */
export const holderOf = (
  { etcd, holder, layout }: Contention,
  { claim, prefix }: Request,
  name: string,
  own: ReadonlyArray<EntryLease>
) =>
  holder(prefix, claim, own).pipe(
    Effect.flatMap((kv) => refusedBy(layout, prefix, claim, kv)),
    Effect.map((refused) => described(refused.holder)),
    Effect.timeoutOrElse({ duration: holderTimeout, orElse: () => unanswered(etcd, name) })
  )

/** How long that read may take, in milliseconds. */
const holderTimeout = 500

/** Says why etcd has not replied, where its connection says so. */
const unanswered = (etcd: Etcd["Service"], name: string) =>
  Effect.flatMap(troubleWithin(etcd, holderTimeout), (trouble) =>
    Effect.fail(
      new EtcdError({
        reason: trouble?.reason ?? "Timeout",
        method: "range",
        outcome: "Unknown",
        description: `etcd has not replied, and the time to wait for lock '${name}' is up` +
          (trouble === undefined ? "" : `: ${trouble.description}`),
        cause: trouble
      })
    ))
