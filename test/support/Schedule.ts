import { Arbitrary, Schema } from "effect"

/**
 * What happens to a few processes that share an etcd, step by step. No time passes
 * and no fiber runs between two steps, unless a step lets them.
 *
 * All numbers of time are milliseconds. Where a step names something that is not
 * there (the sixth of two keys), it counts around, and does nothing if there is none.
 */
export type Schedule = typeof Schedule.Type

export type Step = Schedule["steps"][number]

export type Request = Extract<Step, { readonly _tag: "Request" }>

/** What a request asks for: the lock, to lead, to read or to write under it, or so many permits. */
export type Claim = Request["claim"]

// repeated literals and members are more likely; the first ones are what a failing schedule is shrunk to
const process = Schema.Literals([0, 1, 2, 3, 4, 5])
const name = Schema.Literals(["a", "a", "a", "b"])

const request = {
  _tag: Schema.tag("Request"),
  process,
  name,
  /** `release` is an `acquire` that is released early, and whose scope closes later. */
  how: Schema.Literals(["withLock", "acquire", "withLock", "acquire", "release", "tryWithLock", "tryAcquire"]),
  hold: Schema.Literals([0, 1, 30, 300, 900, 4000]),
  /** What an interrupted body still does: its clean-up's duration, or all of its work, uninterruptibly. */
  unwinding: Schema.Literals([0, 0, 0, 1, 250, 1500, 6000, "stubborn"]),
  ending: Schema.Literals(["succeed", "succeed", "fail", "die"]),
  timeout: Schema.Literals(["none", "none", "none", 0, 1, 200, 2500]),
  /** Takes the other lock at once with it. */
  both: Schema.optional(Schema.Literals([false, true]))
}

const Request = Schema.Struct({ ...request, claim: Schema.Literals(["lock", "election", "read", "write", 1, 2, 3]) })

/** What the requests of a schedule ask for. A lock stands in one line with candidates, readers and writers, and with permits. */
const recipes = {
  lock: { layout: "queue", claim: Schema.Literals(["lock"]) },
  several: { layout: "queue", claim: Schema.Literals(["lock"]), both: Schema.Literals([false, true]) },
  singleKey: { layout: "single-key", claim: Schema.Literals(["lock"]) },
  election: { layout: "queue", claim: Schema.Literals(["election", "election", "lock"]) },
  readWrite: { layout: "queue", claim: Schema.Literals(["read", "read", "read", "write", "lock"]) },
  semaphore: {
    layout: "queue",
    claim: Schema.Literals([1, 1, 1, 2, 2, 3, "lock"]),
    // some of those that try at the same moment find room, however many they are
    how: Schema.Literals(["withLock", "tryAcquire", "acquire", "tryWithLock", "release", "tryAcquire"])
  }
} as const

const recipe = Schema.Literals([
  "lock",
  "lock",
  "readWrite",
  "readWrite",
  "semaphore",
  "semaphore",
  "several",
  "several",
  "election",
  "singleKey"
])

const Advance = Schema.Struct({
  _tag: Schema.tag("Advance"),
  millis: Schema.Literals([1, 20, 100, 250, 500, 1000, 2500, 7000])
})

/** Lets every other fiber run so many times, while no time passes. */
const Yield = Schema.Struct({ _tag: Schema.tag("Yield"), times: Schema.Literals([1, 2, 3, 5, 8]) })

const Interrupt = Schema.Struct({ _tag: Schema.tag("Interrupt"), request: Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7]) })

const RevokeLease = Schema.Struct({ _tag: Schema.tag("RevokeLease"), lease: Schema.Literals([0, 1, 2, 3]) })

const DeleteKey = Schema.Struct({
  _tag: Schema.tag("DeleteKey"),
  key: Schema.Literals([0, 1, 2, 3]),
  /** Its watches tell of it that much later, and other watches tell in time of what happens after it. */
  late: Schema.optional(Schema.Literals([500, 3000]))
})

const DeletePrefix = Schema.Struct({ _tag: Schema.tag("DeletePrefix"), name })

const Close = Schema.Struct({ _tag: Schema.tag("Close"), process })

const Drop = Schema.Struct({
  _tag: Schema.tag("Drop"),
  what: Schema.Literals(["Reply", "Request"]),
  method: Schema.Literals(["txn", "txn", "range", "watch", "leaseKeepAlive", "leaseGrant", "leaseRevoke"]),
  times: Schema.Literals([1, 1, 2, 6])
})

const Network = Schema.Struct({
  _tag: Schema.tag("Network"),
  what: Schema.Literals(["cut", "stall", "resume", "unreachable", "reachable", "heal"])
})

const Delay = Schema.Struct({ _tag: Schema.tag("Delay"), millis: Schema.Literals([2, 100, 500, 1200, 3000]) })

