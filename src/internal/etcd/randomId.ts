/** A positive 63-bit number, as etcd's IDs are. It is not 0, which asks etcd to choose one. */
export const randomId = (): bigint => {
  const id = BigInt.asUintN(63, crypto.getRandomValues(new BigUint64Array(1))[0]!)
  return id === 0n ? 1n : id
}
