/**
 * Leader election: one of many candidates leads, and all clients can see which one, and
 * what it proclaims.
 *
 * **When to use**
 *
 * Use it for work that runs on one of many machines for as long as that machine lives,
 * such as a scheduler or the consumer of a queue, and where clients have to find that
 * machine. For work that one of them does once, such as a nightly job, use `Lock`. In a
 * program of Effect Cluster, use its `Singleton`: the cluster chooses where it runs.
 *
 * **Details**
 *
 * A candidate stands in a line, and leads when all before it have left. An election
 * promises what a `Lock` does: two candidates do not lead at once, a leader that cannot
 * renew its lease is interrupted before the next one can come, and a write through its
 * handle happens only while it leads.
 *
 * The candidates have the keys and values of Go's `concurrency.Election`, so that Go
 * programs, `etcdctl elect`, and the candidates of this module stand in one line and
 * observe each other. Go's `Mutex`, `etcdctl lock` and a `Lock` of the same name
 * exclude them, and are leaders to an observer.
 *
 * **Gotchas**
 *
 * An observer sees what etcd knows. A leader that lost its connection stops before its
 * lease ends, and is seen until that end. A candidate is seen as the leader a moment
 * before it notices that it leads.
 *
 * @since 0.1.0
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Current as CurrentHandle } from "./Current.ts"
import * as Etcd from "./Etcd.ts"
import { election } from "./internal/line/discipline.ts"
import * as Check from "./internal/options.ts"
import { host } from "./internal/recipe/description.ts"
import { errors } from "./internal/recipe/errors.ts"
import * as leaders from "./internal/recipe/leader.ts"
import { Leadership as LeadershipImpl } from "./internal/recipe/leadership.ts"
import * as request from "./internal/recipe/request.ts"
import * as section from "./internal/recipe/section.ts"
import * as terms from "./internal/recipe/terms.ts"
import type * as Lock from "./Lock.ts"
import type { Session } from "./Session.ts"

// -----------------------------------------------------------------------------
// models
// -----------------------------------------------------------------------------

/**
 * How to stand in an election.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Pick<Lock.Options, "timeout" | "lease" | "label"> {
  /** What observers see of this candidate, and nothing else: its address, for example. Default: the name of its host. */
  readonly value?: string | undefined
}

/**
 * How to stand in an election, again after each term.
 *
 * @category models
 * @since 0.1.0
 */
export interface StandAgainOptions<in E> extends Pick<Options, "value" | "label"> {
  /** When to stand again; its input is the error of the last term. Default: after about a second, without end. */
  readonly standAgain?: Schedule.Schedule<unknown, E> | undefined
}

/**
 * The leadership that a candidate has won.
 *
 * @category models
 * @since 0.1.0
 */
export interface Leadership extends Lock.Handle {
  /**
   * Changes the value that observers see, if this candidate still leads; else it fails with `LockLost`. Of two calls
   * one after the other, the value of the later one stays, even if the outcome of the first is unknown.
   */
  readonly proclaim: (value: string) => Effect.Effect<void, Lock.LockLost | Etcd.EtcdError>
  /** Lets the next candidate lead, as `release` does for every lock. */
  readonly resign: Effect.Effect<void>
}

/**
 * The leadership of the innermost term that `withLeadership`, `whileLeader` or `layer`
 * runs, so that what runs in it can proclaim and resign.
 *
 * **Example** (A leader that proclaims its progress)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * const report = (progress: string) => Effect.flatMap(Election.Current, ({ proclaim }) => proclaim(progress))
 *
 * export const migrate = (steps: ReadonlyArray<Effect.Effect<void>>) =>
 *   Effect.forEach(steps, (step, i) => Effect.andThen(report(`step ${i + 1} of ${steps.length}`), step)).pipe(
 *     Election.withLeadership("migration", { value: "starting" })
 *   )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Current extends Context.Service<Current, Leadership>()("effect-etcd-lock/Election/Current") {}

/**
 * A candidate, as its key in etcd shows.
 *
 * @category models
 * @since 0.2.0
 */
export interface Candidate {
  readonly key: string
  /** What it proclaims. */
  readonly value: string
  readonly leaseId: bigint
  /** The revision at which it stood. It names the term. */
  readonly createRevision: bigint
  /** The revision at which it last proclaimed its value. */
  readonly revision: bigint
}

/**
 * The candidate that leads.
 *
 * @category models
 * @since 0.1.0
 */
export type Leader = Candidate

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

/**
 * Why a candidate does not lead.
 *
 * @category errors
 * @since 0.1.0
 */
export type AcquireError = Lock.AcquireError

/**
 * Why a candidate that waits without a timeout does not lead.
 *
 * @category errors
 * @since 0.1.0
 */
