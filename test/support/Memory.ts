/** Processes on an etcd in memory, under the test's own clock. */
import { Cause, type Duration, Effect, Exit, type Fiber, Logger, Option, Scope } from "effect"
import { Etcd, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"

export const provideMemory = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  // A session that closes would wait for a network that needs time.
  Effect.provide(Effect.ensuring(self, Effect.flatMap(Etcd.Faults, (faults) => faults.heal)), Etcd.layerMemory())

/** Lets time pass, and then all that was woken go on. */
export const pass = (duration: Duration.Input) =>
  Effect.andThen(TestClock.adjust(duration), Effect.repeat(Effect.yieldNow, { times: 20 }))

export type Process = Effect.Success<ReturnType<typeof session>>

export const session = (options?: Session.Options) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
    const session = yield* Session.make({ ttl: "3 seconds", ...options }).pipe(Scope.provide(scope))
    return {
      run: Effect.provideService(Session.Session, session),
      close: Scope.close(scope, Exit.void)
    }
  })

/** A process that reaches etcd through what `change` makes of it. */
export const sessionThrough = (
  change: (etcd: Etcd.Etcd["Service"]) => Partial<Etcd.Etcd["Service"]>,
  options?: Session.Options
) =>
  Effect.flatMap(
    Etcd.Etcd,
    (etcd) => Effect.provideService(session(options), Etcd.Etcd, { ...etcd, ...change(etcd) })
  )

export const fork = Effect.forkChild({ startImmediately: true })

export const failure = <A, E>(exit: Exit.Exit<A, E> | undefined): unknown =>
  exit !== undefined && Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** Interrupts a fiber whose end takes time. */
export const stop = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.sync(() => fiber.interruptUnsafe())

/** Collects what is logged. */
export const logs = () => {
  const logged: Array<string> = []
  const logger = Logger.layer([Logger.make(({ message }) => void logged.push([message].flat().join(" ")))])
  return { logged, logger }
}
