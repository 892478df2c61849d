/**
 * This library as a contender. Each section counts up twice, by reading, working and writing: through its handle where it
 * has one, and without any guard.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Deferred, Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import type { Counter, Outcome } from "../history.ts"
import { cleanUp, keys, type Work } from "../protocol.ts"
import { type Dice, dice } from "../random.ts"
import { now, obey, report, task } from "./reporter.ts"

type Service = Etcd.Etcd["Service"]

const ttl = `${task.ttl} seconds` as const

/** One worker in its loop. */
interface Worker {
  readonly work: Work
  readonly etcd: Service
  readonly dice: Dice
  readonly stop: Deferred.Deferred<void>
}

// -----------------------------------------------------------------------------
// the body
// -----------------------------------------------------------------------------

const outcomeOf = (exit: Exit.Exit<unknown, Lock.LockLost | Etcd.EtcdError>): Outcome => {
  if (Exit.isSuccess(exit)) return "Applied"
  const [reason] = exit.cause.reasons
  if (reason?._tag !== "Fail") return "Unknown"
  return reason.error._tag === "LockLost" ? "Refused" : reason.error.outcome
}

type Write = (
  then: ReadonlyArray<Etcd.Op>
) => Effect.Effect<{ readonly revision: bigint }, Lock.LockLost | Etcd.EtcdError>

const countUp = Effect.fnUntraced(
  function*(worker: Worker, section: string, counter: Counter, write: Write, millis: number) {
    const { etcd, work: { lock } } = worker
    const key = keys.counter(counter, lock)
    const { kvs: [kv] } = yield* etcd.range(Etcd.get(key))
    const count = kv === undefined ? 0 : Number(Buffer.from(kv.value).toString())
    yield* Effect.sleep(millis)
    const mark = keys.marks(counter, lock) + section
    // It says so before the request is sent as well: the process may never learn of the answer.
    report({ _tag: "Wrote", section, counter, mark, outcome: "Unknown" })
    yield* write([Etcd.put(key, String(count + 1)), Etcd.put(mark, "")]).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          const revision = Exit.isSuccess(exit) ? String(exit.value.revision) : undefined
          report({ _tag: "Wrote", section, counter, mark, outcome: outcomeOf(exit), revision })
        })
      )
    )
  }
)

const bodyOf = (worker: Worker, section: string, handle: Lock.Handle | undefined) => {
  const { dice, etcd, stop, work } = worker
  const millis = dice.percent(15) ? dice.between(300, 1500) : dice.between(0, 10)
  const count = Effect.gen(function*() {
    if (handle !== undefined) yield* countUp(worker, section, "fenced", (then) => handle.txn({ then }), millis)
    yield* countUp(worker, section, "plain", (then) => etcd.txn({ then }), millis / 2)
  })
  return Effect.suspend(() => {
    report({
      _tag: "Holds",
      section,
      ...handle !== undefined && {
        token: String(handle.fencingToken),
        createRevision: String(handle.createRevision),
        key: handle.key,
        lease: handle.leaseId.toString(16)
      }
    })
    return work.turns === "forever" ? Deferred.await(stop) : count
  }).pipe(
    Effect.onInterrupt(() => Effect.sleep(work.how === "close" ? 10 * cleanUp : cleanUp)),
    Effect.onExit(() => Effect.sync(() => report({ _tag: "Stopped", section })))
  )
}

// -----------------------------------------------------------------------------
// the ways to hold a lock
// -----------------------------------------------------------------------------

const optionsOf = ({ dice, work: { layout, turns } }: Worker): Lock.Options => {
  if (turns === "forever") return { layout }
  return { layout, timeout: dice.percent(10) ? dice.between(1, 500) : 6 * task.ttl * 1000 }
}

const acquired = (worker: Worker, section: string) =>
  Effect.scoped(Effect.flatMap(
    Lock.acquire(worker.work.lock, optionsOf(worker)),
    (handle) => handle.whileHeld(bodyOf(worker, section, handle))
  ))

/** The session ends while the body runs, on a fiber that does not belong to it. */
const closing = Effect.fnUntraced(function*(worker: Worker, section: string) {
  const scope = yield* Scope.make()
  const session = yield* Session.make({ ttl }).pipe(Scope.provide(scope))
  const running = yield* Effect.forkDetach(
    Effect.provideService(acquired(worker, section), Session.Session, session),
    { startImmediately: true }
  )
  yield* Effect.timeoutOption(Fiber.await(running), worker.dice.between(100, 1500))
  yield* Scope.close(scope, Exit.void)
  return yield* Fiber.join(running)
})

