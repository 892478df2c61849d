/** What compiles and what does not: checked by `npm run check:types`, and never run. */
import { Effect, Layer, type Option, type Scope } from "effect"
import { Election, type Etcd, Lock, type Session } from "effect-etcd-lock"

interface Table {
  readonly _: unique symbol
}

declare const fenced: Effect.Effect<bigint, never, Lock.Current | Table>

type Requirements<T> = T extends Effect.Effect<infer _A, infer _E, infer R> ? R : never

/** Compiles only if both types are the same. */
declare const same: <A, B>(...different: [A] extends [B] ? [B] extends [A] ? [] : [never] : [never]) => void

// Every section takes `Lock.Current` off what its body requires, and nothing else.
const withLock = fenced.pipe(Lock.withLock("job"))
same<Requirements<typeof withLock>, Session.Session | Table>()
const withLockFirst = Lock.withLock(fenced, "job")
same<Requirements<typeof withLockFirst>, Session.Session | Table>()
const tryWithLock = fenced.pipe(Lock.tryWithLock("job"))
same<Requirements<typeof tryWithLock>, Session.Session | Table>()
const withLockIfAvailable: Effect.Effect<Option.Option<bigint>, unknown, Session.Session | Table> = fenced.pipe(
  Lock.withLockIfAvailable("job")
)
same<Requirements<typeof withLockIfAvailable>, Session.Session | Table>()
const withLockOnce = fenced.pipe(Lock.withLockOnce("job", { run: "1" }))
same<Requirements<typeof withLockOnce>, Session.Session | Table>()
declare const marking: Effect.Effect<bigint, never, Lock.Current | Lock.CurrentRun | Table>
const markedOnce = marking.pipe(Lock.withLockOnce("job", { run: "1" }))
same<Requirements<typeof markedOnce>, Session.Session | Table>()
const markedAlways = marking.pipe(Lock.withLock("job"))
same<Requirements<typeof markedAlways>, Session.Session | Lock.CurrentRun | Table>()
const whileHeld = Effect.flatMap(Lock.acquire("job"), (handle) => handle.whileHeld(fenced))
same<Requirements<typeof whileHeld>, Session.Session | Scope.Scope | Table>()

// A term provides its leadership, too.
declare const announced: Effect.Effect<bigint, never, Lock.Current | Election.Current | Table>
const withLeadership = announced.pipe(Election.withLeadership("job"))
same<Requirements<typeof withLeadership>, Session.Session | Table>()
const whileLeader = announced.pipe(Election.whileLeader("job"))
same<Requirements<typeof whileLeader>, Session.Session | Table>()
const layer = Layer.launch(Election.layer("job", Layer.effectDiscard(announced)))
same<Requirements<typeof layer>, Session.Session | Table>()

// What it provides is a handle.
const handle: Effect.Effect<Lock.Handle, never, Lock.Current> = Lock.Current
const nested = Effect.flatMap(handle, ({ txn }) => txn({ then: [] })).pipe(
  Lock.withLock("inner"),
  Lock.withLock("outer")
)
same<Requirements<typeof nested>, Session.Session>()

// A program can be given everything but the handle of a section that it is not in.
type Program = Effect.Effect<unknown, unknown, Session.Session | Etcd.Etcd | Scope.Scope | Table>
declare const accepts: <T>(what: [T] extends [Program] ? "a program" : "none") => void
accepts<typeof withLock>("a program")
accepts<typeof fenced>("none")
accepts<typeof announced>("none")

// What runs beside the section.
const beside = Effect.andThen(withLock, fenced)
accepts<typeof beside>("none")

// What decides before it whether there is to be one.
const before = Effect.flatMap(fenced, () => withLock)
accepts<typeof before>("none")

// What runs under a scope alone, which does not interrupt it when the lock is lost.
const scoped = Effect.andThen(Lock.acquire("job"), fenced)
accepts<typeof scoped>("none")
