import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { WatchEvent, WatchOptions } from "../../Etcd.ts"
import type { EtcdError } from "../../EtcdError.ts"
import type { Source, Subscriber } from "../etcd/subscriber.ts"
import { bigint, decodeKeyValue, rangeBounds } from "./codec.ts"
import { toEtcdError } from "./errors.ts"
import { type Members, withFreshToken } from "./members.ts"
import { EventType, FilterType } from "./packages.ts"
import * as Rpc from "./rpc.ts"
import { ended, open, shared, timedOut } from "./stream.ts"

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

interface Creating {
  readonly id: number
  readonly subscriber: Subscriber
  /** Undefined once no caller waits for it any more. */
  resume: ((answer: Effect.Effect<bigint, EtcdError>) => void) | undefined
}

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  // Etcd confirms watches in the order in which they were asked for. A refused one comes without its ID.
  const creating: Array<Creating> = []
  const watching = new Map<number, Subscriber>()
  let hold: Scope.Closeable | undefined
  let lastId = 0
  let over: EtcdError | undefined
  // A stream keeps the token that it was opened with. When etcd refuses a new watch because of it, those that are open
  // go on.
  let tokenRefused = false

  const onData = (response: Rpc.WatchResponse) => {
    if (response.created) {
      const created = creating.shift()
      if (created === undefined) return
      if (response.canceled) {
        const error = cancelled(response.cancel_reason)
        if (members.isTokenRefused(error)) {
          tokenRefused = true
          members.failed(member, error)
        }
        created.resume?.(Effect.fail(error))
      } else {
        const { id, resume, subscriber } = created
        if (subscriber.isClosed) {
          cancelById(id)
        } else {
          subscriber.id = id
          subscriber.source = source
          watching.set(id, subscriber)
        }
        resume?.(Effect.succeed(bigint(response.header.revision)))
      }
      return
    }
    const subscriber = watching.get(response.watch_id.low)
    if (subscriber === undefined) return
    if (response.canceled) {
      forget(subscriber)
      subscriber.end(cancelled(response.cancel_reason))
    } else if (response.events.length > 0) {
      subscriber.publish(response.events.map(decodeEvent))
    }
  }

  const onOver = (error: EtcdError) => {
    over = error
    members.failed(member, error)
    // What another watch reported may have been too large to receive, which says nothing about those that are to come.
    const failure = error.reason === "InvalidArgument" ? ended(method) : error
    for (const { resume } of creating) resume?.(Effect.fail(failure))
    for (const subscriber of watching.values()) {
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

  const cancelById = (id: number) => {
    if (!over) stream.write({ cancel_request: { watch_id: { low: id, high: 0 } } })
  }

  const source: Source = {
    cancel: (subscriber) => {
      forget(subscriber)
      cancelById(subscriber.id)
    }
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

  const create = (options: WatchOptions, subscriber: Subscriber): Effect.Effect<bigint, EtcdError> =>
    Effect.callback<bigint, EtcdError>((resume) => {
      if (over) return resume(Effect.fail(over))
      const id = ++lastId
      const entry: Creating = { id, subscriber, resume }
      creating.push(entry)
      stream.write({
        create_request: {
          ...rangeBounds(options),
          watch_id: { low: id, high: 0 },
          filters: options.only === undefined ? [] : [options.only === "Put" ? FilterType.Nodelete : FilterType.Noput]
        }
      })
      return Effect.sync(() => {
        entry.resume = undefined
      })
    })

  const watch = (options: WatchOptions, timeout: number, subscriber: Subscriber): Effect.Effect<bigint, EtcdError> =>
    create(options, subscriber).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.suspend(() => {
            const error = timedOut(method)
            stream.abandon(error)
            return Effect.fail(error)
          })
      }),
      Effect.catch(members.explain(member, options))
    )

  return { watch, keep, isOver: () => over !== undefined || tokenRefused }
})
