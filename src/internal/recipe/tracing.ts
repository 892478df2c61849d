/**
 * The spans of a lock: one of the wait, and one of the hold, side by side under the caller's span. What runs under the lock
 * has the caller's span for its parent, so that nothing is lost with a hold that does not end. Where no program traces,
 * nothing is made, and where its tracer throws, the lock goes on without.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import type { Etcd } from "../../Etcd.ts"
import type { Holder } from "../../Holder.ts"
import type { Handle } from "../../Lock.ts"
import type { LockLost } from "../../LockError.ts"
import { Session } from "../../Session.ts"
import { Refused } from "../line/lines.ts"
import { quietly } from "../quietly.ts"
import * as Engine from "../session/engine.ts"
import { ownedOf } from "./ownership.ts"

const isTraced = ({ cache }: Fiber.Fiber<unknown, unknown>) => cache.tracer !== undefined || cache.span !== undefined

/** The span of the wait that a fiber is in, where a program traces. */
export const waitOf = ({ cache: { span } }: Fiber.Fiber<unknown, unknown>) => span as Tracer.Span | undefined

/** Runs the wait for a lock in a span. */
export const waiting = <A, E, R>(
  module: string,
  name: string,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    if (!isTraced(fiber)) return self
    const clock = fiber.getRef(Clock.Clock)
    const time = timeOf(fiber)
    return Effect.flatMap(spanOf(`${module}.acquire`, name), (span) => {
      if (span === undefined) return self
      const asked = clock.monotonicTimeNanosUnsafe()
      return Effect.onExit(Effect.withParentSpan(self, span), (exit) =>
        Effect.sync(() => {
          quietly(() => {
            span.attribute("lock.waited_ms", Math.round(Number(clock.monotonicTimeNanosUnsafe() - asked) / 1e6))
            span.attribute("lock.outcome", outcomeOf(exit))
            if (Exit.isSuccess(exit) && !(exit.value instanceof Refused)) describe(span, exit.value as Handle)
          })
          quietly(() => span.end(time(), exit))
        })) as Effect.Effect<A, E, R>
    })
  })

/**
 * Takes an effect that may run for months out of the caller's span: the spans in it begin traces of their own, and what it
 * logs does not pile up in one span that does not end.
 */
export const apart = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.updateContext(
    self,
    (context: Context.Context<R>) => Context.omit(Tracer.ParentSpan)(context) as Context.Context<R>
  )

/** Starts the span of a hold, which ends with it. */
export const holding = (module: string, handle: Handle): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    if (!isTraced(fiber)) return Effect.void
    const time = timeOf(fiber)
    const { etcd } = Engine.of(Context.get(fiber.context as Context.Context<Session>, Session))
    return Effect.flatMap(spanOf(`${module}.hold`, handle.lock), (span) => {
      if (span === undefined) return Effect.void
      quietly(() => describe(span, handle))
      const ended = Effect.gen(function*() {
        const heard = yield* Effect.flip(handle.awaitLoss)
        const now = time()
        const loss = heard.reason === "Released" ? yield* lostBefore(handle) : heard
        if (loss === undefined) return quietly(() => span.end(now, Exit.void))
        const isGone = yield* isLeaseGone(etcd, loss, handle)
        quietly(() => endLost(span, loss, now, isGone))
      })
      return Effect.forkDetach(ended, { startImmediately: true })
    })
  })

/** The loss that the release of a handle finds, which begins in the step in which that is heard. */
const lostBefore = (handle: Handle) => Effect.andThen(Effect.yieldNow, ownedOf(handle).lostBefore)

/** What a span is told of the time, where the program wants to know it. */
const timeOf = (fiber: Fiber.Fiber<unknown, unknown>): () => bigint => {
  const clock = fiber.getRef(Clock.Clock)
  return fiber.getRef(References.TracerTimingEnabled) ? () => clock.currentTimeNanosUnsafe() : () => 0n
}

/** Starts a span, unless the program's tracer throws. */
const spanOf = (name: string, lock: string): Effect.Effect<Tracer.Span | undefined> =>
  Effect.catchDefect(
    Effect.makeSpan(name, { kind: "client", attributes: { "lock.name": lock } }),
    () => Effect.undefined
  )

/** The caller has to wait: notes for how many clients, and links to the trace that the holder left. */
export const contended = (span: Tracer.Span, ahead: number | undefined, holder: Holder | undefined) => {
  if (ahead !== undefined) quietly(() => span.attribute("lock.queue_ahead", ahead))
  if (holder?.trace === undefined || !isId(holder.trace.traceId, 32) || !isId(holder.trace.spanId, 16)) return
  const { key, trace } = holder
  quietly(() => span.addLinks([{ span: Tracer.externalSpan(trace), attributes: { "lock.key": key } }]))
}

/** Whether an ID has the W3C's form. Clients may leave others, and a collector may refuse all that comes with those. */
const isId = (id: string, length: number): boolean => id.length === length && /^[\da-f]*[1-9a-f][\da-f]*$/.test(id)

const describe = (span: Tracer.Span, { createRevision, fencingToken, key, leaseId }: Handle) => {
  span.attribute("lock.key", key)
  span.attribute("lock.lease_id", leaseId.toString(16))
  span.attribute("lock.create_revision", createRevision.toString())
  span.attribute("lock.fencing_token", fencingToken.toString())
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return exit.value instanceof Refused ? "Refused" : "Acquired"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error === undefined) return Cause.hasInterruptsOnly(exit.cause) ? "Interrupted" : "Defect"
  return (error as { readonly _tag: string })._tag
}

/** A key that was deleted went with its lease, or alone; undefined where that is not known. */
const isLeaseGone = (etcd: Etcd["Service"], { reason }: LockLost, { leaseId }: Handle) =>
  reason === "KeyDeleted"
    ? Effect.match(etcd.leaseTimeToLive(leaseId), {
      onSuccess: ({ remaining }) => remaining < 0,
      onFailure: () => undefined
    })
    : Effect.succeed(reason === "LeaseExpired" ? true : undefined)

const endLost = (span: Tracer.Span, loss: LockLost, now: bigint, isLeaseGone: boolean | undefined) => {
  span.event("lock.lost", now, {
    "lock.loss_reason": loss.reason,
    "lock.lease_gone": isLeaseGone,
    "lock.held_ms": loss.heldFor === undefined ? undefined : Duration.toMillis(loss.heldFor),
    "lock.loss": loss.message
  })
  span.end(now, Exit.fail(loss))
}
