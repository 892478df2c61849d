/**
 * Lets transactions that are ready at the same time travel as one: a commit costs
 * etcd hardly more with sixty-four nested transactions than with one.
 *
 * A transaction is sent at once when none is under way; those that come while one
 * is are gathered for the next.
 *
 * Never two on one line in one batch: etcd evaluates the conditions of all nested
 * transactions before it applies any, so two tries on one free lock would both
 * succeed, and two joins would get the same create revision.
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Etcd from "../Etcd.ts"
import type { Background } from "./background.ts"

export interface Batch {
  /** Runs an idempotent transaction on a line. Its outcome is its own: the failure of others is not felt. */
  readonly txn: <
    const Then extends ReadonlyArray<Etcd.Op>,
    const Else extends ReadonlyArray<Etcd.Op> = readonly []
  >(
    line: string,
    request: Omit<Etcd.TxnRequest<Then, Else>, "idempotent">
  ) => Effect.Effect<Etcd.TxnResult<Then, Else> & Etcd.TxnHeader, Etcd.EtcdError>
}

type Result = Etcd.OpResult<Etcd.Txn> & Etcd.TxnHeader

interface Part {
  readonly txn: Etcd.Txn
  readonly size: number
  resume: (result: Effect.Effect<Result, Etcd.EtcdError>) => void
}

interface Gathering {
  readonly parts: Map<string, Part>
  size: number
}

/** etcd takes 128 operations, those of the largest part among them, and 1.5 MiB. */
const maxParts = 100
const maxSize = 512 * 1024

/** How long a batch waits for the one before it: a member that hangs must not hold up everything. */
const maxWait = "50 millis"

export const make = (etcd: Etcd.Etcd["Service"], background: Background): Batch => {
  const gathering: Array<Gathering> = []
  let underWay = 0
  let flushing = false
  let overdue: Fiber.Fiber<void> | undefined

  const txn = (
    line: string,
    request: Omit<Etcd.TxnRequest<any, any>, "idempotent">
  ): Effect.Effect<any, Etcd.EtcdError> =>
    Effect.callback<Result, Etcd.EtcdError>((resume) => {
      const txn = Etcd.nested(request)
      gather(line, { txn, size: sizeOf(txn), resume })
    })

  const gather = (line: string, part: Part) => {
    let last = gathering.at(-1)
    if (last === undefined || last.parts.has(line) || last.parts.size === maxParts || last.size + part.size > maxSize) {
      gathering.push(last = { parts: new Map(), size: 0 })
    }
    last.parts.set(line, part)
    last.size += part.size
    if (underWay === 0) {
      flush()
    } else {
      overdue ??= background(Effect.andThen(Effect.sleep(maxWait), Effect.sync(sendNext)))
    }
  }

  const flush = () => {
    if (flushing) return
    flushing = true
    // what was answered together resumes together, and goes on together
    queueMicrotask(sendNext)
  }

  const sendNext = () => {
    flushing = false
    overdue?.interruptUnsafe()
    overdue = undefined
    const next = gathering.shift()
    if (next === undefined) return
    underWay++
    const parts = [...next.parts.values()]
    background(parts.length === 1 ? sendAlone(parts[0]!, answered) : sendTogether(parts))
  }

  const answered = () => {
    underWay--
    if (gathering.length > 0) flush()
  }

  const sendTogether = (parts: ReadonlyArray<Part>): Effect.Effect<void> =>
    Effect.matchEffect(etcd.txn({ then: parts.map(({ txn }) => txn), idempotent: true }), {
      onSuccess: ({ repeated, responses, revision }) =>
        Effect.sync(() => {
          answered()
          parts.forEach(({ resume }, i) => resume(Effect.succeed({ ...responses[i]!, revision, repeated })))
        }),
      onFailure: (error) =>
        Effect.suspend(() => {
          answered()
          // etcd refuses all for the sake of one, of which only that one must hear
          if (error.outcome === "Refused" && !error.isTransient) {
            return Effect.forEach(parts, (part) => sendAlone(part), { concurrency: "unbounded", discard: true })
          }
          for (const { resume } of parts) resume(Effect.fail(error))
          return Effect.void
        })
    })

  const sendAlone = (
    { resume, txn: { compare, else: otherwise, then } }: Part,
    answered?: () => void
  ): Effect.Effect<void> =>
    Effect.map(Effect.exit(etcd.txn({ compare, then, else: otherwise, idempotent: true })), (exit) => {
      answered?.()
      resume(exit as Exit.Exit<Result, Etcd.EtcdError>)
    })

  return { txn }
}

// values are all that can be large
const sizeOf = (txn: Etcd.Txn): number =>
  txn.then.reduce((sum: number, op: Etcd.Op) => op._tag === "Put" ? sum + op.key.length + op.value.length : sum, 0)
