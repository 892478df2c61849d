/**
 * The figures that say most, as a drawing that follows the reader's light or dark
 * theme.
 */
import { type Environment, medianOf, type Results, values } from "../results.ts"
import * as Roster from "../roster.ts"
import type { Measured } from "../rounds.ts"
import { grouped } from "./markdown.ts"

const panels: ReadonlyArray<{ readonly case: string; readonly metric: string; readonly title: string }> = [
  { case: "uncontended", metric: "p50", title: "Take and release a free lock: microseconds, less is better" },
  { case: "hand-over-8", metric: "passed", title: "8 contenders in one process: locks passed on per second" },
  { case: "hand-over-4x1", metric: "passed", title: "4 processes: locks passed on per second" },
  { case: "many-64", metric: "rate", title: "64 locks by 64 contenders: locks per second" }
]

const width = 760
const labels = 200
const numbers = 80
const bar = 18
const gap = 6

export const render = (results: Results): string => {
  const [environment] = results.environments
  let top = 58
  const drawn: Array<string> = []
  for (const { case: name, metric, title } of panels) {
    const measured = environment?.cases.find((one) => one.case === name)
    if (measured === undefined) continue
    const bars = barsOf(measured, metric)
    drawn.push(text(20, top, "title", title))
    top += 12
    const longest = Math.max(...bars.map(({ value }) => value))
    for (const { contender, value } of bars) {
      const length = Math.max(1, value / longest * (width - labels - numbers - 20))
      drawn.push(
        text(labels - 8, top + bar - 5, "name", contender, "end"),
        `<rect class="${kind(contender)}" x="${labels}" y="${top}" width="${
          length.toFixed(1)
        }" height="${bar}" rx="2"/>`,
        text(labels + length + 6, top + bar - 5, "number", format(value))
      )
      top += bar + gap
    }
    top += 26
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top}" width="${width}" height="${top}" role="img">`,
    `<style>${style}</style>`,
    `<rect class="paper" width="${width}" height="${top}" rx="6"/>`,
    text(20, 28, "head", headline(environment)),
    ...drawn,
    "</svg>",
    ""
  ].join("\n")
}

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const barsOf = (measured: Measured, metric: string) =>
  Object.keys(measured.samples).flatMap((contender) => {
    const found = medianOf(values(measured, contender, metric))
    // the floor passes nothing on
    return found === undefined || found.median === 0 && isFloor(contender)
      ? []
      : [{ contender, value: found.median }]
  })

const headline = (environment: Environment | undefined): string =>
  environment === undefined
    ? "Nothing measured"
    : `${environment.etcd}, data ${environment.disk === "tmpfs" ? "in memory" : "on disk"}, medians`

const isFloor = (contender: string) => contender === Roster.floor || contender === Roster.goFloor

const kind = (contender: string): string => {
  if (contender === Roster.library) return "own"
  return isFloor(contender) ? "floor" : "peer"
}

const format = (value: number): string => grouped(value).replaceAll(" ", "\u2009")

const text = (x: number, y: number, kind: string, content: string, anchor = "start"): string =>
  `<text class="${kind}" x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${content}</text>`

const style = `
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 15px }
.title { font-weight: 600 }
.paper { fill: #ffffff }
.own { fill: #0969da }
.peer { fill: #afb8c1 }
.floor { fill: #dfe3e8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117 }
  .own { fill: #4493f8 }
  .peer { fill: #6e7681 }
  .floor { fill: #3d444d }
}
`
