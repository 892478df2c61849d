/** Ranges whose keys, or values, may be too many for one reply of etcd. */
import * as Effect from "effect/Effect"
import type * as Etcd from "../../Etcd.ts"

type Service = Etcd.Etcd["Service"]

/** Reads a range in as many replies as it needs, with what is to be kept of each key and value. */
export const readAll = (
  etcd: Service,
  range: Etcd.Range,
  keep: (kv: Etcd.KeyValue) => Etcd.KeyValue,
  limit = 1024
): Effect.Effect<Effect.Success<ReturnType<Service["range"]>>, Etcd.EtcdError> =>
  etcd.range({ ...range, limit }).pipe(
    Effect.flatMap((found) => {
      const read = { ...found, kvs: found.kvs.map(keep) }
      return found.count === read.kvs.length
        ? Effect.succeed(read)
        // The key right after the last one.
        : Effect.map(
          readAll(etcd, { ...range, key: Buffer.concat([read.kvs.at(-1)!.key, Buffer.of(0)]) }, keep, limit),
          ({ kvs }) => ({ ...read, kvs: [...read.kvs, ...kvs] })
        )
    }),
    Effect.catchIf((error) => isTooLarge(error) && limit > 1, () => readAll(etcd, range, keep, limit >> 1))
  )

/** A reply of etcd was too large to receive. */
export const isTooLarge = ({ reason }: Etcd.EtcdError): boolean => reason === "InvalidArgument"
