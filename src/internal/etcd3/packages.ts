/**
 * What the client takes from other packages, which Node loads when the layer of a real etcd is built.
 *
 * They are required, not imported, because a bundler hoists each import of a package that it leaves out: every program
 * that consists of one file would then load them when it starts. The bundle could not contain etcd3 anyway, since etcd3
 * reads a file that lies beside its own.
 */
import type * as Grpc from "@grpc/grpc-js"
import type * as Cockatiel from "cockatiel"
import type * as Client from "etcd3"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import type * as Protobuf from "protobufjs"

// A bundle in CommonJS has no URL of its own.
const load = createRequire(import.meta.url ?? __filename)

export const { noop }: typeof Cockatiel = load("cockatiel")

// The client takes credentials and channels only of the copy of gRPC that it loads itself.
const loadOfClient = createRequire(load.resolve("etcd3"))

export const { Channel, ChannelCredentials, credentials, InterceptingCall, Metadata }: typeof Grpc = loadOfClient(
  "@grpc/grpc-js"
)

export const protobuf: typeof Protobuf = load("protobufjs")

/** The path of etcd's own definitions of its messages. */
export const definitionsFile: string = load.resolve("etcd3/proto/rpc.proto")

export const {
  castGrpcError,
  CompareResult,
  CompareTarget,
  Etcd3,
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  EventType,
  FilterType,
  SortOrder,
  SortTarget
}: typeof Client = load("etcd3")

/**
 * Refuses a client without the members that are used here though they are not documented. `pool` is what a client keeps
 * its connection in.
 */
export const requireMembers = (pool: object): void => {
  const methodsOf = (value: unknown, ...methods: ReadonlyArray<string>) =>
    methods.every((method) => typeof (value as Record<string, unknown> | undefined)?.[method] === "function")
  const { authenticator, hosts } = pool as { readonly authenticator?: unknown; readonly hosts?: ReadonlyArray<unknown> }
  const connector = methodsOf(ChannelCredentials?.prototype, "compose") &&
    credentials.createInsecure()._createSecureConnector({ path: "127.0.0.1:1" }, {})
  const found = {
    "etcd3's pool": methodsOf(pool, "withConnection", "markFailed"),
    "etcd3's hosts": Array.isArray(hosts) && hosts.length === 1 && methodsOf(hosts[0], "getServiceClient"),
    "etcd3's authenticator": methodsOf(authenticator, "getMetadata", "invalidateMetadata"),
    "@grpc/grpc-js' connector": methodsOf(connector, "waitForReady", "connect", "getCallCredentials", "destroy")
  }
  const missing = Object.entries(found).filter(([, isThere]) => !isThere).map(([what]) => what)
  if (missing.length === 0) return
  const versionOf = (file: string) => (JSON.parse(readFileSync(file, "utf8")) as { readonly version: string }).version
  const client = versionOf(load.resolve("etcd3/package.json"))
  const grpc = versionOf(loadOfClient.resolve("@grpc/grpc-js/package.json"))
  throw new Error(
    `effect-etcd-lock works with etcd3 ${works.etcd3} and @grpc/grpc-js ${works.grpc}, and found etcd3 ${client} and ` +
      `@grpc/grpc-js ${grpc}, in which it misses ${missing.join(", ")}. Install versions that work.`
  )
}

/** As in package.json. */
const works = { etcd3: "~1.1.2", grpc: "^1.14.4" }
