import { Etcd3, EtcdLockFailedError, type Lock } from "etcd3"
import { setTimeout } from "node:timers/promises"
import { type Contender, promiseLoops, promiseTries, ttl } from "../contender.ts"

/** npm etcd3's own lock. It can only try, so whoever waits for it has to try again. */
export const make = async (endpoint: string): Promise<Contender> => {
  const client = new Etcd3({ hosts: endpoint })
  const attempt = (name: string): Promise<Lock | undefined> =>
    client.lock(name).ttl(ttl).acquire().catch((error: unknown) => {
      if (error instanceof EtcdLockFailedError) return undefined
      throw error
    })
  const take = async (name: string) => {
    while (true) {
      const lock = await attempt(name)
      if (lock !== undefined) return () => lock.release()
      await setTimeout(retryMillis)
    }
  }
  return {
    loops: promiseLoops(take),
    tries: promiseTries(async (name) => {
      const lock = await attempt(name)
      return lock === undefined ? undefined : () => lock.release()
    }),
    hold: (names) => Promise.all(names.map(take)).then(() => undefined)
  }
}

const retryMillis = 10
