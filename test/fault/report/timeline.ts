/**
 * A window of a run as a drawing that follows the reader's light or dark theme: the bodies as bars, a row for each lock, and
 * the faults as bands across them.
 */
import type { Verdict } from "../checks.ts"
import { type Fault, type Held, type History, isHeld, sectionsOf } from "../history.ts"

const width = 960
const left = 90
const right = 20
const row = 26
const band = 17

export interface Window {
  readonly from: number
  readonly to: number
}

/** The window of so many milliseconds in which most faults begin. */
export const busiest = ({ faults, from }: History, millis: number): Window => {
  const within = (start: number) => faults.filter((fault) => fault.from >= start && fault.from < start + millis).length
  const best = faults.reduce(
    (best, fault) => within(fault.from) > within(best) ? fault.from : best,
    faults[0]?.from ?? from
  )
  return { from: best - millis / 30, to: best + millis }
}

export const render = (history: History, verdict: Verdict, window: Window): string => {
  const x = (at: number) =>
    left +
    (Math.min(Math.max(at, window.from), window.to) - window.from) / (window.to - window.from) * (width - left - right)
  const isSeen = ({ from, to }: Window) => to >= window.from && from <= window.to
  const faults = history.faults.filter(isSeen).toSorted((a, b) => a.from - b.from)
  const label = ({ from, name }: Fault) => {
    const length = name.length * 5.6 + 8
    return { from: Math.min(x(from) + 4, width - length), length }
  }
  const rows = lay(
    faults,
    (fault) => Math.min(x(fault.from), label(fault).from),
    (fault) => Math.max(x(fault.to), label(fault).from + label(fault).length)
  )
  const top = 52
  const locksAt = top + rows.count * band + 14
  const height = locksAt + history.locks.length * row + 44
  const held = sectionsOf(history).filter(isHeld)
  const contenders = history.contenders.map(({ name }) => name)
  const bad = new Set(
    verdict.overlaps.filter(({ excuse }) => excuse === undefined).flatMap((
      { earlier, later }
    ) => [earlier.id, later.id])
  )
  const bar = (section: Held, i: number) => {
    const from = x(section.holds)
    const length = Math.max(0.6, x(section.stopped) - from)
    const kind = bad.has(section.id) ? "bad" : `c${contenders.indexOf(section.contender.name) % 8}`
    return `<rect class="${kind}" x="${from.toFixed(1)}" y="${locksAt + i * row + 4}" width="${
      length.toFixed(1)
    }" height="${row - 8}"/>`
  }
  const seconds = Math.round((window.to - window.from) / 1000)
  const step = Math.max(1, Math.round(seconds / 10))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<style>${style}</style>`,
    `<rect class="paper" width="${width}" height="${height}" rx="6"/>`,
    text(20, 26, "head", `${seconds} seconds of ${history.etcd} under faults: who holds which lock`),
    ...faults.map((fault) => {
      const from = x(fault.from)
      const length = Math.max(1.5, x(fault.to) - from)
      return `<rect class="band" x="${from.toFixed(1)}" y="${locksAt - 4}" width="${length.toFixed(1)}" height="${
        history.locks.length * row + 8
      }"/>`
    }),
    ...faults.flatMap((fault) => {
      const from = x(fault.from)
      const y = top + rows.of(fault) * band
      return [
        `<rect class="fault" x="${from.toFixed(1)}" y="${y}" width="${
          Math.max(1.5, x(fault.to) - from).toFixed(1)
        }" height="${band - 4}" rx="2"/>`,
        text(label(fault).from, y + 10, "small", fault.name)
      ]
    }),
    ...history.locks.map(({ name }, i) => text(left - 8, locksAt + i * row + 17, "name", name, "end")),
    ...history.locks.flatMap(({ name }, i) =>
      held.filter(({ holds, lock, stopped }) => lock === name && isSeen({ from: holds, to: stopped }))
        .map((section) => bar(section, i))
    ),
    ...Array.from(
      { length: Math.floor(seconds / step) + 1 },
      (_, i) => text(x(window.from + i * step * 1000), height - 24, "small", `${i * step} s`, "middle")
    ),
    text(
      left,
      height - 8,
      "small",
      "A bar is a body; each process has a colour. Red would be two at once that nothing excuses."
    ),
    "</svg>",
    ""
  ].join("\n")
}

/** Puts what would cover each other into rows. */
const lay = <A>(some: ReadonlyArray<A>, from: (one: A) => number, to: (one: A) => number) => {
  const ends: Array<number> = []
  const rows = new Map<A, number>()
  for (const one of some) {
    const free = ends.findIndex((end) => end <= from(one))
    const row = free < 0 ? ends.length : free
    ends[row] = to(one)
    rows.set(one, row)
  }
  return { count: ends.length, of: (one: A) => rows.get(one)! }
}

const text = (x: number, y: number, kind: string, content: string, anchor = "start"): string =>
  `<text class="${kind}" x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${
    content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
  }</text>`

const style = `
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 15px }
.small { font-size: 10.5px }
.paper { fill: #ffffff }
.band { fill: #d29922; opacity: 0.14 }
.fault { fill: #d29922; opacity: 0.45 }
.bad { fill: #cf222e }
.c0 { fill: #0969da } .c1 { fill: #1a7f37 } .c2 { fill: #8250df } .c3 { fill: #bf3989 }
.c4 { fill: #0598bc } .c5 { fill: #6e7781 } .c6 { fill: #953800 } .c7 { fill: #4d2d00 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117 }
  .c0 { fill: #4493f8 } .c1 { fill: #3fb950 } .c2 { fill: #a371f7 } .c3 { fill: #db61a2 }
  .c4 { fill: #39c5cf } .c5 { fill: #8b949e } .c6 { fill: #f0883e } .c7 { fill: #c69026 }
}
`
