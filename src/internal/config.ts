/** What the layers that read configuration have in common. */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import { InvalidOption, kindOf } from "./options.ts"

export const configError = (message: string, cause?: unknown): Config.ConfigError =>
  new Config.ConfigError(new ConfigProvider.SourceError({ message, cause }))

/** Makes what a layer provides of the options that the configuration has. */
export const configured = <Options extends object, A, E, R>(
  module: string,
  options: Config.Wrap<Options>,
  make: (options: Options) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | Config.ConfigError, R> =>
  Effect.suspend(() => Config.unwrap<Options>(wrapped(module, "options", options) as Config.Wrap<Options>)).pipe(
    Effect.flatMap((options) => refusing((defect) => configError(defect.message, defect))(make(options)))
  )

/** An option from configuration that can never work is a mistake of the operator, not a defect. */
export const refusing =
  (toError: (defect: InvalidOption) => Config.ConfigError | undefined) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Config.ConfigError, R> =>
    Effect.catchDefect(self, (defect): Effect.Effect<never, Config.ConfigError> => {
      const error = defect instanceof InvalidOption ? toError(defect) : undefined
      return error === undefined ? Effect.die(defect) : Effect.fail(error)
    })

/** Leaves out what is undefined, and refuses bare values, neither of which `Config.unwrap` survives. */
const wrapped = (module: string, option: string, value: unknown): unknown => {
  if (Config.isConfig(value)) return value
  if (kindOf(value) === "an object") {
    return Object.fromEntries(
      Object.entries(value as object)
        .filter(([, part]) => part !== undefined)
        .map(([key, part]) => [key, wrapped(module, option === "options" ? key : `${option}.${key}`, part)])
    )
  }
  throw new InvalidOption({
    module,
    option,
    problem: (name) => `${name(option)} must be a Config, or an object of Configs, got ${kindOf(value)}`,
    cure: () => "Write it as Config.String(\"NAME\"), or as Config.succeed(value)."
  })
}
