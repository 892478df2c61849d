/**
 * Who contends for what.
 */
import type { Kind, Lock } from "./history.ts"
import type { Work } from "./protocol.ts"

const work = (lock: string, how: Work["how"], session = 0, layout: Work["layout"] = "queue"): Work => ({
  lock,
  how,
  session,
  layout,
  turns: "short"
})

/** A short line, a long one, a single key, and a line of sessions that come and go. */
export const ours = {
  locks: [
    { name: "short", isQueue: true },
    { name: "long", isQueue: true },
    { name: "single", isQueue: false },
    { name: "closing", isQueue: true }
  ] satisfies ReadonlyArray<Lock>,
  /** What the one of so many does. */
  workers: (i: number): ReadonlyArray<Work> => [
    work("short", "acquire"),
    ...i % 2 === 0 ? [work("short", "withLock")] : [],
    // In so many sessions that the line has more entries than are watched together.
    work("long", "acquire", 0),
    work("long", "acquire", 1),
    work("long", "withLock", 2),
    ...i % 2 === 0 ? [] : [work("single", "acquire", 0, "single-key")],
    work("closing", i % 4 === 0 ? "close" : "acquire", 1)
  ]
}

/** Go's mutex stands in the same line. */
export const beside: Work = work("short", "acquire", 2)

/** A line of a peer's own. */
export const peer = (
  kind: Exclude<Kind, "ours">
): { readonly locks: ReadonlyArray<Lock>; readonly workers: ReadonlyArray<Work> } => ({
  locks: [{ name: `peer-${kind}`, isQueue: kind === "go" }],
  workers: [work(`peer-${kind}`, "acquire"), work(`peer-${kind}`, "acquire", 1)]
})
