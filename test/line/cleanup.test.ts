import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import type { Etcd } from "effect-etcd-lock"
import { TestClock } from "effect/testing"
import * as Background from "../../src/internal/background.ts"
import * as Cleanup from "../../src/internal/line/cleanup.ts"
import type { Entry } from "../../src/internal/line/entry.ts"
import * as EtcdStub from "../support/EtcdStub.ts"

const lease = { id: 7n, isAlive: () => true, onLoss: () => () => {} }

const minutes = Effect.repeat(TestClock.adjust("1 minute"), { times: 9 })

/** As much of an entry as a removal is made of. */
const leftover = (key: string) => ({ key, ref: { lease }, line: { layout: { hasOwnKeys: true } } }) as unknown as Entry

const keysOf = (ops: ReadonlyArray<Etcd.Op>): ReadonlyArray<string> =>
  ops.flatMap((op) => op._tag === "Txn" ? keysOf(op.then) : op._tag === "Range" ? [] : [Buffer.from(op.key).toString()])

describe("leftovers", () => {
  it.effect("are removed although etcd refuses one of them, and with it all that would be removed together", () =>
    Effect.gen(function*() {
      const removed = new Set<string>()
      let isDenying = true
      const { etcd } = EtcdStub.make()
      const denying = {
        ...etcd,
        txn: (request: Etcd.TxnRequest<any, any>) =>
          Effect.suspend((): Effect.Effect<any, Etcd.EtcdError> => {
            const keys = keysOf(request.then)
            if (isDenying && keys.includes("denied")) return EtcdStub.failing("PermissionDenied")
            for (const key of keys) removed.add(key)
            const responses = request.then.map(() => ({ _tag: "Txn", succeeded: true, responses: [] }))
            return Effect.succeed({ succeeded: true, revision: 1n, repeated: false, responses })
          })
      }
      const gone: Array<string> = []
      const cleanup = Cleanup.make(
        denying,
        yield* Clock.Clock,
        yield* Background.make,
        ({ key }) => gone.push(key)
      )
      const keys = Array.from({ length: 100 }, (_, i) => i === 50 ? "denied" : `key-${i}`)
      for (const key of keys) cleanup.add(leftover(key))
      yield* minutes
      const others = keys.filter((key) => key !== "denied")
      assert.deepStrictEqual([...removed].toSorted(), others.toSorted())
      assert.deepStrictEqual(gone.toSorted(), others.toSorted())
      // It blocks its line for as long as its lease lives, and a role may be given back.
      isDenying = false
      yield* minutes
      assert.deepStrictEqual([...removed].toSorted(), keys.toSorted())
      assert.deepStrictEqual(gone.toSorted(), keys.toSorted())
    }))
})
