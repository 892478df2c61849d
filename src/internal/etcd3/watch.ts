import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { EventType, FilterType } from "etcd3"
import type { Watch, WatchEvent, WatchOptions } from "../../Etcd.ts"
import type { EtcdError } from "../etcdError.ts"
import { bigint, decodeKeyValue, rangeBounds } from "./codec.ts"
import { toEtcdError } from "./errors.ts"
import type { Members } from "./members.ts"
import * as Rpc from "./rpc.ts"
import { ended, open, shared, timedOut } from "./stream.ts"

const method = "watch"

/** Watches over one stream that all of them share. */
export const make = Effect.fnUntraced(function*(members: Members) {
  const use = yield* shared(method, openStream(members))
  return (options: WatchOptions, timeout: number): Effect.Effect<Watch, EtcdError, Scope.Scope> =>
    use(timeout, (stream, left) => stream.watch(options, left))
})

const addFinalizer = (finalizer: Effect.Effect<void>) =>
  Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, finalizer))

// "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
const cancelled = (reason: string): EtcdError =>
  reason === "" ? ended(method) : toEtcdError(method, new Error(reason.replace(/^rpc error: code = \w+ desc = /, "")))

const decodeEvent = ({ kv, type }: Rpc.WatchResponse["events"][number]): WatchEvent => ({
  _tag: type === EventType.Put ? "Put" : "Delete",
  kv: decodeKeyValue(kv)
})

type Batch = Exit.Exit<ReadonlyArray<WatchEvent>, EtcdError>

/** What came of a watch and was not taken yet. A queue of Effect's would cost each of thousands of watches 2 KB. */
class Inbox {
  readonly #batches: Array<Batch> = []
  #over: Batch | undefined
  #resume: ((batch: Batch) => void) | undefined

  offer(events: ReadonlyArray<WatchEvent>) {
    this.#batches.push(Exit.succeed(events))
    this.#deliver()
  }

  fail(error: EtcdError) {
    this.#over ??= Exit.fail(error)
    this.#deliver()
  }

  #deliver() {
    const resume = this.#resume
    const batch = resume === undefined ? undefined : this.#batches.shift() ?? this.#over
    if (resume === undefined || batch === undefined) return
    this.#resume = undefined
    resume(batch)
  }

  readonly take: Watch["next"] = Effect.callback((resume) => {
    this.#resume = resume
    this.#deliver()
    return Effect.sync(() => {
      this.#resume = undefined
    })
  })
}

interface Creating {
  readonly id: number
  readonly events: Inbox
  /** Undefined once nobody waits for it any more. */
  resume: ((answer: Effect.Effect<bigint, EtcdError>) => void) | undefined
}

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  // etcd confirms watches in the order in which they were asked for; a refused one comes without its ID
  const creating: Array<Creating> = []
  const watching = new Map<number, Inbox>()
  let lastId = 0
  let over: EtcdError | undefined
  let tokenExpired = false

  const onData = (response: Rpc.WatchResponse) => {
    if (response.created) {
      const created = creating.shift()
      if (created === undefined) return
      if (response.canceled) {
        const error = cancelled(response.cancel_reason)
        // a stream keeps the token it was opened with: no new watch can come of this one
        if (error.isTransient) tokenExpired = true
        created.resume?.(Effect.fail(error))
      } else if (created.resume === undefined) {
        cancel(created.id)
      } else {
        watching.set(created.id, created.events)
        created.resume(Effect.succeed(bigint(response.header.revision)))
      }
      return
    }
    const id = response.watch_id.low
    const events = watching.get(id)
    if (events === undefined) return
    if (response.canceled) {
      watching.delete(id)
      events.fail(cancelled(response.cancel_reason))
    } else if (response.events.length > 0) {
      events.offer(response.events.map(decodeEvent))
    }
  }

  const onOver = (error: EtcdError) => {
    over = error
    members.failed(member)
    for (const { resume } of creating) resume?.(Effect.fail(error))
    for (const events of watching.values()) events.fail(error)
  }

  const stream = yield* open<Rpc.WatchRequest, Rpc.WatchResponse>({
    method,
    connect: (options) => member.open(Rpc.watch, options),
    onData,
    onOver
  })

  const cancel = (id: number) => {
    watching.delete(id)
    if (!over) stream.write({ cancel_request: { watch_id: { low: id, high: 0 } } })
  }

  const create = (options: WatchOptions, id: number, events: Inbox): Effect.Effect<bigint, EtcdError> =>
    Effect.callback<bigint, EtcdError>((resume) => {
      if (over) return resume(Effect.fail(over))
      const entry: Creating = { id, events, resume }
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

  const closing = (id: number) => Effect.sync(() => cancel(id))

  const watch = (options: WatchOptions, timeout: number): Effect.Effect<Watch, EtcdError, Scope.Scope> => {
    const id = ++lastId
    const events = new Inbox()
    // not `acquireRelease`, whose finalizer keeps half a kilobyte of how it was acquired
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        restore(create(options, id, events)),
        (revision) => Effect.as(addFinalizer(closing(id)), { revision, next: events.take })
      )
    ).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.suspend(() => {
            const error = timedOut(method)
            stream.abandon(error)
            return Effect.fail(error)
          })
      }),
      Effect.tapError(() =>
        tokenExpired ? Effect.promise(() => member.renewToken({ deadline: Date.now() + timeout })) : Effect.void
      ),
      Effect.catch(members.explain(member))
    )
  }

  return { watch, isOver: () => over !== undefined || tokenExpired }
})
