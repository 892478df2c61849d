/** The recipes under one face, so that one test is of all of them. */
import { Effect, type Option, type Scope } from "effect"
import { Election, Lock, ReadWriteLock, Semaphore, type Session } from "effect-etcd-lock"

export type Options = ReadWriteLock.Options
export type TryOptions = ReadWriteLock.TryOptions

type Error = Semaphore.AcquireError
type TryError = Exclude<Error, Lock.LockTimeout> | Lock.LockHeld | Semaphore.PermitsUnavailable

export interface Recipe {
  readonly withLock: <A, E>(
    self: Effect.Effect<A, E, Lock.Current>,
    name: string,
    options?: Options
  ) => Effect.Effect<A, E | Error, Session.Session>
  readonly tryWithLock: <A, E>(
    self: Effect.Effect<A, E, Lock.Current>,
    name: string,
    options?: TryOptions
  ) => Effect.Effect<A, E | TryError, Session.Session>
  readonly withLockIfAvailable: <A, E>(
    self: Effect.Effect<A, E, Lock.Current>,
    name: string,
    options?: TryOptions
  ) => Effect.Effect<Option.Option<A>, E | TryError, Session.Session>
  readonly acquire: (
    name: string,
    options?: Options
  ) => Effect.Effect<Lock.Handle, Error, Session.Session | Scope.Scope>
  readonly tryAcquire: (
    name: string,
    options?: TryOptions
  ) => Effect.Effect<Lock.Handle, TryError, Session.Session | Scope.Scope>
}

export const lock = (layout: "queue" | "single-key" = "queue"): Recipe => ({
  withLock: (self, name, options) => Lock.withLock(self, name, { ...options, layout }),
  tryWithLock: (self, name, options) => Lock.tryWithLock(self, name, { ...options, layout }),
  withLockIfAvailable: (self, name, options) => Lock.withLockIfAvailable(self, name, { ...options, layout }),
  acquire: (name, options) => Lock.acquire(name, { ...options, layout }),
  tryAcquire: (name, options) => Lock.tryAcquire(name, { ...options, layout })
})

export const several = (...others: ReadonlyArray<string>): Recipe => ({
  withLock: (self, name, options) => Lock.withLocks(self, [name, ...others], options),
  tryWithLock: (self, name, options) => Lock.tryWithLocks(self, [name, ...others], options),
  withLockIfAvailable: (self, name, options) =>
    Effect.catchTag(
      Effect.asSome(Lock.tryWithLocks(self, [name, ...others], options)),
      "LockHeld",
      () => Effect.succeedNone
    ),
  acquire: (name, options) => Lock.acquireAll([name, ...others], options),
  tryAcquire: () => Effect.die(new Error("there is no such way"))
})

/** An election has no tries. A lock of its name, which stands in the same line, has. */
export const election: Recipe = {
  ...lock(),
  withLock: (self, name, options) => Election.withLeadership(self, name, candidate(options)),
  acquire: (name, options) => Election.campaign(name, candidate(options))
}

/** All that a candidate says of itself is its value. */
const candidate = ({ metadata, ...options }: Options = {}): Election.Options => ({
  ...options,
  value: metadata === undefined ? undefined : JSON.stringify(metadata)
})

export const read: Recipe = {
  withLock: ReadWriteLock.withReadLock,
  tryWithLock: ReadWriteLock.tryWithReadLock,
  withLockIfAvailable: ReadWriteLock.withReadLockIfAvailable,
  acquire: ReadWriteLock.acquireRead,
  tryAcquire: ReadWriteLock.tryAcquireRead
}

export const write: Recipe = {
  withLock: ReadWriteLock.withWriteLock,
  tryWithLock: ReadWriteLock.tryWithWriteLock,
  withLockIfAvailable: ReadWriteLock.withWriteLockIfAvailable,
  acquire: ReadWriteLock.acquireWrite,
  tryAcquire: ReadWriteLock.tryAcquireWrite
}

export const permits = (permits: number, of: number): Recipe => ({
  withLock: (self, name, options) => Semaphore.withPermits(self, name, { ...options, permits, of }),
  tryWithLock: (self, name, options) => Semaphore.tryWithPermits(self, name, { ...options, permits, of }),
  withLockIfAvailable: (self, name, options) =>
    Semaphore.withPermitsIfAvailable(self, name, { ...options, permits, of }),
  acquire: (name, options) => Semaphore.acquire(name, { ...options, permits, of }),
  tryAcquire: (name, options) => Semaphore.tryAcquire(name, { ...options, permits, of })
})

/** Each recipe as a lock that one caller holds at a time, by its name in a test's title. */
export const exclusive = {
  "a lock": lock(),
  "a single key": lock("single-key"),
  "a write lock": write,
  "a semaphore": permits(1, 1),
  "an election": election,
  "several locks": several("other")
}
