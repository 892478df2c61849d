import { Effect, Fiber, Layer, ManagedRuntime, Option, Scope } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore, Session } from "effect-etcd-lock"
import { PrometheusMetrics } from "effect/observability"
import { type Claim, type Contender, type Loop, monitorEvery, permits, severalNames, ttl } from "../contender.ts"

type Take = (section: Effect.Effect<void>, name: string) => Effect.Effect<void, Semaphore.AcquireError, Session.Session>

const takes: { readonly [K in Claim]: Take } = {
  lock: Lock.withLock,
  read: ReadWriteLock.withReadLock,
  write: ReadWriteLock.withWriteLock,
  permit: (section, name) => Semaphore.withPermits(section, name, { of: permits }),
  several: (section, name) => Lock.withLocks(section, severalNames(name)),
  monitored: Lock.withLock,
  election: Election.withLeadership,
  // In the order of the names, since contenders would wait for each other otherwise.
  nested: (section, name) =>
    severalNames(name).toSorted().reduceRight<ReturnType<Take>>((inner, name) => Lock.withLock(inner, name), section)
}

/** Reads once in each turn, in the middle. */
const monitor = Effect.sleep(monitorEvery / 2).pipe(
  Effect.andThen(PrometheusMetrics.format()),
  Effect.andThen(Effect.sleep(monitorEvery / 2)),
  Effect.forever
)

/** This library: one session for the process, as a program has it. */
export const make = async (endpoint: string): Promise<Contender> => {
  const connect = () =>
    ManagedRuntime.make(
      Session.layer({ ttl: `${ttl} seconds` }).pipe(Layer.provide(Etcd.layer({ hosts: endpoint })), Layer.orDie)
    )
  const runtime = connect()
  const apart: Array<ReturnType<typeof connect>> = []
  const section = (loop: Loop) =>
    Effect.suspend(() => {
      const running = loop.section()
      return running === undefined ? Effect.void : Effect.promise(() => running)
    })
  const repeat = (loop: Loop) => {
    const turn = takes[loop.claim](section(loop), loop.name)
    return Effect.whileLoop({ while: loop.next, body: () => turn, step: loop.done })
  }
  return {
    loops: async (loops) => {
      // Beside the loops, which run as they do without it.
      const reading = loops.some(({ claim }) => claim === "monitored") ? runtime.runFork(monitor) : undefined
      await runtime.runPromise(Effect.forEach(loops, repeat, { concurrency: "unbounded", discard: true }))
      reading?.interruptUnsafe()
    },
    loopsApart: async (loops) => {
      await Promise.all(loops.map((loop, i) => (apart[i] ??= connect()).runPromise(repeat(loop))))
    },
    tries: (loop) => {
      const attempt = Lock.withLockIfAvailable(Effect.void, loop.name)
      return runtime.runPromise(
        Effect.whileLoop({ while: loop.next, body: () => attempt, step: (got) => loop.done(Option.isSome(got)) })
      )
    },
    hold: (names) =>
      runtime.runPromise(
        Effect.forEach(names, (name) => Lock.acquire(name), { concurrency: "unbounded", discard: true }).pipe(
          Scope.provide(Scope.makeUnsafe())
        )
      ),
    lead: (name, began) => {
      const leading = runtime.runFork(Election.whileLeader(Effect.andThen(Effect.sync(began), Effect.never), name))
      // As Effect's `runMain` ends a program.
      return async () => {
        await Effect.runPromise(Fiber.interrupt(leading))
        await runtime.dispose()
      }
    }
  }
}
