/**
 * The part of etcd that locks are built on: transactions, ranges, leases and
 * watches, in etcd's own terms, with typed errors and a deadline on every call.
 *
 * @since 0.1.0
 * @module
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { EtcdError } from "./EtcdError.ts"
import { Faults } from "./EtcdFaults.ts"
import { configured } from "./internal/config.ts"
import { bytes, prefixEnd } from "./internal/etcd/bytes.ts"
import { measured } from "./internal/etcd/measured.ts"
import { prefixed } from "./internal/etcd/namespace.ts"
import * as Service from "./internal/etcd/service.ts"
import * as Etcdctl from "./internal/etcd3/etcdctl.ts"
import * as memory from "./internal/memory/transport.ts"
import * as Check from "./internal/options.ts"

export {
  /**
   * @category errors
   * @since 0.1.0
   */
  EtcdError,
  /**
   * @category errors
   * @since 0.1.0
   */
  EtcdErrorReason
} from "./EtcdError.ts"

export {
  /**
   * @category models
   * @since 0.2.0
   */
  type Connection,
  /**
   * @category models
   * @since 0.2.0
   */
  type ConnectionFaults,
  /**
   * @category services
   * @since 0.1.0
   */
  Faults,
  /**
   * @category models
   * @since 0.1.0
   */
  type Method,
  /**
   * @category models
   * @since 0.2.0
   */
  type Snapshot
} from "./EtcdFaults.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

/**
 * A key with its value and all of its metadata in etcd. Revisions and lease IDs have 64
 * bits, so they are `bigint`. A `lease` of `0n` means that the key is on no lease.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyValue {
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly createRevision: bigint
  readonly modRevision: bigint
  readonly version: bigint
  readonly lease: bigint
}

/**
 * Writes the key, attached to `lease` if there is one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Put {
  readonly _tag: "Put"
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly lease?: bigint | undefined
}

/**
 * Reads the key, or all keys in `[key, rangeEnd)`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Range {
  readonly _tag: "Range"
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
  /** The greatest number of keys to return; all when absent. */
  readonly limit?: number | undefined
  /**
   * Leave out the values, which may be large. Then `lease` says nothing: etcd 3.7 leaves it out as well, so that it is
   * `0n` for a key on a lease, too. A condition on `Lease` tells whether a key is on one.
   */
  readonly keysOnly?: boolean | undefined
  /** Order by create revision; by key when absent. */
  readonly sort?: "CreateAscending" | "CreateDescending" | undefined
  /** Read what one member has, which may not be the latest, without asking the others: it takes less time. */
  readonly serializable?: boolean | undefined
  /** Only keys created at or before this revision. */
  readonly maxCreateRevision?: bigint | undefined
}

/**
 * Deletes the key, or all keys in `[key, rangeEnd)`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delete {
  readonly _tag: "Delete"
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
}

/**
 * A condition on a key, or on every key in `[key, rangeEnd)`. A missing key has
 * revisions, version and lease of zero.
 *
 * @category models
 * @since 0.1.0
 */
export type Compare =
  & {
    readonly key: Uint8Array
    readonly rangeEnd?: Uint8Array | undefined
    readonly operator: "=" | "!=" | "<" | ">"
  }
  & (
    | { readonly target: "CreateRevision" | "ModRevision" | "Version" | "Lease"; readonly value: bigint }
    | { readonly target: "Value"; readonly value: Uint8Array }
  )

/**
 * Runs `then` if all of `compare` hold, and `else` otherwise, atomically.
 *
 * @category models
 * @since 0.1.0
 */
export interface Txn<
  out Then extends ReadonlyArray<Op> = ReadonlyArray<Op>,
  out Else extends ReadonlyArray<Op> = ReadonlyArray<Op>
> {
  readonly _tag: "Txn"
  readonly compare: ReadonlyArray<Compare>
  readonly then: Then
  readonly else: Else
}

/**
 * What a transaction can do: read, write, delete, or run another transaction.
 *
 * @category models
 * @since 0.1.0
 */
export type Op = Put | Range | Delete | Txn<any, any>

