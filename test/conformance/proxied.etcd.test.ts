import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as GrpcProxy from "../support/GrpcProxy.ts"
import { suite } from "./etcd.ts"

describe.skipIf(!GrpcProxy.isThere)("behind etcd's gRPC proxy", () =>
  suite(
    "A real etcd",
    Layer.unwrap(Effect.gen(function*() {
      const { endpoint } = yield* EtcdServer.start()
      return Etcd.layer({ hosts: yield* GrpcProxy.start(endpoint) })
    })),
    // It passes on what etcd says of a transaction without etcd's code, and gives no reason why it refuses a watch.
    { isTerse: true }
  ))