/** Zero lets what happens from then on arrive at once, though not before what is on its way to the same watch. */
const DelayWatches = Schema.Struct({
  _tag: Schema.tag("DelayWatches"),
  millis: Schema.Literals([500, 0, 100, 3000, 0, 20_000])
})

/** One process loses its connection, or gets it back. */
const Isolate = Schema.Struct({ _tag: Schema.tag("Isolate"), process })
const Reconnect = Schema.Struct({ _tag: Schema.tag("Reconnect"), process })

const calm = [Advance, Yield, Interrupt, Advance] as const
/** In which many ask at the same moment. */
const rush = [Yield, Interrupt] as const
const tampering = [RevokeLease, DeleteKey, DeletePrefix] as const
const faults = [Drop, Network, Drop, Delay, DelayWatches, Isolate, Reconnect] as const

/** How many processes there are, and the TTL of their leases in seconds. */
const common = {
  processes: Schema.Literals([1, 2, 3, 4, 6, 6]),
  ttl: Schema.Literals([2, 3, 5]),
  /** Whether the sessions stay idle for a while before they are closed. */
  idles: Schema.Literals([false, true]),
  /** Up to how many entries a line is watched as a whole; from more than twice as many on it is watched by guards. */
  shortLine: Schema.Literals([8, 1, 2, 1]),
  /** How many permits a semaphore has, which is 3 where it is absent: few for the processes, or more than they take. */
  permits: Schema.optional(Schema.Literals([3, 12, 100]))
}

const AnyStep = Schema.Union([Request, ...calm, ...tampering, ...faults, Close])

export const Schedule = Schema.Struct({
  ...common,
  layout: Schema.Literals(["queue", "single-key"]),
  steps: Schema.Array(AnyStep)
})

/** Faults of one kind alone leave the other promises unconditional. */
const mixtures = {
  calm,
  rush,
  tampered: [...calm, ...tampering],
  late: [...calm, ...tampering, DelayWatches],
  closing: [...calm, Close],
  faulty: [...calm, ...faults],
  anything: [...calm, ...tampering, ...faults, ...faults, Close]
}

/** What happens to a line that stands: waiters leave, and some whose keys are deleted hear of it late. */
const overtaking = [Advance, Advance, Interrupt, DeleteKey]

/** A request of another process, for which the next one waits. */
const inLine = (step: Step, index: number): ReadonlyArray<Step> =>
  step._tag === "Request"
    ? [{ ...step, process: index as Request["process"] }, { _tag: "Advance", millis: 1 }]
    : [step]

const stepsOf = (members: ReadonlyArray<Schema.Codec<Step>>): Arbitrary.Arbitrary<ReadonlyArray<Step>> => {
  // short ones are likely in an array; more of them make middling ones likely, and the short ones seldom
  const some = Arbitrary.array(Arbitrary.schema(Schema.Union(members)), { maxLength: 8 })
  return Arbitrary.map(Arbitrary.all([some, some, some]), (parts) => parts.flat())
}

const arbitraryOf = ({ layout, ...chosen }: (typeof recipes)[keyof typeof recipes]): Arbitrary.Arbitrary<Schedule> => {
  const { both: _, ...alone } = request
  const Request: Schema.Codec<Step> = Schema.Struct({ ...alone, ...chosen })
  // as likely as all else that is calm
  const mixed = Object.values(mixtures).map((others) => stepsOf([Request, Request, Request, Request, ...others]))
  const one = Arbitrary.schema(Request)
  const line = Arbitrary.map(Arbitrary.all([one, one, one, one]), (requests) => requests.flatMap(inLine))
  const overtaken = Arbitrary.map(Arbitrary.all([line, stepsOf(overtaking)]), (parts) => parts.flat())
  const steps = [...mixed, overtaken, overtaken, overtaken]
  return Arbitrary.map(
    Arbitrary.all({
      common: Arbitrary.schema(Schema.Struct(common)),
      steps: Arbitrary.flatMap(
        Arbitrary.schema(Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])),
        (mixture) => steps[mixture]!
      )
    }),
    ({ common, steps }) => Object.assign({}, common, { layout, steps })
  )
}

const arbitraries = {
  lock: arbitraryOf(recipes.lock),
  singleKey: arbitraryOf(recipes.singleKey),
  readWrite: arbitraryOf(recipes.readWrite),
  semaphore: arbitraryOf(recipes.semaphore),
  several: arbitraryOf(recipes.several),
  election: arbitraryOf(recipes.election)
}

export const arbitrary: Arbitrary.Arbitrary<Schedule> = Arbitrary.flatMap(
  Arbitrary.schema(recipe),
  (recipe) => arbitraries[recipe]
)

const Json = Schema.fromJsonString(Schedule)

/** One line, which `decode` understands. */
export const encode = Schema.encodeSync(Json)

export const decode = Schema.decodeUnknownSync(Json)
