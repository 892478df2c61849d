/** What tells whether the memory of a process grows. */
import { Etcd } from "effect-etcd-lock"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/** How many megabytes are in use once all is collected that can be. */
export const heap = () => {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc") as () => void
  collect()
  return process.memoryUsage().heapUsed / 1e6
}

/** An error keeps what its attempt ran with, as the stack of a real one does. */
export const keeping = (kept: unknown) =>
  new Etcd.EtcdError({
    reason: "Unavailable",
    method: "watch",
    outcome: "Refused",
    description: "says the test",
    cause: [kept, ...Array.from({ length: 100 }, Math.random)]
  })
