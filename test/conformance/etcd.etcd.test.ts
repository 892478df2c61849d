import { Effect, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdServer from "../support/EtcdServer.ts"
import { suite } from "./etcd.ts"

// its own, since others' writes would move the revisions
suite(
  "A real etcd",
  Layer.unwrap(Effect.map(EtcdServer.start(), ({ endpoint }) => Etcd.layer({ hosts: endpoint }))),
  // The proxy gives no reason why it refuses a watch.
  { isTerse: process.env.ETCD_BEHIND === "grpc-proxy" }
)