const turn = (
  worker: Worker,
  section: string
): Effect.Effect<void, Lock.AcquireError, Etcd.Etcd | Session.Session> => {
  switch (worker.work.how) {
    case "withLock": {
      return Lock.withLock(bodyOf(worker, section, undefined), worker.work.lock, optionsOf(worker))
    }
    case "acquire": {
      return acquired(worker, section)
    }
    case "close": {
      return closing(worker, section)
    }
  }
}

const errorOf = (exit: Exit.Exit<unknown, unknown>): string | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  return exit.cause.reasons.map((reason) => {
    if (reason._tag === "Fail") {
      const error = reason.error as { readonly _tag: string; readonly reason?: string; readonly message: string }
      return [error._tag, error.reason, error._tag === "EtcdError" ? error.message : undefined].filter(Boolean).join(
        " "
      )
    }
    return reason._tag === "Die" ? `Die ${String(reason.defect)}` : "Interrupt"
  }).join(", ")
}

const loop = Effect.fnUntraced(function*(worker: Worker, index: number) {
  const { dice, stop, work } = worker
  for (let n = 0; !(yield* Deferred.isDone(stop)); n++) {
    const section = `${task.name}/${index}/${n}`
    report({ _tag: "Wants", section, lock: work.lock })
    const exit = yield* Effect.exit(turn(worker, section))
    report({ _tag: "Ended", section, error: errorOf(exit), released: Exit.isSuccess(exit) })
    if (work.turns === "forever") return
    // An etcd that cannot be reached may refuse at once.
    yield* Effect.sleep(Exit.isSuccess(exit) ? dice.between(0, 60) : 200)
  }
})

// -----------------------------------------------------------------------------
// the process
// -----------------------------------------------------------------------------

/** Reports what etcd says of the leases: whether it keeps its word is not for the lock to answer for. */
const observed = (etcd: Service): Service => {
  const tell = (id: bigint, what: "alive" | "gone" | "revoking", sent: number) =>
    Effect.sync(() => report({ _tag: "Lease", lease: id.toString(16), what, sent }))
  const answered = (id: bigint, request: Effect.Effect<number, Etcd.EtcdError>) =>
    Effect.suspend(() => {
      const sent = now()
      return Effect.tap(request, (seconds) => tell(id, seconds > 0 ? "alive" : "gone", sent))
    })
  return Etcd.Etcd.of({
    ...etcd,
    leaseGrant: (id, seconds) => answered(id, etcd.leaseGrant(id, seconds)),
    leaseKeepAlive: (id, timeout) => answered(id, etcd.leaseKeepAlive(id, timeout)),
    leaseRevoke: (id) => Effect.andThen(Effect.suspend(() => tell(id, "revoking", now())), etcd.leaseRevoke(id)),
    txn: (request) =>
      Effect.tapError(
        etcd.txn(request),
        ({ reason }) =>
          reason === "LeaseNotFound"
            ? Effect.forEach(leasesOf(request.then), (id) => tell(id, "gone", now()))
            : Effect.void
      )
  })
}

const leasesOf = (ops: ReadonlyArray<Etcd.Op>): ReadonlyArray<bigint> =>
  ops.flatMap((op) => {
    if (op._tag === "Txn") return leasesOf([...op.then, ...op.else])
    return op._tag === "Put" && op.lease !== undefined ? [op.lease] : []
  })

const program = Effect.gen(function*() {
  const etcd = yield* Etcd.Etcd
  const stop = yield* Deferred.make<void>()
  const numbers = [...new Set(task.workers.map(({ session }) => session))]
  const sessions = new Map<number, Session.Session["Service"]>()
  for (const number of numbers) sessions.set(number, yield* Session.make({ ttl }))
  obey(() => Deferred.doneUnsafe(stop, Exit.void))
  yield* Effect.forEach(
    task.workers,
    (work, i) =>
      Effect.provideService(
        loop({ work, etcd, dice: dice(task.seed * 1000 + i), stop }, i),
        Session.Session,
        sessions.get(work.session)!
      ),
    { concurrency: "unbounded", discard: true }
  )
})

const auth = task.auth && { username: task.auth.username, password: Redacted.make(task.auth.password) }

program.pipe(
  Effect.updateService(Etcd.Etcd, observed),
  Effect.scoped,
  Effect.provide(Etcd.layer({ hosts: task.hosts, auth, requestTimeout: `${Math.min(task.ttl, 5)} seconds` })),
  NodeRuntime.runMain
)
