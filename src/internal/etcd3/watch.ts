import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { WatchEvent, WatchOptions } from "../../Etcd.ts"
import { EtcdError } from "../../EtcdError.ts"
import { isEndOfKeys } from "../etcd/bytes.ts"
import type { Source, Subscriber } from "../etcd/subscriber.ts"
import { bigint, decodeKeyValue, rangeBounds } from "./codec.ts"
import { toEtcdError } from "./errors.ts"
import { type Members, withFreshToken } from "./members.ts"
import { EventType, FilterType } from "./packages.ts"
import * as Rpc from "./rpc.ts"
import { ended, moved, open, shared, timedOut } from "./stream.ts"

const method = "watch"

/** Watches over one stream that all of them share. */
export const make = Effect.fnUntraced(function*(members: Members) {
  const use = yield* shared(method, openStream(members))
  const attempt = (options: WatchOptions, timeout: number, subscriber: Subscriber): Effect.Effect<bigint, EtcdError> =>
    Effect.uninterruptibleMask((restore) => {
      // What keeps the stream open: the scope of the first of all who watch.
      const hold = Scope.makeUnsafe()
      const watching = use(
        timeout,
        (stream, left) => Effect.map(stream.watch(options, left, subscriber), (revision) => ({ stream, revision }))
      )
      return Effect.flatMap(
        Effect.exit(restore(Scope.provide(watching, hold))),
        (exit) =>
          Exit.isSuccess(exit) && exit.value.stream.keep(hold)
            ? Effect.succeed(exit.value.revision)
            : Effect.andThen(Scope.close(hold, exit), Exit.map(exit, ({ revision }) => revision))
      )
    })
  return (options: WatchOptions, timeout: number, subscriber: Subscriber): Effect.Effect<bigint, EtcdError> =>
    withFreshToken(members, timeout, (timeout) => attempt(options, timeout, subscriber))
})

// "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
const cancelled = (reason: string): EtcdError =>
  reason === "" ? ended(method) : toEtcdError(method, new Error(reason.replace(/^rpc error: code = \w+ desc = /, "")))

const decodeEvent = ({ kv, type }: Rpc.WatchResponse["events"][number]): WatchEvent => ({
  _tag: type === EventType.Put ? "Put" : "Delete",
  kv: decodeKeyValue(kv)
})

/** What a stream ends with that brings what was not asked for: nothing that it brings can be believed then. */
const misfit = (description: string): EtcdError =>
  new EtcdError({ reason: "Unavailable", method, outcome: "Unknown", description })

interface Watching {
  readonly options: WatchOptions
  readonly subscriber: Subscriber
}

interface Creating extends Watching {
  /** Undefined once no caller waits for it any more. */
  resume: ((answer: Effect.Effect<bigint, EtcdError>) => void) | undefined
}

const isAskedFor = ({ key, only, rangeEnd }: WatchOptions, { _tag, kv }: WatchEvent): boolean => {
  if (only !== undefined && _tag !== only) return false
  const order = Buffer.compare(kv.key, key)
  return rangeEnd === undefined || rangeEnd.length === 0
    ? order === 0
    : order >= 0 && (isEndOfKeys(rangeEnd) || Buffer.compare(kv.key, rangeEnd) < 0)
}

