import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Queue, Stream } from "effect"
import { Election, Etcd, Lock } from "effect-etcd-lock"
import { inject } from "vitest"
import { hold, holdIn } from "../support/holdIn.ts"
import * as World from "../support/World.ts"
import { etcdctl, go } from "./contenders.ts"
import { need } from "./need.ts"
import * as Peer from "./Peer.ts"
import * as Tools from "./tools.ts"

/** What no encoding leaves as it is but the right one. */
const values = ["10.0.0.7:8080", "", "{\"a\":1}", "two\nlines ✓ \u{1f512}", "\u0000\t\"'\\", " "]

/** A process with Go's `concurrency.Election`. */
const goElection = Effect.fnUntraced(function*(world: World.World, name: string) {
  const peer = yield* Peer.start(yield* Tools.go("election"), [world.endpoint, world.prefix + name, "2"])
  yield* peer.heard
  return {
    heard: peer.heard,
    ask: (command: string, value?: string) => peer.write(value === undefined ? command : `${command} ${quoted(value)}`),
    close: Effect.andThen(peer.hangUp, peer.ended)
  }
})

/** `etcdctl elect NAME VALUE`, which leads, or `etcdctl elect --listen NAME`. */
const elect = Effect.fnUntraced(function*(world: World.World, ...args: ReadonlyArray<string>) {
  return yield* Peer.start(yield* Tools.etcdctl, ["--endpoints", world.endpoint, "elect", ...args])
})

/** As Go's `strconv.Quote` does, for the text here. */
const quoted = (text: string) => JSON.stringify(text).replaceAll("\\u0000", "\\x00")

const observe = Effect.fnUntraced(function*(world: World.World, name: string) {
  const seen = yield* Queue.unbounded<string | undefined>()
  yield* Effect.forkScoped(
    Stream.runForEach(
      Stream.provideService(Election.observe(name), Etcd.Etcd, world.etcd),
      (leader) => Queue.offer(seen, Option.getOrUndefined(leader)?.value)
    )
  )
  return { next: Queue.take(seen) }
})

