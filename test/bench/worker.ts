/**
 * A process in which one contender runs, told over stdin and ending with it.
 */
import { createInterface } from "node:readline"
import { setTimeout } from "node:timers/promises"
import { pathToFileURL } from "node:url"
import { type Claim, type Contender, type Loop, permits, severalNames } from "./contender.ts"
import { now, type Op, type Replies, type Request, type Requests } from "./protocol.ts"

const [file, endpoint] = process.argv.slice(2)
const { make }: { make: (endpoint: string) => Promise<Contender> } = await import(pathToFileURL(file!).href)
const contender = await make(endpoint!)

/** How many may be inside at a time. */
const room: { readonly [K in Claim]: number } = {
  lock: 1,
  read: Infinity,
  write: 1,
  permit: permits,
  several: 1,
  nested: 1,
  monitored: 1,
  election: 1
}

const loops = async ({ apart, claim, millis, names, section, trace }: Requests["loops"]): Promise<Replies["loops"]> => {
  const counts = names.map(() => 0)
  const latencies: Array<number> = []
  const sections: Array<[number, number, number]> = []
  const inside = new Map<string, number>()
  let overlaps = 0
  let total = 0
  const locks = names.map(severalNames)
  const enter = (i: number) => {
    for (const lock of locks[i]!) {
      const count = (inside.get(lock) ?? 0) + 1
      if (count > room[claim]) overlaps++
      inside.set(lock, count)
    }
  }
  const leave = (began: number, i: number) => {
    for (const lock of locks[i]!) inside.set(lock, inside.get(lock)! - 1)
    if (trace) sections.push([began, now(), i])
  }
  const work = async (i: number) => {
    const began = now()
    enter(i)
    await setTimeout(section)
    leave(began, i)
  }
  const pass = (i: number) => {
    enter(i)
    leave(now(), i)
    return undefined
  }
  const until = now() + millis * 1000
  const run = apart ? contender.loopsApart : contender.loops
  if (run === undefined) throw new Error("its contenders cannot have sessions of their own")
  await run(names.map((name, i): Loop => {
    let asked = 0
    return {
      name,
      claim,
      next: () => {
        asked = now()
        return asked < until
      },
      section: section > 0 ? () => work(i) : () => pass(i),
      done: () => {
        const at = now()
        total++
        if (at > until) return
        counts[i]!++
        latencies.push(at - asked)
      }
    }
  }))
  return { counts, total, latencies, sections, overlaps }
}

const tries = async ({ millis, name }: Requests["tries"]): Promise<Replies["tries"]> => {
  if (contender.tries === undefined) throw new Error("it has no way to try")
  const latencies: Array<number> = []
  let taken = 0
  let asked = 0
  const until = now() + millis * 1000
  await contender.tries({
    name,
    next: () => {
      asked = now()
      return asked < until
    },
    done: (got) => {
      latencies.push(now() - asked)
      if (got) taken++
    }
  })
  return { latencies, taken }
}

const hold = async ({ names }: Requests["hold"]): Promise<Replies["hold"]> => {
  const began = now()
  await contender.hold(names)
  return { millis: (now() - began) / 1000 }
}

const turns: Array<number> = []

const lineUp = async ({ count, name }: Requests["lineUp"]): Promise<Replies["lineUp"]> => {
  const began = now()
  const waiter = (): Loop => {
    let turn = 0
    return {
      name,
      claim: "lock",
      next: () => turn++ === 0,
      section: () => {
        turns.push(now())
        return undefined
      },
      done: () => {}
    }
  }
  contender.loops(Array.from({ length: count }, waiter)).catch(fail)
  // whatever they do at once has been done by then
  await setTimeout(0)
  return { millis: (now() - began) / 1000 }
}

const drain = async ({ count, millis }: Requests["drain"]): Promise<Replies["drain"]> => {
  const until = now() + millis * 1000
  while (turns.length < count && now() < until) await setTimeout(20)
  return { began: turns }
}

const usage = async ({ collect }: Requests["usage"]): Promise<Replies["usage"]> => {
  if (collect) {
    globalThis.gc!()
    await setTimeout(10)
    globalThis.gc!()
  }
  const { system, user } = process.cpuUsage()
  return { heapBytes: process.memoryUsage().heapUsed, cpuMillis: (system + user) / 1000 }
}

const lead = ({ name }: Requests["lead"]): Promise<Replies["lead"]> =>
  new Promise((resolve) => {
    if (contender.lead === undefined) throw new Error("it has no elections")
    const end = contender.lead(name, () => resolve({ began: now() }))
    process.once("SIGTERM", () => {
      end().then(() => process.exit(), fail)
    })
  })

const answers: { readonly [K in Op]: (request: Requests[K]) => Promise<Replies[K]> } = {
  loops,
  tries,
  hold,
  lineUp,
  drain,
  usage,
  lead
}

const say = (reply: unknown) => process.stdout.write(`${JSON.stringify(reply)}\n`)

const fail = (error: unknown) => say({ error: error instanceof Error ? error.stack : JSON.stringify(error) })

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const request: Request = JSON.parse(line)
    answers[request.op](request as never).then(say, fail)
  })
  .on("close", () => process.exit())
say({})
