import { assert, describe, it } from "@effect/vitest"
import { status } from "@grpc/grpc-js"
import { Effect } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { connect } from "../support/connect.ts"
import * as GrpcServer from "../support/GrpcServer.ts"

const refusing = (code: status, details: string) => () => {
  throw Object.assign(new Error(details), { code, details })
}

/** Answers as kine does: headers name no cluster, and a lease has its TTL for an ID. */
const kine: GrpcServer.Answers = {
  KV: {
    Range: ({ sort_order }) =>
      sort_order === 0
        ? { header: { revision: 7 } }
        : refusing(status.INVALID_ARGUMENT, "sortOrder is not implemented by kine")(),
    Txn: refusing(status.INVALID_ARGUMENT, "etcdserver: unsupported operations in txn request")
  },
  Lease: {
    LeaseGrant: ({ TTL }) => ({ header: {}, ID: TTL, TTL }),
    LeaseRevoke: refusing(status.UNKNOWN, "lease revoke is not supported"),
    LeaseTimeToLive: refusing(status.UNKNOWN, "lease time to live is not supported")
  }
}

/** None of these has to wait for it, however busy the machine is. */
const requestTimeout = "60 seconds"

const isKine = "this is kine (k3s), not etcd: it has no lease renewal"

const onEtcd = (hosts: string) => Effect.provide(Etcd.layer({ hosts, requestTimeout }))

describe.concurrent("kine", () => {
  it.live("is named by every call, and so where there would be no lock to list", () =>
    Effect.gen(function*() {
      const endpoint = yield* GrpcServer.start(kine)
      const etcd = yield* connect({ hosts: endpoint, requestTimeout })
      const calls = [
        etcd.range(Etcd.get("a")),
        etcd.range({ ...Etcd.get("a"), sort: "CreateAscending" }),
        etcd.txn({ then: [Etcd.put("a", "")] }),
        etcd.leaseRevoke(5n),
        etcd.leaseTimeToLive(5n),
        Lock.list("").pipe(onEtcd(endpoint)),
        Lock.inspect("a").pipe(onEtcd(endpoint))
      ]
      for (const call of calls) {
        const error = yield* Effect.flip(call as Effect.Effect<unknown, Etcd.EtcdError>)
        assert.strictEqual(error.description, `${isKine} (${endpoint})`)
        assert.deepStrictEqual([error.reason, error.outcome], ["Internal", "Refused"])
      }
    }))

  it.live("grants a lease that nobody asked for, which is an error that names both", () =>
    Effect.gen(function*() {
      const endpoint = yield* GrpcServer.start(kine)
      const etcd = yield* connect({ hosts: endpoint, requestTimeout })
      const error = yield* Effect.flip(etcd.leaseGrant(0xabcdn, 15))
      assert.strictEqual(
        error.description,
        `${isKine} (lease abcd was asked for, and lease f granted) (${endpoint})`
      )
      assert.deepStrictEqual([error.reason, error.outcome], ["Internal", "Unknown"])
      const locked = Lock.withLock(Effect.void, "a").pipe(Effect.provide(Session.layer()), onEtcd(endpoint))
      assert.include((yield* Effect.flip(locked)).message, isKine)
    }))
})

describe.concurrent("a server that is not etcd", () => {
  it.live("may answer without a header, or with one that names no cluster, when it has applied what was to be written", () =>
    Effect.gen(function*() {
      for (const header of [undefined, null, {}, { revision: 7 }]) {
        const endpoint = yield* GrpcServer.start({
          KV: { Range: () => ({ header }), Txn: () => ({ header, succeeded: true, responses: [{ response_put: {} }] }) }
        })
        const etcd = yield* connect({ hosts: endpoint, requestTimeout })
        const calls: ReadonlyArray<readonly [Effect.Effect<unknown, Etcd.EtcdError>, Etcd.EtcdError["outcome"]]> = [
          [etcd.range(Etcd.get("a")), "Refused"],
          [etcd.txn({ then: [Etcd.put("a", "")] }), "Unknown"]
        ]
        for (const [call, outcome] of calls) {
          const error = yield* Effect.flip(call)
          assert.strictEqual(error.description, `${isKine} (${endpoint})`)
          assert.deepStrictEqual([error.reason, error.outcome], ["Internal", outcome])
        }
      }
    }))

  it.live("may grant another lease", () =>
    Effect.gen(function*() {
      const endpoint = yield* GrpcServer.start({
        Lease: { LeaseGrant: ({ TTL }) => ({ header: {}, ID: 0xbeef, TTL }) }
      })
      const etcd = yield* connect({ hosts: endpoint, requestTimeout })
      const error = yield* Effect.flip(etcd.leaseGrant(0xabcdn, 15))
      assert.strictEqual(error.description, "lease abcd was asked for, and lease beef granted")
      assert.strictEqual(error.outcome, "Unknown")
    }))

  it.live("is named, and other hosts are asked instead", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.callback<Http.Server>((resume) => {
          const server = Http.createServer((_, response) => response.writeHead(404).end())
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const web = `127.0.0.1:${(server.address() as AddressInfo).port}`
      const member = yield* GrpcServer.start({
        KV: { Range: () => ({ header: { cluster_id: 1, revision: 7 } }) }
      })
      const etcd = yield* connect({ hosts: [web, member], requestTimeout })
      const error = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.strictEqual(
        error.description,
        `this is not etcd: it does not speak HTTP/2, as antietcd, for example, does not (${web})`
      )
      assert.strictEqual((yield* etcd.range(Etcd.get("a"))).count, 0)
    }))
})
