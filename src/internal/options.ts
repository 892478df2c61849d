/**
 * Checks what callers pass in. A value that can never work is a misuse, and a misuse is a defect that names the
 * option, says what it got, and shows a valid value.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"

/** Returns the name under which an option's value was given: its own, or that of the variable that it came from. */
export interface Naming {
  (option: string): string
}

export interface Problem {
  /** Who takes the option. */
  readonly module: string
  readonly option: string
  readonly problem: (name: Naming) => string
  /** A sentence that shows a valid value. */
  readonly cure?: ((name: Naming) => string) | undefined
  readonly cause?: unknown
}

/** An option that can never work. */
export class InvalidOption extends RangeError {
  readonly option: string
  readonly #problem: Problem["problem"]
  readonly #cure: Problem["cure"]

  constructor({ cause, cure, module, option, problem }: Problem) {
    const message = `${module}: ${sentences(problem(itself), cure?.(itself))}`
    super(message, cause === undefined ? undefined : { cause })
    this.option = option
    this.#problem = problem
    this.#cure = cure
  }

  /** Returns what is wrong and what would be right, for values that were given under other names. */
  describe(name: Naming, cure = this.#cure?.(name)): string {
    return sentences(this.#problem(name), cure)
  }
}

const sentences = (problem: string, cure: string | undefined): string =>
  cure === undefined ? problem : `${problem}. ${cure}`

const itself: Naming = (option) => option

/** Shows a value in short. A value that could be secret has only its `kindOf` shown. */
export const show = (value: unknown): string => {
  switch (typeof value) {
    case "string": {
      return value.length <= maxShown
        ? JSON.stringify(value)
        : `${JSON.stringify(value.slice(0, maxShown))}… (${value.length} characters)`
    }
    case "number":
    case "boolean": {
      return String(value)
    }
    case "bigint": {
      return `${value}n`
    }
    default: {
      return kindOf(value)
    }
  }
}

const maxShown = 64

export const kindOf = (value: unknown): string => {
  if (value === undefined || value === null) return String(value)
  if (typeof value === "string") return value === "" ? "empty text" : "text"
  if (Array.isArray(value)) return "an array"
  // Most likely the caller forgot to yield it.
  if (Effect.isEffect(value)) return "an Effect"
  if (Redacted.isRedacted(value)) return "a Redacted"
  if (typeof value !== "object") return `a ${typeof value}`
  const { constructor } = value
  return typeof constructor === "function" && constructor !== Object
    ? `an instance of ${constructor.name}`
    : "an object"
}

/** Refuses what is no object, since all of its properties would seem to be absent. */
export const object = (module: string, option: string, value: unknown, example: string): void => {
  if (value === undefined || (typeof value === "object" && value !== null)) return
  throw new InvalidOption({
    module,
    option,
    problem: (name) => `${name(option)} must be an object, such as ${example}, got ${kindOf(value)}`
  })
}

// -----------------------------------------------------------------------------
// durations
// -----------------------------------------------------------------------------

export interface DurationOption {
  readonly module: string
  readonly option: string
  /** What it must be. */
  readonly range: string
  readonly accepts: (duration: Duration.Duration) => boolean
  readonly example: string
}

export const duration = (
  { accepts, example, module, option, range }: DurationOption,
  input: Duration.Input
): Duration.Duration => {
  const parsed = parseDuration(input)
  if (parsed !== undefined && accepts(parsed)) return parsed
  throw new InvalidOption({
    module,
    option,
    problem: (name) => `${name(option)} must be ${range}, got ${showDuration(input)}`,
    cure: () => `Write it as "${example}", or as a number of milliseconds.`
  })
}

// Duration silently takes NaN, and units that it does not know, for zero. Neither is a duration here.
const parseDuration = (input: Duration.Input): Duration.Duration | undefined => {
  if (typeof input === "number") return Number.isNaN(input) ? undefined : Duration.millis(input)
  if (typeof input === "object" && input !== null && !Duration.isDuration(input) && !isSpan(input)) return undefined
  return Option.getOrUndefined(Duration.fromInput(input))
}

const isSpan = (input: object): boolean => {
  if (Array.isArray(input)) return !input.some(Number.isNaN)
  const parts = Object.entries(input)
  return parts.length > 0 && parts.every(([unit, count]) => units.has(unit) && (count === undefined || isCount(count)))
}

const isCount = (count: unknown): boolean => typeof count === "number" && !Number.isNaN(count)

const units = new Set([
  "weeks",
  "days",
  "hours",
  "minutes",
  "seconds",
  "milliseconds",
  "microseconds",
  "nanoseconds"
])

const showDuration = (input: unknown): string => {
  if (Duration.isDuration(input)) return Duration.format(input)
  if (typeof input === "number") return Number.isFinite(input) ? `${input} ms` : String(input)
  return typeof input === "bigint" ? `${input} ns` : show(input)
}

// -----------------------------------------------------------------------------
// locks
// -----------------------------------------------------------------------------

const maxNameBytes = 1024

export const isName = (name: unknown): name is string =>
  typeof name === "string" && isShort(name) && !hasEmptySegment(name) && name.isWellFormed()

export const name = (module: string, name: string): void => {
  if (isName(name)) {
    if (!isFolder(name)) return
    throw new InvalidOption({
      module,
      option: "name",
      problem: (option) => `cannot use the ${option("name")} ${show(name)}`,
      cure: () =>
        "The last part of a name is neither \"read\" nor \"write\": under such a name, a read-write lock has its readers " +
        `or its writers. Write ${show(`${name}-lock`)}, for example.`
    })
  }
  throw new InvalidOption({
    module,
    option: "name",
    problem: (option) => `cannot use the ${option("name")} ${show(name)}`,
    cure: () =>
      `A name is text of at most ${maxNameBytes} bytes, is not empty, is well-formed Unicode, ` +
      "and has no \"/\" at its ends and no \"//\" in it, such as \"orders/7\"."
  })
}

/** Whether a name ends as the folders do in which a read-write lock has its readers and writers. */
export const isFolder = (name: string): boolean => /(^|\/)(read|write)$/.test(name)

// In UTF-8, one UTF-16 unit takes at most three bytes, and a pair of them four.
const isShort = (name: string): boolean => name.length * 3 <= maxNameBytes || Buffer.byteLength(name) <= maxNameBytes

const hasEmptySegment = (name: string): boolean =>
  name === "" || name.startsWith("/") || name.endsWith("/") || name.includes("//")

/** How many names one call may have: etcd takes 128 operations, and a transaction may have others beside these. */
const maxNames = 40

export const names = (module: string, names: ReadonlyArray<string>): void => {
  if (!Array.isArray(names) || names.length === 0 || names.length > maxNames) {
    const got = Array.isArray(names) ? `${names.length}` : show(names)
    throw new InvalidOption({
      module,
      option: "names",
      problem: (option) => `${option("names")} must be an array of 1 to ${maxNames} names, got ${got}`,
      cure: () => "Write them as [\"accounts/1\", \"accounts/2\"]."
    })
  }
  for (const one of names) name(module, one)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  const outer = names.find((outer) => names.some((name) => name.startsWith(`${outer}/`)))
  if (twice === undefined && outer === undefined) return
  throw new InvalidOption({
    module,
    option: "names",
    problem: (option) =>
      twice === undefined
        ? `${option("names")} has ${show(outer)} and a name that lies under it`
        : `${option("names")} has ${show(twice)} twice`,
    cure: () => twice === undefined ? "No name may be the beginning of another one's path." : "Name each lock once."
  })
}

export const isSingleKey = (module: string, layout: "queue" | "single-key" | undefined): boolean => {
  if (layout === undefined || layout === "queue") return false
  if (layout === "single-key") return true
  throw new InvalidOption({
    module,
    option: "layout",
    problem: (name) => `${name("layout")} must be "queue" or "single-key", got ${show(layout)}`
  })
}

export const isManual = (module: string, renewal: "automatic" | "manual" | undefined): boolean => {
  if (renewal === undefined || renewal === "automatic") return false
  if (renewal === "manual") return true
  throw new InvalidOption({
    module,
    option: "renewal",
    problem: (name) => `${name("renewal")} must be "automatic" or "manual", got ${show(renewal)}`
  })
}

export const flag = (module: string, option: string, value: unknown): void => {
  if (value === undefined || typeof value === "boolean") return
  throw new InvalidOption({
    module,
    option,
    problem: (name) => `${name(option)} must be true or false, got ${show(value)}`
  })
}

/** Checks the ID of a run. */
export const run = (module: string, run: unknown): void => {
  if (typeof run === "string" && run !== "" && isShort(run) && run.isWellFormed()) return
  throw new InvalidOption({
    module,
    option: "run",
    problem: (name) => `${name("run")} must be well-formed text of 1 to ${maxNameBytes} bytes, got ${show(run)}`,
    cure: (name) => `Write what the run is for, such as ${name("run")}: "2026-11-25".`
  })
}

/** Checks what names a lock in metrics. */
export const label = (module: string, label: unknown): void => {
  if (label === undefined || (typeof label === "string" && label !== "" && Buffer.byteLength(label) <= 256)) return
  throw new InvalidOption({
    module,
    option: "label",
    problem: (name) => `${name("label")} must be text of 1 to 256 bytes, got ${show(label)}`,
    cure: (name) => `Write what kind of lock it is, such as ${name("label")}: "orders".`
  })
}

/** Checks how many permits there are, and how many of them are asked for. */
export const permits = (module: string, permits: unknown, of: unknown): void => {
  if (!isCountOf(of, maxPermits)) {
    throw new InvalidOption({
      module,
      option: "of",
      problem: (name) => `${name("of")} must be a whole number from 1 to ${maxPermits}, got ${show(of)}`,
      cure: (name) => `Write how many permits there are for all clients, such as ${name("of")}: 8.`
    })
  }
  if (isCountOf(permits, of)) return
  throw new InvalidOption({
    module,
    option: "permits",
    problem: (name) =>
      `${name("permits")} must be a whole number from 1 to the ${of} that there are, got ${show(permits)}`
  })
}

const maxPermits = 10_000

const isCountOf = (count: unknown, of: number): count is number =>
  typeof count === "number" && Number.isInteger(count) && count >= 1 && count <= of

/** Checks the function that accepts another number of permits. */
export const acceptOf = (module: string, acceptOf: unknown): void => {
  if (acceptOf === undefined || typeof acceptOf === "function") return
  throw new InvalidOption({
    module,
    option: "acceptOf",
    problem: (name) => `${name("acceptOf")} must be a function, got ${kindOf(acceptOf)}`,
    cure: (name) => `Write it as ${name("acceptOf")}: (theirs) => theirs === 8.`
  })
}

/** Returns the metadata as JSON. */
export const metadata = (module: string, value: unknown): string => {
  const json = Result.try((): string | undefined => JSON.stringify(value))
  // Readers expect an object, which a date does not become.
  if (Result.isSuccess(json) && json.success?.startsWith("{") === true) {
    if (!isTooDeep(json.success)) return json.success
    throw new InvalidOption({
      module,
      option: "metadata",
      problem: (name) => `${name("metadata")} must be nested at most ${maxDepth} levels deep`
    })
  }
  throw new InvalidOption({
    module,
    option: "metadata",
    problem: (name) =>
      `${name("metadata")} must be an object of JSON values, such as { version: "1.4.0" }, ` +
      (Result.isSuccess(json) ? `got ${show(value)}` : `but it cannot be written as JSON (${firstLine(json.failure)})`),
    cause: Result.isFailure(json) ? json.failure : undefined
  })
}

/** JSON parsers recurse for each level, so an entry that is nested without end could crash its readers. */
const maxDepth = 100

/** Whether JSON is nested deeper than metadata may be. */
export const isTooDeep = (json: string): boolean => {
  let depth = 0
  // A string that is not closed goes on to the end, so that no part of it is read twice.
  for (const [token] of json.matchAll(/"(?:[^"\\]+|\\.?)*"?|[[\]{}]/gs)) {
    if (token === "[" || token === "{") depth++
    else if (token === "]" || token === "}") depth--
    if (depth > maxDepth) return true
  }
  return false
}

