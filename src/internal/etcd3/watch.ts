import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { IWatchRequest, IWatchResponse } from "etcd3"
import type { Watch, WatchEvent, WatchOptions } from "../../Etcd.ts"
import type { EtcdError } from "../etcdError.ts"
import { buffer, decodeKeyValue, rangeBounds } from "./codec.ts"
import { toEtcdError } from "./errors.ts"
import type { Members } from "./members.ts"
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
  readonly id: string
  readonly events: Inbox
  /** Undefined once nobody waits for it any more. */
  resume: ((answer: Effect.Effect<bigint, EtcdError>) => void) | undefined
}

const openStream = Effect.fnUntraced(function*(members: Members) {
  const member = members.current()
  // etcd confirms watches in the order in which they were asked for; a refused one comes without its ID
  const creating: Array<Creating> = []
  const watching = new Map<string, Inbox>()
  let lastId = 0
  let over: EtcdError | undefined
  let tokenExpired = false

  const onData = (response: IWatchResponse) => {
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
        created.resume(Effect.succeed(BigInt(response.header.revision)))
      }
      return
    }
    const events = watching.get(response.watch_id)
    if (events === undefined) return
    if (response.canceled) {
      watching.delete(response.watch_id)
      events.fail(cancelled(response.cancel_reason))
    } else if (response.events.length > 0) {
      events.offer(response.events.map((event) => ({ _tag: event.type, kv: decodeKeyValue(event.kv) })))
    }
  }

  const onOver = (error: EtcdError) => {
    over = error
    members.failed(member)
    for (const { resume } of creating) resume?.(Effect.fail(error))
    for (const events of watching.values()) events.fail(error)
  }

  const stream = yield* open<IWatchRequest, IWatchResponse>({
    method,
    connect: (options) => member.watchClient.watch(options),
    onData,
    onOver
  })

  const cancel = (id: string) => {
    watching.delete(id)
    if (!over) stream.write({ cancel_request: { watch_id: id } })
  }

  const create = (options: WatchOptions, id: string, events: Inbox): Effect.Effect<bigint, EtcdError> =>
    Effect.callback<bigint, EtcdError>((resume) => {
      if (over) return resume(Effect.fail(over))
      const entry: Creating = { id, events, resume }
      creating.push(entry)
      stream.write({
        create_request: {
          ...rangeBounds(options),
          watch_id: id,
          ...(options.only === undefined ? undefined : { filters: [options.only === "Put" ? "Nodelete" : "Noput"] })
        }
      })
      return Effect.sync(() => {
        entry.resume = undefined
      })
    })

  const closing = (id: string) => Effect.sync(() => cancel(id))

  const watch = (options: WatchOptions, timeout: number): Effect.Effect<Watch, EtcdError, Scope.Scope> => {
    const id = String(++lastId)
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
      // a call of the other kind is what makes the client fetch a new token
      Effect.tapError(() =>
        tokenExpired
          ? Effect.ignore(Effect.tryPromise(() =>
            member.kv.range({ key: buffer(options.key), limit: 1 }, { deadline: Date.now() + timeout })
          ))
          : Effect.void
      ),
      Effect.catch(members.explain(member))
    )
  }

  return { watch, isOver: () => over !== undefined || tokenExpired }
})
