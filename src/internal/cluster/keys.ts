/** Where a cluster's runners, machine IDs and shards are in etcd. */

export interface Keys {
  /** What the keys of all registrations begin with. */
  readonly runners: string
  readonly runner: (address: string) => string
  /** What the keys of all machine IDs that are taken begin with. */
  readonly machines: string
  readonly machine: (id: number) => string
  /** What the keys of all shards that are held begin with. */
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

/** Returns what comes after the prefix in a key. It copies no bytes, since a refresh calls it for each shard. */
export const restAfter = (prefix: string) => {
  const length = Buffer.byteLength(prefix)
  return ({ buffer, byteLength, byteOffset }: Uint8Array): string =>
    Buffer.from(buffer, byteOffset + length, byteLength - length).toString()
}
