/** Where a cluster's runners and shards are in etcd, and what counts its machine IDs. */

export interface Keys {
  /** What the keys of all registrations begin with. */
  readonly runners: string
  readonly runner: (address: string) => string
  /** The key that is put once for each machine ID that is given. */
  readonly machineIds: string
  /** What the keys of all shards that are held begin with. */
  readonly shards: string
  readonly shard: (id: string) => string
}

export const make = (prefix: string): Keys => {
  const runners = `${prefix}/runners/`
  const shards = `${prefix}/shards/`
  return {
    runners,
    runner: (address) => `${runners}${address}`,
    machineIds: `${prefix}/machine-ids`,
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
