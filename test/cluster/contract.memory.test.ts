import { Context, Effect, Layer } from "effect"
import { Etcd } from "effect-etcd-lock"
import { suite } from "./contract.ts"

suite(
  "the etcd in memory",
  Effect.map(
    Layer.build(Etcd.layerMemory({ prefix: "test/" })),
    (context) => ({ connect: Effect.succeed(Context.get(context, Etcd.Etcd)) })
  )
)
