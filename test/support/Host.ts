/**
 * A host of its own: a network namespace that reaches nothing but this machine, and whose packets can be dropped without a
 * word. It takes root, `ip` and `iptables`.
 */
import { Effect, type Scope } from "effect"
import { execFile } from "node:child_process"
import { afterwards } from "./internal/afterwards.ts"

/** The packets that reach a host, and those that leave it. */
export type Direction = "INPUT" | "OUTPUT"

export interface Host {
  /** The address of this machine, for what runs on the host. */
  readonly gateway: string
  /** The same command, on the host. */
  readonly on: (command: ReadonlyArray<string>) => ReadonlyArray<string>
  readonly drop: (...which: ReadonlyArray<Direction>) => Effect.Effect<void>
  /** From now on, none is dropped. */
  readonly pass: Effect.Effect<void>
}

let made = 0

/** Undefined where this machine cannot have one. */
export const make: Effect.Effect<Host | undefined, never, Scope.Scope> = Effect.gen(function*() {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return undefined
  const n = made++
  const name = `etcd-lock-${process.pid}-${n}`
  const link = `el${process.pid}x${n}`
  // From the addresses that are set aside for tests between hosts.
  const address = (i: number) => `198.18.${process.pid % 256}.${4 * (n % 64) + i}`
  const remove = `ip netns delete ${name}; ip link delete ${link}`
  const { isMade } = yield* Effect.acquireRelease(
    Effect.gen(function*() {
      const { callOff } = afterwards(remove)
      const isMade = yield* shell(`set -e
        ip netns add ${name}
        ip link add ${link} type veth peer name eth0 netns ${name}
        ip address add ${address(1)}/30 dev ${link}
        ip link set ${link} up
        ip -n ${name} address add ${address(2)}/30 dev eth0
        ip -n ${name} link set eth0 up
        ip -n ${name} link set lo up
        ip netns exec ${name} iptables --wait --flush`)
      return { callOff, isMade }
    }),
    ({ callOff }) => Effect.andThen(shell(remove), Effect.sync(callOff))
  )
  if (!isMade) return undefined
  const iptables = (args: string) =>
    Effect.flatMap(
      shell(`ip netns exec ${name} iptables --wait ${args}`),
      (isDone) => isDone ? Effect.void : Effect.die(new Error(`iptables ${args} failed in ${name}`))
    )
  return {
    gateway: address(1),
    on: (command) => ["ip", "netns", "exec", name, ...command],
    drop: (...which) =>
      Effect.forEach(which, (chain) => iptables(`--append ${chain} ! --${side[chain]} lo --jump DROP`), {
        discard: true
      }),
    pass: iptables("--flush")
  }
})

const side = { INPUT: "in-interface", OUTPUT: "out-interface" } as const

const shell = (script: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    execFile("/bin/sh", ["-c", script], (error) => resume(Effect.succeed(error === null)))
  })
