import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"

/** Calls its listener once at most, and returns how to unsubscribe it. */
export interface OnLoss<E> {
  (listener: (loss: E) => void): () => void
}

/** What bodies run for: a lock that is held, or a lease. */
export interface Owner {
  readonly key: string
}

/** The bodies that run under one lease. A lock or the lease is given away when they have ended. */
export class Bodies {
  readonly #running = new Map<Owner, number>()
  readonly #listeners = new Set<() => void>()

  start(owner: Owner) {
    this.#running.set(owner, (this.#running.get(owner) ?? 0) + 1)
  }

  end(owner: Owner) {
    const running = this.#running.get(owner)! - 1
    if (running > 0) return void this.#running.set(owner, running)
    this.#running.delete(owner)
    for (const listener of this.#listeners) listener()
  }

  isRunning(owner: Owner): boolean {
    return this.#running.has(owner)
  }

  get owners(): ReadonlyArray<Owner> {
    return [...this.#running.keys()]
  }

  /** Calls `done` as soon as no body of the owner runs, at once if none does. Returns how to unsubscribe. */
  onEnd(owner: Owner, done: () => void): () => void {
    return this.#when(() => !this.#running.has(owner), done)
  }

  /** Ends as soon as no body runs at all. */
  readonly ended: Effect.Effect<void> = Effect.callback((resume) =>
    Effect.sync(this.#when(() => this.#running.size === 0, () => resume(Effect.void)))
  )

  #when(holds: () => boolean, done: () => void): () => void {
    const listener = () => {
      if (!holds()) return
      this.#listeners.delete(listener)
      done()
    }
    this.#listeners.add(listener)
    listener()
    return () => this.#listeners.delete(listener)
  }
}

/** Never succeeds; fails with the loss. */
export const awaitLoss = <E>(onLoss: OnLoss<E>): Effect.Effect<never, E> =>
  Effect.callback((resume) => {
    const unsubscribe = onLoss((loss) => resume(Effect.fail(loss)))
    return Effect.sync(unsubscribe)
  })

/**
 * Runs `self` as a body of `owner` until it exits or `onLoss` reports a loss, whichever
 * comes first. After a loss `self` is interrupted and awaited, and what it
 * fails with while it unwinds is kept beside the loss, even when the caller is
 * interrupted. `self` does not start at all when the loss came first.
 */
export const supervise = <A, E, R, E2>(
  self: Effect.Effect<A, E, R>,
  onLoss: OnLoss<E2>,
  bodies: Bodies,
  owner: Owner
): Effect.Effect<A, E | E2, R> => superviseIn(self, identity, onLoss, bodies, owner)

/** Supervises `self` in a context that is made from the caller's. */
export const superviseIn = <A, E, R, R2, E2>(
  self: Effect.Effect<A, E, R>,
  contextOf: (context: Context.Context<R2>) => Context.Context<R>,
  onLoss: OnLoss<E2>,
  bodies: Bodies,
  owner: Owner
): Effect.Effect<A, E | E2, R2> =>
  Effect.withFiber((parent) =>
    // The child starts and gets its observer in one step, so that no interruption comes between.
    Effect.callback<A, E | E2, R2>((resume) => {
      let lost: Cause.Cause<E2> | undefined
      let child: Fiber.Fiber<A, E> | undefined
      const unsubscribe = onLoss((loss) => {
        lost = Cause.fail(loss)
        child?.interruptUnsafe()
      })
      if (lost !== undefined) return resume(Effect.failCause(lost))
      bodies.start(owner)
      child = Effect.runForkWith(contextOf(parent.context as Context.Context<R2>))(self)
      // The body may have lost its lock by itself, before it first waited.
      if (lost !== undefined) child.interruptUnsafe()
      const trouble = (exit: Exit.Exit<A, E>): Cause.Cause<E | E2> => Cause.combine(lost ?? Cause.empty, failures(exit))
      child.addObserver((exit) => {
        unsubscribe()
        // The caller goes on at once, and is to find that the body has ended.
        bodies.end(owner)
        resume(lost === undefined ? exit : Exit.failCause(trouble(exit)))
      })
      // The caller is interrupted: whatever the body dies with meanwhile belongs beside the interruption.
      return Effect.flatMap(Effect.andThen(Fiber.interrupt(child), Fiber.await(child)), (exit) => {
        // The types know of no errors beside an interruption; causes do.
        const cause = trouble(exit) as Cause.Cause<never>
        return cause.reasons.length === 0 ? Effect.void : Effect.failCause(cause)
      })
    })
  )

const failures = <E>(exit: Exit.Exit<unknown, E>): Cause.Cause<E> =>
  Exit.isSuccess(exit)
    ? Cause.empty
    : Cause.fromReasons(exit.cause.reasons.filter((reason) => !Cause.isInterruptReason(reason)))
