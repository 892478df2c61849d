import { caseOf, type Environment, medianOf, ratios, type Results, values } from "../results.ts"
import type { Measured } from "../rounds.ts"
import type { Spread } from "../statistics.ts"
import { goals, isReached } from "./goals.ts"

export const render = (results: Results): string =>
  [
    "# Benchmark",
    "",
    `${results.date.slice(0, 10)}, commit ${results.commit}, on ${results.machine}.`,
    "",
    ...results.contenders.map(({ name, what }) => `- **${name}**: ${what}`),
    "",
    howTo(results),
    "",
    ...results.environments.flatMap((environment) => renderEnvironment(environment, results))
  ].join("\n")

/** The table of one case, as it is shown while a run goes on. */
export const renderCase = (measured: Measured): string => {
  const one = caseOf(measured)
  const others = one.against.filter((other) => other in measured.samples)
  const rows = Object.keys(measured.samples).map((contender) => {
    const found = one.metrics.map(({ digits, key }) => median(medianOf(values(measured, contender, key)), digits))
    const compared = others.map((other) =>
      contender === other ? "1" : withQuartiles(medianOf(ratios(measured, contender, other, one.compared)))
    )
    return [contender, found, compared].flat()
  })
  const compared = one.metrics.find(({ key }) => key === one.compared)!.label
  const absent = new Set(measured.absent.map(({ name, why }) => `${name} (${why.split("\n", 1)[0]})`))
  return [
    table(["", ...one.metrics.map(({ label }) => label), ...others.map((other) => `${compared} ÷ ${other}`)], rows),
    "",
    ...absent.size > 0 ? [`Not here: ${[...absent].join("; ")}.`, ""] : []
  ].join("\n")
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const howTo = ({ plan }: Results): string =>
  `Each contender runs in processes of its own, which are used until that makes them no faster. They take turns of ${plan.millis} ms (twice that for hand-overs), \
${plan.rounds} rounds in each of ${plan.generations} starts; what is heavy is measured in ${plan.repeats} starts of ${
    plan.repeats === 1 ? "its" : "their"
  } own. The \
tables have the medians over all rounds. "Passed on" counts the locks that went to another contender than the last: whoever takes a lock again and again by itself hands nothing over. A ratio is the median of the ratios within each round, with their \
quartiles in brackets.`

const renderEnvironment = (environment: Environment, results: Results): ReadonlyArray<string> => [
  `## ${environment.etcd}, data ${environment.disk === "tmpfs" ? "in memory (tmpfs)" : "on disk"}`,
  "",
  ...environment.disk === "tmpfs" ? renderGoals(environment) : [],
  ...environment.cases.flatMap((measured) => [
    `### ${caseOf(measured).title}`,
    "",
    renderCase(measured),
    `Load average ${measured.load.map((load) => load.toFixed(1)).join(" to ")}, on ${
      results.machine.split(" ")[0]
    } cores${
      measured.stolen === undefined
        ? ""
        : `; other machines on its host had ${Math.round(measured.stolen * 100)} % of its time`
    }.`,
    ""
  ])
]

const renderGoals = (environment: Environment): ReadonlyArray<string> => [
  "### Goals",
  "",
  table(
    ["", "goal", "here", ""],
    goals.flatMap((goal) => {
      const value = goal.value(environment)
      const bar = "atMost" in goal.bar ? `at most ${goal.bar.atMost}` : `at least ${goal.bar.atLeast}`
      return value === undefined
        ? []
        : [[goal.text, bar, shorten(value), isReached(goal, value) ? "reached" : "**not reached**"]]
    })
  ),
  ""
]

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map((_, i) => i === 0 ? "---" : "---:"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const median = (found: Spread | undefined, digits: number): string =>
  found === undefined ? "-" : digits === 0 ? grouped(found.median) : found.median.toFixed(digits)

const withQuartiles = (found: Spread | undefined): string =>
  found === undefined ? "-" : `${shorten(found.median)} (${shorten(found.q1)}-${shorten(found.q3)})`

const shorten = (value: number): string =>
  Math.abs(value) >= 100 ? grouped(value) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)

export const grouped = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, " ")
