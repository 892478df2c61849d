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
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Etcd from "../../Etcd.ts"
import type { Background } from "../background.ts"
import * as Metrics from "../metrics.ts"
import * as Limits from "./limits.ts"

export interface Batch {
  /**
   * Runs an idempotent transaction on a line, or on several. Its outcome is its own, whatever happens to others.
   * It ends within one request timeout, counted from here on.
   */
  readonly send: <const Then extends ReadonlyArray<Etcd.Op>, const Else extends ReadonlyArray<Etcd.Op>>(
    line: string | ReadonlyArray<string>,
    txn: Etcd.Txn<Then, Else>,
    done: Done<Answer<Then, Else>, Etcd.EtcdError>
  ) => void
  /** Ends as soon as every transaction has ended. */
  readonly idle: Effect.Effect<void>
}

/** Called exactly once, with the outcome. */
export interface Done<A, E> {
  (exit: Exit.Exit<A, E>): void
}

export type Answer<Then extends ReadonlyArray<Etcd.Op>, Else extends ReadonlyArray<Etcd.Op>> =
  & Etcd.TxnResult<Then, Else>
  & Pick<Etcd.TxnHeader, "revision" | "repeated">

interface Part {
  readonly txn: Etcd.Txn
  readonly size: Limits.Size
  readonly done: Done<any, Etcd.EtcdError>
  /** On the monotonic clock. */
  readonly asked: bigint
}

class Gathering {
  readonly parts: Array<Part> = []
  readonly #lines = new Set<string>()
  #bytes = 0
  /** The operations of the part that has most of them. */
  #operations = 0

