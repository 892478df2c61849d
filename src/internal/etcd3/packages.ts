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
import { createRequire } from "node:module"
import type * as Protobuf from "protobufjs"

// A bundle in CommonJS has no URL of its own.
const load = createRequire(import.meta.url ?? __filename)

export const { noop }: typeof Cockatiel = load("cockatiel")

export const { InterceptingCall }: typeof Grpc = load("@grpc/grpc-js")

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
