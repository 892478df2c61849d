/** The results as Markdown. */
import type { Excuse, Verdict } from "../checks.ts"
import { type Counter, type History, isHeld, type Kind, type Section, sectionsOf } from "../history.ts"
import { titles } from "../roster.ts"
import { gapsOf, scenarios, type Table } from "../table.ts"

// -----------------------------------------------------------------------------
// a run
// -----------------------------------------------------------------------------

export const renderRun = (history: History, verdict: Verdict, machine: string, commit: string): string => {
  const sections = sectionsOf(history)
  const kinds = [...new Set(history.contenders.map(({ kind }) => kind))]
  const minutes = (history.to - history.from) / 60_000
  return [
    `# ${history.faults.length} faults in ${minutes.toFixed(0)} minutes`,
    "",
    `Three members of ${history.etcd} on ${machine}, ${history.contenders.length} processes on ${history.locks.length} locks, TTL ${
      history.ttl / 1000
    } s, seed ${history.seed}, commit ${commit}. Written by \`npm run test:faults\`.`,
    "",
    ...table(
      ["", ...kinds.map((kind) => titles[kind])],
      [
        ["sections asked for", ...each(kinds, sections, (some) => some.length)],
        ["bodies that ran", ...each(kinds, sections, (some) => some.filter(isHeld).length)],
        ["**violations**", ...kinds.map((kind) => verdict.violations.filter((one) => one.kind === kind).length)],
        ["overlaps without an excuse", ...kinds.map((kind) => overlaps(verdict, kind, undefined))],
        ["overlaps of a process that stood still", ...kinds.map((kind) => overlaps(verdict, kind, "frozen"))],
        ["overlaps after an operator took the lock", ...kinds.map((kind) => overlaps(verdict, kind, "operator"))],
        ["overlaps after etcd was restored too soon", ...kinds.map((kind) => overlaps(verdict, kind, "restored"))],
        ["overlaps after etcd ended a lease early", ...kinds.map((kind) => overlaps(verdict, kind, "etcd"))]
      ]
    ),
    "",
    "A process that stood still, an operator that takes a lock away or restores an older backup within the TTL, and an etcd that",
    "ends a lease within the TTL of a renewal that it has acknowledged, as a leader may that was stopped for a while, make two",
    "holders whatever the lock does;",
    "`stopped after` is how long the body took to stop once its process could know.",
    "",
    ...table(
      ["counter", "value", "writes in etcd", "of which their writers were not told"],
      verdict.counters.filter(({ applied }) => applied > 0).map(({ applied, counter, lock, unknown, value }) => [
        `${how[counter]}, \`${lock}\``,
        value,
        applied,
        unknown
      ])
    ),
    "",
    "A count is lost where two are at it at once, as readers and claims to few permits are, and where no guard protects it, where",
    "a write of an earlier holder arrives late.",
    "",
    `When all was well again, a lock moved within ${
      quantiles(verdict.recoveries)
    } ms (median, worst of ${verdict.recoveries.length}).`,
    "",
    ...history.locks.filter(({ isHeldThroughout }) => isHeldThroughout === true).flatMap(({ name }) => [
      `\`${name}\` was held by one body for ${seconds(longestOf(sections, name, history.to))} of ${
        seconds(history.to - history.from)
      } s.`,
      ""
    ]),
    ...table(
      ["what ended a section", "times"],
      count(sections.map(({ error }) => error === undefined ? "released" : error.split(" ").slice(0, 2).join(" ")))
    ),
    "",
    ...table(["fault", "times"], count(history.faults.map(({ name }) => classOf(name)))),
    "",
    ...verdict.violations.map(({ check, kind, what }) => `- ${titles[kind]}, ${check}: ${what}`),
    ""
  ].join("\n")
}

const how: { readonly [K in Counter]: string } = {
  fenced: "through the handle",
  shared: "through handles beside each other",
  plain: "without a guard"
}

