/** Processes of a test that share an etcd in memory, on the test's clock. */
import { Clock, type Duration, Effect, Exit, type Fiber, Scope } from "effect"
import { Etcd, Session } from "effect-etcd-lock"
import { TestClock } from "effect/testing"

/** Provides an etcd in memory, which heals at the end. */
export const provideMemory = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  // A session that closes would wait for a network that needs time.
  Effect.provide(Effect.ensuring(self, Effect.flatMap(Etcd.Faults, (faults) => faults.heal)), Etcd.layerMemory())

/** Lets time pass, and then the fibers that it woke go on. */
export const pass = (duration: Duration.Input) =>
  Effect.andThen(TestClock.adjust(duration), Effect.repeat(Effect.yieldNow, { times: 20 }))

/** Lets seconds pass one by one, so that each timer fires when it is due. */
export const seconds = (count: number) => Effect.repeat(pass("1 second"), { times: count - 1 })

export type Process = Effect.Success<ReturnType<typeof session>>

/** A process, whose session is closed at the end of the test's scope. */
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
  Effect.flatMap(Etcd.Etcd, (etcd) => Effect.provideService(session(options), Etcd.Etcd, { ...etcd, ...change(etcd) }))

/** A process, and what lets it find that time has passed, by default ten seconds, of which none of its timers knows. */
export const freezable = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  let frozen = 0n
  const process = yield* session().pipe(Effect.provideService(Clock.Clock, {
    ...clock,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + frozen
  }))
  const freeze = (millis = 10_000) => {
    frozen += BigInt(millis) * 1_000_000n
  }
  return { freeze, process }
})

/** Starts a fiber at once, so that it has sent its request when the test goes on. */
export const fork = Effect.forkChild({ startImmediately: true })

/** Interrupts a fiber whose end takes time. */
export const stop = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.sync(() => fiber.interruptUnsafe())

/** A process whose requests are counted. */
export const counted = Effect.fnUntraced(function*(options?: Session.Options) {
  const counts = { txn: 0, range: 0, subscribe: 0, leaseKeepAlive: 0, leaseTimeToLive: 0 }
  const process = yield* sessionThrough((etcd) => ({
    txn: (request) => {
      counts.txn++
      return etcd.txn(request)
    },
    range: (range) => {
      counts.range++
      return etcd.range(range)
    },
    subscribe: (options, listener) => {
      counts.subscribe++
      return etcd.subscribe(options, listener)
    },
    leaseKeepAlive: (id, timeout) => {
      counts.leaseKeepAlive++
      return etcd.leaseKeepAlive(id, timeout)
    },
    leaseTimeToLive: (id, options) => {
      counts.leaseTimeToLive++
      return etcd.leaseTimeToLive(id, options)
    }
  }), options)
  return { ...process, counts }
})

/** The keys in etcd, as text. */
export const keys = Effect.gen(function*() {
  const faults = yield* Etcd.Faults
  return (yield* faults.keys).map(({ key }) => Buffer.from(key).toString())
})
