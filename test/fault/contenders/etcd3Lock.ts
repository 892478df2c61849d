/**
 * npm etcd3's own lock as a contender. It can only try, so its worker tries again until it gets it. Its body ends when the
 * lease says that it is lost, which the lock keeps to itself and its user would have to dig for.
 */
import { Etcd3, EtcdLockFailedError, type Lease, type Lock } from "etcd3"
import { setTimeout } from "node:timers/promises"
import { cleanUp, keys, type Work } from "../protocol.ts"
import { type Dice, dice } from "../random.ts"
import { obey, report, task } from "./reporter.ts"

const client = new Etcd3({ hosts: [...task.hosts] })
const stop = new AbortController()

const take = async (name: string, until: number): Promise<{ readonly lock: Lock; readonly token: string }> => {
  while (true) {
    const lock = client.lock(name).ttl(task.ttl)
    try {
      await lock.acquire()
      const kv = (await client.get(name).exec()).kvs[0]
      return { lock, token: kv?.create_revision ?? "0" }
    } catch (error) {
      if (!(error instanceof EtcdLockFailedError) || performance.now() > until) throw error
    }
    await setTimeout(50)
  }
}

const countUp = async (work: Work, section: string, millis: number, signal: AbortSignal) => {
  const key = keys.counter("plain", work.lock)
  const count = Number(await client.get(key).string() ?? 0)
  await setTimeout(millis, undefined, { signal })
  const mark = keys.marks("plain", work.lock) + section
  const wrote = { _tag: "Wrote", section, counter: "plain", mark } as const
  report({ ...wrote, outcome: "Unknown" })
  await client.if(mark, "Create", "==", 0).then(client.put(key).value(count + 1), client.put(mark).value("")).commit()
  report({ ...wrote, outcome: "Applied" })
}

const bodyOf = async (work: Work, section: string, dice: Dice, lock: Lock, token: string) => {
  const lease = await lock.leaseId()
  report({ _tag: "Holds", section, token, key: work.lock, lease: BigInt(lease!).toString(16) })
  const lost = new AbortController()
  const onLost = () => lost.abort()
  ;(lock as unknown as { readonly lease: Lease }).lease.on("lost", onLost)
  const signal = AbortSignal.any([lost.signal, stop.signal])
  const millis = dice.percent(15) ? dice.between(300, 1500) : dice.between(0, 10)
  try {
    if (work.turns === "forever") await setTimeout(2 ** 30, undefined, { signal })
    else await countUp(work, section, millis, lost.signal)
  } finally {
    if (lost.signal.aborted) await setTimeout(cleanUp)
    report({ _tag: "Stopped", section })
  }
}

const loop = async (work: Work, index: number) => {
  const own = dice(task.seed * 1000 + index)
  for (let n = 0; !stop.signal.aborted; n++) {
    const section = `${task.name}/${index}/${n}`
    report({ _tag: "Wants", section, lock: work.lock })
    let error: string | undefined
    let lock: Lock | undefined
    try {
      const taken = await take(work.lock, performance.now() + 6000 * task.ttl)
      lock = taken.lock
      await bodyOf(work, section, own, lock, taken.token)
    } catch (failure) {
      error = failure instanceof Error ? `${failure.name} ${failure.message}` : String(failure)
    }
    // A lock that is lost cannot be given back.
    await lock?.release().catch(() => undefined)
    report({ _tag: "Ended", section, error, released: error === undefined })
    if (work.turns === "forever") break
    await setTimeout(error === undefined ? own.between(0, 60) : 200)
  }
}

obey(() => stop.abort())
await Promise.all(task.workers.map(loop))
client.close()
