import type { Request, Schedule } from "./Schedule.ts"

/** Schedules that once showed a fault of the lock, or of the checker, and that random ones seldom contain. */
export const schedules: ReadonlyArray<{ readonly about: string; readonly schedule: Schedule }> = [
  {
    // Its holder cannot know yet, so this breaks no promise, though the key that it finds there is the next one's.
    about: "a lease is revoked before the answer to its try arrives, and another process takes the single key",
    schedule: {
      processes: 4,
      ttl: 5,
      layout: "single-key",
      idles: false,
      shortLine: 8,
      steps: [
        request({ process: 2, name: "b", how: "release", hold: 1, unwinding: 1, ending: "fail", timeout: 1 }),
        { _tag: "Delay", millis: 2 },
        request({ process: 3, how: "tryAcquire" }),
        request({ process: 2, how: "tryAcquire", hold: 1, ending: "die" }),
        { _tag: "Advance", millis: 1 },
        { _tag: "RevokeLease", lease: 0 }
      ]
    }
  },
  {
    about: "a watch reports the end of an earlier entry while the next one under the same key is held",
    schedule: {
      processes: 1,
      ttl: 3,
      layout: "queue",
      idles: false,
      shortLine: 8,
      steps: [
        { _tag: "DelayWatches", millis: 20_000 },
        request({ process: 0 }),
        { _tag: "Advance", millis: 1000 },
        { _tag: "Interrupt", request: 0 },
        { _tag: "DelayWatches", millis: 500 },
        request({ process: 0 }),
        { _tag: "Advance", millis: 2500 }
      ]
    }
  },
  {
    about: "a watch reports the end of an earlier entry while another waits behind the next one under the same key",
    schedule: {
      processes: 2,
      ttl: 3,
      layout: "queue",
      idles: false,
      shortLine: 8,
      steps: [
        request({ process: 0 }),
        { _tag: "Advance", millis: 1 },
        request({ process: 1 }),
        { _tag: "Advance", millis: 1 },
        { _tag: "Interrupt", request: 1 },
        { _tag: "DelayWatches", millis: 500 },
        { _tag: "Advance", millis: 1 },
        { _tag: "Interrupt", request: 0 },
        { _tag: "Advance", millis: 1 },
        request({ process: 0 }),
        { _tag: "Advance", millis: 1 },
        request({ process: 1 }),
        { _tag: "Advance", millis: 1000 }
      ]
    }
  },
  {
    about: "a request for permits gives up, and its place goes to one behind which a smaller one has room",
    schedule: {
      processes: 1,
      ttl: 5,
      idles: false,
      shortLine: 2,
      layout: "queue",
      steps: [
        request({ process: 0, claim: 2, how: "withLock" }),
        request({ process: 0, claim: 2 }),
        { _tag: "Yield", times: 2 },
        request({ process: 0, claim: 1 }),
        { _tag: "Interrupt", request: 0 },
        { _tag: "Advance", millis: 20 }
      ]
    }
  },
  {
    about: "one of several locks is taken away before the turn in the others comes, and goes to another process",
    schedule: {
      processes: 3,
      ttl: 3,
      idles: true,
      shortLine: 8,
      layout: "queue",
      steps: [
        { _tag: "DelayWatches", millis: 100 },
        request({ process: 1, both: true, how: "withLock", ending: "die", timeout: 200 }),
        { _tag: "Advance", millis: 1000 },
        request({ process: 3, name: "b", both: true, hold: 30, unwinding: "stubborn", ending: "die", timeout: 200 }),
        { _tag: "DeletePrefix", name: "a" },
        request({ process: 1, hold: 900, timeout: 200 }),
        { _tag: "Yield", times: 3 },
        { _tag: "DeleteKey", key: 1 }
      ]
    }
  },
  {
    about: "a waiter's key is deleted right before the last one ahead of it, whose end is reported first",
    schedule: {
      processes: 4,
      ttl: 5,
      layout: "queue",
      idles: false,
      shortLine: 1,
      steps: [
        request({ process: 0, how: "withLock" }),
        { _tag: "Advance", millis: 100 },
        request({ process: 1, how: "withLock", hold: 300 }),
        { _tag: "Advance", millis: 100 },
        request({ process: 2, how: "withLock", hold: 300, unwinding: "stubborn" }),
        { _tag: "Advance", millis: 100 },
        request({ process: 3, how: "withLock", hold: 300 }),
        { _tag: "Advance", millis: 1000 },
        { _tag: "Interrupt", request: 1 },
        { _tag: "Advance", millis: 500 },
        { _tag: "DelayWatches", millis: 500 },
        { _tag: "DeleteKey", key: 1 },
        { _tag: "DelayWatches", millis: 0 },
        { _tag: "Interrupt", request: 0 },
        { _tag: "Advance", millis: 1000 }
      ]
    }
  },
  {
    // Etcd goes through all three in one step, and the key of the first is there only between two of them.
    about: "a join and the removal of its key reach a stalled etcd together, and a try between them",
    schedule: {
      processes: 6,
      ttl: 2,
      idles: true,
      shortLine: 8,
      layout: "queue",
      steps: [
        request({ process: 0, claim: "election", how: "release", hold: 30, unwinding: 1500, timeout: 200 }),
        { _tag: "Network", what: "stall" },
        request({ process: 2, claim: "election", how: "tryAcquire", hold: 1, unwinding: 250 }),
        { _tag: "Drop", what: "Request", method: "range", times: 6 },
        { _tag: "Advance", millis: 500 }
      ]
    }
  }
]

function request(step: Pick<Request, "process"> & Partial<Request>): Request {
  return {
    _tag: "Request",
    name: "a",
    claim: "lock",
    how: "acquire",
    hold: 4000,
    unwinding: 0,
    ending: "succeed",
    timeout: "none",
    ...step
  }
}