/**
 * Reports that a key was written.
 *
 * @category models
 * @since 0.1.0
 */
export interface PutResult {
  readonly _tag: "Put"
}

/**
 * The keys that a `Range` found. `count` is the number of keys in the whole range,
 * whatever the limit.
 *
 * @category models
 * @since 0.1.0
 */
export interface RangeResult {
  readonly _tag: "Range"
  readonly kvs: ReadonlyArray<KeyValue>
  readonly count: number
}

/**
 * How many keys a `Delete` deleted.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeleteResult {
  readonly _tag: "Delete"
  readonly deleted: number
}

/**
 * Whether the conditions of a transaction held, and the results of the operations that it
 * ran.
 *
 * @category models
 * @since 0.1.0
 */
export type TxnResult<Then extends ReadonlyArray<Op>, Else extends ReadonlyArray<Op>> =
  & { readonly _tag: "Txn" }
  & (
    | { readonly succeeded: true; readonly responses: OpResults<Then> }
    | { readonly succeeded: false; readonly responses: OpResults<Else> }
  )

/**
 * What etcd says of itself in every answer.
 *
 * **Details**
 *
 * Answers that name one cluster come from one history, in which revisions only grow. Answers that name one term have
 * known of one leader.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header {
  /** The store's revision, after the request if that was a transaction. */
  readonly revision: bigint
  /** The ID of the cluster. */
  readonly clusterId: bigint
  /** Raft's term, which grows with each election of a leader. */
  readonly term: bigint
}

/**
 * What etcd returns beside the results of a transaction that was sent by itself. A nested one has none of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TxnHeader extends Header {
  /** The response to an earlier attempt was lost. etcd may have applied that one, too, or may yet do so. */
  readonly repeated: boolean
}

/**
 * The result of an operation.
 *
 * @category models
 * @since 0.1.0
 */
export type OpResult<O> = O extends Put ? PutResult
  : O extends Range ? RangeResult
  : O extends Delete ? DeleteResult
  : O extends Txn<infer Then, infer Else> ? TxnResult<Then, Else>
  : never

/**
 * The results of several operations, in their order.
 *
 * @category models
 * @since 0.1.0
 */
export type OpResults<Ops extends ReadonlyArray<Op>> = { readonly [K in keyof Ops]: OpResult<Ops[K]> }

/**
 * A transaction to send: it runs `then` if all of `compare` hold, and `else` otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface TxnRequest<Then extends ReadonlyArray<Op>, Else extends ReadonlyArray<Op>> {
  readonly compare?: ReadonlyArray<Compare> | undefined
  readonly then: Then
  readonly else?: Else | undefined
  /**
   * Whether the transaction may be sent again when its response was lost, although
   * etcd may have applied it. Otherwise such a transaction fails, with an `outcome` of
   * `Unknown`.
   */
  readonly idempotent?: boolean | undefined
}

/**
 * How long a lease still lives, and the TTL that etcd granted.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseTimeToLive {
  /** What is left, in seconds; -1 when there is no such lease. */
  readonly remaining: number
  /** What was granted, in seconds. */
  readonly granted: number
  /** The keys on the lease, where they were asked for. One that was put or deleted just now may be missing, or still be there. */
  readonly keys: ReadonlyArray<Uint8Array>
}

/**
 * The answer to a renewal of a lease.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseKeepAlive {
  /** The TTL of the renewed lease, in seconds; 0 when there is no such lease. */
  readonly ttl: number
}

/**
 * The key to watch, or all keys in `[key, rangeEnd)`.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatchOptions {
  readonly key: Uint8Array
  readonly rangeEnd?: Uint8Array | undefined
  /** Report only one kind of event; both when absent. */
  readonly only?: "Put" | "Delete" | undefined
}

/**
 * A key was written or deleted.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatchEvent {
  readonly _tag: "Put" | "Delete"
  /** After a `Delete` only its `key` and `modRevision` are set. */
  readonly kv: KeyValue
}

