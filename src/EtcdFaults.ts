import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Etcd, KeyValue } from "./Etcd.ts"

/**
 * A request to etcd, as `EtcdError` names it.
 *
 * @category models
 * @since 0.1.0
 */
export type Method =
  | "txn"
  | "range"
  | "leaseGrant"
  | "leaseRevoke"
  | "leaseKeepAlive"
  | "leaseTimeToLive"
  | "watch"

/**
 * A backup of an etcd in memory.
 *
 * @category models
 * @since 0.2.0
 */
export interface Snapshot {
  /** The revision at which it was taken. */
  readonly revision: bigint
}

/**
 * Makes a connection to the etcd of `Etcd.layerMemory` fail the way a network does.
 *
 * **Details**
 *
 * Those of `Faults` concern all connections, and those of a `Connection` that one alone; where both delay, both count. All
 * members take effect before they return.
 *
 * `drop`, `delay`, `stall` and `unreachable` concern requests. One call of the `Etcd` service is one request or
 * several, since a request that is safe to repeat is sent again when it fails.
 *
 * @category models
 * @since 0.2.0
 */
export interface ConnectionFaults {
  /**
   * Loses the next `times` (default 1) requests, or only those of one `method`,
   * or the replies to them. A lost request is not applied; one whose reply is
   * lost is. The caller sees no difference: both fail when the request times out, with
   * `Timeout` and an `outcome` of `Unknown`.
   *
   * Several drops apply in the order of the calls, one to each request.
   */
  readonly drop: (
    what: "Request" | "Reply",
    matching?: { readonly method?: Method | undefined; readonly times?: number | undefined }
  ) => Effect.Effect<void>
  /**
   * Makes every request from now on take that long: it is applied after half of the time,
   * and its reply arrives after the rest. It is applied even if its caller has given
   * up meanwhile. Events are not delayed; see `delayWatches`.
   */
  readonly delay: (duration: Duration.Input) => Effect.Effect<void>
  /**
   * Makes all watches late: from now on an event arrives that long after it happened,
   * even if replies arrive earlier. With `upTo`, what happens at a revision reaches each watch after a time of its own, drawn
   * between both from Effect's `Random` as it was when the layer was built. The opening of a watch is not delayed.
   *
   * The events of one watch keep their order, and those of one revision arrive
   * together. A shorter delay, or zero, applies to what happens from then on, which still
   * does not overtake the events that are on their way. Events on their way to a watch
   * that ends are lost.
   */
  readonly delayWatches: (
    duration: Duration.Input,
    options?: { readonly upTo?: Duration.Input | undefined }
  ) => Effect.Effect<void>
  /**
   * Makes watches silent, as they are on a member whose disk hangs: those that are open, and those that are opened beside
   * them, stay open and report nothing. Requests are answered all the same. With `heal` they report all that they
   * have missed, in order. What is opened after a `cut`, or when the library has found out and given them up, is on another
   * member, and reports as ever.
   */
  readonly silenceWatches: Effect.Effect<void>
  /**
   * Cuts the connection: every watch, and every request under way, fails with
   * `Unavailable` and an `outcome` of `Unknown`. Requests that have reached etcd
   * are applied all the same. The next ones succeed.
   */
  readonly cut: Effect.Effect<void>
  /**
   * Lets nothing through, without a word, until `resume`: no request is applied, no reply is sent, and watches are silent.
   * On all connections together, etcd itself is frozen: its leases do not expire, either.
   */
  readonly stall: Effect.Effect<void>
  /**
   * Ends `stall`. Where etcd was frozen, leases whose time is up expire at once. Then every request
   * that was sent meanwhile is applied, in order, even if its caller has given up.
   */
  readonly resume: Effect.Effect<void>
  /**
   * Cuts the connection and refuses new ones, until `reachable`: every request
   * fails at once with `Unavailable` and an `outcome` of `Refused`. Meanwhile
   * etcd lives on; its leases expire.
   */
  readonly unreachable: Effect.Effect<void>
  /** Ends `unreachable`. */
  readonly reachable: Effect.Effect<void>
  /**
   * Ends every `drop`, `delay`, `delayWatches`, `silenceWatches`, `stall` and `unreachable`, and that of `Faults` also those
   * of single connections. Events that are late arrive at once, in order.
   * End a test with it: a session that closes while etcd cannot be reached repeats its revoke, and under a `TestClock`
   * that stands it would do so for ever.
   */
  readonly heal: Effect.Effect<void>
}

