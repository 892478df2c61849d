import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Random from "effect/Random"
import type * as Result from "effect/Result"
import { EtcdError } from "../../EtcdError.ts"
import type { ConnectionFaults, Method } from "../../EtcdFaults.ts"

type Loss = "Request" | "Reply"

/** A client's way to etcd. */
export interface Connection {
  /** Sends a request to etcd, which handles it with `apply`, once if at all, whatever happens to the caller. */
  readonly send: <A>(
    method: Method,
    timeout: number,
    apply: () => Result.Result<A, EtcdError>
  ) => Effect.Effect<A, EtcdError>
  /** The way of a new watch's events. */
  readonly channel: (isOfLine: boolean) => Channel
  readonly faults: ConnectionFaults
}

/** The way of a watch's events, which keep their order. */
export interface Channel {
  /** Reports what happened at one revision, once it can get through, and as late as watches are. */
  readonly deliver: (report: () => void) => void
  /** The watch is open, and ends when its connection does. */
  readonly open: (onEnd: (error: EtcdError) => void) => void
  /** The watch is over: what is on its way is lost. */
  readonly close: () => void
  /** Ends all watches of its stream. What is opened from then on is opened elsewhere. */
  readonly giveUp: () => void
}

/**
 * The ways to etcd, and the faults on them. `onResume` is called when etcd wakes up,
 * before it looks at the requests that have piled up.
 */
export const make = Effect.fnUntraced(function*(onResume: () => void) {
  const fork = yield* FiberSet.makeRuntime()
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const all = new Trouble()
  const everyone = new Set<Way>()

  const connect = (): Connection => {
    const own = new Trouble()
    const troubles = [own, all]
    const calls = new Set<Call>()
    // A client has a stream for its waiting lines, and one for what its program watches.
    const streams = new Map([[true, new Stream()], [false, new Stream()]])

    // --- requests ---

    const send = <A>(method: Method, timeout: number, apply: () => Result.Result<A, EtcdError>) =>
      Effect.suspend((): Effect.Effect<A, EtcdError> => {
        if (troubles.some(({ isUnreachable }) => isUnreachable)) return Effect.fail(refused(method))
        const loss = own.takeLoss(method) ?? all.takeLoss(method)
        const delay = own.delay + all.delay
        if (loss === undefined && delay === 0 && !troubles.some(({ requests }) => requests.isShut)) {
          const answer = apply()
          // Other fibers may run before an answer arrives, as they may with a real network.
          return Effect.andThen(Effect.yieldNow, Effect.fromResult(answer))
        }
        const reply = Deferred.makeUnsafe<A, EtcdError>()
        const call: Call = {
          hasArrived: false,
          isCut: false,
          fail: () => Deferred.doneUnsafe(reply, Effect.fail(connectionLost(method)))
        }
        calls.add(call)
        if (loss !== "Request") fork(travel(call, apply, delay / 2, loss === "Reply" ? undefined : reply))
        return Deferred.await(reply).pipe(
          Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(timedOut(method)) }),
          Effect.ensuring(Effect.sync(() => calls.delete(call)))
        )
      })

    const travel = Effect.fnUntraced(function*<A>(
      call: Call,
      apply: () => Result.Result<A, EtcdError>,
      oneWay: number,
      reply: Deferred.Deferred<A, EtcdError> | undefined
    ) {
      if (oneWay > 0) yield* Effect.sleep(oneWay)
      const answer = yield* Effect.callback<Result.Result<A, EtcdError> | undefined>((resume) =>
        own.requests.pass(() => {
          if (call.isCut) return resume(Effect.undefined)
          call.hasArrived = true
          all.requests.pass(() => resume(Effect.succeed(apply())))
        })
      )
      if (answer === undefined || reply === undefined) return
      if (oneWay > 0) yield* Effect.sleep(oneWay)
      own.answers.pass(() => Deferred.doneUnsafe(reply, Effect.fromResult(answer)))
    })

    // --- events ---

    const lateness = () =>
      troubles.reduce(
        (sum, { watchDelay: { least, most } }) =>
          sum + (most > least ? least + Math.floor(random.nextDoubleUnsafe() * (most - least + 1)) : least),
        0
      )

    const channel: Connection["channel"] = (isOfLine) => {
      const stream = streams.get(isOfLine)!
      let late: Array<Event> = []
      let carrier: Fiber.Fiber<void> | undefined
      let watch: Watch | undefined

      const deliver: Channel["deliver"] = (report) => {
        const lateBy = lateness()
        // Also without a delay, no event may overtake one that is on its way.
        if (late.length === 0 && lateBy === 0) return arrive(report)
        late.push({ dueAt: now() + lateBy, report })
        carrier ??= fork(carry)
      }

      const carry = Effect.gen(function*() {
        while (late.length > 0) {
          const left = late[0]!.dueAt - now()
          if (left > 0) yield* Effect.sleep(left)
          arrive(late.shift()!.report)
        }
        carrier = undefined
      })

      const arrive = (report: () => void): void =>
        stream.reports.pass(() => own.answers.pass(() => all.answers.pass(report)))

      const lose = () => {
        carrier?.interruptUnsafe()
        carrier = undefined
        late = []
      }

      return {
        deliver,
        open: (onEnd) => {
          watch = {
            end: (error) => {
              lose()
              onEnd(error)
            },
            hurry: () => {
              const underWay = late
              lose()
              for (const { report } of underWay) arrive(report)
            }
          }
          stream.watches.add(watch)
        },
        close: () => {
          if (watch !== undefined) stream.watches.delete(watch)
          lose()
        },
        giveUp: () => endStream(stream, silent)
      }
    }

    const endStream = (stream: Stream, error: EtcdError) => {
      for (const [isOfLine, current] of streams) if (current === stream) streams.set(isOfLine, new Stream())
      const watches = [...stream.watches]
      stream.watches.clear()
      for (const { end } of watches) end(error)
    }

    const way: Way = {
      trouble: own,
      cut: () => {
        for (const call of calls) call.isCut = !call.hasArrived
        // What is sent or opened meanwhile is on the next connection.
        const [lost, ended] = [[...calls], [...streams.values()]]
        for (const { fail } of lost) fail()
        for (const stream of ended) endStream(stream, connectionLost("watch"))
      },
      silence: () => {
        for (const { reports } of streams.values()) reports.isShut = true
      },
      catchUp: () => {
        for (const { reports, watches } of streams.values()) {
          for (const { hurry } of watches) hurry()
          reports.open()
        }
      }
    }
    everyone.add(way)
    return { send, channel, faults: faultsOf(own, new Set([way])) }
  }

  /** The faults of some connections, which have their trouble in common. */
  const faultsOf = (trouble: Trouble, ways: ReadonlySet<Way>): ConnectionFaults => {
    return {
      drop: (what, matching) => Effect.sync(() => trouble.drop(what, matching?.method, matching?.times ?? 1)),
      delay: (duration) =>
        Effect.sync(() => {
          trouble.delay = millis(duration)
        }),
      delayWatches: (duration, options) =>
        Effect.sync(() => {
          const least = millis(duration)
          trouble.watchDelay = { least, most: options?.upTo === undefined ? least : millis(options.upTo) }
        }),
      silenceWatches: Effect.sync(() => {
        for (const way of ways) way.silence()
      }),
      cut: Effect.sync(() => cut(ways)),
      stall: Effect.sync(() => trouble.stall()),
      resume: Effect.sync(() => resume(trouble)),
      unreachable: Effect.sync(() => {
        trouble.isUnreachable = true
        cut(ways)
      }),
      reachable: Effect.sync(() => {
        trouble.isUnreachable = false
      }),
      heal: Effect.sync(() => {
        const troubles = new Set([...ways].map(({ trouble }) => trouble)).add(trouble)
        for (const trouble of troubles) trouble.clear()
        for (const way of ways) way.catchUp()
        for (const trouble of troubles) resume(trouble)
      })
    }
  }

  const cut = (ways: ReadonlySet<Way>) => {
    for (const way of ways) way.cut()
  }

  const resume = (trouble: Trouble) => {
    if (!trouble.requests.isShut) return
    trouble.answers.open()
    if (trouble === all) onResume()
    trouble.requests.open()
  }

  return { connect, faults: faultsOf(all, everyone), cut: () => cut(everyone), isStalled: () => all.requests.isShut }
})

