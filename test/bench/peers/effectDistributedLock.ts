import { Effect, ManagedRuntime, Option } from "effect"
import { DistributedSemaphore, RedisBacking } from "effect-distributed-lock"
import { Redis } from "ioredis"
import type { Contender, Loop } from "../contender.ts"

/** effect-distributed-lock, which is for Effect 3, on one Redis, with its default delays and its push. */
export const make = async (endpoint: string): Promise<Contender> => {
  const [host, port] = endpoint.split(":")
  const runtime = ManagedRuntime.make(RedisBacking.layer(new Redis(Number(port), host!)))
  const semaphore = (name: string, limit: number) => DistributedSemaphore.make(name, { limit, ttl: "9 seconds" })
  const mutex = (name: string) => semaphore(name, 1)
  const section = (loop: Loop) =>
    Effect.suspend(() => {
      const running = loop.section()
      return running === undefined ? Effect.void : Effect.promise(() => running)
    })
  return {
    loops: (loops) =>
      runtime.runPromise(Effect.forEach(
        loops,
        (loop) =>
          Effect.flatMap(semaphore(loop.name, loop.claim === "permit" ? 8 : 1), ({ withPermits }) => {
            const turn = withPermits(1)(section(loop))
            return Effect.whileLoop({ while: loop.next, body: () => turn, step: loop.done })
          }),
        { concurrency: "unbounded", discard: true }
      )),
    tries: (loop) =>
      runtime.runPromise(Effect.flatMap(mutex(loop.name), ({ withPermitsIfAvailable }) => {
        const attempt = withPermitsIfAvailable(1)(Effect.void)
        return Effect.whileLoop({
          while: loop.next,
          body: () => attempt,
          step: (got) => loop.done(Option.isSome(got))
        })
      })),
    hold: (names) =>
      new Promise((resolve, reject) => {
        let held = 0
        const one = Effect.suspend(() => {
          if (++held === names.length) resolve()
          return Effect.never
        })
        runtime.runPromise(Effect.forEach(
          names,
          (name) => Effect.flatMap(mutex(name), ({ withPermits }) => withPermits(1)(one)),
          { concurrency: "unbounded", discard: true }
        )).catch(reject)
      })
  }
}