/**
 * A watch that etcd has confirmed. `next` waits for the events after `revision`,
 * in order, those of one revision together, and maybe several revisions at once.
 *
 * **Gotchas**
 *
 * `next` fails when the watch ends, for whatever reason. That says nothing about
 * the keys: read them again. Once the scope of the watch has closed, `next` ends
 * as interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Watch {
  readonly revision: bigint
  readonly next: Effect.Effect<ReadonlyArray<WatchEvent>, EtcdError>
}

/**
 * What `subscribe` calls. Both functions are called synchronously, and have to
 * return soon.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatchListener {
  /**
   * Called with the events after the subscription's `revision`, in order, those of one revision together, and maybe
   * several revisions at once. It may be called before the subscription is at hand.
   */
  readonly onEvents: (events: ReadonlyArray<WatchEvent>) => void
  /**
   * Called once when the watch ends, for whatever reason, unless it was closed before; nothing is called after it.
   * That says nothing about the keys: read them again.
   */
  readonly onEnd: (error: EtcdError) => void
}

/**
 * A watch that etcd has confirmed and that reports to a `WatchListener`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription {
  /** The listener receives every event after this revision. */
  readonly revision: bigint
  /** Ends the watch; no function of the listener is called any more. Closing it again does nothing. */
  readonly close: () => void
}

// -----------------------------------------------------------------------------
// service
// -----------------------------------------------------------------------------

/**
 * A connection to etcd. The layers of this module provide one, and a program can
 * provide one of its own: one that wraps another, or one that it wrote from scratch.
 *
 * **Details**
 *
 * Every call ends within the request timeout, with an `EtcdError` if nothing
 * else. Calls that are safe to repeat are retried within it, on the next host
 * when there are several.
 *
 * An interrupted call is abandoned, not taken back: etcd may still apply it.
 *
 * @category services
 * @since 0.1.0
 */
export class Etcd extends Context.Service<Etcd, {
  /** How long a call may take in all, with its retries. */
  readonly requestTimeout: Duration.Duration
  /** Runs a transaction; see `TxnRequest` for when it is sent again. */
  readonly txn: <
    const Then extends ReadonlyArray<Op>,
    const Else extends ReadonlyArray<Op> = readonly []
  >(
    request: TxnRequest<Then, Else>
  ) => Effect.Effect<TxnResult<Then, Else> & TxnHeader, EtcdError>
  /** A linearizable read, unless the range says otherwise. */
  readonly range: (range: Range) => Effect.Effect<RangeResult & Header, EtcdError>
  /** Grants a lease under an ID of the caller's choice and returns the TTL that etcd granted, in seconds. */
  readonly leaseGrant: (leaseId: bigint, seconds: number) => Effect.Effect<number, EtcdError>
  /** Revokes a lease and deletes its keys. */
  readonly leaseRevoke: (leaseId: bigint) => Effect.Effect<void, EtcdError>
  /**
   * Renews a lease once, in one attempt of at most `timeout` milliseconds. That a leader has a quorum is known only when a
   * linearizable read has been answered afterwards, in the same term.
   */
  readonly leaseKeepAlive: (leaseId: bigint, timeout: number) => Effect.Effect<LeaseKeepAlive & Header, EtcdError>
  /** Reads how long a lease still lives, and which keys are on it if `keys` is set. */
  readonly leaseTimeToLive: (
    leaseId: bigint,
    options?: { readonly keys?: boolean | undefined }
  ) => Effect.Effect<LeaseTimeToLive & Header, EtcdError>
  /** Watches from now on, until the scope closes. */
  readonly watch: (options: WatchOptions) => Effect.Effect<Watch, EtcdError, Scope.Scope>
  /**
   * Watches from now on, until it is closed, without a fiber and without a scope. A call that fails or is interrupted
   * leaves no watch behind, and does not call the listener.
   */
  readonly subscribe: (options: WatchOptions, listener: WatchListener) => Effect.Effect<Subscription, EtcdError>
}>()("effect-etcd-lock/Etcd") {}

