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
        { _tag: "Request", process: 2, name: "b", how: "release", hold: 1, unwinding: 1, ending: "fail", timeout: 1 },
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
  }
]

function request(step: Pick<Request, "process"> & Partial<Request>): Request {
  return {
    _tag: "Request",
    name: "a",
    how: "acquire",
    hold: 4000,
    unwinding: 0,
    ending: "succeed",
    timeout: "none",
    ...step
  }
}
