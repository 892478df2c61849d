import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { Etcd } from "effect-etcd-lock"
import { batchesOf, connect, text, unique } from "../support/connect.ts"
import * as EtcdServer from "../support/EtcdServer.ts"
import { until } from "../support/eventually.ts"

describe.concurrent("watch", () => {
  it.live("sees all that happens once it is there, and nothing from before", () =>
    Effect.gen(function*() {
      const [etcd, other] = yield* Effect.all([connect(), connect()])
      for (let i = 0; i < 20; i++) {
        const key = unique("watch")
        const before = yield* other.txn({ then: [Etcd.put(key, "before")] })
        const watch = yield* etcd.watch({ key: Buffer.from(key) })
        assert.isTrue(watch.revision >= before.revision)
        const { revision } = yield* other.txn({ then: [Etcd.put(key, "after")] })
        const event = (yield* watch.next)[0]!
        assert.strictEqual(event._tag, "Put")
        assert.strictEqual(text(event.kv.value), "after")
        assert.strictEqual(event.kv.createRevision, before.revision)
        assert.strictEqual(event.kv.modRevision, revision)
        assert.isTrue(watch.revision < revision)
      }
    }))

  it.live("tells events in order, those of one revision together, each to its own watch", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const prefix = unique("order")
      const { key, rangeEnd } = Etcd.getPrefix(prefix)
      const [all, puts, deletes, one] = yield* Effect.all([
        etcd.watch({ key, rangeEnd }),
        etcd.watch({ key, rangeEnd, only: "Put" }),
        etcd.watch({ key, rangeEnd, only: "Delete" }),
        etcd.watch({ key: Buffer.from(`${prefix}b`) })
      ], { concurrency: "unbounded" })
      for (const name of ["a", "b", "c"]) yield* etcd.txn({ then: [Etcd.put(`${prefix}${name}`, name)] })
      const { revision } = yield* etcd.txn({ then: [Etcd.removePrefix(prefix)] })
      const told = (watch: Etcd.Watch, count: number) =>
        Effect.map(batchesOf(watch, count), (batches) => {
          const revisions = batches.flatMap((events) => [...new Set(events.map(({ kv }) => kv.modRevision))])
          return revisions.map((revision, i) => {
            assert.isTrue(i === 0 || revision > revisions[i - 1]!, "no revision comes in two batches")
            const events = batches.flat().filter(({ kv }) => kv.modRevision === revision)
            return events.map(({ _tag, kv }) => `${_tag} ${text(kv.key)?.at(-1)}`).join()
          }).join("; ")
        })
      assert.strictEqual(yield* told(all, 6), "Put a; Put b; Put c; Delete a,Delete b,Delete c")
      assert.strictEqual(yield* told(puts, 3), "Put a; Put b; Put c")
      const [deleted] = yield* deletes.next
      assert.strictEqual(deleted?.kv.modRevision, revision)
      assert.strictEqual(yield* told(one, 2), "Put b; Delete b")
    }))

  it.live("ends on the server with its scope, without disturbing the others", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const watchers = Effect.map(
        Effect.promise(() => fetch(`http://${server.endpoint}/metrics`).then((response) => response.text())),
        (metrics) => Number(/^etcd_debugging_mvcc_watcher_total (\d+)/m.exec(metrics)?.[1])
      )
      const outer = yield* etcd.watch({ key: Buffer.from("a") })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* etcd.watch({ key: Buffer.from("b") })
        yield* etcd.watch({ key: Buffer.from("c") })
        assert.strictEqual(yield* watchers, 3)
      }))
      yield* until("the watches to end", Effect.map(watchers, (count) => count === 1))
      // an interrupted one too, whenever that happens
      for (let i = 0; i < 20; i++) {
        const watching = yield* Effect.forkChild(Effect.scoped(etcd.watch({ key: Buffer.from("d") })), {
          startImmediately: true
        })
        if (i % 2 === 1) yield* Effect.sleep("1 millis")
        yield* Fiber.interrupt(watching)
      }
      yield* until("the watches to end", Effect.map(watchers, (count) => count === 1))
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.strictEqual((yield* outer.next).length, 1)
    }))

  it.live("stays open when the watch that was opened before it closes", () =>
    Effect.gen(function*() {
      const etcd = yield* connect()
      const key = Buffer.from(unique("watched"))
      const first = yield* Scope.make()
      yield* Scope.provide(etcd.watch({ key }), first)
      const { next } = yield* etcd.watch({ key })
      yield* Scope.close(first, Exit.void)
      // longer than a stream is kept that nobody needs
      yield* Effect.sleep("11 seconds")
      yield* etcd.txn({ then: [Etcd.put(key, "")] })
      assert.strictEqual((yield* next).length, 1)
    }))

  it.live("fails when etcd dies, and can be opened again after its restart", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      const etcd = yield* connect({ hosts: server.endpoint })
      const watch = yield* etcd.watch({ key: Buffer.from("a") })
      yield* server.kill
      assert.strictEqual((yield* Effect.flip(watch.next)).reason, "Unavailable")
      assert.strictEqual((yield* Effect.flip(watch.next)).reason, "Unavailable")
      yield* server.restart
      const again = yield* etcd.watch({ key: Buffer.from("a") })
      yield* etcd.txn({ then: [Etcd.put("a", "")] })
      assert.strictEqual((yield* again.next).length, 1)
    }))
})