/**
 * Certificates as PEM text.
 *
 * **Details**
 *
 * Without `ca`, or with nothing but an `https://` host, the authorities on the list that
 * Node comes with are trusted. That is not the list of the system: `NODE_USE_SYSTEM_CA=1`
 * adds the system's to it, and `NODE_EXTRA_CA_CERTS` a file. gRPC's
 * `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` replaces all of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tls {
  /** The authorities that may have signed etcd's certificate. */
  readonly ca?: string | undefined
  /** The client's certificate, and those between it and its authority. */
  readonly cert?: string | undefined
  readonly key?: Redacted.Redacted | undefined
}

/**
 * How to reach etcd.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The members' addresses, as `host:port` or `http(s)://host:port`, several of
   * them as an array. One of them is used until it fails, then the next. A user's
   * name and password are options of their own.
   */
  readonly hosts: string | ReadonlyArray<string>
  /**
   * The user's name, with `password`. It may be set before etcd has authentication enabled:
   * it is used as soon as etcd asks for a user, and until then a warning says that it is not.
   */
  readonly username?: string | undefined
  /**
   * The user's password, or an effect that reads it, which runs for each token that is
   * fetched: at first, when a token has expired, and when etcd has forgotten it. It may take the
   * whole `requestTimeout`, and goes on while the call that began it is sent again.
   * A failure to read it fails the calls that wait for the token, with an `EtcdError`
   * of reason `Unauthenticated` that shows the failure's message.
   */
  readonly password?: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined
  /**
   * Certificates, or an effect that reads them, which runs for each new connection, so
   * that a certificate may be renewed in service. It may take the whole `requestTimeout`, and goes
   * on while the call that began it is sent again. A failure to read them, or a value that
   * cannot be used, fails that connection, with an `EtcdError` of reason `Tls` that shows
   * the failure's message. The next connection reads them again.
   */
  readonly tls?: Tls | Effect.Effect<Tls, unknown> | undefined
  /** How long a call may take in all, with its retries; from 1 millisecond to 24 days. Default: 5 seconds. */
  readonly requestTimeout?: Duration.Input | undefined
  /** A prefix that is put before every key, so that several applications can share one etcd. */
  readonly prefix?: string | undefined
}