export type StandError = Exclude<AcquireError, Lock.LockTimeout>

// -----------------------------------------------------------------------------
// leading
// -----------------------------------------------------------------------------

/**
 * Stands in an election, waits until this candidate leads, and leads until the scope
 * closes.
 *
 * **Details**
 *
 * Work goes under the handle's `whileHeld`, which a loss interrupts. A candidate whose
 * lease ends or whose key is deleted while it waits fails with `LockLost`, and never leads.
 *
 * **Example** (A leader that says when it is ready)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * export const lead = (prepare: Effect.Effect<void>, serve: Effect.Effect<void>) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const leadership = yield* Election.campaign("primary", { value: "preparing" })
 *     yield* leadership.whileHeld(prepare)
 *     yield* leadership.proclaim("10.0.0.7:8080")
 *     yield* leadership.whileHeld(serve)
 *   }))
 * ```
 *
 * @category leading
 * @since 0.1.0
 */
export const campaign = (
  name: string,
  options?: Options
): Effect.Effect<Leadership, AcquireError, Session | Scope.Scope> =>
  section.scoped("Election", name, candidate.acquire(name, options))

/**
 * Runs an effect for one term: waits until this candidate leads, and resigns when the
 * effect has ended.
 *
 * It ends as a section of `Lock.withLock` does: a loss interrupts the effect, and the
 * whole fails with `LockLost`.
 *
 * @category leading
 * @since 0.1.0
 */
export const withLeadership: {
  (name: string, options?: Options): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AcquireError, Needed<R>>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: Options
  ): Effect.Effect<A, E | AcquireError, Needed<R>>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: Options) =>
    section.run("Election", name, candidate.acquire(name, options), leading(self))
)

/**
 * Runs an effect whenever this candidate leads, until the effect ends by itself.
 *
 * **Details**
 *
 * A loss interrupts the effect and awaits its end, and so does a call of `resign`. Then the candidate stands again, by
 * `standAgain`, and the effect starts anew when it leads the next time. The whole ends as the effect ends by itself,
 * with its success, failure or defect, even if it fails while a loss interrupts it. If it succeeds after a loss, since
 * it is uninterruptible, it starts anew: another candidate may have led meanwhile.
 *
 * During an outage of etcd, the candidate waits, and logs a warning at once and every minute. The whole fails with an `EtcdError` that waiting cannot cure, with a
 * `LockNameConflict`, with `LockLost` of the reason `Released` when the session has closed, or with the last error when
 * `standAgain` ends.
 *
 * The spans of each term, and of what the effect does in it, begin traces of their own: the caller's span would not end
 * before the last term does.
 *
 * **Example** (A scheduler that runs on one of many machines)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * export const scheduler = (tick: Effect.Effect<void>) =>
 *   Effect.repeat(tick, Schedule.spaced("1 minute")).pipe(
 *     Election.whileLeader("scheduler", { value: "10.0.0.7:8080" })
 *   )
 * ```
 *
 * @category leading
 * @since 0.1.0
 */
export const whileLeader: {
  (name: string, options?: StandAgainOptions<StandError>): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | StandError, Needed<R>>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    name: string,
    options?: StandAgainOptions<StandError>
  ): Effect.Effect<A, E | StandError, Needed<R>>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string, options?: StandAgainOptions<StandError>) =>
    terms.whileLeader(name, stand(name, options), leading(self), options)
)

/**
 * Builds a layer on the leader, and on no other candidate.
 *
 * **Details**
 *
 * The program that uses the layer does not wait for it: the candidate stands in the
 * background, as long as the program's layers are open. After a loss, the inner layer is
 * closed before the next candidate can build it; then this candidate stands again.
 *
 * A failure of the inner layer cannot fail the program's layers, which are built by then.
 * It is logged as an error, and the candidate resigns, so that another one can try. Then
 * it stands again by `standAgain`, whose input is the typed error, and which may end. The
 * same goes for every error of standing, except that an outage of etcd is a warning, at
 * once and every minute, and that the candidate no longer stands once the session has
 * closed. A defect or the end of `standAgain` is logged as an error;
 * after either, the process no longer stands.
 *
 * To have the program itself fail instead, launch the layer under `whileLeader`.
 *
 * **Example** (In the background, or as the program)
 *
 * ```ts
 * import { Effect, Layer, Schedule } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * const Scheduler = Layer.effectDiscard(
 *   Effect.forkScoped(Effect.repeat(Effect.log("tick"), Schedule.spaced("1 minute")))
 * )
 *
 * export const InBackground = Election.layer("scheduler", Scheduler)
 *
 * export const runAs = (who: string) =>
 *   Layer.launch(Scheduler).pipe(Election.whileLeader("scheduler", { value: who }))
 * ```
 *
 * @category leading
 * @since 0.1.0
 */
