import { Effect, Layer, ManagedRuntime, Option, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { type Contender, type Loop, ttl } from "../contender.ts"

/** This library: one session for the process, as a program has it. */
export const make = async (endpoint: string): Promise<Contender> => {
  const runtime = ManagedRuntime.make(
    Session.layer({ ttl: `${ttl} seconds` }).pipe(Layer.provide(Etcd.layer({ hosts: endpoint })), Layer.orDie)
  )
  const section = (loop: Loop) =>
    Effect.suspend(() => {
      const running = loop.section()
      return running === undefined ? Effect.void : Effect.promise(() => running)
    })
  return {
    loops: (loops) =>
      runtime.runPromise(Effect.forEach(
        loops,
        (loop) => {
          const turn = Lock.withLock(section(loop), loop.name)
          return Effect.whileLoop({ while: loop.next, body: () => turn, step: loop.done })
        },
        { concurrency: "unbounded", discard: true }
      )),
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
      )
  }
}