/**
 * A connection to the etcd of `Etcd.layerMemory`, as a process has one, and what can go wrong with it.
 *
 * @see {@link Faults} for how to get one
 * @category models
 * @since 0.2.0
 */
export interface Connection {
  readonly etcd: Etcd["Service"]
  readonly faults: ConnectionFaults
}

/**
 * Makes the etcd of `Etcd.layerMemory` fail the way a real one does, and shows
 * what is left in it.
 *
 * **When to use**
 *
 * Use it to test that your program reacts correctly to a lost lock, a lost reply
 * or an etcd that cannot be reached.
 *
 * **Details**
 *
 * All members take effect before they return. Those of {@link ConnectionFaults} concern all connections together.
 *
 * `expireLease`, `revokeLease`, `deleteKey` and `deletePrefix` are not requests. They
 * change etcd's data even while it is stalled or unreachable.
 *
 * **Example** (Testing that a job stops when it loses its lock)
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Fiber, Layer } from "effect"
 * import { TestClock } from "effect/testing"
 * import { Etcd, Lock, Session } from "effect-etcd-lock"
 *
 * // the job under test
 * const job = Effect.never.pipe(Lock.withLock("nightly-report"))
 *
 * it.effect("stops when it loses its lock", () =>
 *   Effect.gen(function*() {
 *     const faults = yield* Etcd.Faults
 *     const running = yield* Effect.forkChild(Effect.flip(job))
 *     yield* TestClock.adjust("1 second")
 *     assert.strictEqual((yield* faults.keys).length, 1)
 *
 *     for (const lease of yield* faults.leases) yield* faults.expireLease(lease)
 *     yield* TestClock.adjust("15 seconds")
 *     assert.strictEqual((yield* Fiber.join(running))._tag, "LockLost")
 *     assert.deepStrictEqual(yield* faults.keys, [])
 *   }).pipe(Effect.provide(Session.layer().pipe(Layer.provideMerge(Etcd.layerMemory())))))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Faults extends Context.Service<
  Faults,
  ConnectionFaults & {
    /**
     * Another connection to this etcd, as another process has one. Provide its `etcd` to what shall run there:
     * `Effect.provideService(Etcd.Etcd, etcd)`, or `Layer.succeed(Etcd.Etcd, etcd)`.
     */
    readonly connect: Effect.Effect<Connection>
    /**
     * Lets a lease expire now: its keys are deleted, in one revision. Nothing happens if there is no such lease.
     *
     * That is etcd ending a lease early, which no holder can foresee: the next one may begin before this one has been told. To
     * see a holder stop first, make its connection `unreachable`, and let the time of its lease pass.
     */
    readonly expireLease: (leaseId: bigint) => Effect.Effect<void>
    /** Revokes a lease as an operator might: its keys are deleted, in one revision. */
    readonly revokeLease: (leaseId: bigint) => Effect.Effect<void>
    /** Deletes a key as an operator might. Nothing happens if there is no such key. */
    readonly deleteKey: (key: string | Uint8Array) => Effect.Effect<void>
    /** Deletes all keys that begin with a prefix, in one revision. */
    readonly deletePrefix: (prefix: string | Uint8Array) => Effect.Effect<void>
    /** A backup of all that etcd has now. */
    readonly snapshot: Effect.Effect<Snapshot>
    /**
     * Restarts etcd from a backup, as an operator may with `etcdutl snapshot restore`: all connections are cut, what happened
     * since the backup is gone, and its leases have their whole TTL again. `bumpRevision` adds to the revision, and with
     * `anotherCluster` etcd has another ID from then on. A backup that was taken before anything was written is a wipe.
     */
    readonly restore: (
      snapshot: Snapshot,
      options?: { readonly bumpRevision?: bigint | undefined; readonly anotherCluster?: boolean | undefined }
    ) => Effect.Effect<void>
    /** The IDs of all leases that are alive. */
    readonly leases: Effect.Effect<ReadonlyArray<bigint>>
    /** All keys, in order. */
    readonly keys: Effect.Effect<ReadonlyArray<KeyValue>>
  }
>()("effect-etcd-lock/Etcd/Faults") {}