/** Lets nothing through while it is shut, and then all that has come meanwhile, in order. */
class Gate {
  readonly #waiting: Array<() => void> = []
  isShut = false

  pass(go: () => void) {
    if (this.isShut) this.#waiting.push(go)
    else go()
  }

  open() {
    // What comes while it opens does not overtake.
    while (this.#waiting.length > 0) this.#waiting.shift()!()
    this.isShut = false
  }
}

/** What is wrong with one connection, or with all of them. Times are in milliseconds. */
class Trouble {
  readonly requests = new Gate()
  readonly answers = new Gate()
  #drops: Array<{ readonly what: Loss; readonly method: Method | undefined; left: number }> = []
  isUnreachable = false
  delay = 0
  watchDelay = { least: 0, most: 0 }

  drop(what: Loss, method: Method | undefined, times: number) {
    if (times > 0) this.#drops.push({ what, method, left: times })
  }

  takeLoss(method: Method): Loss | undefined {
    const drop = this.#drops.find((drop) => drop.method === undefined || drop.method === method)
    if (drop !== undefined && --drop.left <= 0) this.#drops = this.#drops.filter((other) => other !== drop)
    return drop?.what
  }

  stall() {
    this.requests.isShut = this.answers.isShut = true
  }

  /** Ends all but a stall, which ends after what is late has arrived. */
  clear() {
    this.#drops = []
    this.isUnreachable = false
    this.delay = 0
    this.watchDelay = { least: 0, most: 0 }
  }
}

/** What faults do to a connection. */
interface Way {
  readonly trouble: Trouble
  readonly cut: () => void
  readonly silence: () => void
  /** All that is late or held back arrives now. */
  readonly catchUp: () => void
}

interface Call {
  readonly fail: () => void
  hasArrived: boolean
  isCut: boolean
}

/** What the watches of a client come from. */
class Stream {
  readonly reports = new Gate()
  readonly watches = new Set<Watch>()
}

interface Watch {
  readonly end: (error: EtcdError) => void
  /** Lets what is on its way arrive at once. */
  readonly hurry: () => void
}

interface Event {
  /** On the monotonic clock, in milliseconds. */
  readonly dueAt: number
  readonly report: () => void
}

const millis = (duration: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(duration))

const timedOut = (method: Method) =>
  new EtcdError({
    reason: "Timeout",
    method,
    // A watch that is not confirmed is given up, even if etcd opened it.
    outcome: method === "watch" ? "Refused" : "Unknown",
    description: "no answer in time"
  })

const connectionLost = (method: Method) =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description: "the connection was cut" })

const refused = (method: Method) =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Refused", description: "No connection established" })

const silent = new EtcdError({
  reason: "Unavailable",
  method: "watch",
  outcome: "Unknown",
  description: "a watch was silent where it should have reported something"
})
