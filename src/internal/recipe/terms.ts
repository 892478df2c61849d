/**
 * The terms of one candidate, one after the other: it stands, leads, and stands again.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import { Current } from "../../Current.ts"
import type { StandAgainOptions, StandError } from "../../Election.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Handle } from "../../Lock.ts"
import { LockLost } from "../../LockError.ts"
import type { Session } from "../../Session.ts"
import * as Log from "../log.ts"
import { Outage } from "../outage.ts"
import type { Acquire } from "./request.ts"
import * as section from "./section.ts"
import * as tracing from "./tracing.ts"

type Standing = Acquire<Handle, StandError>

/** Runs `self` in each term until it ends by itself. */
export const whileLeader = <A, E, R>(
  name: string,
  stand: Standing,
  self: Effect.Effect<A, E, R>,
  options: StandAgainOptions<StandError> | undefined
): Effect.Effect<A, E | StandError, Exclude<R, Current> | Session> =>
  Effect.suspend(() =>
    term(name, stand, self).pipe(
      telling(name),
      Effect.retry({ schedule: options?.standAgain ?? standAgain, while: isPassing(name) }),
      Effect.flatten,
      tracing.apart
    )
  )

/** Runs `self`, which never succeeds, in each term, even after a term in which it failed. */
export const repeat = <E, R>(
  name: string,
  stand: Standing,
  self: Effect.Effect<never, E, R>,
  options: StandAgainOptions<E | StandError> | undefined
): Effect.Effect<void, never, Exclude<R, Current> | Session> =>
  Effect.suspend(() =>
    term(name, stand, self).pipe(
      telling(name),
      Effect.tapError((error) =>
        error instanceof LockLost || isOutage(error)
          ? Effect.void
          : Log.error([`This process could not stand in election '${name}'`, error])
      ),
      Effect.flatMap(
        Effect.tapCause((cause) =>
          Log.error([`What the leader of election '${name}' runs has failed, and it resigns`, cause])
        )
      ),
      Effect.retry({
        schedule: options?.standAgain ?? standAgain,
        while: (error) => !isSessionClosed(name, error)
      }),
      Effect.catchCause((cause) => {
        const isExpected = Cause.hasInterruptsOnly(cause) ||
          cause.reasons.some((reason) => Cause.isFailReason(reason) && isSessionClosed(name, reason.error))
        return isExpected ? Effect.void : Log.error(`This process stands in election '${name}' no longer`)
      }),
      tracing.apart
    )
  )

/** Tells of the outages in which a candidate cannot stand, from one term to the next. */
const telling = (name: string) => {
  const outage = new Outage()
  return <A, R>(term: Effect.Effect<A, StandError, R>): Effect.Effect<A, StandError, R> =>
    Effect.tapError(term, (error) => {
      if (isOutage(error)) return outage.tell(`This process cannot stand in election '${name}'`, error)
      outage.end()
      return Effect.void
    })
}

/** One term. Succeeds with the exit of `self` if that ended by itself, and fails otherwise. */
const term = <A, E, R>(
  name: string,
  stand: Standing,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, StandError, Exclude<R, Current> | Session> =>
  Effect.suspend(() => {
    let failed: Exit.Exit<never, E> | undefined
    const body = Effect.flatMap(Current, (leadership) =>
      Effect.onExit(self, (exit) => {
        failed = Exit.isSuccess(exit) ? undefined : withoutLoss(exit.cause, leadership)
        return Effect.void
      }))
    return Effect.matchCauseEffect(section.run("Election", name, stand, body), {
      onSuccess: (result) => Effect.succeed(Exit.succeed(result)),
      onFailure: (cause) =>
        failed === undefined ? Effect.failCause(cause as Cause.Cause<StandError>) : Effect.succeed(failed)
    })
  })

/** What a body failed with beside the loss; undefined if nothing but the loss ended it. */
const withoutLoss = <E>(cause: Cause.Cause<E>, leadership: Handle): Exit.Exit<never, E> | undefined => {
  const own = cause.reasons.filter((reason) =>
    !Cause.isInterruptReason(reason) && !(Cause.isFailReason(reason) && isLossOf(leadership, reason.error))
  )
  return own.length === 0 ? undefined : Exit.failCause(Cause.fromReasons(own))
}

const isLossOf = ({ fencingToken, lock }: Handle, error: unknown): boolean =>
  error instanceof LockLost && error.lock === lock && error.fencingToken === fencingToken

/** It could not even stand: no term will follow. */
const isSessionClosed = (name: string, error: unknown): boolean =>
  error instanceof LockLost && error.lock === name && error.reason === "Released" && error.fencingToken === undefined

const isPassing = (name: string) => (error: StandError): boolean =>
  error instanceof LockLost ? !isSessionClosed(name, error) : isOutage(error)

const isOutage = (error: StandError): error is EtcdError => error._tag === "EtcdError" && error.isTransient

// Gives other candidates a chance, and keeps those that lost at the same time from returning together.
const standAgain = Schedule.jittered(Schedule.spaced("1 second"))
