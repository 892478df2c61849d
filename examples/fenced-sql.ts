/**
 * A write to a SQL database that refuses a holder whose lock has been passed on.
 *
 *   npm run example -- examples/fenced-sql.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { PGlite } from "@electric-sql/pglite"
import { Context, Data, Deferred, Effect, Layer } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

// -----------------------------------------------------------------------------
// the repository
// -----------------------------------------------------------------------------

class Database extends Context.Service<Database, PGlite>()("Database") {
  static readonly layer = Layer.effect(
    Database,
    Effect.acquireRelease(Effect.promise(() => PGlite.create()), (db) => Effect.promise(() => db.close()))
  )
}

class NoSuchEdition extends Data.TaggedError("NoSuchEdition")<{ readonly id: string }> {}

class FencedOff extends Data.TaggedError("FencedOff")<{ readonly id: string }> {}

// The row stays locked from the comparison to the write, so no other write comes between them.
// The statement returns no row where there is none, and the token that it compared otherwise.
const fencedUpdate = `
  WITH stored AS (
    SELECT id, token FROM edition WHERE id = $1 FOR UPDATE
  ), written AS (
    UPDATE edition SET body = $2, token = $3 FROM stored
    WHERE edition.id = stored.id AND stored.token <= $3
  )
  SELECT token > $3 AS fenced_off FROM stored`

/** Saves an edition. It compiles only where it runs under a lock, however deep in the program that is. */
const save = (id: string, body: string) =>
  Effect.gen(function*() {
    const db = yield* Database
    const { fencingToken } = yield* Lock.Current
    const { rows } = yield* Effect.promise(() =>
      db.query<{ readonly fenced_off: boolean }>(fencedUpdate, [id, body, fencingToken])
    )
    if (rows[0] === undefined) return yield* new NoSuchEdition({ id })
    if (rows[0].fenced_off) return yield* new FencedOff({ id })
  })

// -----------------------------------------------------------------------------
// the program
// -----------------------------------------------------------------------------

const publisher = "fenced-sql/publisher"

const publish = (who: string, id: string, body: string) =>
  save(id, body).pipe(
    Effect.andThen(say(who, `has written the ${id} edition`)),
    Effect.catchTags({
      NoSuchEdition: () => say(who, `has found no ${id} edition`),
      FencedOff: () => say(who, `is fenced off from the ${id} edition: a later holder has written it`)
    })
  )

/** Runs under the lock, with a session of its own, as if it were another process. */
const holder = <R>(who: string, body: Effect.Effect<void, Lock.AcquireError, R>) =>
  body.pipe(
    Lock.withLock(publisher, { metadata: { who } }),
    Effect.catchTag("LockLost", ({ reason }) => say(who, `learns that the lock is lost: ${reason}`)),
    Effect.provide(Session.layer())
  )

const program = Effect.gen(function*() {
  const db = yield* Database
  yield* Effect.promise(() =>
    db.exec(`
      CREATE TABLE edition (id text PRIMARY KEY, body text NOT NULL, token bigint NOT NULL);
      INSERT INTO edition VALUES ('morning', '', 0)`)
  )
  const frozen = yield* Deferred.make<void>()
  const thawed = yield* Deferred.make<void>()

  const anna = Effect.gen(function*() {
    yield* publish("Anna", "morning", "Rain")
    yield* say("Anna", "is frozen")
    yield* Deferred.succeed(frozen, undefined)
    yield* Deferred.await(thawed)
    yield* publish("Anna", "morning", "Rain all day")
    const lock = yield* Lock.Current
    yield* lock.verify
  })
  const ben = Effect.andThen(publish("Ben", "morning", "Sun"), publish("Ben", "evening", "Stars"))

  const deleteKey = Effect.gen(function*() {
    const etcd = yield* Etcd.Etcd
    yield* say("Operator", "deletes the lock's key in etcd")
    yield* etcd.txn({ then: [Etcd.removePrefix(`${publisher}/`)], idempotent: true })
  })
  const meanwhile = Deferred.await(frozen).pipe(
    Effect.andThen(deleteKey),
    Effect.andThen(holder("Ben", ben)),
    Effect.andThen(Deferred.succeed(thawed, undefined))
  )

  yield* Effect.all([
    // A frozen process cannot be interrupted when it loses the lock, and neither can this body.
    holder("Anna", Effect.uninterruptible(anna)),
    meanwhile
  ], { concurrency: "unbounded" })
  const { rows } = yield* Effect.promise(() => db.query<{ readonly body: string }>("SELECT body FROM edition"))
  yield* say("Database", `has: ${rows[0]!.body}`)
})

program.pipe(Effect.provide([Database.layer, EtcdLive]), explained, NodeRuntime.runMain)
