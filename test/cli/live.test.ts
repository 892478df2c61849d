/** What the screen of `watch` shows as time passes, and what it asks etcd for that. On an etcd in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Stream, Terminal } from "effect"
import { Etcd, Lock } from "effect-etcd-lock"
import * as Line from "../../src/cli/line.ts"
import * as Live from "../../src/cli/live.ts"
import * as Screen from "../../src/cli/screen.ts"
import { fork, pass, provideMemory, seconds, session } from "../support/inMemory.ts"
import { noted } from "../support/noted.ts"

/** Shows what a stream emits on a terminal of 80 columns and 24 rows. */
const shown = Effect.fnUntraced(
  function*<A, E>(kind: Screen.Kind<A>, stream: Stream.Stream<A, E, Etcd.Etcd>, probe: string) {
    const etcd = yield* Etcd.Etcd
    const requests: Array<string> = []
    const painted: Array<string> = []
    const size = yield* Queue.sliding<Terminal.Size>(1)
    yield* Queue.offer(size, { columns: 80, rows: 24 })
    const terminal = Terminal.make({
      columns: Effect.succeed(80),
      rows: Effect.succeed(24),
      size: Effect.succeed(size as never),
      readInput: Effect.never,
      readLine: Effect.never,
      display: (text) => Effect.sync(() => void painted.push(text))
    })
    const fiber = yield* fork(
      Live.show(kind, Stream.provideService(stream, Etcd.Etcd, etcd), probe).pipe(
        Effect.provideService(Etcd.Etcd, noted(etcd, requests)),
        Effect.provideService(Terminal.Terminal, terminal)
      )
    )
    yield* pass(10)
    return { fiber, painted, requests, screen: () => painted.at(-1)! }
  }
)

describe("the screen of watch", () => {
  it.effect("is painted every second, and asks about a lease on it every three, however many locks there are", () =>
    provideMemory(Effect.gen(function*() {
      const etcd = yield* Etcd.Etcd
      for (let lease = 1n; lease <= 500n; lease++) {
        yield* etcd.leaseGrant(lease, 1000)
        yield* etcd.txn({ then: [Etcd.put(`job/${lease}/${lease.toString(16)}`, "", { lease })] })
      }
      const { painted, requests, screen } = yield* shown(Screen.ofLocks("job/"), Lock.listChanges("job/"), "job/")
      yield* seconds(5)
      requests.length = painted.length = 0
      yield* seconds(60)
      assert.isAtLeast(painted.length, 60)
      assert.match(screen(), /500 locks are held/)
      const count = (method: string) => requests.filter((request) => request === method).length
      assert.isAtMost(count("range"), 61)
      assert.isAtMost(count("leaseTimeToLive"), 24 * 21)
      assert.strictEqual(requests.length, count("range") + count("leaseTimeToLive"))
    })))

  it.effect("tells within seconds that a holder has died, and that etcd does not answer", () =>
    provideMemory(Effect.gen(function*() {
      const faults = yield* Etcd.Faults
      const { run } = yield* session({ ttl: "15 seconds" })
      yield* run(fork(Lock.withLock(Effect.never, "job")))
      const { screen } = yield* shown(Screen.ofLock, Line.linesOf("job"), "job/")
      yield* seconds(60)
      assert.match(screen(), /as of 00:0\d:\d\dZ.*is held by[^]*renewed \ds ago/)
      yield* faults.unreachable
      yield* seconds(4)
      const before = /as of \S+/.exec(screen())![0]
      assert.match(screen(), /etcd has not answered for \ds: what follows is old/)
      yield* seconds(3)
      assert.include(screen(), before)
      assert.match(screen(), /holds/)
      yield* faults.reachable
      yield* seconds(5)
      assert.notMatch(screen(), /not answered/)
    })))

  it.effect("has the screen of before back when it ends", () =>
    provideMemory(Effect.gen(function*() {
      const { fiber, painted } = yield* shown(Screen.ofLock, Line.linesOf("job"), "job/")
      fiber.interruptUnsafe()
      yield* pass(10)
      assert.strictEqual(painted[0]!.indexOf("\u001b[?1049h\u001b[?25l"), 0)
      assert.strictEqual(painted.at(-1), "\u001b[?25h\u001b[?1049l")
    })))

  it.effect("ends with the error of a first look that fails, and leaves the screen as it was", () =>
    provideMemory(Effect.gen(function*() {
      yield* Etcd.Faults.use((faults) => faults.unreachable)
      const { fiber, painted } = yield* shown(Screen.ofLock, Line.linesOf("job"), "job/")
      yield* seconds(20)
      const exit = fiber.pollUnsafe()
      assert.deepStrictEqual(painted, [])
      assert.strictEqual(exit?._tag, "Failure")
    })))
})
