import { Redis } from "ioredis"
import Redlock, { ExecutionError } from "redlock"
import type { Contender } from "../contender.ts"

const ttl = 9000

/** npm's redlock on one Redis, with its default delays between tries. */
export const make = async (endpoint: string): Promise<Contender> => {
  const [host, port] = endpoint.split(":")
  const redlock = new Redlock([new Redis(Number(port), host!)], { retryCount: -1 })
  redlock.on("error", () => {})
  const take = (name: string) => redlock.acquire([name], ttl)
  return {
    loops: async (loops) => {
      await Promise.all(loops.map(async (loop) => {
        while (loop.next()) {
          const lock = await take(loop.name)
          await loop.section()
          await lock.release()
          loop.done()
        }
      }))
    },
    tries: async (loop) => {
      while (loop.next()) {
        const lock = await redlock.acquire([loop.name], ttl, { retryCount: 0 }).catch((error: unknown) => {
          if (error instanceof ExecutionError) return undefined
          throw error
        })
        await lock?.release()
        loop.done(lock !== undefined)
      }
    },
    // `using` is what renews
    hold: (names) =>
      Promise.all(names.map((name) =>
        new Promise<void>((resolve, reject) => {
          redlock.using([name], ttl, () => {
            resolve()
            return new Promise(() => {})
          }).catch(reject)
        })
      )).then(() => undefined)
  }
}
