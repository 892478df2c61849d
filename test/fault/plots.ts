/**
 * Who contends for what.
 */
import type { Claim, Kind, Lock } from "./history.ts"
import type { Work } from "./protocol.ts"

const work = (
  lock: string,
  claim: Claim,
  how: Work["how"],
  session = 0,
  layout: Work["layout"] = "queue"
): Work => ({ lock, claim, how, session, layout, turns: "short" })

const mutex: Claim = { kind: "lock" }
const election: Claim = { kind: "election" }
const read: Claim = { kind: "read" }
const write: Claim = { kind: "write" }

const permits = (permits: number): Claim => ({ kind: "permits", permits, of: 3 })

interface Plot {
  readonly locks: ReadonlyArray<Lock>
  /** What the one of so many does. */
  readonly workers: (i: number) => ReadonlyArray<Work>
}

// The long lines have so many sessions that there are more entries than are watched together.
const plots = {
  /** A short line, a long one, a single key, and a line of sessions that come and go. */
  lock: {
    locks: [
      { name: "short", isQueue: true },
      { name: "long", isQueue: true },
      { name: "single", isQueue: false },
      { name: "closing", isQueue: true }
    ],
    workers: (i) => [
      work("short", mutex, "handle"),
      work("short", mutex, i % 2 === 0 ? "section" : "try"),
      work("long", mutex, "handle", 0),
      work("long", mutex, "handle", 1),
      work("long", mutex, "section", 2),
      ...i % 2 === 0 ? [] : [work("single", mutex, "handle", 0, "single-key")],
      ...i % 4 === 2 ? [work("single", mutex, "try", 0, "single-key")] : [],
      work("closing", mutex, i % 4 === 0 ? "close" : "handle", 1)
    ]
  },
  /** A short line of readers and writers, and a long one that some leave as their session closes. Some writers go on as readers. */
  readWriteLock: {
    locks: [{ name: "readers", isQueue: true }, { name: "long-readers", isQueue: true }],
    workers: (i) => [
      ...i % 2 === 0
        ? [work("readers", read, "section"), work("readers", write, i % 4 === 0 ? "section" : "downgrade")]
        : [work("readers", read, "handle"), work("readers", i % 4 === 1 ? read : write, "try", 1)],
      work("long-readers", read, "handle", 0),
      work("long-readers", read, i % 4 === 1 ? "close" : "section", 1),
      work("long-readers", write, (["downgrade", "handle", "handle", "close"] as const)[i % 4]!, 2)
    ]
  },
  /** A short line of claims to one, two or three of three permits, and a long one. */
  semaphore: {
    locks: [{ name: "permits", isQueue: true }, { name: "long-permits", isQueue: true }],
    workers: (i) => [
      work("permits", permits(1 + i % 3), i % 2 === 0 ? "section" : "handle"),
      ...i % 2 === 1 ? [work("permits", permits(1 + i % 2), "try", 1)] : [],
      work("long-permits", permits(1), "section", 0),
      work("long-permits", permits(1 + i % 2), i % 4 === 1 ? "close" : "handle", 1),
      work("long-permits", permits(3 - i % 3), "handle", 2)
    ]
  },
  /** A short line of candidates, beside mutexes, and a long one that some leave as their session closes. */
  election: {
    locks: [{ name: "election", isQueue: true }, { name: "long-election", isQueue: true }],
    workers: (i) => [
      work("election", election, i % 2 === 0 ? "section" : "handle"),
      ...i % 4 === 0 ? [work("election", mutex, "section")] : [],
      work("long-election", election, "section", 0),
      work("long-election", election, i % 4 === 1 ? "close" : "handle", 1),
      work("long-election", election, "handle", 2)
    ]
  },
  /** Two or three of three mutexes at once, in all orders, and one of them alone. */
  several: {
    locks: ["first", "second", "third"].map((name) => ({ name, isQueue: true, isTakenWithOthers: true })),
    workers: (i) => {
      const some = [["first", "second"], ["third", "second"], ["third", "second", "first"], [
        "second",
        "first",
        "third"
      ]]
      const [lock, ...also] = some[i % some.length]!
      return [
        { ...work(lock!, mutex, i % 2 === 0 ? "section" : "handle"), also },
        ...i % 3 === 0
          ? [{ ...work("second", mutex, "close", 1), also: ["third"] }]
          : i % 3 === 1
          ? [{ ...work("second", mutex, "try", 1), also: ["first"] }]
          : [work("second", mutex, "handle", 1)]
      ]
    }
  }
} satisfies { readonly [name: string]: Plot }

export type Recipe = keyof typeof plots

export const recipes = Object.keys(plots) as ReadonlyArray<Recipe>

/** What this library contends for by some of its recipes. */
export const ours = (recipes: ReadonlyArray<Recipe>): Plot => {
  const some: ReadonlyArray<Plot> = recipes.map((recipe) => plots[recipe])
  return {
    locks: some.flatMap(({ locks }) => locks),
    workers: (i) => some.flatMap(({ workers }) => workers(i))
  }
}

/** One process holds it for the whole run, while the others wait for it or try to get it. */
export const held: Plot = {
  locks: [{ name: "held", isQueue: true, isHeldThroughout: true }],
  workers: (i) => [
    i === 0
      ? { ...work("held", mutex, "section"), turns: "forever" }
      : work("held", mutex, i % 2 === 0 ? "handle" : "try")
  ]
}

/** Go's mutex stands in the same lines, and excludes all others. */
export const beside = (recipes: ReadonlyArray<Recipe>): ReadonlyArray<Work> =>
  recipes.map((recipe) => work(plots[recipe].locks[0]!.name, mutex, "handle", 2))

/** A line of a peer's own. */
export const peer = (
  kind: Exclude<Kind, "ours">
): { readonly locks: ReadonlyArray<Lock>; readonly workers: ReadonlyArray<Work> } => ({
  locks: [{ name: `peer-${kind}`, isQueue: kind === "go" }],
  workers: [work(`peer-${kind}`, mutex, "handle"), work(`peer-${kind}`, mutex, "handle", 1)]
})
