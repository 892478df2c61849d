/**
 * A nightly job on three replicas that is done once, though their clocks disagree and one of them dies.
 *
 *   npm run example -- examples/nightly-job.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Cron, DateTime, Deferred, Duration, Effect, Option, Schedule } from "effect"
import { Lock, Session } from "effect-etcd-lock"
import { EtcdLive, explained, say } from "./support.ts"

// -----------------------------------------------------------------------------
// the job, as every replica has it
// -----------------------------------------------------------------------------

const everyNight = Cron.parseUnsafe("0 2 * * *", "UTC")

const nightly = <R>(who: string, report: Effect.Effect<void, never, R>) =>
  Effect.gen(function*() {
    // Two o'clock is so far from midnight that all replicas agree on the day.
    const day = DateTime.formatIsoDate(yield* DateTime.now)
    yield* say(who, "has two o'clock")
    // A real job keeps the mark for the default of 7 days. This one may be shown again after a minute.
    const result = yield* Lock.withLockOnce(report, "nightly-job/report", { run: day, keepFor: "1 minute" })
    yield* say(who, Option.isSome(result) ? "has done the run of this night" : "finds that this night's run is done")
  }).pipe(
    // A night that fails does not end the schedule. The run has left no mark, so another replica may do it.
    Effect.catch(({ message }) => say(who, `has failed: ${message}`)),
    Effect.schedule(Schedule.cron(everyNight).pipe(Schedule.upTo({ times: 1 })))
  )

// -----------------------------------------------------------------------------
// the three replicas, which start shortly before two o'clock
// -----------------------------------------------------------------------------

const writeReport = (who: string, halfway: Deferred.Deferred<void>) =>
  Effect.gen(function*() {
    yield* say(who, "begins the report")
    yield* Effect.sleep("1 second")
    yield* Deferred.succeed(halfway, undefined)
    yield* Effect.sleep("1 second")
    yield* say(who, "has finished the report")
  }).pipe(
    Effect.onInterrupt(() => say(who, "dies in the middle of the report"))
  )

/** A replica has a session of its own, as another machine has, and a clock of its own. */
const replica = (who: string, clock: Clock.Clock, halfway: Deferred.Deferred<void>) =>
  nightly(who, writeReport(who, halfway)).pipe(
    Effect.provide(Session.layer()),
    Effect.provideService(Clock.Clock, clock)
  )

/** The machine's clock, set to another time of the day. It runs no faster, and measures spans as before. */
const shifted = (clock: Clock.Clock, by: Duration.Duration): Clock.Clock => {
  const millis = () => clock.currentTimeMillisUnsafe() + Duration.toMillis(by)
  const nanos = () => clock.currentTimeNanosUnsafe() + Duration.toNanosUnsafe(by)
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) => clock.sleep(duration)
  }
}

const program = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const now = yield* Clock.currentTimeMillis
  const untilTwo = Cron.next(everyNight, now).getTime() - now
  const twoComesIn = (duration: Duration.Input) =>
    shifted(clock, Duration.subtract(Duration.millis(untilTwo), Duration.fromInputUnsafe(duration)))

  const halfway = yield* Deferred.make<void>()
  const ada = replica("Ada", twoComesIn("1 second"), halfway)
  const ben = replica("Ben", twoComesIn("2.5 seconds"), halfway)
  const cleo = replica("Cleo", twoComesIn("5 seconds"), halfway)
  // Ada is interrupted in the middle of the run. Her session ends with her, and so does her lock.
  yield* Effect.all([Effect.raceFirst(ada, Deferred.await(halfway)), ben, cleo], { concurrency: "unbounded" })
})

program.pipe(Effect.provide(EtcdLive), explained, NodeRuntime.runMain)