/** Checks what a candidate proclaims. */
export const proposal = (module: string, value: unknown): void => {
  if (typeof value === "string" && value.isWellFormed()) return
  throw new InvalidOption({
    module,
    option: "value",
    problem: (name) => `${name("value")} must be well-formed text, got ${show(value)}`,
    cure: (name) => `Write what observers are to see of this candidate, such as ${name("value")}: "10.0.0.7:8080".`
  })
}

const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split("\n", 1)[0]!.slice(0, 100)

export const revision = (module: string, option: string, value: unknown): void => {
  if (typeof value === "bigint") return
  throw new InvalidOption({
    module,
    option,
    problem: (name) => `${name(option)} must be a bigint, as inspect and LockHeld report it, got ${show(value)}`,
    cure: () => `Write it as holder.${option}.`
  })
}

// -----------------------------------------------------------------------------
// connections
// -----------------------------------------------------------------------------

export const prefix = (module: string, prefix: string | undefined): void => {
  if (prefix === undefined || (typeof prefix === "string" && prefix.isWellFormed())) return
  throw new InvalidOption({
    module,
    option: "prefix",
    problem: (name) => `${name("prefix")} must be text, such as "my-application/", got ${show(prefix)}`
  })
}

/** Returns the text of a secret. */
export const secret = (module: string, option: string, value: Redacted.Redacted): string => {
  // A Redacted that was wiped throws.
  const text: unknown = Result.getOrUndefined(Result.try(() => Redacted.value(value)))
  if (typeof text === "string") return text
  throw new InvalidOption({
    module,
    option,
    problem: (name) =>
      Redacted.isRedacted(value)
        ? `${name(option)} must be Redacted text, got ${kindOf(text)} in it`
        : `${name(option)} must be Redacted, got ${kindOf(value)}`,
    cure: () => `Write it as Redacted.make(${option.split(".").at(-1)}).`
  })
}
