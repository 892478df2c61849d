/** Where a cluster's runners, machine IDs and shards are in etcd. */

export interface Keys {
  /** What the keys of all registrations begin with. */
  readonly runners: string
  readonly runner: (address: string) => string
  /** What the keys of all machine IDs begin with that are taken. */
  readonly machines: string
  readonly machine: (id: number) => string
  /** What the keys of all shards begin with that are held. */
  readonly shards: string
  readonly shard: (id: string) => string
}

export const make = (prefix: string): Keys => {
  const runners = `${prefix}/runners/`
  const machines = `${prefix}/machines/`
  const shards = `${prefix}/shards/`
  return {
    runners,
    runner: (address) => `${runners}${address}`,
    machines,
    machine: (id) => `${machines}${id}`,
    shards,
    shard: (id) => `${shards}${id}`
  }
}

/** What comes after the prefix in a key. */
export const rest = (key: Uint8Array, prefix: string): string =>
  Buffer.from(key.subarray(Buffer.byteLength(prefix))).toString()
