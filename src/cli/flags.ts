/** Kinds of values that several commands take. */
import { Flag } from "effect/cli"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Reads a duration as flock and Go write it: seconds as a number, or numbers with units, as in `1m30s`. */
export const durationOf = (text: string): Option.Option<Duration.Duration> => {
  if (/^(\d+\.?\d*|\.\d+)$/.test(text)) return Option.some(Duration.seconds(Number(text)))
  const parts = [...text.matchAll(/(\d+\.?\d*|\.\d+)(ms|[smhd])/g)]
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== text) return Option.none()
  return Option.some(Duration.millis(
    parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit as keyof typeof units], 0)
  ))
}

export const duration = (name: string): Flag.Flag<Duration.Duration> =>
  Flag.String(name).pipe(
    Flag.withMetavar("duration"),
    Flag.filterMap(
      durationOf,
      // Examples that none of these options finds too short or too long.
      (text) => `--${name}: ${JSON.stringify(text)} is not a duration. Write 5, 5s or 2.5s.`
    )
  )

export const count = (name: string): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.withMetavar("number"),
    Flag.filterMap(
      (text) => /^\d+$/.test(text) ? Option.some(Number(text)) : Option.none(),
      (text) => `--${name}: ${JSON.stringify(text)} is not a whole number. Write 1, or 2.`
    )
  )

export const exitCode = (name: string): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.withMetavar("code"),
    Flag.filterMap(
      (text) => /^\d{1,3}$/.test(text) && Number(text) <= 255 ? Option.some(Number(text)) : Option.none(),
      (text) => `--${name}: ${JSON.stringify(text)} is not an exit code. Write 0 to 255.`
    )
  )

/** Lets a switch be off, unless it is given, and have no opposite. */
export const offByDefault = (flag: Flag.Flag<boolean>): Flag.Flag<boolean> =>
  flag.pipe(Flag.withoutNegation, Flag.withDefault(false))