/** A fault's name without what it hit. */
const classOf = (name: string): string =>
  name.replace(/^(ours|go|etcd3)-\d+/, "a contender").replace(/ \d+(?!\.)\b/g, "")
    .replace(/ for '.*'$/, " in a line").replace(/ of '.*'$/, " taken away")

const seconds = (millis: number): string => (millis / 1000).toFixed(0)

const longestOf = (sections: ReadonlyArray<Section>, lock: string, to: number): number =>
  sections.filter(isHeld).reduce(
    (longest, { holds, lock: of, stopped }) => of === lock ? Math.max(longest, Math.min(stopped, to) - holds) : longest,
    0
  )

const each = (
  kinds: ReadonlyArray<Kind>,
  sections: ReadonlyArray<Section>,
  of: (some: ReadonlyArray<Section>) => number
) => kinds.map((kind) => of(sections.filter(({ contender }) => contender.kind === kind)))

const overlaps = ({ overlaps }: Verdict, kind: Kind, why: Excuse["why"] | undefined): string => {
  const some = overlaps.filter(({ earlier, excuse }) => earlier.contender.kind === kind && excuse?.why === why)
  if (some.length === 0) return "0"
  const longest = Math.max(...some.map(({ millis }) => millis)).toFixed(0)
  if (why === undefined) return `${some.length}, the longest ${longest} ms`
  const late = some.map(({ earlier, excuse }) => earlier.stopped - excuse!.since)
  return `${some.length}, the longest ${longest} ms; stopped after ${quantiles(late)} ms`
}

const quantiles = (values: ReadonlyArray<number>): string => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (part: number) => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0).toFixed(0)
  return `${at(0.5)}, ${at(1)}`
}

const count = (names: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string | number>> => {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].toSorted(([, a], [, b]) => b - a)
}

// -----------------------------------------------------------------------------
// the table
// -----------------------------------------------------------------------------

export const renderTable = (results: Table): string => {
  const kinds = results.entrants.map(({ kind }) => kind)
  const rounds = Math.max(0, ...results.measured.map(({ round }) => round)) + 1
  return [
    "# From the end of one body to the beginning of the next",
    "",
    `Milliseconds between the former holder's stop and the next one's start, TTL ${results.ttl} s: median, and in brackets the worst and the best of ${rounds} rounds. Positive is safe: the former holder had stopped before. Negative is for how long both ran.`,
    "",
    ...table(
      ["", ...kinds.map((kind) => titles[kind])],
      scenarios.map(({ name }) => [name].concat(kinds.map((kind) => cell(results, name, kind))))
    ),
    "",
    "\"never\" stands where the former holder had not stopped when the round was over.",
    "",
    `Three members of ${results.etcd} on ${results.machine}, all contenders at the same time on the same cluster. Commit ${results.commit}, ${
      results.date.slice(0, 10)
    }. Written by \`npm run test:faults -- --table\`.`,
    "",
    ...results.entrants.map(({ kind, what }) => `- ${titles[kind]}: ${what}`),
    ""
  ].join("\n")
}

const cell = (table: Table, fault: string, kind: Kind): string => {
  const gaps = gapsOf(table, fault, kind)
  if (gaps.length === 0) return ""
  const text = ({ gap, stopped }: (typeof gaps)[number]) => stopped ? signed(gap) : "never"
  if (gaps.every(({ stopped }) => !stopped)) return "never"
  const median = gaps[Math.floor((gaps.length - 1) / 2)]!
  return `${text(median)} (${text(gaps[0]!)} … ${text(gaps.at(-1)!)})`
}

const signed = (value: number): string => value < 0 ? `−${-value}` : `+${value}`

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string | number>>
): ReadonlyArray<string> => [
  `| ${head.join(" | ")} |`,
  `| --- | ${head.slice(1).map(() => "---:").join(" | ")} |`,
  ...rows.map((row) => `| ${row.join(" | ")} |`)
]
