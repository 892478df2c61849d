/**
 * What a run has found, as it is kept in JSON.
 */
import { execFileSync } from "node:child_process"
import * as Os from "node:os"
import { type Case, cases } from "./cases.ts"
import type { Contender } from "./roster.ts"
import type { Measured, Plan } from "./rounds.ts"
import { type Spread, spread } from "./statistics.ts"
import type { Disk } from "./stores.ts"

export interface Results {
  readonly date: string
  readonly commit: string
  readonly machine: string
  readonly contenders: ReadonlyArray<Pick<Contender, "name" | "what">>
  readonly plan: Plan
  readonly environments: ReadonlyArray<Environment>
}

export interface Environment {
  readonly disk: Disk
  /** `etcd 3.5.16` */
  readonly etcd: string
  readonly cases: ReadonlyArray<Measured>
  /** What `--check` compares with. */
  readonly guard: ReadonlyArray<Guarded>
}

/** What this library takes in a case as a multiple of what the floor takes, in each round. */
export interface Guarded {
  readonly case: string
  readonly costs: ReadonlyArray<number>
}

export const caseOf = ({ case: name }: { readonly case: string }): Case => cases.find((one) => one.name === name)!

/** The values of a metric over all rounds; undefined when the contender did not take part, or there is no such value. */
export const values = (measured: Measured, contender: string, metric: string): ReadonlyArray<number> | undefined => {
  const found = measured.samples[contender]?.map((sample) => sample[metric]!).filter((value) => Number.isFinite(value))
  return found === undefined || found.length === 0 ? undefined : found
}

/** One contender's value as a multiple of another's, round by round. */
export const ratios = (
  measured: Measured,
  contender: string,
  other: string,
  metric: string
): ReadonlyArray<number> | undefined => {
  const own = measured.samples[contender]
  const others = measured.samples[other]
  if (own === undefined || others === undefined) return undefined
  const found = own.map((sample, i) => sample[metric]! / others[i]![metric]!).filter((ratio) => Number.isFinite(ratio))
  return found.length === 0 ? undefined : found
}

export const medianOf = (found: ReadonlyArray<number> | undefined): Spread | undefined =>
  found === undefined ? undefined : spread(found)

/** The median of a contender's metric in a case, if both are there. */
export const medianIn = (
  { cases }: Environment,
  name: string,
  contender: string,
  metric: string
): number | undefined => {
  const measured = cases.find((one) => one.case === name)
  return measured && medianOf(values(measured, contender, metric))?.median
}

export const machine = (): string =>
  [
    `${Os.cpus().length} x ${Os.cpus()[0]!.model}`,
    `${Math.round(Os.totalmem() / 2 ** 30)} GiB`,
    `${Os.type()} ${Os.release()}`,
    `Node ${process.version}`
  ].join(", ")

export const commit = (): string => {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { encoding: "utf8", cwd: import.meta.dirname })
      .trim()
  } catch {
    return "unknown"
  }
}

/** As it is written: each contender's samples of a case on one line, so that a run changes as many lines as it has found. */
export const format = (results: Results): string =>
  `${lines(JSON.parse(JSON.stringify(results, rounded)), undefined, "")}\n`

/** Reads what `format` writes, and what was written before that, over many more lines. */
export const parse = (text: string): Results => JSON.parse(text)

const rounded = (_: string, value: unknown) =>
  typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value

/** What has a line for each of its parts. */
const parted = ["contenders", "environments", "cases", "samples", "guard"]

const lines = (value: unknown, name: string | undefined, indent: string): string => {
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  const isParted = (name !== undefined && parted.includes(name)) || parted.some((part) => part in value)
  const entries = Object.entries(value)
  if (!isParted || entries.length === 0) return JSON.stringify(value)
  const deeper = `${indent} `
  if (Array.isArray(value)) {
    return `[\n${value.map((part) => deeper + lines(part, undefined, deeper)).join(",\n")}\n${indent}]`
  }
  const parts = entries.map(([key, part]) => `${deeper}${JSON.stringify(key)}: ${lines(part, key, deeper)}`)
  return `{\n${parts.join(",\n")}\n${indent}}`
}
