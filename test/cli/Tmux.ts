/** A terminal of 80 columns and 24 rows as a person has it, in which the command runs. */
import { Effect, Schedule, type Scope } from "effect"
import { execFile, spawnSync } from "node:child_process"
import { inject } from "vitest"
import * as Program from "./Program.ts"

export const isThere = spawnSync("tmux", ["-V"]).status === 0

export interface Tmux {
  readonly screen: Effect.Effect<string>
  /** The same with the codes of its colours. */
  readonly colours: Effect.Effect<string>
  /** How many lines have been scrolled off the screen. */
  readonly scrolled: Effect.Effect<number>
  /** Whether a program has the screen for itself, and whether there is a cursor, as 0 or 1. */
  readonly modes: Effect.Effect<string>
  readonly type: (text: string) => Effect.Effect<void>
  readonly press: (key: string) => Effect.Effect<void>
  readonly resize: (columns: number, rows: number) => Effect.Effect<void>
  /** Waits until the screen has a match, and returns it. */
  readonly shows: (pattern: RegExp) => Effect.Effect<string>
}

/** Starts the command. The terminal is gone when the scope closes, and a shell is in it when the command has ended. */
export const start = (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Effect.Effect<Tmux, never, Scope.Scope> =>
  Effect.gen(function*() {
    const server = crypto.randomUUID()
    const tmux = (...words: ReadonlyArray<string>) =>
      Effect.callback<string>((resume) => {
        execFile("tmux", ["-L", server, ...words], (error, stdout) => {
          resume(error === null ? Effect.succeed(stdout) : Effect.die(error))
        })
      })
    const variables = Object.entries({ ETCDCTL_ENDPOINTS: inject("etcdEndpoint"), ...env })
    const words = ["env", ...variables.map(([name, value]) => `${name}=${value}`), process.execPath, Program.program]
    yield* Effect.acquireRelease(
      tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh"),
      () => tmux("kill-server")
    )
    const type = (text: string) => Effect.asVoid(tmux("send-keys", "-l", text))
    const press = (key: string) => Effect.asVoid(tmux("send-keys", key))
    yield* type([...words, ...args].join(" "))
    yield* press("Enter")
    const screen = tmux("capture-pane", "-p")
    return {
      screen,
      colours: tmux("capture-pane", "-p", "-e"),
      scrolled: Effect.map(tmux("display-message", "-p", "#{history_size}"), Number),
      modes: Effect.map(tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}"), (modes) => modes.trim()),
      type,
      press,
      resize: (columns, rows) => Effect.asVoid(tmux("resize-window", "-x", String(columns), "-y", String(rows))),
      shows: (pattern) =>
        screen.pipe(
          Effect.filterOrFail((text) => pattern.test(text), (text) => text),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 250 }),
          Effect.catch((text) => Effect.die(new Error(`the screen never showed ${pattern}:\n${text}`)))
        )
    }
  })
