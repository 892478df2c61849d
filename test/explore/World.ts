/**
 * A run of a small program: a few clients with sessions of their own on one etcd in memory. At each step something is
 * chosen that happens next, by default what has waited longest, and the clock moves only when nothing else is left.
 */
import { Clock, Context, Effect, Exit, type Fiber, Logger, Metric, Random, Scheduler, Scope } from "effect"
import { Etcd, Lock, Session } from "effect-etcd-lock"
import { Lengths } from "../../src/internal/line/line.ts"
import * as Store from "../../src/internal/memory/store.ts"
import * as Checks from "./checks.ts"
import { Machine, random } from "./Machine.ts"
import type { Body, Program, Role, Task, Times } from "./programs.ts"
import { type Action, Client, mix, requestTimeout, Wire } from "./Wire.ts"

/**
 * What is chosen at a step instead of what happens by default:
 *
 * - something else that is on its way arrives first;
 * - what would arrive next is held up, and so is what its watch reports after it; or it is lost, and its caller hears that
 *   its connection is; or its caller hears that, and it arrives all the same, late;
 * - the clock moves to the next timer first;
 * - a task is interrupted;
 * - an operator deletes a key, or revokes a client's lease;
 * - a client is isolated: nothing reaches it or comes from it for longer than its lease lives.
 */
export type Deviation = readonly [step: number, choice: string]

/** Whether lines of two are watched as a whole, or by guards. */
export type Length = "short" | "long"

export interface RunOptions {
  readonly program: Program
  readonly length: Length
  readonly deviations: ReadonlyArray<Deviation>
  /** Asked at each step after the last deviation, with a name of the state; the run ends where the state is not new. */
  readonly isNew?: ((state: number) => boolean) | undefined
  readonly trace?: ((line: string) => void) | undefined
}

export interface Run {
  readonly violations: ReadonlyArray<string>
  /** What could have been chosen instead after the last deviation. */
  readonly others: ReadonlyArray<Deviation>
}

const ttl = 3000

/** How long something is late, in milliseconds. An event may be later than an answer that shows the same. */
const lateness = { request: 400, answer: 400, event: 1500 }

/** How long it may take from the last step of a program until all that it does has ended, in milliseconds. */
const patience = 30_000

export const run = (options: RunOptions): Run => {
  const machine = new Machine()
  return machine.inCharge(() => new World(machine, options).run())
}

interface Process {
  readonly client: Client
  readonly session: Session.Session["Service"]
  readonly scope: Scope.Closeable
}

class World {
  readonly #machine: Machine
  readonly #options: RunOptions
  readonly #store = Store.make(random())
  readonly #wire: Wire
  readonly #context: Context.Context<never>
  readonly #processes: Array<Process> = []
  readonly #tasks: Array<Task> = []
  readonly #checks: Checks.Checks
  readonly #others: Array<Run["others"][number]> = []
  #step = 0
  #deviated = 0

