import { Effect } from "effect"
import { connect } from "../support/connect.ts"
import { suite } from "./contract.ts"

suite("etcd", Effect.sync(() => ({ connect: connect({ prefix: `cluster-${crypto.randomUUID()}/` }) })))
