import { Effect, Layer, ManagedRuntime, Option, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { type Contender, type Loop, ttl } from "../contender.ts"

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
    const turn = Lock.withLock(section(loop), loop.name)
    return Effect.whileLoop({ while: loop.next, body: () => turn, step: loop.done })
  }
  return {
    loops: (loops) => runtime.runPromise(Effect.forEach(loops, repeat, { concurrency: "unbounded", discard: true })),
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
      )
  }
}
