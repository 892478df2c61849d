/**
 * This library as a contender. Each section counts up twice, by reading, working and writing: through its handle, and
 * without any guard.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Deferred, Effect, Exit, Fiber, FiberSet, Redacted, Scope } from "effect"
import { Election, Etcd, Lock, ReadWriteLock, Semaphore, Session } from "effect-etcd-lock"
import { Lengths } from "../../../src/internal/line/line.ts"
import type { Claim, Counter, Outcome } from "../history.ts"
import { now } from "../now.ts"
import { cleanUp, keys, type Work } from "../protocol.ts"
import { type Dice, dice } from "../random.ts"
import { obey, report, task } from "./reporter.ts"

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

/** What a section does with one of its locks, which is reported as a section of its own. */
interface Part {
  readonly id: string
  readonly lock: string
}

const partsOf = ({ also = [], lock }: Work, section: string): ReadonlyArray<Part> => [
  { id: section, lock },
  ...also.map((lock, i) => ({ id: `${section}/${i + 1}`, lock }))
]

type Write = (
  then: ReadonlyArray<Etcd.Op>
) => Effect.Effect<{ readonly revision: bigint }, Lock.LockLost | Etcd.EtcdError>

const countUp = Effect.fnUntraced(
  function*(etcd: Service, { id: section, lock }: Part, counter: Counter, write: Write, millis: number) {
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

/** How long a body works, in milliseconds. */
const effortOf = ({ dice, work: { claim } }: Worker): number => {
  // While a small claim stays, larger ones that would fit beside it come and go.
  if (claim.kind === "permits" && claim.permits === 1 && dice.percent(4)) return dice.between(2500, 4000)
  return dice.percent(15) ? dice.between(300, 1500) : dice.between(0, 10)
}

/** The counter that a section writes through its handle. */
const counters: { readonly [K in Claim["kind"]]: Counter } = {
  lock: "fenced",
  election: "fenced",
  write: "fenced",
  read: "shared",
  permits: "shared"
}

const bodyOf = (worker: Worker, section: string) => {
  const { etcd, stop, work } = worker
  const parts = partsOf(work, section)
  const millis = effortOf(worker)
  return Effect.gen(function*() {
    const handle = yield* Lock.Current
    const handles = parts.length === 1 ? [handle] : (handle as Lock.HandleOfAll).locks
    parts.forEach(({ id }, i) => {
      const { createRevision, fencingToken, key, leaseId } = handles[i]!
      report({
        _tag: "Holds",
        section: id,
        token: String(fencingToken),
        createRevision: String(createRevision),
        key,
        lease: leaseId.toString(16)
      })
    })
    if ("proclaim" in handle) yield* (handle as Election.Leadership).proclaim(`${section} leads`)
    if (work.turns === "forever") return yield* Deferred.await(stop)
    for (const part of parts) {
      yield* countUp(etcd, part, counters[work.claim.kind], (then) => handle.txn({ then }), millis / parts.length)
    }
    yield* countUp(etcd, parts[0]!, "plain", (then) => etcd.txn({ then }), millis / 2)
  }).pipe(
    Effect.onInterrupt(() => Effect.sleep(work.how === "close" ? 10 * cleanUp : cleanUp)),
    Effect.onExit(() => Effect.sync(() => parts.forEach(({ id }) => report({ _tag: "Stopped", section: id }))))
  )
}

// -----------------------------------------------------------------------------
// the ways to hold a lock
// -----------------------------------------------------------------------------

type Failure = Semaphore.AcquireError | Lock.LockHeld | Semaphore.PermitsUnavailable

type Hold = Effect.Effect<void, Failure, Session.Session>

const timeoutOf = ({ dice, work: { turns } }: Worker): Pick<Lock.Options, "timeout"> => {
  if (turns === "forever") return {}
  return { timeout: dice.percent(10) ? dice.between(1, 500) : 6 * task.ttl * 1000 }
}

const inSection = (worker: Worker, section: string): Hold => {
  const { also, claim, layout, lock } = worker.work
  const options = timeoutOf(worker)
  const body = bodyOf(worker, section)
  switch (claim.kind) {
    case "lock": {
      if (also !== undefined) return Lock.withLocks(body, [lock, ...also], options)
      return Lock.withLock(body, lock, { layout, ...options })
    }
    case "election": {
      return Election.withLeadership(body, lock, { value: section, ...options })
    }
    case "read": {
      return ReadWriteLock.withReadLock(body, lock, options)
    }
    case "write": {
      return ReadWriteLock.withWriteLock(body, lock, options)
    }
    case "permits": {
      const { of, permits } = claim
      return Semaphore.withPermits(body, lock, { permits, of, ...options })
    }
  }
}

const ifFree = (worker: Worker, section: string): Hold => {
  const { also, claim, layout, lock } = worker.work
  const body = bodyOf(worker, section)
  switch (claim.kind) {
    case "lock": {
      if (also !== undefined) return Lock.tryWithLocks(body, [lock, ...also])
      return Lock.tryWithLock(body, lock, { layout })
    }
    case "election": {
      return Election.withLeadership(body, lock, { value: section, timeout: 0 })
    }
    case "read": {
      return ReadWriteLock.tryWithReadLock(body, lock)
    }
    case "write": {
      return ReadWriteLock.tryWithWriteLock(body, lock)
    }
    case "permits": {
      const { of, permits } = claim
      return Semaphore.tryWithPermits(body, lock, { permits, of })
    }
  }
}

const handleOf = (
  worker: Worker,
  section: string
): Effect.Effect<Lock.Handle, Semaphore.AcquireError, Session.Session | Scope.Scope> => {
  const { also, claim, layout, lock } = worker.work
  const options = timeoutOf(worker)
  switch (claim.kind) {
    case "lock": {
      if (also !== undefined) return Lock.acquireAll([lock, ...also], options)
      return Lock.acquire(lock, { layout, ...options })
    }
    case "election": {
      return Election.campaign(lock, { value: section, ...options })
    }
    case "read": {
      return ReadWriteLock.acquireRead(lock, options)
    }
    case "write": {
      return ReadWriteLock.acquireWrite(lock, options)
    }
    case "permits": {
      const { of, permits } = claim
      return Semaphore.acquire(lock, { permits, of, ...options })
    }
  }
}

const byHandle = (worker: Worker, section: string): Hold =>
  Effect.scoped(Effect.flatMap(handleOf(worker, section), (handle) => handle.whileHeld(bodyOf(worker, section))))

/** The session ends while the body runs, on a fiber that does not belong to it. */
const closing = Effect.fnUntraced(function*(worker: Worker, section: string) {
  const scope = yield* Scope.make()
  const session = yield* Session.make({ ttl }).pipe(Scope.provide(scope))
  const running = yield* Effect.forkDetach(
    Effect.provideService(byHandle(worker, section), Session.Session, session),
    { startImmediately: true }
  )
  yield* Effect.timeoutOption(Fiber.await(running), worker.dice.between(100, 1500))
  yield* Scope.close(scope, Exit.void)
  return yield* Fiber.join(running)
})

/** What goes on as a reader is reported as a section of its own. */
const downgrading = Effect.fnUntraced(function*(worker: Worker, section: string) {
  const { work, work: { lock } } = worker
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  const writing = Effect.gen(function*() {
    const options = { downgradable: true, ...timeoutOf(worker) } as const
    const handle = yield* Scope.provide(ReadWriteLock.acquireWrite(lock, options), scope)
    yield* handle.whileHeld(bodyOf(worker, section))
    return yield* handle.downgrade
  })
  const handle = yield* reported(worker.work, section, Effect.onError(writing, () => close))
  const reader: Worker = { ...worker, work: { ...work, claim: { kind: "read" } } }
  const id = `${section}/reader`
  yield* reported(reader.work, id, Effect.ensuring(handle.whileHeld(bodyOf(reader, id)), close), section)
})

const turn = (worker: Worker, section: string): Effect.Effect<void, Failure, Etcd.Etcd | Session.Session> => {
  switch (worker.work.how) {
    case "section": {
      return reported(worker.work, section, inSection(worker, section))
    }
    case "try": {
      return reported(worker.work, section, ifFree(worker, section))
    }
    case "handle": {
      return reported(worker.work, section, byHandle(worker, section))
    }
    case "close": {
      return reported(worker.work, section, closing(worker, section))
    }
    case "downgrade": {
      return downgrading(worker, section)
    }
  }
}

/** Reports that a section is asked for, and how it ended. */
const reported = <A, E, R>(
  work: Work,
  section: string,
  self: Effect.Effect<A, E, R>,
  downgrades?: string
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const parts = partsOf(work, section)
    for (const { id, lock } of parts) report({ _tag: "Wants", section: id, lock, claim: work.claim, downgrades })
    return Effect.onExit(self, (exit) =>
      Effect.sync(() => {
        for (const { id } of parts) {
          report({ _tag: "Ended", section: id, error: errorOf(exit), released: Exit.isSuccess(exit) })
        }
      }))
  })

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
    const exit = yield* Effect.exit(turn(worker, section))
    if (work.turns === "forever") return
    // An etcd that cannot be reached may refuse at once.
    yield* Effect.sleep(Exit.isSuccess(exit) ? dice.between(0, 60) : 200)
  }
})