  get size(): Limits.Size {
    return { operations: this.parts.length + this.#operations, bytes: this.#bytes }
  }

  hasRoomFor({ size: { bytes, operations } }: Part, lines: ReadonlyArray<string>, limits: Limits.Limits): boolean {
    const size = {
      operations: this.parts.length + 1 + Math.max(this.#operations, operations),
      bytes: this.#bytes + bytes
    }
    return limits.allow(size) && !lines.some((line) => this.#lines.has(line))
  }

  add(part: Part, lines: ReadonlyArray<string>) {
    this.parts.push(part)
    for (const line of lines) this.#lines.add(line)
    this.#bytes += part.size.bytes
    this.#operations = Math.max(this.#operations, part.size.operations)
  }
}

/** How long batches wait for the one before them: a member that hangs must not hold up everything. */
const maxWait = "50 millis"

export const make = (etcd: Etcd.Etcd["Service"], clock: Clock.Clock, background: Background): Batch => {
  const recordSize = Metrics.batches(background.context)
  const limits = Limits.of(etcd)
  const gathering: Array<Gathering> = []
  const requestTimeout = Duration.toMillis(etcd.requestTimeout)
  const idle = Latch.makeUnsafe(true)
  let unanswered = 0
  let underWay = 0
  let flushing = false
  let overdue: Fiber.Fiber<void> | undefined

  const send: Batch["send"] = (line, txn, done) => {
    const lines = typeof line === "string" ? [line] : line
    const part = { txn, size: Limits.measure(txn), done, asked: clock.monotonicTimeNanosUnsafe() }
    let last = gathering.at(-1)
    if (last === undefined || !last.hasRoomFor(part, lines, limits)) gathering.push(last = new Gathering())
    last.add(part, lines)
    unanswered++
    idle.closeUnsafe()
    if (underWay === 0) flush()
    else if (overdue === undefined) startWaiting()
  }

  const startWaiting = () => {
    overdue = background(Effect.andThen(Effect.sleep(maxWait), Effect.sync(sendAll)))
  }

  const flush = () => {
    if (flushing) return
    flushing = true
    // Callers that resume in the same tick usually send again in it; a microtask lets them share a batch.
    queueMicrotask(sendNext)
  }

  const sendNext = () => {
    flushing = false
    overdue?.interruptUnsafe()
    overdue = undefined
    sendOne()
    if (gathering.length > 0) startWaiting()
  }

  /** Sends all batches side by side: one after another, the last of them would wait for all that hang before it. */
  const sendAll = () => {
    overdue = undefined
    while (gathering.length > 0) sendOne()
  }

  const sendOne = () => {
    const next = gathering.shift()
    if (next === undefined) return
    if (limits.allow(next.size)) sendBatch(next.parts)
    // etcd has refused a smaller batch since these were gathered.
    else sendSplit(next.parts)
  }

  const sendBatch = (parts: ReadonlyArray<Part>) => {
    underWay++
    recordSize(parts.length)
    if (parts.length === 1) sendAlone(parts[0]!, answered)
    else sendTogether(parts)
  }

  /** Sends batches that are as small as etcd is known to want them. */
  const sendSplit = (parts: ReadonlyArray<Part>) => Limits.chunks(limits, parts, ({ size }) => size).forEach(sendBatch)

  const answered = () => {
    underWay--
    if (gathering.length > 0) flush()
  }

  const sendAlone = (part: Part, answered?: () => void, isRepeated = false) => {
    const { compare, else: otherwise, then } = part.txn
    run({ compare, then, else: otherwise }, part.asked, (exit) => {
      answered?.()
      finish(part, isRepeated ? asRepeated(exit) : exit)
    })
  }

  const sendTogether = (parts: ReadonlyArray<Part>) =>
    // The first part is the oldest.
    run({ then: parts.map(({ txn }) => txn) }, parts[0]!.asked, (exit) => {
      answered()
      if (Exit.isSuccess(exit)) {
        const { repeated, responses, revision } = exit.value
        parts.forEach((part, i) => finish(part, Exit.succeed({ ...responses[i]!, revision, repeated })))
        return
      }
      const error = errorOf(exit)
      if (error !== undefined && limits.learn(Limits.together(parts.map(({ size }) => size)), error)) sendSplit(parts)
      else if (error?.isTransient === false) {
        // One invalid part makes etcd refuse the whole batch. Each is sent again alone, so that only that one fails; and
        // an answer that was too large for all of them may not be so for each.
        for (const part of parts) sendAlone(part, undefined, error.outcome === "Unknown")
      } else {
        for (const part of parts) finish(part, exit)
      }
    })

  const finish = (part: Part, exit: Exit.Exit<any, Etcd.EtcdError>) => {
    unanswered--
    part.done(exit)
    if (unanswered === 0) idle.openUnsafe()
  }

  const run = <Then extends ReadonlyArray<Etcd.Op>>(
    request: Etcd.TxnRequest<Then, ReadonlyArray<Etcd.Op>>,
    asked: bigint,
    done: Done<Answer<Then, ReadonlyArray<Etcd.Op>>, Etcd.EtcdError>
  ) => {
    const txn = etcd.txn({ ...request, idempotent: true })
    const waited = Number(clock.monotonicTimeNanosUnsafe() - asked) / 1e6
    const fiber = background(
      waited < negligible
        ? txn
        : Effect.timeoutOrElse(txn, { duration: Math.max(0, requestTimeout - waited), orElse: () => overtime })
    )
    // Only the end of the session interrupts this fiber. Callers still need an answer, so they get an error instead.
    fiber.addObserver((exit) => done(Exit.hasInterrupts(exit) ? sessionClosed : exit))
  }

  return { send, idle: idle.await }
}

/** Below this many milliseconds, a separate timer would cost more than the deadline is worth. */
const negligible = 10

const overtime = Effect.fail(
  new Etcd.EtcdError({ reason: "Timeout", method: "txn", outcome: "Unknown", description: "no answer in time" })
)

const errorOf = (exit: Exit.Exit<unknown, Etcd.EtcdError>) => Option.getOrUndefined(Exit.findErrorOption(exit))

// That the last sending was refused says nothing about the one before it.
const asRepeated = <A extends object>(exit: Exit.Exit<A, Etcd.EtcdError>) =>
  Exit.mapBoth(exit, {
    onSuccess: (answer) => ({ ...answer, repeated: true }),
    onFailure: ({ cause, description, method, reason }) =>
      new Etcd.EtcdError({ reason, method, description, cause, outcome: "Unknown" })
  })

export const sessionClosed = Exit.fail(
  new Etcd.EtcdError({
    reason: "Unavailable",
    method: "txn",
    outcome: "Unknown",
    description: "the session was closed"
  })
)
