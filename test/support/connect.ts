/** Connections to a real etcd, and what their tests have in common. */
import { NodeFileSystem } from "@effect/platform-node"
import { ConfigProvider, Context, Duration, Effect, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import { inject } from "vitest"

/**
 * A connection of the test's own, by default to the etcd that all tests of the run share. A request has longer than the
 * library's default, since the machine of the tests may be busy.
 */
export const connect = ({ requestTimeout = "15 seconds", ...options }: Partial<Etcd.Options> = {}) =>
  Effect.map(
    Layer.build(Layer.fresh(Etcd.layer({ hosts: inject("etcdEndpoint"), requestTimeout, ...options }))),
    Context.get(Etcd.Etcd)
  )

/** A connection that is set up from variables of etcdctl's. */
export const fromVariables = (env: Record<string, string>, options?: Pick<Etcd.Options, "prefix" | "password">) =>
  Layer.build(Layer.fresh(Etcd.layerEtcdctl(options))).pipe(
    Effect.map(Context.get(Etcd.Etcd)),
    Effect.provide(NodeFileSystem.layer),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
  )

type Service = Etcd.Etcd["Service"]

/** A key that no other test has. */
export const unique = (name: string) => `etcd-test-${name}-${crypto.randomUUID()}`

export const text = (bytes: Uint8Array | undefined) => bytes === undefined ? undefined : Buffer.from(bytes).toString()

export const keys = (result: Etcd.RangeResult) => result.kvs.map(({ key }) => text(key))

export const versionOf = (etcd: Service, key: string) =>
  Effect.map(etcd.range(Etcd.get(key)), ({ kvs }) => kvs[0]?.version ?? 0n)

/** So many events, in the batches in which they come: etcd may tell of several revisions at once. */
export const batchesOf = (watch: Etcd.Watch, count: number) =>
  Effect.gen(function*() {
    const batches: Array<ReadonlyArray<Etcd.WatchEvent>> = []
    while (batches.flat().length < count) batches.push(yield* watch.next)
    return batches
  })

/** What an effect answers, and how many milliseconds it took. */
export const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([duration, value]) => [value, Duration.toMillis(duration)] as const)

/** A lease ID that nobody else has. */
export const random63 = () => BigInt.asUintN(63, crypto.getRandomValues(new BigUint64Array(1))[0]!) | (1n << 62n)

/** A lease that is gone when the test ends. */
export const leased = Effect.fnUntraced(function*(etcd: Service, seconds = 60) {
  const id = random63()
  const grant = Effect.catchIf(
    etcd.leaseGrant(id, seconds),
    // An answer was lost, and the grant repeated.
    ({ reason }) => reason === "LeaseExists",
    () => Effect.succeed(seconds)
  )
  yield* Effect.acquireRelease(grant, () => Effect.ignore(etcd.leaseRevoke(id)))
  return id
})
