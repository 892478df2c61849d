/** What the command prints of random foreign entries; `PROPS_SEED` repeats a run. */
import { assert, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import { connect, leased, unique } from "../support/connect.ts"
import { foreign } from "../support/hostile.ts"
import * as Program from "./Program.ts"

const seed = process.env.PROPS_SEED ?? crypto.randomUUID().slice(0, 8)

const unprintable = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u

it.live("never lets a foreign entry reach the terminal raw, nor break a line or JSON", () =>
  Effect.gen(function*() {
    const name = unique("foreign")
    const etcd = yield* connect()
    const lease = yield* leased(etcd, 300)
    yield* Effect.addFinalizer(() => Effect.ignore(etcd.txn({ then: [Etcd.removePrefix(name)] })))
    for (const { lease: on, suffix, value } of yield* Arbitrary.sampleEffect(foreign, { count: 60, seed })) {
      const key = Buffer.concat([Buffer.from(name), suffix])
      yield* etcd.txn({ then: [Etcd.put(key, value, { lease: on === 0n ? undefined : lease })] })
    }
    const provided = Effect.provideService(Etcd.Etcd, etcd)
    const locks = yield* provided(Lock.list(name))
    const { conflicts, holder, queue } = yield* provided(Lock.inspect(name))
    const entries = queue.length + (holder === undefined ? 0 : 1)
    assert.isAbove(Math.min(locks.length, entries, conflicts.length), 0, `with PROPS_SEED=${seed}`)

    const printed = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
      const { code, stderr, stdout } = yield* Program.run(args)
      assert.deepStrictEqual([code, stderr], [0, ""], `with PROPS_SEED=${seed}`)
      return stdout
    })
    const watched = (pattern: RegExp, ...args: ReadonlyArray<string>) =>
      Effect.scoped(Effect.gen(function*() {
        const watch = yield* Program.start(["watch", ...args])
        yield* watch.printed(pattern)
        yield* watch.send("SIGTERM")
        assert.strictEqual(yield* watch.ended, 143)
        return watch.stdout()
      }))
    const all = new RegExp(`^(.*\n){${locks.filter(({ lock }) => lock.startsWith(`${name}/`)).length}}`)
    const texts = [
      [yield* printed("ls", name), 1 + locks.length],
      [yield* printed("inspect", name), 2 + entries + conflicts.length],
      [yield* watched(/\n/, name), 1],
      [yield* watched(all, `${name}/`), undefined]
    ] as const
    for (const [text, lines] of texts) {
      assert.notMatch(text, unprintable, `with PROPS_SEED=${seed}`)
      if (lines !== undefined) assert.strictEqual(text.split("\n").length - 1, lines, `with PROPS_SEED=${seed}`)
    }
    const json = [
      yield* printed("ls", "--json", name),
      yield* printed("inspect", "--json", name),
      yield* watched(/\n/, "--json", name),
      yield* watched(all, "--json", `${name}/`)
    ].map((text) => {
      assert.notMatch(text, unprintable, `with PROPS_SEED=${seed}`)
      return text.trimEnd().split("\n").map((line) => JSON.parse(line))
    })
    assert.deepStrictEqual(json[0]!.map(({ lock }) => lock), locks.map(({ lock }) => lock))
    for (const [line] of json.slice(1, 3)) {
      assert.strictEqual(line.holders.length + line.queue.length, entries)
      assert.deepStrictEqual(line.conflicts, conflicts)
    }
  }).pipe(Effect.scoped))
