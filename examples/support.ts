/** What the examples share. Copy it with them. */
import { NodeFileSystem } from "@effect/platform-node"
import { Clock, Config, ConfigProvider, Console, Data, Duration, Effect, Layer, Logger, Option } from "effect"
import { Etcd } from "effect-etcd-lock"

let started: bigint | undefined

/** Prints who does what, after the seconds since the first such line. */
export const say = (who: string, what: string): Effect.Effect<void> =>
  Effect.flatMap(Clock.monotonicTimeNanos, (now) => {
    started ??= now
    const seconds = Duration.toSeconds(Duration.nanos(now - started))
    return Console.log(`${seconds.toFixed(1)} s  ${who.padEnd(8)} ${what}`)
  })

/** Ends a program that has failed with one sentence and the exit code 1. What is logged goes to stderr, too. */
export const explained = <A, E extends { readonly message: string }, R>(
  program: Effect.Effect<A, E, R>
): Effect.Effect<void, never, R> =>
  Effect.matchEffect(program, {
    onSuccess: () => Effect.void,
    onFailure: ({ message }) =>
      Effect.andThen(
        Console.error(message),
        Effect.sync(() => {
          process.exitCode = 1
        })
      )
  }).pipe(Effect.provideService(Logger.LogToStderr, true))

const given = Config.option(
  Config.String("ETCD_ENDPOINTS").pipe(
    Config.orElse(() => Config.String("ETCDCTL_ENDPOINTS"))
  )
)

const at = (endpoints: string) =>
  Etcd.layerEtcdctl().pipe(
    Layer.provide(NodeFileSystem.layer),
    Layer.provide(ConfigProvider.layer(
      ConfigProvider.fromEnv({ env: { ...process.env, ETCDCTL_ENDPOINTS: endpoints } })
    ))
  )

const fromEnvironment = (endpoints: string) =>
  Effect.as(say("etcd", `at ${endpoints}, as the environment says`), at(endpoints))

const inMemory = (why: string) => Effect.as(say("etcd", `in memory, ${why}`), Etcd.layerMemory())

/** The etcd of `ETCD_ENDPOINTS` or `ETCDCTL_ENDPOINTS`, else, or with `--memory`, one in memory. */
export const EtcdLive = Layer.unwrap(Effect.gen(function*() {
  if (process.argv.includes("--memory")) return yield* inMemory("as asked for")
  const endpoints = yield* given
  return Option.isSome(endpoints)
    ? yield* fromEnvironment(endpoints.value)
    : yield* inMemory("since ETCD_ENDPOINTS names no other")
}))

class NoEtcd extends Data.TaggedError("NoEtcd")<{ readonly message: string }> {}

/** The same for several processes, which inherit the environment. One in memory could not be shared. */
export const SharedEtcdLive = Layer.unwrap(Effect.flatMap(
  given,
  Option.match({
    onNone: () =>
      Effect.fail(
        new NoEtcd({
          message: "The processes of this example need an etcd that they share: set ETCD_ENDPOINTS, " +
            "or run it through test/examples/withEtcd.ts, which starts one."
        })
      ),
    onSome: (endpoints) => Effect.succeed(at(endpoints))
  })
))
