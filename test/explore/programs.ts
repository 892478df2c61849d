/** The small programs whose schedules are explored. */
import { Effect, type Exit, type Fiber } from "effect"
import { Election, Lock, ReadWriteLock, type Session } from "effect-etcd-lock"
import * as Recipes from "../support/recipes.ts"
import type { Claim } from "./checks.ts"
import { permits } from "./checks.ts"
import type { Client } from "./Wire.ts"

/** One fiber of a program, in a run. */
export interface Task extends Pick<Role, "names" | "patience" | "outlivesLoss" | "isScoped"> {
  readonly id: number
  readonly client: Client
  /** The revision of etcd at its start. */
  readonly startedAt: bigint
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  exit: Exit.Exit<unknown, unknown> | undefined
  isInterrupted: boolean
}

/** How long a body holds, and cleans up if it is interrupted, in milliseconds. */
export interface Times {
  readonly hold?: number
  readonly unwinding?: number
}

/** A body that holds what it claims for a moment, or for as long as it is said. */
export interface Body {
  (claims: ReadonlyArray<Claim>, times?: Times): Effect.Effect<void, never, Lock.Current>
  /** The same under a handle. */
  readonly under: (
    handle: Lock.Handle,
    claims: ReadonlyArray<Claim>,
    times?: Times
  ) => Effect.Effect<void, Lock.LockLost>
  /** What runs under the write lock goes on as a reader. */
  readonly downgrade: (handle: ReadWriteLock.WriteHandle) => Effect.Effect<Lock.Handle, Lock.LockLost>
}

/** What one fiber does. */
export interface Role {
  /** The index of its client. */
  readonly client: number
  /** Those of the locks that its entries are in line for. */
  readonly names: ReadonlyArray<string>
  /** Whether it waits for ever, for a while, or not at all, where it tries for a claim. */
  readonly patience: "all" | "some" | { readonly tries: Claim }
  /** A loss does not fail it: it gives its lock away by itself, or stands again. */
  readonly outlivesLoss?: true
  /** It holds until a scope closes, which tells of no loss. */
  readonly isScoped?: true
  readonly run: (
    body: Body,
    options: { readonly metadata: { readonly task: number } }
  ) => Effect.Effect<unknown, unknown, Session.Session>
}

export interface Program {
  readonly name: string
  readonly roles: ReadonlyArray<Role>
}

const a = ["a"]
const ab = ["a", "b"]

const section = (client: number, recipe: Recipes.Recipe, claim: Claim): Role => ({
  client,
  names: a,
  patience: "all",
  run: (body, options) => recipe.withLock(body([claim]), "a", options)
})

const lock = Recipes.lock()
const mutex = (client: number) => section(client, lock, "lock")

/** Releases its lock while a body runs under it that has to clean up. */
const early = (client: number): Role => ({
  client,
  names: a,
  patience: "all",
  outlivesLoss: true,
  run: (body, options) =>
    Effect.scoped(Effect.gen(function*() {
      const handle = yield* lock.acquire("a", options)
      yield* Effect.forkScoped(Effect.exit(body.under(handle, ["lock"], { unwinding: 20 })), { startImmediately: true })
      yield* Effect.sleep(5)
      yield* handle.release
    }))
})

/** Takes the lock again while its scope still has the handle that was lost. */
const keeping = (client: number): Role => ({
  client,
  names: a,
  patience: "all",
  outlivesLoss: true,
  run: (body, options) => {
    const term = Effect.flatMap(lock.acquire("a", options), (handle) => body.under(handle, ["lock"]))
    return Effect.scoped(Effect.catchTag(term, "LockLost", () => term))
  }
})

/** Holds for longer than its lease lives after the first renewal. */
const lasting = (client: number): Role => ({
  client,
  names: a,
  patience: "all",
  run: (body, options) => lock.withLock(body(["lock"], { hold: 4500, unwinding: 200 }), "a", options)
})

const twice = (client: number): Role => ({
  client,
  names: a,
  patience: "all",
  run: (body, options) => Effect.repeat(lock.withLock(body(["lock"]), "a", options), { times: 1 })
})

const patient = (client: number): Role => ({
  client,
  names: a,
  patience: "some",
  run: (body, options) => lock.withLock(body(["lock"]), "a", { ...options, timeout: 5 })
})

const trying = (client: number, recipe = lock, claim: Claim = "lock"): Role => ({
  client,
  names: a,
  patience: { tries: claim },
  run: (body, options) => recipe.tryWithLock(body([claim]), "a", options)
})

const both = (client: number, names: ReadonlyArray<string>): Role => ({
  client,
  names,
  patience: "all",
  run: (body, options) => Lock.withLocks(body(["lock", "lock"]), names, options)
})

const downgrading = (client: number): Role => ({
  client,
  // a writer's entry and a reader's
  names: ["a", "a"],
  patience: "all",
  isScoped: true,
  run: (body, options) =>
    Effect.scoped(Effect.gen(function*() {
      const writing = yield* ReadWriteLock.acquireWrite("a", { ...options, downgradable: true })
      yield* body.under(writing, ["lock"])
      const reading = yield* body.downgrade(writing)
      yield* body.under(reading, ["read"])
    }))
})

const leading = (client: number): Role => ({
  client,
  names: a,
  patience: "all",
  outlivesLoss: true,
  run: (body, { metadata }) => Election.whileLeader(body(["lock"]), "a", { value: JSON.stringify(metadata) })
})

const some = (client: number, count: number) => section(client, Recipes.permits(count, permits), count)

export const programs: ReadonlyArray<Program> = [
  { name: "two", roles: [mutex(0), mutex(1)] },
  { name: "three", roles: [mutex(0), mutex(1), mutex(2)] },
  { name: "again", roles: [twice(0), mutex(1)] },
  { name: "queue", roles: [mutex(0), mutex(0), mutex(1)] },
  { name: "impatient", roles: [mutex(0), patient(1), trying(2)] },
  { name: "release", roles: [early(0), mutex(1)] },
  { name: "lasting", roles: [lasting(0), mutex(1)] },
  { name: "kept", roles: [mutex(0), keeping(1)] },
  {
    name: "readWrite",
    roles: [
      section(0, Recipes.write, "lock"),
      section(1, Recipes.read, "read"),
      section(2, Recipes.read, "read")
    ]
  },
  { name: "downgrade", roles: [downgrading(0), section(1, Recipes.read, "read"), section(2, Recipes.write, "lock")] },
  { name: "permits", roles: [some(0, 1), some(1, 2), some(2, 1)] },
  { name: "pair", roles: [some(0, 2), some(1, 1), some(1, 1)] },
  { name: "tryPermits", roles: [some(0, 1), trying(1, Recipes.permits(1, permits), 1), some(2, 2)] },
  {
    name: "tries",
    roles: [some(0, 1), trying(1, Recipes.permits(1, permits), 1), trying(2, Recipes.permits(1, permits), 1)]
  },
  { name: "several", roles: [both(0, ab), both(1, ["b", "a"]), mutex(2)] },
  { name: "election", roles: [leading(0), leading(1), section(2, Recipes.election, "lock")] }
]
