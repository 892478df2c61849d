/** What the library promises: the README lists the same, and the checker of random schedules names what it finds broken. */
export interface Promised {
  /** What the README prints in bold. */
  readonly name: string
  readonly sentence: string
}

export const promises = {
  P1: {
    name: "One holder",
    sentence: "No two bodies run at once: a body is interrupted before etcd can give the lock to the next one."
  },
  P2: {
    name: "Always fenced",
    sentence: "Fencing tokens only grow, and a write through the handle is applied only if the lock is still owned."
  },
  P3: {
    name: "Typed loss",
    sentence:
      "A body that loses its lock is interrupted and awaited, and the whole fails with `LockLost`, which hides nothing."
  },
  P4: {
    name: "First come, first served",
    sentence:
      "Waiters are served in the order of their create revisions, and those of one process in that of their requests."
  },
  P5: {
    name: "Nothing left behind",
    sentence: "However an acquire or a body ends, no key, no lease and no fiber stays."
  },
  P6: {
    name: "Bounded",
    sentence: "Every call ends within its timeout, and no finalizer waits for etcd longer than one request may take."
  },
  P7: {
    name: "Flat",
    sentence:
      "A hand-over costs the same however many wait; all fibers of a process are one entry, all locks of a session one renewal."
  }
} as const satisfies Record<`P${number}`, Promised>

export type PromiseId = keyof typeof promises

/** `P3 Typed loss`, for the name of a test. */
export const cite = (id: PromiseId): string => `${id} ${promises[id].name}`