// Far above the numbers that a server gives by itself, which begin at 0: none of them is taken for one that we asked for.
const firstNumber = 2 ** 20

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  // A watch has the number that its confirmation names. Etcd takes the number that we ask for, so that many watches can be
  // asked for at once. Its gRPC proxy gives numbers of its own, and confirms in any order: then only one is asked for at a
  // time, and so is the first one of each stream, which shows what the server does. A refusal has no number. It belongs to
  // the oldest, since etcd itself answers in order.
  const queued = new Set<Creating>()
  const asked = new Map<number, Creating>()
  let takesOurNumbers = false
  let answers = 0
  const watching = new Map<number, Watching>()
  let hold: Scope.Closeable | undefined
  let nextNumber = firstNumber
  let over: EtcdError | undefined
  // A stream keeps the token that it was opened with. When etcd refuses a new watch because of it, those that are open
  // go on.
  let tokenRefused = false

  const onData = (response: Rpc.WatchResponse): EtcdError | undefined => {
    if (response.created) return onCreated(response)
    const found = watching.get(response.watch_id.low)
    // A watch that was closed goes on until etcd has heard of it.
    if (found === undefined) return undefined
    const { options, subscriber } = found
    const events = response.events.map(decodeEvent)
    if (response.fragment || !events.every((event) => isAskedFor(options, event))) {
      return misfit("etcd reported to a watch what it had not asked for")
    }
    if (response.canceled || bigint(response.compact_revision) > 0n) {
      forget(subscriber)
      subscriber.end(cancelled(response.cancel_reason))
    } else if (events.length > 0) {
      subscriber.publish(events)
    }
    return undefined
  }

  const onCreated = (response: Rpc.WatchResponse): EtcdError | undefined => {
    const number = response.watch_id.low
    const [oldest] = asked.keys()
    const name = response.canceled || !takesOurNumbers ? oldest : number
    const created = name === undefined ? undefined : asked.get(name)
    if (name === undefined || created === undefined || watching.has(number)) {
      return misfit("etcd confirmed a watch that was not asked for")
    }
    // It says from when on the watch reports.
    if (response.header === null) return misfit("etcd confirmed a watch without a header")
    answers++
    asked.delete(name)
    const { options, resume, subscriber } = created
    if (response.canceled) {
      const error = cancelled(response.cancel_reason)
      if (members.isTokenRefused(error)) {
        tokenRefused = true
        members.failed(member, error)
      }
      resume?.(Effect.fail(error))
    } else {
      if (name === number) takesOurNumbers = true
      if (subscriber.isClosed) {
        cancelById(number)
      } else {
        subscriber.id = number
        subscriber.source = source
        watching.set(number, { options, subscriber })
      }
      resume?.(Effect.succeed(bigint(response.header.revision)))
    }
    askNext()
    return undefined
  }

  const onOver = (error: EtcdError) => {
    over = error
    members.failed(member, error)
    // What another watch reported may have been too large to receive, which says nothing about those that are to come.
    const failure = error.reason === "InvalidArgument" ? ended(method) : error
    for (const { resume } of [...asked.values(), ...queued]) resume?.(Effect.fail(failure))
    for (const { subscriber } of watching.values()) {
      forget(subscriber)
      subscriber.end(error)
    }
  }

  const stream = yield* open<Rpc.WatchRequest, Rpc.WatchResponse>({
    method,
    connect: (options) => member.open(Rpc.watch, options),
    onData,
    onOver
  }).pipe(Effect.catch(members.explain(member)))
  yield* members.onMove(member, () => stream.abandon(moved(method)))

  const cancelById = (id: number) => {
    if (!over) stream.write({ cancel_request: { watch_id: { low: id, high: 0 } } })
  }

  const source: Source = {
    cancel: (subscriber) => {
      forget(subscriber)
      cancelById(subscriber.id)
    },
    giveUp: () => stream.abandon(misfit("a watch was silent where it should have reported something"))
  }

  const forget = (subscriber: Subscriber) => {
    watching.delete(subscriber.id)
    if (watching.size > 0 || hold === undefined) return
    fork(Scope.close(hold, Exit.void))
    hold = undefined
  }

  /** Returns whether it will close the scope, which it does after the last watch. */
  const keep = (scope: Scope.Closeable): boolean => {
    if (hold !== undefined || watching.size === 0) return false
    hold = scope
    return true
  }

  const askNext = () => {
    for (const creating of queued) {
      if (over || (asked.size > 0 && !takesOurNumbers)) return
      queued.delete(creating)
      ask(creating)
    }
  }

  const ask = (creating: Creating) => {
    const { key, only, rangeEnd } = creating.options
    const number = nextNumber++
    asked.set(number, creating)
    stream.write({
      create_request: {
        ...rangeBounds({ key, rangeEnd }),
        watch_id: { low: number, high: 0 },
        filters: only === undefined ? [] : [only === "Put" ? FilterType.Nodelete : FilterType.Noput]
      }
    })
  }

  const watch = (options: WatchOptions, timeout: number, subscriber: Subscriber): Effect.Effect<bigint, EtcdError> =>
    Effect.suspend(() => {
      const creating: Creating = { options, subscriber, resume: undefined }
      const answersBefore = answers
      const created = Effect.callback<bigint, EtcdError>((resume) => {
        if (over) return resume(Effect.fail(over))
        creating.resume = resume
        queued.add(creating)
        askNext()
        return Effect.sync(() => {
          queued.delete(creating)
          creating.resume = undefined
        })
      })
      return Effect.timeoutOrElse(created, {
        duration: timeout,
        orElse: () =>
          Effect.suspend(() => {
            const error = timedOut(method)
            // Where one is asked for at a time, it may only have waited for others.
            if (takesOurNumbers || answers === answersBefore) stream.abandon(error)
            return Effect.fail(error)
          })
      })
    }).pipe(Effect.catch(members.explain(member, options)))

  return { watch, keep, isOver: () => over !== undefined || tokenRefused }
})