  constructor(machine: Machine, options: RunOptions) {
    this.#machine = machine
    this.#options = options
    this.#wire = new Wire(this.#store, machine)
    this.#context = Context.make(Clock.Clock, machine).pipe(
      Context.add(Scheduler.Scheduler, machine),
      Context.add(Metric.FiberRuntimeMetrics, machine),
      Context.add(Logger.CurrentLoggers, new Set())
    )
    this.#checks = Checks.make(this.#wire, this.#tasks)
  }

  run(): Run {
    const { roles } = this.#options.program
    for (const role of roles) if (role.client >= this.#processes.length) this.#open()
    for (const role of roles) this.#start(role)
    const violations = () => this.#checks.violations
    this.#settle()
    while (violations().length === 0 && this.#tasks.some(({ exit }) => exit === undefined)) {
      if (this.#machine.now > patience) this.#checks.broken(`P6: tasks do not end`)
      else if (!this.#choose()) return { violations: violations(), others: this.#others }
    }
    if (violations().length === 0) this.#end()
    return { violations: violations(), others: this.#others }
  }

  // ---------------------------------------------------------------------------
  // the program
  // ---------------------------------------------------------------------------

  #open() {
    const client = new Client(this.#processes.length, this.#wire)
    const scope = Scope.makeUnsafe()
    const long = this.#options.length === "long"
    const making = this.#fork(
      Session.make({ ttl }).pipe(
        Effect.provideService(Etcd.Etcd, client.etcd),
        Effect.provideService(Random.Random, random()),
        long ? Effect.provideService(Lengths, { short: 1, long: 1, longest: 1 }) : (self) => self,
        Scope.provide(scope)
      )
    )
    this.#machine.settle()
    const made = making.pollUnsafe()!
    if (Exit.isFailure(made)) throw new Error(String(made.cause))
    this.#processes.push({ client, session: made.value, scope })
  }

  #start({ run, ...role }: Role) {
    const process = this.#processes[role.client]!
    const task: Task = {
      ...role,
      id: this.#tasks.length,
      client: process.client,
      startedAt: this.#wire.revision,
      fiber: undefined,
      exit: undefined,
      isInterrupted: false
    }
    this.#tasks.push(task)
    const program = run(this.#bodyOf(task), { metadata: { task: task.id } }).pipe(
      Effect.provideService(Session.Session, process.session),
      Effect.provideService(Random.Random, random())
    )
    task.fiber = this.#fork(program)
    task.fiber.addObserver((exit) => {
      task.exit = exit
      this.#tell(() => `task ${task.id} ends: ${Exit.isSuccess(exit) ? "success" : String(exit.cause)}`)
      this.#checks.ended(task, exit)
    })
  }

  #fork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.#context)(effect)
  }

  #bodyOf(task: Task): Body {
    const holding = (
      claims: ReadonlyArray<Checks.Claim>,
      handle: Lock.Handle,
      { hold = 10, unwinding = 0 }: Times = {}
    ) =>
      Effect.suspend(() => {
        const handles = claims.length === 1 ? [handle] : (handle as Lock.HandleOfAll).locks
        this.#tell(() => `task ${task.id} holds with token ${handle.fencingToken}`)
        const held = this.#checks.starts(task, claims, handles)
        return Effect.sleep(hold).pipe(
          Effect.onInterrupt(() => {
            for (const it of held) {
              it.isStopping = true
              it.wasTold ||= !task.isInterrupted
            }
            return Effect.sleep(unwinding)
          }),
          Effect.ensuring(Effect.sync(() => {
            this.#tell(() => `task ${task.id} has held`)
            for (const it of held) it.endedAt = this.#wire.revision
          }))
        )
      })
    return Object.assign(
      (claims: ReadonlyArray<Checks.Claim>, times?: Times) =>
        Effect.flatMap(Lock.Current, (handle) => holding(claims, handle, times)),
      {
        under: (handle: Lock.Handle, claims: ReadonlyArray<Checks.Claim>, times?: Times) =>
          handle.whileHeld(holding(claims, handle, times)),
        downgrade: (handle: Parameters<Body["downgrade"]>[0]) => handle.downgrade
      }
    )
  }

  // ---------------------------------------------------------------------------
  // steps
  // ---------------------------------------------------------------------------

  /** Answers false where the run is one of a state that was seen before. */
  #choose(): boolean {
    const { deviations, isNew } = this.#options
    const step = this.#step++
    const ready = this.#wire.ready
    const deviation = deviations[this.#deviated]
    if (deviation?.[0] === step) {
      this.#deviated++
      this.#deviate(deviation[1], ready)
      return true
    }
    if (deviation === undefined && isNew !== undefined) {
      if (!isNew(this.#state(ready))) return false
      this.#addOthers(step, ready)
    }
    if (ready.length > 0) this.#arrive(ready[0]!)
    else this.#advance()
    return true
  }

  #arrive(action: Action) {
    this.#tell(() => `${this.#step - 1}: ${action.label}`)
    this.#wire.run(action)
    this.#settle()
  }

  #advance() {
    const { now } = this.#machine
    const times = [this.#machine.nextTimer, this.#wire.nextRelease, ...this.#expiries().map(([, at]) => at)]
    const next = Math.min(...times.map((at) => at ?? Infinity))
    if (next === Infinity) return this.#checks.broken("P6: all wait for ever")
    this.#tell(() => `${this.#step - 1}: clock, ${next} ms`)
    this.#machine.advanceTo(Math.max(now, next))
    for (const [lease, at] of this.#expiries()) {
      if (at <= this.#machine.now) this.#wire.write("expiry", () => this.#store.dropLease(lease))
    }
    this.#settle()
  }

  #expiries(): ReadonlyArray<readonly [lease: bigint, at: number]> {
    return this.#store.leaseIds().map((lease) => [lease, Number(this.#store.expiresAt(lease)) / 1e6])
  }

  #settle() {
    if (!this.#machine.settle()) this.#checks.broken("P5: fibers are busy for ever")
    const isQuiet = this.#wire.actions.length === 0 &&
      this.#processes.every(({ client }) => client.isolatedUntil <= this.#machine.now)
    this.#checks.settled(isQuiet)
  }

  /**
   * What does not matter to what would happen next can as well happen after it: a request concerns etcd, and an answer or
   * an event its client.
   */
  #addOthers(step: number, ready: ReadonlyArray<Action>) {
    const add = (choice: string) => this.#others.push([step, choice])
    const [head] = ready
    const present = this.#checks.present()
    for (const [index, action] of ready.entries()) {
      const before = ready.slice(0, index)
      const isNext = before.every(({ channel }) => channel !== action.channel)
      if (isNext && before.some((other) => isDependent(action, other))) add(action.label)
    }
    if (head !== undefined) {
      add(`hold ${head.label}`)
      add("clock")
      add(`lose ${head.label}`)
      if (head.kind === "request") add(`late ${head.label}`)
    }
    for (const { client, exit, id, isInterrupted } of this.#tasks) {
      const isNext = head === undefined || (head.client === client && head.kind !== "request")
      if (isNext && exit === undefined && !isInterrupted) add(`interrupt ${id}`)
    }
    if (head === undefined || head.kind === "request") {
      for (const { label } of present) add(`delete ${label}`)
      const clients = new Set(present.map(({ taskId }) => this.#tasks[taskId]!.client))
      for (const { name } of clients) add(`revoke ${name}`)
    }
    for (const { client } of this.#processes) {
      const isNext = head === undefined || head.client === client
      if (isNext && client.isolatedUntil === 0) add(`isolate ${client.name}`)
    }
  }

  #deviate(choice: string, ready: ReadonlyArray<Action>) {
    this.#tell(() => `${this.#step - 1}: -- ${choice}`)
    const { now } = this.#machine
    const [verb, ...rest] = choice.split(" ")
    const object = rest.join(" ")
    const head = ready[0]
    const client = this.#processes.find(({ client }) => client.name === object)?.client
    const early = ready.find(({ label }) => label === choice)
    if (early !== undefined) return this.#arrive(early)
    switch (verb) {
      case "clock": {
        return this.#advance()
      }
      case "hold": {
        if (head?.label !== object) break
        // Held up again, it takes longer than some wait for it.
        head.channel.heldUntil = now + lateness[head.kind]
        if (head.kind !== "event") head.client.wasLate = true
        return
      }
      case "lose": {
        if (head?.label !== object) break
        this.#wire.fail(head)
        return this.#settle()
      }
      case "late": {
        if (head?.label !== object) break
        this.#wire.delay(head, now + lateness.event)
        return this.#settle()
      }
      case "interrupt": {
        const task = this.#tasks[Number(object)]!
        task.isInterrupted = true
        task.client.receive(-10 - task.id)
        task.fiber!.interruptUnsafe()
        return this.#settle()
      }
      case "delete": {
        const entry = this.#checks.present().find(({ label }) => label === object)
        if (entry === undefined) break
        this.#wire.write("an operator", () => this.#store.removeKeys({ key: Buffer.from(entry.key) }))
        this.#wire.written = mix(this.#wire.written, entry.taskId)
        return this.#settle()
      }
      case "revoke": {
        const entry = this.#checks.present().find(({ taskId }) => this.#tasks[taskId]!.client === client)
        const lease = this.#store.keyValues().find(({ key }) => Buffer.from(key).toString() === entry?.key)?.lease
        if (lease === undefined) break
        this.#wire.write("an operator", () => this.#store.dropLease(lease))
        this.#wire.written = mix(this.#wire.written, -1 - client!.index)
        return this.#settle()
      }
      case "isolate": {
        client!.isolatedUntil = now + ttl + requestTimeout
        client!.wasFaulty = true
        return
      }
    }
    throw new Error(`the schedule cannot be played: step ${this.#step - 1} has no '${choice}'`)
  }

  /** Names all that determines what can happen from here on. */
  #state(ready: ReadonlyArray<Action>): number {
    const { now } = this.#machine
    let state = mix(this.#wire.written, now)
    // A renewal is told from one of the same number by when it came.
    for (const [, expiresAt] of this.#expiries()) state = mix(state, expiresAt)
    for (const { client } of this.#processes) state = mix(mix(state, client.received), client.isolatedUntil)
    for (const { label } of ready) state = mix(state, textual(label))
    for (const { channel, label } of this.#wire.actions) {
      if (channel.heldUntil > now) state = mix(mix(state, textual(label)), channel.heldUntil)
    }
    return state
  }

  // ---------------------------------------------------------------------------
  // the end
  // ---------------------------------------------------------------------------

  #end() {
    const closing = this.#processes.map(({ scope }) => this.#fork(Scope.close(scope, Exit.void)))
    const isClosed = () => closing.every((fiber) => fiber.pollUnsafe() !== undefined)
    const isOver = () =>
      isClosed() && this.#wire.actions.length === 0 && this.#machine.nextTimer === undefined &&
      this.#store.leaseIds().length === 0
    const until = this.#machine.now + patience
    this.#settle()
    while (this.#checks.violations.length === 0 && !isOver()) {
      if (this.#machine.now > until) {
        const what = [
          ...isClosed() ? [] : ["a session does not close"],
          ...this.#wire.actions.map(({ label }) => label),
          ...this.#store.leaseIds().map((lease) => `lease ${lease}`),
          ...this.#machine.nextTimer === undefined ? [] : ["a timer"]
        ]
        return this.#checks.broken(`P5: what is left: ${what.join(", ")}`)
      }
      this.#step++
      const [head] = this.#wire.ready
      if (head !== undefined) this.#arrive(head)
      // Without a fault, each lease is revoked.
      else if (isClosed() && this.#store.leaseIds().length > 0 && this.#isCalm) {
        this.#checks.broken("P5: a lease is left to expire")
      } else this.#advance()
    }
    if (this.#checks.violations.length > 0) return
    if (this.#store.keyValues().length > 0) this.#checks.broken("P5: keys are left")
    if (this.#wire.watches > 0) this.#checks.broken("P5: watches are left")
    if (this.#machine.fibers > 0) this.#checks.broken(`P5: ${this.#machine.fibers} fibers are left`)
  }

  get #isCalm(): boolean {
    return this.#processes.every(({ client }) => !client.wasFaulty)
  }

  #tell(line: () => string) {
    this.#options.trace?.(line())
  }
}

const isDependent = (a: Action, b: Action): boolean =>
  a.kind === "request" || b.kind === "request" ? a.kind === b.kind : a.client === b.client

const textual = (text: string): number => {
  let hash = 0
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash, 31) + text.charCodeAt(i) | 0
  return hash
}