/** So many more wait for a lock, each in a session of its own, and leave after their turn. */
const crowd = Effect.fnUntraced(
  function*(worker: Pick<Worker, "etcd" | "stop">, count: number, lock: string, n: number) {
    const works = task.workers.filter((work) => work.lock === lock && work.turns === "short")
    if (works.length === 0) return
    yield* Effect.forEach(Array.from({ length: count }), (_, i) => {
      const work: Work = { ...works[i % works.length]!, how: "handle" }
      const section = `${task.name}/crowd-${n}/${i}`
      const own = turn({ ...worker, work, dice: dice(task.seed * 1000 + 100 * n + i) }, section)
      return Effect.scoped(Effect.exit(Effect.provideServiceEffect(own, Session.Session, Session.make({ ttl }))))
    }, { concurrency: "unbounded", discard: true })
  }
)

// -----------------------------------------------------------------------------
// the process
// -----------------------------------------------------------------------------

/** Reports what etcd says of the leases: whether it keeps its word is not for the lock to answer for. */
const observed = (etcd: Service): Service => {
  const tell = (id: bigint, what: "alive" | "gone" | "revoking", sent: number) =>
    Effect.sync(() => report({ _tag: "Lease", lease: id.toString(16), what, sent }))
  const answered = <A>(
    id: bigint,
    request: Effect.Effect<A, Etcd.EtcdError>,
    isAlive: (answer: A) => boolean
  ) =>
    Effect.suspend(() => {
      const sent = now()
      return Effect.tap(request, (answer) => tell(id, isAlive(answer) ? "alive" : "gone", sent))
    })
  return Etcd.Etcd.of({
    ...etcd,
    leaseGrant: (id, seconds) => answered(id, etcd.leaseGrant(id, seconds), () => true),
    leaseKeepAlive: (id, timeout) => answered(id, etcd.leaseKeepAlive(id, timeout), ({ ttl }) => ttl > 0),
    // That it finds no lease may be what ends the section's wait, before a renewal finds none.
    leaseRevoke: (id) =>
      Effect.tapError(
        Effect.andThen(Effect.suspend(() => tell(id, "revoking", now())), etcd.leaseRevoke(id)),
        ({ reason }) => reason === "LeaseNotFound" ? tell(id, "gone", now()) : Effect.void
      ),
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
  const crowds = yield* FiberSet.make()
  const start = yield* FiberSet.runtime(crowds)<Etcd.Etcd>()
  let gathered = 0
  obey(
    () => Deferred.doneUnsafe(stop, Exit.void),
    (count, lock) => void start(crowd({ etcd, stop }, count, lock, ++gathered))
  )
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
  yield* FiberSet.awaitEmpty(crowds)
})

const lengths = (short: number) =>
  Effect.provideService(Lengths, { short, long: 2 * short, longest: Math.max(2 * short, 4) })

const user = task.auth && { username: task.auth.username, password: Redacted.make(task.auth.password) }

program.pipe(
  task.shortLine === undefined ? (self) => self : lengths(task.shortLine),
  Effect.updateService(Etcd.Etcd, observed),
  Effect.scoped,
  Effect.provide(Etcd.layer({ hosts: task.hosts, ...user, requestTimeout: `${Math.min(task.ttl, 5)} seconds` })),
  NodeRuntime.runMain
)