describe.runIf(inject("interop"))("an election", () => {
  need(Tools.go("election"), Tools.go("mutex"), Tools.etcdctl)

  it.live("is one line with Go's candidates and etcdctl's, in the order in which they came", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      const first = yield* hold(a, Election.campaign("job", { value: "first" }))
      const { fencingToken } = yield* first.held
      const second = yield* goElection(world, "job")
      yield* second.ask("campaign", "second")
      yield* world.untilLine("job", 2)
      const third = yield* hold(b, Election.campaign("job", { value: "third" }))
      yield* world.untilLine("job", 3)
      const fourth = yield* elect(world, `${world.prefix}job`, "fourth")
      yield* world.untilLine("job", 4)

      yield* first.release
      const [leads, key, revision] = (yield* second.heard).split(" ")
      assert.strictEqual(leads, "leads")
      assert.match(key!, new RegExp(`^${world.prefix}job/[0-9a-f]+$`))
      assert.isTrue(BigInt(revision!) > fencingToken)
      assert.isFalse(yield* third.isHeld)
      yield* second.ask("resign")
      assert.strictEqual(yield* second.heard, "resigned")
      const leadership = yield* third.held
      assert.isTrue(leadership.fencingToken > BigInt(revision!))
      yield* third.release
      // It prints its key, and what it proclaims.
      assert.match(yield* fourth.heard, /job\/[0-9a-f]+$/)
      assert.strictEqual(yield* fourth.heard, "fourth")
      yield* fourth.stop
      yield* second.close
    }))

  it.live("shows Go's observers and etcdctl what our leader proclaims, byte for byte", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const process = yield* world.process()
      const observer = yield* goElection(world, "job")
      yield* observer.ask("leader")
      assert.strictEqual(yield* observer.heard, "nobody")
      const candidate = yield* hold(process, Election.campaign("job", { value: values[0]! }))
      const leadership = yield* candidate.held
      yield* observer.ask("observe")
      const isObserved = (value: string) =>
        Effect.map(observer.heard, (line) =>
          assert.strictEqual(line, `observed ${world.prefix}${leadership.key} ${quoted(value)}`))
      yield* isObserved(values[0]!)
      for (const value of values.slice(1)) {
        yield* leadership.proclaim(value)
        yield* isObserved(value)
      }
      yield* leadership.proclaim("for a listener")
      const listener = yield* elect(world, "--listen", `${world.prefix}job`)
      assert.strictEqual(yield* listener.heard, world.prefix + leadership.key)
      assert.strictEqual(yield* listener.heard, "for a listener")
      yield* listener.stop
      yield* candidate.release
      yield* observer.close
    }))

  it.live("is observed as Go's leaders and etcdctl's proclaim, byte for byte, and that there is none", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const { next } = yield* observe(world, "job")
      assert.strictEqual(yield* next, undefined)
      const candidate = yield* goElection(world, "job")
      yield* candidate.ask("campaign", values[0]!)
      assert.match(yield* candidate.heard, /^leads /)
      assert.strictEqual(yield* next, values[0]!)
      for (const value of values.slice(1)) {
        yield* candidate.ask("proclaim", value)
        assert.strictEqual(yield* candidate.heard, "proclaimed")
        assert.strictEqual(yield* next, value)
      }
      yield* candidate.ask("resign")
      assert.strictEqual(yield* candidate.heard, "resigned")
      assert.strictEqual(yield* next, undefined)
      const elected = yield* elect(world, `${world.prefix}job`, "from etcdctl")
      assert.strictEqual(yield* next, "from etcdctl")
      // Ended before it prints these, it would leave its key until its lease ends.
      assert.match(yield* elected.heard, /job\/[0-9a-f]+$/)
      assert.strictEqual(yield* elected.heard, "from etcdctl")
      yield* elected.stop
      assert.strictEqual(yield* next, undefined)
      yield* candidate.close
    }))

  it.live("leads after a leader of Go's whose process was killed, and lets one of Go's lead when it is gone itself", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const process = yield* world.process({ ttl: "2 seconds" })
      const killed = yield* Peer.start(yield* Tools.go("election"), [world.endpoint, `${world.prefix}job`, "2"])
      yield* killed.heard
      yield* killed.write("campaign \"killed\"")
      assert.match(yield* killed.heard, /^leads /)
      const candidate = yield* hold(process, Election.campaign("job", { value: "ours" }))
      yield* world.untilLine("job", 2)
      yield* killed.kill
      const leadership = yield* candidate.held
      const next = yield* goElection(world, "job")
      yield* next.ask("campaign", "theirs")
      yield* world.untilLine("job", 2)
      yield* world.etcd.leaseRevoke(leadership.leaseId)
      assert.match(yield* next.heard, /^leads /)
      const loss = yield* Effect.flip(leadership.proclaim("too late"))
      assert.strictEqual(loss._tag, "LockLost")
      yield* next.close
    }))

  it.live("excludes Go's mutex, etcdctl's and our lock of its name, which are leaders to an observer", () =>
    Effect.gen(function*() {
      const world = yield* World.make()
      const [a, b] = yield* Effect.all([world.process(), world.process()])
      for (const other of [go, etcdctl]) {
        const locked = yield* other(world, "job")
        const { key } = yield* locked.held
        const leader = yield* Effect.provideService(Election.leader("job"), Etcd.Etcd, world.etcd)
        assert.strictEqual(Option.getOrUndefined(leader)?.key, key)
        const candidate = yield* hold(a, Election.campaign("job"))
        yield* world.untilLine("job", 2)
        assert.isFalse(yield* candidate.isHeld)
        const behind = yield* holdIn(b, "job")
        yield* world.untilLine("job", 3)
        yield* locked.release
        yield* candidate.held
        assert.isFalse(yield* behind.isHeld)
        yield* candidate.release
        yield* behind.held
        yield* behind.release
        yield* world.untilLine("job", 0)
      }
      const refusing = yield* goElection(world, "job")
      yield* refusing.ask("campaign", "go")
      assert.match(yield* refusing.heard, /^leads /)
      const refused = yield* Effect.flip(a.run(Lock.tryWithLock(Effect.void, "job")))
      assert.strictEqual(refused._tag, "LockHeld")
      yield* refusing.close
    }))
})
