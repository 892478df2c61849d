/**
 * A lock for plain promise code.
 *
 *   npm run example -- examples/promises.ts
 */
import { Effect, Layer, Logger, ManagedRuntime } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { setTimeout as sleep } from "node:timers/promises"
import { EtcdLive, say } from "./support.ts"

// -----------------------------------------------------------------------------
// the lock
// -----------------------------------------------------------------------------

/** The session of this process. `runtime.dispose()` waits for what still runs under a lock, and ends the session. */
const runtime = ManagedRuntime.make(
  Session.layer().pipe(
    Layer.provideMerge(EtcdLive),
    // What is logged is not in the way of what is printed.
    Layer.provideMerge(Layer.succeed(Logger.LogToStderr)(true))
  )
)

/**
 * Runs an async function under a lock. The function gets the fencing token, and a signal that is aborted when the lock
 * is lost. Rejects with the errors of `Lock.withLock`, or with the function's own.
 */
const using = <A>(
  name: string,
  body: (signal: AbortSignal, fencingToken: bigint) => Promise<A>,
  options?: Lock.Options
): Promise<A> =>
  Effect.flatMap(Lock.Current, ({ fencingToken, signal }) => Effect.promise(() => body(signal, fencingToken))).pipe(
    // An interruption would leave the function running without the lock. So the signal asks it to stop, and
    // the lock waits until it has.
    Effect.uninterruptible,
    Lock.withLock(name, options),
    runtime.runPromise
  )

// -----------------------------------------------------------------------------
// the program, without effects
// -----------------------------------------------------------------------------

const name = "promises/report"

const print = (who: string, what: string) => Effect.runSync(say(who, what))

/** Rejects with the reason of its signal as soon as that is aborted, as `fetch` does. */
const download = async (who: string, page: number, signal: AbortSignal) => {
  try {
    await sleep(500, undefined, { signal })
    print(who, `has downloaded page ${page}`)
  } catch {
    print(who, `breaks off the download: ${signal.reason}`)
    throw signal.reason
  }
}

/** A store that refuses a smaller token than it has seen, as the one of fenced-sql.ts does. */
const store = {
  token: 0n,
  save: async (token: bigint) => {
    if (token < store.token) throw new Error("A later holder has saved its report")
    store.token = token
  }
}

const report = async (who: string, pages: number, options?: Lock.Options) => {
  try {
    await using(name, async (signal, fencingToken) => {
      print(who, "holds the lock")
      for (let page = 1; page <= pages; page++) await download(who, page, signal)
      await store.save(fencingToken)
    }, { ...options, metadata: { who } })
    print(who, "has saved the report and released the lock")
  } catch (error) {
    if (!Lock.isLockError(error)) throw error
    print(who, `is rejected: ${error}`)
  }
}

const untilHeld = async () => {
  while ((await runtime.runPromise(Lock.inspect(name))).holder === undefined) await sleep(50)
}

const deleteKey = async () => {
  print("Operator", "deletes the lock's key in etcd")
  await runtime.runPromise(
    Etcd.Etcd.use((etcd) => etcd.txn({ then: [Etcd.removePrefix(`${name}/`)], idempotent: true }))
  )
}

try {
  await Promise.all([
    report("Anna", 4),
    untilHeld().then(() => report("Ben", 1, { timeout: "100 millis" }))
  ])
  await Promise.all([
    report("Dora", 100),
    untilHeld().then(() => sleep(1200)).then(deleteKey)
  ])
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
} finally {
  await runtime.dispose()
}
