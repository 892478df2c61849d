import { Clock, Config, ConfigProvider, Console, Effect, Layer, Option } from "effect"
import { Etcd } from "effect-etcd-lock"
import * as EtcdServer from "../test/support/EtcdServer.ts"

let started: number | undefined

/** Prints who does what, after the seconds since the first such line. */
export const say = (who: string, what: string): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    started ??= now
    return Console.log(`${((now - started) / 1000).toFixed(1)} s  ${who.padEnd(8)} ${what}`)
  })

/** Ends a program that has failed with one sentence and the exit code 1. */
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
  })

const given = Config.option(
  Config.String("ETCD_ENDPOINTS").pipe(
    Config.orElse(() => Config.String("ETCDCTL_ENDPOINTS"))
  )
)

const fromEnvironment = (endpoints: string) =>
  Effect.as(
    say("etcd", `at ${endpoints}, as the environment says`),
    Etcd.layerConfig().pipe(Layer.provide(ConfigProvider.layer(
      ConfigProvider.fromEnv({ env: { ...process.env, ETCDCTL_ENDPOINTS: endpoints } })
    )))
  )

const startedHere = Effect.gen(function*() {
  const { description, endpoint } = yield* EtcdServer.start()
  yield* say("etcd", `${description}, started for this program`)
  return Etcd.layer({ hosts: endpoint })
})

const inMemory = (why: string) => Effect.as(say("etcd", `in memory, ${why}`), Etcd.layerMemory())

const found = Effect.gen(function*() {
  if (process.argv.includes("--memory")) return yield* inMemory("as asked for")
  const endpoints = yield* given
  if (Option.isSome(endpoints)) return yield* fromEnvironment(endpoints.value)
  return yield* Effect.catch(startedHere, ({ message }) => inMemory(`since there is no other: ${message}`))
})

/**
 * The etcd of `ETCD_ENDPOINTS` or `ETCDCTL_ENDPOINTS`, else one that is started for
 * the program and ends with it, else, or with `--memory`, one in memory.
 */
export const EtcdLive = Layer.unwrap(found)