export const layer = <A, E, R>(
  name: string,
  layer: Layer.Layer<A, E, R>,
  options?: StandAgainOptions<E | StandError>
): Layer.Layer<never, never, Needed<R>> =>
  Layer.effectDiscard(Effect.suspend(() => {
    proposalOf(name, options)
    return Effect.forkScoped(terms.repeat(name, stand(name, options), leading(Layer.launch(layer)), options))
  })) as Layer.Layer<never, never, Needed<R>>

// -----------------------------------------------------------------------------
// observing
// -----------------------------------------------------------------------------

/**
 * Returns the candidate that leads now.
 *
 * @category observing
 * @since 0.1.0
 */
export const leader = (name: string): Effect.Effect<Option.Option<Leader>, Etcd.EtcdError, Etcd.Etcd> =>
  Effect.flatMap(Etcd.Etcd, (etcd) => leaders.leader(etcd, placeOf(name)))

/**
 * Returns all candidates that stand now, in the order in which they came: the first one leads.
 *
 * **Details**
 *
 * It needs no session. Candidates of Go programs and of `etcdctl elect` are among them, and so are clients that hold the lock
 * of that name or wait for it. Where `leader` returns none although candidates stand, a key that is no entry keeps them from
 * leading: `Lock.inspect` names it.
 *
 * **Example** (Who would lead next)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * export const next = Effect.map(Election.candidates("scheduler"), ([, second]) => second?.value)
 * ```
 *
 * @category observing
 * @since 0.2.0
 */
export const candidates = (name: string): Effect.Effect<ReadonlyArray<Candidate>, Etcd.EtcdError, Etcd.Etcd> =>
  Effect.flatMap(Etcd.Etcd, (etcd) => leaders.candidates(etcd, placeOf(name)))

/**
 * Emits the candidate that leads, now and after every change of the leader or of what it proclaims, and `None` when no
 * candidate leads.
 *
 * **Details**
 *
 * A slow reader misses states in between, but always gets the latest one. Every five seconds, one small request asks for
 * changes that etcd has not reported. Observing needs no session, and costs the same however many candidates wait.
 *
 * The stream fails as `leader` does until it has emitted once. After that, it waits until an outage is over and logs a
 * warning at once and every minute; it fails with an error that waiting cannot cure.
 *
 * **Example** (Following the leader)
 *
 * ```ts
 * import { Effect, Option, Stream } from "effect"
 * import { Election } from "effect-etcd-lock"
 *
 * export const follow = (connect: (address: string) => Effect.Effect<never>) =>
 *   Election.observe("scheduler").pipe(
 *     Stream.switchMap(Option.match({
 *       onNone: () => Stream.empty,
 *       onSome: ({ value }) => Stream.fromEffect(connect(value))
 *     })),
 *     Stream.runDrain
 *   )
 * ```
 *
 * @category observing
 * @since 0.1.0
 */
export const observe = (name: string): Stream.Stream<Option.Option<Leader>, Etcd.EtcdError, Etcd.Etcd> =>
  Stream.unwrap(Effect.map(Etcd.Etcd, (etcd) => leaders.observe(etcd, name, placeOf(name))))

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** What is left to provide of what a body needs. */
type Needed<R> = Exclude<R, CurrentHandle | Current> | Session

const leading = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Current> | CurrentHandle> =>
  Effect.flatMap(CurrentHandle, (handle) => Effect.provideService(self, Current, handle as Leadership))

const placeOf = (name: string) => request.queueOf("Election", name)

/** Checks the name and the options, and returns what the candidate proclaims. */
const proposalOf = (name: string, options: Pick<Options, "value"> | undefined): string => {
  Check.name("Election", name)
  Check.object("Election", "options", options, "{ value: \"10.0.0.7:8080\" }")
  const value = options?.value === undefined ? host : options.value
  Check.proposal("Election", value)
  return value
}

const candidate = request.make({
  module: "Election",
  place: ({ contention }, name, options: Options | undefined) => {
    const value = proposalOf(name, options)
    const { layout, prefix } = placeOf(name)
    return { contention: contention(layout), prefix, claim: election, value }
  },
  ...errors,
  selfWait: (lock) =>
    new Error(
      `Election '${lock}' is led by this fiber already, or it holds the lock of that name: it would wait for itself. ` +
        "Its handle is Lock.Current."
    ),
  handle: LeadershipImpl
})

/** Its options have no timeout, so that no `LockTimeout` comes. */
const stand = (name: string, options: Pick<Options, "value" | "label"> | undefined) =>
  candidate.acquire(name, options) as request.Acquire<Leadership, StandError>