/**
 * Connects to a real etcd.
 *
 * **Details**
 *
 * Building the layer opens no connection; the first call does, and its error
 * says what is wrong.
 *
 * **Gotchas**
 *
 * Options that can never work (no hosts, a host without a port, a certificate
 * without its key, a name without a password, a password that is not `Redacted`) are
 * defects that name the option. None of them shows a password.
 *
 * **Example** (Connecting with TLS and a password)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import { Etcd } from "effect-etcd-lock"
 *
 * export const EtcdLive = Etcd.layer({
 *   hosts: ["https://etcd-1.example:2379", "https://etcd-2.example:2379"],
 *   username: "reports",
 *   password: Redacted.make("secret"),
 *   requestTimeout: "3 seconds"
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Etcd> => Layer.effect(Etcd, make(options))

/**
 * Connects to a real etcd, with options from configuration.
 *
 * **Details**
 *
 * Each option is a `Config`; one `Config` can also provide all options together. An
 * option that can never work fails the layer with a `ConfigError` that names the option,
 * and so does a missing variable, and a `username` or `password` without the other.
 *
 * **Example** (Connecting to the etcd that an application's own variables name)
 *
 * ```ts
 * import { Config } from "effect"
 * import { Etcd } from "effect-etcd-lock"
 *
 * export const EtcdLive = Etcd.layerConfig({
 *   hosts: Config.String("ETCD_HOSTS").pipe(
 *     Config.withDefault("127.0.0.1:2379"),
 *     Config.map((hosts) => hosts.split(","))
 *   ),
 *   username: Config.String("ETCD_USER").pipe(Config.withDefault(undefined)),
 *   password: Config.Redacted("ETCD_PASSWORD").pipe(Config.withDefault(undefined)),
 *   prefix: Config.succeed("my-application/")
 * })
 * ```
 *
 * @see {@link layerEtcdctl} for the variables of etcdctl
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Etcd, Config.ConfigError> =>
  Layer.effect(Etcd, configured("Etcd.layerConfig", options, make))

/**
 * Connects to the etcd that etcdctl would connect to, by reading etcdctl's variables.
 *
 * **Details**
 *
 * - `ETCDCTL_ENDPOINTS`: comma-separated hosts; default `127.0.0.1:2379`
 * - `ETCDCTL_CACERT`, `ETCDCTL_CERT`, `ETCDCTL_KEY`: paths of PEM files, which are read
 *   again for each new connection, so that a certificate may be renewed in service
 * - `ETCDCTL_INSECURE_TRANSPORT`: `false` for TLS without any of these files; `true`,
 *   which is etcdctl's default, changes nothing
 * - `ETCDCTL_USER`: `name:password`, or a name with `ETCDCTL_PASSWORD`; an option
 *   `password` takes the place of either, such as an effect that reads a file
 * - `ETCDCTL_COMMAND_TIMEOUT`: the request timeout, such as `5s`; default 5 seconds
 *
 * A variable that is empty counts as absent. One that cannot be understood, or whose file
 * cannot be read, fails the layer with a `ConfigError` that names it, and so do
 *
 * - `ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true`, since etcd's certificate is always verified
 * - `ETCDCTL_DISCOVERY_SRV`, since members are not looked up in DNS
 *
 * `ETCDCTL_DIAL_TIMEOUT`, `ETCDCTL_KEEPALIVE_TIME`, `ETCDCTL_KEEPALIVE_TIMEOUT`,
 * `ETCDCTL_MAX_REQUEST_BYTES` and `ETCDCTL_MAX_RECV_BYTES` are not read, and a warning
 * names those that are set. The others have no effect: they are about etcdctl's output, or
 * its search in DNS.
 *
 * An `EtcdError`, too, names the variable, and its file: that of the certificate that is
 * wrong, or that of the user.
 *
 * **Example** (Connecting as etcdctl does, on Node)
 *
 * ```ts
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { Etcd } from "effect-etcd-lock"
 *
 * export const EtcdLive = Etcd.layerEtcdctl({ prefix: "my-application/" }).pipe(
 *   Layer.provide(NodeFileSystem.layer)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEtcdctl = (
  options?: Pick<Options, "prefix" | "password">
): Layer.Layer<Etcd, Config.ConfigError, FileSystem.FileSystem> =>
  Layer.effect(
    Etcd,
    Effect.gen(function*() {
      Check.object("Etcd.layerEtcdctl", "options", options, "{ prefix: \"my-application/\" }")
      const { naming, options: found } = yield* Etcdctl.load(options?.password)
      return yield* Etcdctl.blamingVariables(naming)(make({ ...found, prefix: options?.prefix }, naming))
    })
  )

/**
 * An etcd in memory, for tests and for trying things out. It comes with `Faults`.
 *
 * **Details**
 *
 * It behaves as a real etcd does, on Effect's clock: in a test, `TestClock` lets
 * leases expire and requests time out.
 *
 * **Gotchas**
 *
 * Each call makes an etcd of its own, which is empty at first. Programs that are provided
 * with the same layer share one.
 *
 * @see {@link Faults} for an example
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (
  options?: Pick<Options, "requestTimeout" | "prefix">
): Layer.Layer<Etcd | Faults> =>
  Layer.effectContext(Effect.gen(function*() {
    Check.object("Etcd.layerMemory", "options", options, "{ requestTimeout: \"5 seconds\" }")
    const requestTimeout = requestTimeoutOf("Etcd.layerMemory", options)
    Check.prefix("Etcd.layerMemory", options?.prefix)
    const context = yield* Effect.context<never>()
    const { connect, faults } = yield* memory.make(
      new TextEncoder().encode(options?.prefix),
      (transport) => Service.make(measured(transport, context), requestTimeout)
    )
    return Context.make(Etcd, connect().etcd).pipe(Context.add(Faults, faults))
  }))

// -----------------------------------------------------------------------------
// operations
// -----------------------------------------------------------------------------

/**
 * Writes a key, attached to a lease if one is given. Text is encoded as UTF-8.
 *
 * @category operations
 * @since 0.1.0
 */
export const put = (
  key: string | Uint8Array,
  value: string | Uint8Array,
  options?: { readonly lease?: bigint | undefined }
): Put => ({ _tag: "Put", key: bytes(key), value: bytes(value), lease: options?.lease })

