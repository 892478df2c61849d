import { Context, Effect, Exit, Layer, Scope } from "effect"
import { Etcd, type Lease, Session } from "effect-etcd-lock"
import { assert, inject } from "vitest"
import { connect as connectTo } from "./connect.ts"
import { eventually } from "./eventually.ts"

/**
 * Processes that share an etcd and a part of its keys that is theirs alone. When
 * the test's scope closes, no key and no lease of theirs may be left.
 */
export interface World {
  readonly endpoint: string
  readonly prefix: string
  /** A session on a connection of its own, as another process has it. */
  readonly process: (options?: ProcessOptions) => Effect.Effect<Process, never, Scope.Scope>
  /** The entries of a lock's line, in order. */
  readonly line: (name: string) => Effect.Effect<ReadonlyArray<Etcd.KeyValue>>
  /** Waits until a lock's line has so many entries. */
  readonly untilLine: (name: string, length: number) => Effect.Effect<void>
  readonly etcd: Etcd.Etcd["Service"]
  /** Every lease that a process was granted, or asked for. */
  readonly leases: ReadonlySet<bigint>
}

export interface ProcessOptions extends Lease.Options {
  readonly endpoint?: string
  readonly requestTimeout?: Etcd.Options["requestTimeout"]
  /** What the session's requests go through. */
  readonly through?: (etcd: Etcd.Etcd["Service"]) => Etcd.Etcd["Service"]
}

export interface Process {
  /** Runs an effect in this process. */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<
    A,
    E,
    Exclude<R, Session.Session | Etcd.Etcd>
  >
  /** Ends the session before the test does. */
  readonly close: Effect.Effect<void>
}

type Connect = (options: ProcessOptions | undefined) => Effect.Effect<Etcd.Etcd["Service"], never, Scope.Scope>

/** On a real etcd, where every process has a connection of its own. */
export const make = (options?: { readonly endpoint?: string }): Effect.Effect<World, never, Scope.Scope> =>
  Effect.suspend(() => {
    const endpoint = options?.endpoint ?? inject("etcdEndpoint")
    const prefix = `test-${crypto.randomUUID()}/`
    const connect: Connect = (options) =>
      connectTo({ hosts: options?.endpoint ?? endpoint, prefix, requestTimeout: options?.requestTimeout })
    return makeWith(endpoint, prefix, connect)
  })

/** On an etcd in memory. */
export const makeMemory: Effect.Effect<World, never, Scope.Scope> = Effect.flatMap(
  Layer.build(Etcd.layerMemory({ prefix: "test/" })),
  (context) => {
    const { connect } = Context.get(context, Etcd.Faults)
    return makeWith("memory", "test/", () => Effect.map(connect, ({ etcd }) => etcd))
  }
)

const makeWith = Effect.fnUntraced(function*(endpoint: string, prefix: string, connect: Connect) {
  const leases = new Set<bigint>()
  const etcd = yield* connect(undefined)
  // registered before there are processes, so it runs when all of them have ended
  yield* Effect.addFinalizer(() => leftNothing(etcd, leases))

  const process: World["process"] = Effect.fnUntraced(function*(options) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const client = yield* Scope.provide(connect(options), scope)
    const recording = Etcd.Etcd.of({
      ...client,
      leaseGrant: (id, seconds) => {
        leases.add(id)
        return client.leaseGrant(id, seconds)
      }
    })
    const session = yield* Session.make(options).pipe(
      Effect.provideService(Etcd.Etcd, options?.through?.(recording) ?? recording),
      Scope.provide(scope)
    )
    return {
      run: Effect.provideContext(Context.make(Session.Session, session).pipe(Context.add(Etcd.Etcd, client))),
      close: Scope.close(scope, Exit.void)
    }
  })

  const line: World["line"] = (name) =>
    etcd.range(Etcd.getPrefix(`${name}/`, { sort: "CreateAscending" })).pipe(
      Effect.map(({ kvs }) => kvs),
      Effect.orDie
    )

  const untilLine: World["untilLine"] = (name, length) =>
    eventually(Effect.map(line(name), (kvs) => assert.lengthOf(kvs, length, `entries of '${name}'`)))

  return { endpoint, prefix, process, line, untilLine, etcd, leases } satisfies World
})

// what was left to the background when the processes ended takes a moment
const leftNothing = (etcd: Etcd.Etcd["Service"], leases: ReadonlySet<bigint>) =>
  eventually(Effect.gen(function*() {
    const { kvs } = yield* etcd.range(Etcd.getPrefix(""))
    assert.deepStrictEqual(kvs.map((kv) => Buffer.from(kv.key).toString()), [], "keys left")
    for (const id of leases) {
      assert.strictEqual((yield* etcd.leaseTimeToLive(id)).remaining, -1, `lease ${id.toString(16)} left`)
    }
  })).pipe(Effect.orDie)
