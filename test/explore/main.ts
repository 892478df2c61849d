/**
 * Explores the schedules of small programs:
 *
 *   npm run explore -- --help
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, Layer, Option } from "effect"
import { CliConfig, Command, Flag, GlobalFlag } from "effect/cli"
import { commit } from "../bench/results.ts"
import { Explorer, type Schedule } from "./Explorer.ts"
import { programs } from "./programs.ts"
import { type Length, run } from "./World.ts"

class Violated extends Data.TaggedError("Violated")<{ readonly message: string }> {}

const lengths: ReadonlyArray<Length> = ["short", "long"]
const names = programs.map(({ name }) => name)

interface Choice {
  readonly bound: number
  readonly minutes: number
  readonly most: Option.Option<number>
  readonly programs: ReadonlyArray<string>
  readonly lengths: ReadonlyArray<Length>
}

const explore = Effect.fnUntraced(function*(choice: Choice) {
  const explorers = programs.filter(({ name }) => choice.programs.length === 0 || choice.programs.includes(name))
    .flatMap((program) =>
      (choice.lengths.length === 0 ? lengths : choice.lengths).map((length) => new Explorer(program, length))
    )
  const begun = performance.now()
  const end = begun + choice.minutes * 60_000
  for (let bound = 0; bound <= choice.bound; bound++) {
    const left = explorers.filter(({ isComplete }) => isComplete)
    for (const [index, explorer] of left.entries()) {
      // What one leaves of its share of the time is for those after it.
      const now = performance.now()
      explorer.deepen(now + (end - now) / (left.length - index), Option.getOrUndefined(choice.most))
      const seconds = ((performance.now() - now) / 1000).toFixed(1)
      const { length, program, schedules, states } = explorer
      yield* Console.log(
        `${program.name}, ${length} line: ${schedules[bound]} schedules of ${bound} deviations in ${seconds} s, ` +
          `${states} states${explorer.isComplete ? "" : ", and not all"}`
      )
      if (explorer.counterExample === undefined) continue
      const { schedule, violations } = explorer.counterExample
      return yield* new Violated({
        message: [...violations, "Play it again with", `npm run explore -- --replay '${JSON.stringify(schedule)}'`]
          .join("\n")
      })
    }
  }
  const all = explorers.flatMap(({ schedules }) => schedules).reduce((sum, count) => sum + count, 0)
  const rest = explorers.every(({ isComplete }) => isComplete) ? "" : ", as far as they were explored"
  yield* Console.log(
    `${all} schedules in ${((performance.now() - begun) / 1000).toFixed(0)} s: all promises are kept${rest}`
  )
})

const replay = Effect.fnUntraced(function*(text: string) {
  const { deviations, length, program: name } = JSON.parse(text) as Schedule
  const program = programs.find((program) => program.name === name)!
  const trace: Array<string> = []
  const { violations } = run({ program, length, deviations, trace: (line) => trace.push(line) })
  yield* Console.log(trace.join("\n"))
  if (violations.length > 0) return yield* new Violated({ message: violations.join("\n") })
  yield* Console.log("All promises are kept")
})

const command = Command.make(
  "explore",
  {
    bound: Flag.Int("bound").pipe(Flag.withDefault(2), Flag.withDescription("The greatest number of deviations")),
    minutes: Flag.Finite("minutes").pipe(
      Flag.withDefault(10),
      Flag.withDescription("How long it may take, shared by the programs")
    ),
    most: Flag.Int("most").pipe(
      Flag.optional,
      Flag.withDescription("How many schedules of each number of deviations it plays of each program, at most")
    ),
    programs: Flag.Literals("program", names).pipe(
      Flag.atLeast(0),
      Flag.withDescription("Explores only such programs")
    ),
    lengths: Flag.Literals("line", lengths).pipe(
      Flag.atLeast(0),
      Flag.withDescription("Has lines of two watched as a whole, or by guards; both without it")
    ),
    replay: Flag.String("replay").pipe(Flag.optional, Flag.withDescription("Plays one schedule, with each step"))
  },
  ({ replay: schedule, ...choice }) => Option.isSome(schedule) ? replay(schedule.value) : explore(choice)
).pipe(
  Command.withDescription("Explores the schedules of small programs by the number of deviations from a default order")
)

command.pipe(
  Command.run({ version: commit() }),
  Effect.catchTags({
    Violated: ({ message }) =>
      Effect.andThen(
        Console.error(message),
        Effect.sync(() => {
          process.exitCode = 1
        })
      )
  }),
  Effect.provide(Layer.merge(NodeServices.layer, CliConfig.layer({ builtIns: [GlobalFlag.Help] }))),
  NodeRuntime.runMain
)
