/**
 * What a worker knows of a lock. Each contender brings the loops itself, so that its
 * lock is used in the way that is natural to it, with nothing in between.
 */
export interface Contender {
  readonly loops: (loops: ReadonlyArray<Loop>) => Promise<void>
  /** The same, where each loop has a session and a connection of its own, which it keeps for the next time. */
  readonly loopsApart?: (loops: ReadonlyArray<Loop>) => Promise<void>
  /** As long as `loop.next` says, tries to take the lock and tells `loop.done` whether it got it. */
  readonly tries?: (loop: TryLoop) => Promise<void>
  /** Takes the locks and keeps them. */
  readonly hold: (names: ReadonlyArray<string>) => Promise<void>
  /**
   * Stands in an election, and calls `began` when its term begins. Returns what a program does when it is asked to end:
   * it resigns, and closes its session.
   */
  readonly lead?: (name: string, began: () => void) => () => Promise<void>
}

/**
 * What may be taken: a lock, which excludes all, a read or a write lock, one of a semaphore's permits, or several locks, at
 * once or one inside the other; a lock while its metrics are read, as a monitor reads them; or the lead in an election.
 */
export type Claim = "lock" | "read" | "write" | "permit" | "several" | "nested" | "monitored" | "election"

/** How often they are read, in milliseconds: many times as often as a monitor does. */
export const monitorEvery = 250

/** The names of several locks, which are one loop's name: `x/a+b` is `x/a` and `x/b`. */
export const severalNames = (name: string): ReadonlyArray<string> => {
  const start = name.lastIndexOf("/") + 1
  return name.slice(start).split("+").map((one) => name.slice(0, start) + one)
}

/** How many permits there are. */
export const permits = 8

/** The lock is taken and released for as long as `next` says so. */
export interface Loop {
  readonly name: string
  readonly claim: Claim
  readonly next: () => boolean
  /** To be called, and awaited, while the lock is held. */
  readonly section: () => Promise<void> | undefined
  readonly done: () => void
}

export interface TryLoop {
  readonly name: string
  readonly next: () => boolean
  readonly done: (taken: boolean) => void
}

/** How long a lease or an entry lives without renewal, in seconds; the same for all. */
export const ttl = 9

/** The loop of a contender that speaks in promises. */
export const promiseLoops =
  (take: (name: string) => Promise<() => Promise<unknown>>): Contender["loops"] => async (loops) => {
    await Promise.all(loops.map(async (loop) => {
      while (loop.next()) {
        const release = await take(loop.name)
        await loop.section()
        await release()
        loop.done()
      }
    }))
  }

/** The tries of a contender that speaks in promises: `take` answers nothing when the lock is held. */
export const promiseTries =
  (take: (name: string) => Promise<(() => Promise<unknown>) | undefined>): NonNullable<Contender["tries"]> =>
  async (loop) => {
    while (loop.next()) {
      const release = await take(loop.name)
      await release?.()
      loop.done(release !== undefined)
    }
  }
