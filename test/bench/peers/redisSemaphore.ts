import { Redis } from "ioredis"
import { Semaphore } from "redis-semaphore"
import type { Contender } from "../contender.ts"

const permits = 8

/** npm's redis-semaphore on one Redis, with its default delay between tries, of which it makes as many as it takes. */
export const make = async (endpoint: string): Promise<Contender> => {
  const [host, port] = endpoint.split(":")
  const redis = new Redis(Number(port), host!)
  const semaphore = (name: string) =>
    new Semaphore(redis, name, permits, { lockTimeout: 9000, acquireTimeout: Infinity })
  return {
    loops: async (loops) => {
      await Promise.all(loops.map(async (loop) => {
        const permit = semaphore(loop.name)
        while (loop.next()) {
          await permit.acquire()
          await loop.section()
          await permit.release()
          loop.done()
        }
      }))
    },
    hold: (names) => Promise.all(names.map((name) => semaphore(name).acquire())).then(() => undefined)
  }
}