/**
 * Reads one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = (key: string | Uint8Array): Range => ({ _tag: "Range", key: bytes(key) })

/**
 * Reads all keys that begin with a prefix.
 *
 * @category operations
 * @since 0.1.0
 */
export const getPrefix = (
  prefix: string | Uint8Array,
  options?: Omit<Range, "_tag" | "key" | "rangeEnd">
): Range => {
  const key = bytes(prefix)
  return { _tag: "Range", key, rangeEnd: prefixEnd(key), ...options }
}

/**
 * Deletes one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const remove = (key: string | Uint8Array): Delete => ({ _tag: "Delete", key: bytes(key) })

/**
 * Deletes all keys that begin with a prefix.
 *
 * @category operations
 * @since 0.1.0
 */
export const removePrefix = (prefix: string | Uint8Array): Delete => {
  const key = bytes(prefix)
  return { _tag: "Delete", key, rangeEnd: prefixEnd(key) }
}

/**
 * A condition on the revision at which a key was created; `0n` where there is no such
 * key.
 *
 * @category operations
 * @since 0.1.0
 */
export const compareCreateRevision = (
  key: string | Uint8Array,
  operator: Compare["operator"],
  value: bigint
): Compare => ({ target: "CreateRevision", key: bytes(key), operator, value })

/**
 * A condition on the revision at which a key was last written; `0n` where there is no
 * such key.
 *
 * @category operations
 * @since 0.1.0
 */
export const compareModRevision = (
  key: string | Uint8Array,
  operator: Compare["operator"],
  value: bigint
): Compare => ({ target: "ModRevision", key: bytes(key), operator, value })

/**
 * A condition on a key's value.
 *
 * @category operations
 * @since 0.1.0
 */
export const compareValue = (
  key: string | Uint8Array,
  operator: Compare["operator"],
  value: string | Uint8Array
): Compare => ({ target: "Value", key: bytes(key), operator, value: bytes(value) })

/**
 * A transaction to run inside another. etcd evaluates the conditions of all
 * nested transactions before it applies any of them.
 *
 * @category operations
 * @since 0.1.0
 */
export const nested = <const Then extends ReadonlyArray<Op>, const Else extends ReadonlyArray<Op> = readonly []>(
  request: Omit<TxnRequest<Then, Else>, "idempotent">
): Txn<Then, Else> => ({
  _tag: "Txn",
  compare: request.compare ?? [],
  then: request.then,
  else: request.else ?? [] as ReadonlyArray<Op> as Else
})

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const make = Effect.fnUntraced(function*(options: Options, naming?: Check.Naming) {
  Check.object("Etcd.layer", "options", options, "{ hosts: [\"127.0.0.1:2379\"] }")
  const requestTimeout = requestTimeoutOf("Etcd.layer", options)
  Check.prefix("Etcd.layer", options?.prefix)
  // etcd3 and gRPC take longer to load than everything else, and programs on an etcd in memory never need them.
  const etcd3 = yield* Effect.promise(() => import("./internal/etcd3/transport.ts"))
  // Where there are no options at all, the error is about the missing hosts.
  const transport = measured(
    yield* etcd3.make({ ...options }, requestTimeout, naming),
    yield* Effect.context<never>()
  )
  return Service.make(options.prefix ? prefixed(transport, Buffer.from(options.prefix)) : transport, requestTimeout)
})

const requestTimeoutOf = (layer: string, options: Pick<Options, "requestTimeout"> | undefined): number => {
  if (options?.requestTimeout === undefined) return 5000
  const requestTimeout: Check.DurationOption = {
    module: layer,
    option: "requestTimeout",
    range: "between 1 millisecond and 24 days",
    accepts: (timeout) => Duration.toMillis(timeout) >= 1 && Duration.toMillis(timeout) <= maxTimeout,
    example: "5 seconds"
  }
  return Duration.toMillis(Check.duration(requestTimeout, options.requestTimeout))
}

/** In milliseconds: what a timer of the platform can hold. */
const maxTimeout = 2 ** 31 - 1
